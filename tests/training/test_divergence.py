"""Training that diverged says so, whether or not a number overflowed, and names a way out that is not the same command."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.finished import World, world  # noqa: F401 a fixture
from support.packs import COUNT, pack_of

from driverwatch import run as runs
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.training import fold_runner
from driverwatch.training.checkpoint import LEARNS, judged, uniform_loss, way_out
from driverwatch.training.run_summary import print_summary

UNIFORM = math.log(10)


def after(losses: list[float]) -> int | None:
    """The epoch in which a training with these losses diverged."""
    found = None
    for epoch, loss in enumerate(losses, start=1):
        found = judged(found, epoch, loss, UNIFORM, "")
    return found and found["epoch"]


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [
        ([2.3, 1.7e7], 2),
        ([2.3, 1.1, 40.0, 2.31, 2.303], 3),  # fell silent after it blew up: it says as much as a guess
        ([6.0, 2.5, 1.9], None),  # a random head's first epoch
        ([2.4, 2.31, 2.303], None),  # learns nothing, but went nowhere
        ([14.5], 1),
        ([6.0, 1.0, 9.0, 30.0], 3),
        ([], None),
    ],
)
def test_when_training_has_diverged(losses: list[float], epoch: int | None) -> None:
    assert after(losses) == epoch


@given(st.lists(st.floats(0, LEARNS * UNIFORM - 1e-6), min_size=1), st.lists(st.floats(0, 1e30)))
def test_no_training_that_beats_a_uniform_guess_at_the_end_has_diverged(end: list[float], before: list[float]) -> None:
    assert after([*before, *end]) is None


@given(st.lists(st.floats(0, 1e30)), st.floats(2.01 * UNIFORM, 1e38))
def test_every_training_that_ends_far_above_it_has(before: list[float], last: float) -> None:
    assert after([*before, last]) is not None


def test_the_uniform_guess_is_weighed_as_the_loss_is() -> None:
    assert uniform_loss(10, 1.0, 0.0) == pytest.approx(2.302585)
    assert uniform_loss(10, 3.0, 0.6) == pytest.approx(2.302585 * 3 * 1.6)


def test_the_way_out_changes_the_rate_where_it_stands() -> None:
    assert 'SET="train.learning_rate=0.0001" RUN=vgg-lower' in way_out("vgg", 0, None, 0.001)
    assert 'SET="train.stages.1.learning_rate=2e-06" RUN=vgg-lower' in way_out("vgg", 1, 2e-5, 2e-5)


def failed(world: World, monkeypatch: pytest.MonkeyPatch, diverges: bool) -> str:  # noqa: F811
    """What the command that trains a run says of a fold whose process ended with status 2."""
    run = world.run("one")
    left = run.fold(0) / runs.DIVERGED
    write_json(left, {"epoch": 1})  # of another attempt

    def ended(*_: object) -> int:
        assert not left.exists()
        if diverges:
            write_json(left, {"epoch": 2})
        return 2

    monkeypatch.setattr(fold_runner.FoldProcess, "run_to_end", ended)
    with pytest.raises(InputError) as error:
        fold_runner.FoldProcess().run_fold(run, 0, 0)
    return str(error.value)


def test_the_same_command_is_advised_only_where_it_helps(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = failed(world, monkeypatch, diverges=True)
    assert "the same command would end there again" in said
    assert "resumes" not in said
    assert "resumes from its last finished epoch" in failed(world, monkeypatch, diverges=False)


def test_the_end_of_a_run_names_its_folds_that_diverged(world: World, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    run = world.run("one")
    path = run.fold(1) / "manifest.json"
    far = {"epoch": 3, "loss": 1.7e7, "uniform": math.log(3), "way_out": "lower it"}
    write_json(path, read_json(path) | {"diverged": far})
    print_summary(world.context, run, 3, 1.0)
    said = capsys.readouterr().out
    assert "one fold 1: training diverged in epoch 3 (loss 1.7e+07; a uniform guess has 1.099)" in said
    assert said.count("diverged") == 1


@pytest.mark.keras
@pytest.mark.parametrize("validation", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_fold_that_diverged_says_so_and_one_that_learns_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], validation: bool
) -> None:
    from support.training import run_of

    from driverwatch.config.model import PredictSettings
    from driverwatch.training.fold import train_fold
    from driverwatch.training.pseudo_labels import FoldIndices

    packs: dict[str, Pack] = {"train": pack_of(tmp_path, COUNT, "train"), "test": pack_of(tmp_path, 9, "test")}
    rows = FoldIndices(np.arange(32), np.arange(32, COUNT if validation else 32))
    facts, said = [], []
    for name, train in (("far", {"optimizer": "adam", "learning_rate": 10.0, "epochs": 2}), ("near", {})):
        run = run_of(tmp_path / name, **train)
        train_fold(run, 0, packs, rows, None, PredictSettings(tta=["centre"]), tmp_path / "backbone")
        facts.append(read_json(run.fold(0) / "manifest.json")["diverged"])
        said.append(capsys.readouterr().out)
    assert facts[0]["loss"] > 2 * math.log(4)
    assert facts[0]["uniform"] == pytest.approx(math.log(4), rel=1e-5)
    assert (
        'lower the learning rate, for example by the same command with SET="train.learning_rate=1" RUN=run-lower'
        in said[0]
    )
    assert facts[1] is None
    assert "diverged" not in said[1]


@pytest.mark.keras
@pytest.mark.parametrize("what", ["a weight", "the validation loss"])
def test_what_overflows_behind_a_finite_loss_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The last step may ruin weights whose epoch still had a loss, and finite weights may overflow in the network."""
    from support.training import run_of, trained

    from driverwatch.training import fold as folds

    packs = {"train": pack_of(tmp_path, COUNT, "train"), "test": pack_of(tmp_path, 9, "test")}
    if what == "a weight":
        fit = folds.FoldTraining._fit

        def ruined(self: folds.FoldTraining, *arguments: object) -> tuple[float, float]:
            found = fit(self, *arguments)
            self.classifier.top.bias.assign(np.full(4, np.inf, np.float32))
            return found

        monkeypatch.setattr(folds.FoldTraining, "_fit", ruined)
    else:
        monkeypatch.setattr(folds.FoldTraining, "_validate", lambda _: (math.nan, 0.0))
    run = run_of(tmp_path, epochs=2)
    with pytest.raises(InputError, match=rf"{what} became nan in epoch 1; lower the learning rate"):
        trained(run, packs)
    assert read_json(run.fold(0) / runs.DIVERGED) == {"epoch": 1}
