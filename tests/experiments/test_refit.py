"""A fit on all drivers: how many epochs the folds choose, and when they cannot."""

from pathlib import Path

import numpy as np
import pytest
from support.pseudo_labels import run_of, tell

from driverwatch.errors import InputError
from driverwatch.experiments.refit import _history, best_epoch, epoch_losses, refit_settings


def history(*losses: float, before: tuple[float, ...] = ()) -> list[dict[str, str]]:
    rows = [(0, loss) for loss in before] + [(len(before) > 0, loss) for loss in losses]
    return [{"stage": str(int(s)), "epoch": str(i + 1), "val_loss": str(loss)} for i, (s, loss) in enumerate(rows)]


def test_folds_weigh_by_their_images() -> None:
    histories = [history(3.0, 1.0, 2.0), history(1.0, 2.0, 0.5)]
    even = epoch_losses(histories, np.array([10, 10]), [3], "run")
    assert np.allclose(even, [2.0, 1.5, 1.25])
    assert best_epoch(even) == 3
    assert best_epoch(epoch_losses(histories, np.array([30, 10]), [3], "run")) == 2


def test_the_fewest_epochs_of_equals_and_the_last_stage_alone() -> None:
    histories = [history(0.5, 0.5, 0.7, before=(0.1, 0.9)), history(0.5, 0.5, 0.6, before=(0.2, 0.8))]
    assert best_epoch(epoch_losses(histories, np.array([5, 6]), [2, 3], "run")) == 1


def test_folds_that_patience_ended_early_are_compared_on_common_epochs() -> None:
    found = epoch_losses([history(3.0, 2.0, 2.5, 0.1), history(1.0, 0.9)], np.array([1, 1]), [4], "run")
    assert len(found) == 2


def test_an_earlier_stage_cut_short_by_patience_is_refused() -> None:
    histories = [history(0.5, before=(0.1, 0.9)), history(0.5, before=(0.2,))]
    with pytest.raises(
        InputError, match=r"ended stage 0 early in fold 1; a refit on all data has no validation drivers"
    ):
        epoch_losses(histories, np.array([5, 6]), [2, 1], "run")


def test_a_history_that_lacks_the_last_stage_or_is_damaged_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no epoch of the last stage"):
        epoch_losses([history(0.5), []], np.array([5, 6]), [1], "run")
    run = run_of(tmp_path / "run")
    with pytest.raises(InputError, match="not a whole history"):
        _history(run, 0)
    run.fold(0).mkdir(parents=True)
    (run.fold(0) / "history.csv").write_text("epoch,stage,val_loss\n1,0,\n")
    with pytest.raises(InputError, match="not a whole history"):
        _history(run, 0)


def test_settings_stay_but_for_splits_and_epochs(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", epochs=5, select="best", patience=2, learning_rate=0.01)
    tell(run, 0, np.full((1, 3), 1 / 3, np.float32), np.array(["a.jpg"]))
    found = best_epoch(epoch_losses([history(3.0, 1.0, 2.0)], np.array([1]), [3], "run"))
    made = refit_settings(run, found, "train.splits.count=3")
    assert (made.train.max_epochs, made.train.epochs, made.train.planned) == (2, 5, [2])
    assert (made.train.select, made.train.patience, made.train.learning_rate) == ("last", None, 0.01)
    assert (made.train.splits.kind, made.train.splits.count) == ("all", 3)
    with pytest.raises(InputError, match="unknown key"):
        refit_settings(run, found, "train.splitz=3")
