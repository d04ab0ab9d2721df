"""One log loss everywhere: the same clip wherever a loss is printed, and parameters chosen by it."""

import ast
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss as reference
from sklearn.model_selection import KFold

import driverwatch
from driverwatch.config.ensemble import PipelineSettings
from driverwatch.config.loading import parse
from driverwatch.ensemble import blending, post_processing
from driverwatch.ensemble.calibration import CALIBRATIONS, LEVELS, Softmax, clip
from driverwatch.ensemble.class_balance import STRENGTHS, ClassBalance, rebalanced
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.errors import InputError
from driverwatch.experiments import experiment, leakage
from driverwatch.experiments import search as searches
from driverwatch.metrics import (
    FLOOR,
    KAGGLE_FLOOR,
    kaggle_log_loss,
    log_loss,
    log_loss_and_slope,
    log_losses,
    oof_score,
)
from driverwatch.report import review_measures, score_runs
from driverwatch.training import linear_probe

WRONG = 1e-8  # what the first image's model gives to its true class
ROWS = np.array([[1 - WRONG - 1e-3, 1e-3, WRONG], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
LABELS = np.array([2, 1, 2, 0])
DRIVERS = np.array(["a", "a", "b", "b"], object)
EACH = np.array([-np.log(1e-5 / (1 + 1e-5 - WRONG)), -np.log(0.7), -np.log(0.7), -np.log(0.6)])  # by hand
SOURCE = Path(driverwatch.__file__).parent


def test_the_example_by_hand() -> None:
    found = oof_score(ROWS, LABELS, DRIVERS)
    assert found.losses == pytest.approx(EACH, abs=1e-12)
    assert found.log_loss == log_loss(ROWS, LABELS) == pytest.approx(EACH.mean(), abs=1e-12)
    two = np.array([EACH[:2].sum(), EACH[2:].sum()]) - 2 * EACH.mean()
    assert found.standard_error == pytest.approx(np.sqrt(2 * (two**2).sum()) / 4)
    assert found.accuracy == 0.75
    assert kaggle_log_loss(ROWS, LABELS) == pytest.approx(reference(LABELS, ROWS, labels=[0, 1, 2]))
    assert kaggle_log_loss(ROWS, LABELS) - found.log_loss == pytest.approx((-np.log(WRONG) - EACH[0]) / 4)


def manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> float:
    """What a fold's manifest says under `log_loss`: `status`, and the end of training, average it over folds."""
    from driverwatch.inference import predict

    run: Any = SimpleNamespace(
        fold=lambda number: tmp_path, origin={}, name="r", settings=SimpleNamespace(trains_with_flips=True)
    )
    pack: Any = SimpleNamespace(names=np.array(list("wxyz")), labels=LABELS)
    made: Any = [("centre", SimpleNamespace(probabilities=ROWS.astype(np.float32)))]
    monkeypatch.setattr(predict, "checksum_of_file", lambda path: "d")
    monkeypatch.setattr(predict, "_resumable", lambda *_: iter(made))
    monkeypatch.setattr(predict.predictions, "write", lambda *_: None)
    packs = {"train": pack, "test": pack}
    return predict.write_predictions(SimpleNamespace(asked=["centre"]), run, 0, packs, np.arange(4), False)["centre"]  # type: ignore[arg-type]


def watched() -> float:
    """`val_loss` in a history: `make refit` chooses its epoch by it, `select: best` too."""
    from driverwatch.training.fold import FoldTraining

    rows = SimpleNamespace(validation=np.arange(4))
    fold: Any = SimpleNamespace(
        indices=rows, source=None, pack=SimpleNamespace(labels=LABELS), centre=lambda *_: {"centre": ROWS}
    )
    found = FoldTraining._validate(fold)[0]
    assert found is not None
    return found


def of_a_study(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(experiment.blending, "oof_probabilities", lambda *_: ROWS)
    train, folds = SimpleNamespace(labels=LABELS, drivers=DRIVERS), SimpleNamespace(count=1)
    found: Any = SimpleNamespace(runs=[None], tests=[None], train=train, folds=folds)
    return float(experiment.score_runs(found, ["centre"])[0].losses.mean())


def of_a_fold(monkeypatch: pytest.MonkeyPatch) -> float:
    pack: Any = SimpleNamespace(names=np.array(list("wxyz")), labels=LABELS, drivers=DRIVERS)
    split: Any = SimpleNamespace(count=1, indices=lambda drivers, fit: (np.array([], int), np.arange(4)))
    run: Any = SimpleNamespace(settings=SimpleNamespace(train=None))
    monkeypatch.setattr(searches, "open_run", lambda *_: (run, None, {"train": pack, "test": None}))
    monkeypatch.setattr(searches.splits, "of", lambda *_: split)
    monkeypatch.setattr(searches, "tta_of", lambda _: "centre")
    monkeypatch.setattr(searches, "validation_probabilities", lambda *_: ROWS)
    here: Any = searches._Search(None, None, None, 1)  # type: ignore[arg-type]
    return float(here._losses("r", None, 1).mean())


def of_a_pipeline(**settings: Any) -> float:
    rows = MemberPredictions(np.array(list("wxyz")), ROWS[None], np.array([0, 0, 1, 1]))
    return float(post_processing.fit(PipelineSettings(**settings), rows, LABELS, DRIVERS).losses.mean())


def of_leakage(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(leakage, "out_of_fold", lambda *_: dict.fromkeys(leakage.CLASSIFIERS, ROWS))
    rows = leakage.compared_splits(ROWS, LABELS, DRIVERS, {"random": KFold(2)}, 3)
    return float(rows[1].log_loss or np.nan)


def of_a_report() -> float:
    run: Any = SimpleNamespace(name="r", classes=["c0", "c1", "c2"])
    pack: Any = SimpleNamespace(names=np.array(list("wxyz")), labels=LABELS, drivers=DRIVERS)
    return float(score_runs.score_tables(run, "centre", {"centre": ROWS}, pack).loss)


def of_a_review() -> float:
    images = review_measures.sorted_images(np.array(list("wxyz")), LABELS, DRIVERS, np.array([0, 0, 1, 1]), ROWS[None])
    return float(review_measures.measure(images, ["r"]).losses[0].mean())


def of_the_inner_folds(monkeypatch: pytest.MonkeyPatch) -> float:
    """By which `train.stages: l2` is chosen; each image's features are its row's logarithms, and the solution leaves them."""
    monkeypatch.setattr(linear_probe, "_path", lambda rows, classes, l2: [(1.0, np.eye(3), np.zeros(3))])
    sample = linear_probe.Sample(np.log(ROWS), LABELS, np.ones(4))
    return linear_probe._inner_losses(sample, DRIVERS, 3, [1.0])[1.0]


def test_every_place_says_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places: dict[str, Callable[[], float]] = {
        "manifests, end of training, status": lambda: manifest(monkeypatch, tmp_path),
        "epochs, for make refit and select: best": watched,
        "freezing study, data scaling, rounds": lambda: of_a_study(monkeypatch),
        "make score": lambda: float(experiment.score_table({"m": ROWS}, LABELS, DRIVERS)["log loss"][0]),
        "make score by driver": lambda: float(
            experiment.score_table_by({"m": ROWS}, LABELS, np.zeros(4), "all")["m"][0]
        ),
        "make tta": lambda: float(experiment.paired_table({"m": ROWS}, LABELS, DRIVERS, "m")["log loss"][0]),
        "search, by fold": lambda: of_a_fold(monkeypatch),
        "ensembles, ablations": of_a_pipeline,
        "report": of_a_report,
        "review": of_a_review,
        "leakage": lambda: of_leakage(monkeypatch),
        "inner folds": lambda: of_the_inner_folds(monkeypatch),
    }
    found = {place: round(loss(), 3) for place, loss in places.items()}
    assert found == dict.fromkeys(places, round(EACH.mean(), 3))


def test_a_submissions_own_floor_is_part_of_its_score() -> None:
    """Of 0.01: a submission that never says less loses ln(100) where it is wrong, and is scored so."""
    raised = np.maximum(ROWS, 0.01)
    by_hand = -np.log((raised / raised.sum(axis=1, keepdims=True))[np.arange(4), LABELS]).mean()
    assert of_a_pipeline(clip=0.01) == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("clip", [1e-6, 9e-6])
def test_floors_below_the_scores_own_are_refused(clip: float) -> None:
    with pytest.raises(InputError, match=r"clip: must be a probability from 1e-5 to 0\.1, or fitted"):
        parse(PipelineSettings, {"clip": clip}, "x")


def test_the_slope_is_that_of_the_loss() -> None:
    random = np.random.default_rng(0)
    rows, labels = random.dirichlet(np.full(4, 0.3), 12), random.integers(4, size=12)
    rows[0] = [0.5, 0.5 - 1e-7, 5e-8, 5e-8]  # below the floor nothing moves
    value, slope = log_loss_and_slope(rows, labels)
    assert value == pytest.approx(log_losses(rows, labels).mean(), abs=1e-12)
    for row, column in [(0, 0), (0, 2), (3, labels[3]), (5, (labels[5] + 1) % 4)]:
        near = np.zeros_like(rows)
        near[row, column] = 1e-9
        moved = log_loss_and_slope(rows + near, labels)[0] - log_loss_and_slope(rows - near, labels)[0]
        assert moved / 2e-9 == pytest.approx(slope[row, column], rel=1e-3, abs=1e-6)


def outliers(count: int = 400, wrong: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two members' rows (2, N, 3), the first sharp, with a few rounded zeros for the true class, the second never sure."""
    random = np.random.default_rng(1)
    labels = random.integers(3, size=count)
    logits = random.normal(size=(count, 3)) * 0.7
    logits[np.arange(count), labels] += 2
    sharp = np.exp(2.0 * logits) / np.exp(2.0 * logits).sum(axis=1, keepdims=True)
    sharp[np.arange(wrong), labels[:wrong]] = 0
    sharp /= sharp.sum(axis=1, keepdims=True)
    dull = np.exp(0.3 * logits) / np.exp(0.3 * logits).sum(axis=1, keepdims=True)
    return np.stack([sharp, dull]), labels


def rows_of(members: np.ndarray) -> MemberPredictions:
    return MemberPredictions(
        np.array([f"{i:04d}" for i in range(members.shape[1])]), members, np.arange(members.shape[1]) % 2
    )


def test_the_temperature_is_the_one_that_the_printed_loss_is_least_at() -> None:
    """Under Kaggle's clip six zeros in 400 images ask for another one."""
    (sharp, _), labels = outliers()
    rows = rows_of(sharp[None])
    rule = CALIBRATIONS["temperature"].fit(rows, labels, labels)
    chosen = log_loss(rule(rows).blended, labels)
    tried = {t: Softmax(t, np.zeros(3))(rows).blended for t in np.geomspace(0.05, 20, 600)}
    assert chosen <= min(log_loss(made, labels) for made in tried.values()) + 1e-6
    kaggle = min(tried, key=lambda t: kaggle_log_loss(tried[t], labels))
    assert chosen < log_loss(tried[kaggle], labels) - 1e-3


def test_biases_do_no_worse_than_the_temperature() -> None:
    (sharp, _), labels = outliers()
    rows = rows_of(sharp[None])
    made = {name: step.fit(rows, labels, np.arange(400) % 20)(rows).blended for name, step in CALIBRATIONS.items()}
    assert log_loss(made["bias"], labels) <= log_loss(made["temperature"], labels) + 1e-4


@pytest.mark.parametrize("name", ["mean", "geometric"])
def test_weights_are_those_that_the_printed_loss_is_least_at(name: str) -> None:
    members, labels = outliers()
    logs = np.log(np.maximum(members, 1e-15))

    def made(share: np.ndarray) -> np.ndarray:
        mixed = np.einsum("mnc,m->nc", members if name == "mean" else logs, share)
        return mixed if name == "mean" else np.exp(mixed - mixed.max(axis=1, keepdims=True))

    fit = blending.of_mean if name == "mean" else blending.of_geometric_mean
    tried = [np.array([w, 1 - w]) for w in np.linspace(0, 1, 501)]
    assert log_loss(made(fit(members, labels)), labels) <= min(log_loss(made(w), labels) for w in tried) + 1e-5


def test_greedy_picks_by_the_printed_loss() -> None:
    members, labels = outliers()
    best = [log_loss(member, labels) for member in members]
    assert blending.greedy(members, labels, rounds=1)[int(np.argmin(best))] == 1


def test_the_fitted_floor_and_the_balances_strength_are_chosen_by_the_printed_loss() -> None:
    (sharp, _), labels = outliers()
    rows = rows_of(sharp[None])
    assert LEVELS[0] == FLOOR
    level = clip(rows, labels, labels).level
    assert level == min(LEVELS, key=lambda one: log_losses(sharp, labels, one).mean())
    random, drivers = np.random.default_rng(0), np.arange(400) // 2 % 4
    features = np.eye(4, dtype=np.float32)[drivers] + 0.01 * random.normal(size=(400, 4)).astype(np.float32)
    step = ClassBalance(EmbeddingIndex(rows.names, features))
    rule = step.fit(rows, labels, drivers)
    groups = [(chosen, grown.cut(rule.reach)) for chosen, grown in step.space.trees(rows)]
    losses = [log_loss(rebalanced(rows, groups, rule.prior, one).blended, labels) for one in STRENGTHS]
    assert rule.strength == STRENGTHS[int(np.argmin(losses))]


CLIPS = {  # numbers of another kind than probabilities under a score
    "data/synthetic_driver.py": "colours",
    "report/review_page.py": "colours",
    "inference/overlay.py": "colours",
    "report/review_measures.py": "shares on their way to whole steps; a divergence's rounding",
}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            found.append(
                (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node)
            )
    return found


def test_nothing_but_metrics_clips_and_takes_logarithms_for_a_score() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        name, text = path.relative_to(SOURCE).as_posix(), path.read_text("utf-8")
        if name == "metrics.py":
            continue
        for called, node in calls(path):
            assert called != "clip" or name in CLIPS, f"{name}:{node.lineno}: np.clip outside metrics.py"
            inner = [one for one, _ in calls_in(node)]
            assert not (called in ("log_loss", "log_losses", "oof_score") and "limited" in inner), (
                f"{name}:{node.lineno}"
            )
        for tree in ast.walk(ast.parse(text)):
            assert getattr(tree, "value", None) != KAGGLE_FLOOR, f"{name}: a clip of its own"
            if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub) and isinstance(tree.operand, ast.Call):
                inside = ast.unparse(tree.operand.func)
                assert not inside.endswith(("log", "log1p")), f"{name}:{tree.lineno}: a log loss outside metrics.py"
            if isinstance(tree, ast.FunctionDef):
                assert tree.name not in ("standard_error", "log_loss", "log_losses", "kaggle_log_loss", "limited"), name
            if isinstance(tree, ast.ImportFrom) and (tree.module or "").endswith("metrics"):
                strange = {"kaggle_log_loss", "KAGGLE_FLOOR"} & {alias.name for alias in tree.names}
                assert not strange or name == "report/score_runs.py", f"{name}: Kaggle's clip is for submissions"


def calls_in(node: ast.Call) -> list[tuple[str, ast.Call]]:
    return [
        (one.func.attr if isinstance(one.func, ast.Attribute) else getattr(one.func, "id", ""), one)
        for argument in node.args
        for one in ast.walk(argument)
        if isinstance(one, ast.Call)
    ]
