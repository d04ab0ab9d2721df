"""Averaged weights: what is validated, kept and predicted with; training itself goes on as without them."""

from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from support.packs import CLASSES
from support.training import Whole, counts_as_pretrained, history, run_of, same, trained, whole_of

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import TrainSettings
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.models.classifier import build
from driverwatch.models.freezing import freeze
from driverwatch.run import Run
from driverwatch.training.optimizer import KINDS, averaged, make_optimizer, take_average

pytestmark = pytest.mark.keras
STAGES = [{"epochs": 2}, {"freeze_until": "stage2", "epochs": 2}]


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scale"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_average_is_a_moving_one_of_the_weights_after_each_step(kind: str, scaled: bool) -> None:
    optimizer = make_optimizer(TrainSettings(optimizer=kind), 0.1, {}, average=0.75)
    made = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0) if scaled else optimizer
    kernel = keras.Variable(np.full(3, 2.0, "float32"), name="kernel")
    made.build([kernel])
    expected = None
    for step in range(4):
        made.apply([keras.ops.full((3,), float(step + 1))], [kernel])
        now = np.array(kernel)
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    learner = SimpleNamespace(optimizer=made, trainable_variables=[kernel])
    made.finalize_variable_values([kernel])  # as Keras does after each `fit`
    assert np.array_equal(np.array(kernel), now)
    with averaged(learner):
        assert np.allclose(np.array(kernel), expected)
    assert np.array_equal(np.array(kernel), now)
    take_average(learner)
    assert np.allclose(np.array(kernel), expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, packs: dict[str, Pack]) -> Whole:
    """Two stages of two epochs, both averaged."""
    folder = tmp_path_factory.mktemp("averaged")
    run = run_of(folder, stages=STAGES, average_weights="ema", average_span=0.5, workers=1)
    return whole_of(run, packs)


@pytest.mark.parametrize("after", [2, *(pytest.param(other, marks=pytest.mark.slow) for other in (1, 3, 4))])
def test_a_killed_fold_ends_as_an_uninterrupted_one(whole: Whole, tmp_path: Path, after: int) -> None:
    """Killed within a stage, where one ends and its average is taken, within the next, and where training ends."""
    assert whole.ends_alike(after, tmp_path, workers=3)


def test_training_goes_on_from_the_weights_and_is_validated_on_their_average(
    whole: Whole, tmp_path: Path, packs: dict[str, Pack]
) -> None:
    plain = run_of(tmp_path, stages=STAGES[:1], workers=1)
    found = trained(plain, packs)
    mine, theirs = history(whole.run)[:2], history(plain)
    assert [row["loss"] for row in mine] == [row["loss"] for row in theirs]
    assert [row["val_loss"] for row in mine] != [row["val_loss"] for row in theirs]
    assert not same(weights_of(found), kept(whole, 2, "model"))


def weights_of(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights alone, of what `trained` gives; predictions have a dash in their name."""
    return {key: value for key, value in found.items() if "-" not in key}


def kept(whole: Whole, after: int, group: str) -> dict[str, np.ndarray]:
    """Arrays of the checkpoint after so many epochs."""
    with h5py.File(whole.moments / str(after) / "checkpoint.h5") as file:
        return {key: item[...] for key, item in file[group].items()}


def shared(whole: Whole, after: int) -> int:
    """How many arrays of the optimizer are the very weights: averages that were taken."""
    weights = {value.tobytes() for value in kept(whole, after, "model").values()}
    return sum(value.tobytes() in weights for value in kept(whole, after, "optimizer").values() if np.any(value))


def test_a_stage_ends_with_its_average(whole: Whole, packs: dict[str, Pack]) -> None:
    """Within a stage a checkpoint holds the weights and, in the optimizer, their average; at its end the average is both."""
    classifier = build(whole.run.settings, CLASSES, packs["train"].mean, None, load=False)
    learning = [len(classifier.trainable_variables)]
    freeze(classifier, "stage2", train_statistics=True)
    learning.append(len(classifier.trainable_variables))
    assert [shared(whole, after) for after in (1, 2, 3, 4)] == [0, learning[0], 0, learning[1]]
    assert same(weights_of(whole.found), kept(whole, 4, "model"))


@pytest.mark.slow
def test_a_linear_probe_keeps_its_solution_and_cached_layers_are_averaged_too(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build(run_of(tmp_path).settings, CLASSES, (80.0,) * 3, None)
    counts_as_pretrained(made, monkeypatch)
    stages = [{"freeze_until": "head", "fit": "linear_probe"}, {"freeze_until": "stage2", "epochs": 2}]

    def run(name: str, **train: object) -> Run:
        own = run_of(tmp_path / name, stages=[{}], batch_size=8)
        content = own.settings.model_dump()
        content |= {"weights": "imagenet", "train": {**content["train"], "stages": stages, **train}}
        return Run(**{**vars(own), "settings": parse(ModelSettings, content, "test")})

    averaged_run = whole_of(run("ema", average_weights="ema", augmentation_passes=1), packs)
    plain = whole_of(run("none", augmentation_passes=1), packs)
    assert same(kept(averaged_run, 1, "model"), kept(plain, 1, "model"))
    assert shared(averaged_run, 3) > 0
    for after in (1, 2):
        assert averaged_run.ends_alike(after, tmp_path / str(after))


def test_a_span_without_an_average_is_refused() -> None:
    with pytest.raises(InputError, match="average_span belongs to average_weights: ema"):
        parse(TrainSettings, {"average_span": 0.1}, "test")
    assert parse(TrainSettings, {"average_weights": "ema", "average_span": 0.1}, "test").average_span == 0.1
