"""Ten-crop prediction, beside plain forward passes over crops in memory, the guides' way, and fold models one by one."""

from functools import partial
from typing import Any, Literal

import numpy as np

from benchmarks.baselines import classic_ten_crop
from benchmarks.result import Baseline, Result, beside
from benchmarks.timing import Side, interleaved, speed
from benchmarks.workload import Bench
from driverwatch.data.tta import cut_all
from driverwatch.errors import InputError

TOLERANCE = 1e-3  # by which mean probabilities of two sides may differ: the order of sums
FOLDS = 5
BATCHES_CROPS = (10, 20, 40, 80, 160)
BASELINES = [
    Baseline("plain", "forward passes over crops in memory", 0.95),
    Baseline("classic", "the guides' ten-crop", 1.5),
]


def results(bench: Bench) -> list[Result]:
    """Our images per second over those of each baseline."""
    classifier = bench.classifier(bench.settings, deterministic=False)
    classifier.compile()
    predictor, size = _ten_crop(bench, classifier), bench.input_size
    indices = bench.few(predictor.batch)
    images, path = bench.pack.pixels, bench.pack.images.path
    crops = in_memory(images, indices, predictor.batch, size)
    made: dict[str, np.ndarray] = {}
    sides = {
        "ours": Side(lambda: made.update(ours=predictor(images, indices)["ten_crop"])),
        "plain": Side(lambda: made.update(plain=forward(classifier, crops, predictor.batch))),
        "classic": Side(lambda: made.update(classic=classic_ten_crop(classifier, path, indices, size))),
    }
    timed = interleaved(sides, bench.asked.repeat)
    facts = {"model": bench.model, "images": len(indices), "images_at_once": predictor.batch, "apart": _apart(made),
             "images_per_second": len(indices) / timed["ours"].median}  # fmt: skip
    return [*beside("crops", BASELINES, timed, facts), _batches(bench, classifier), _folds(bench, indices)]


def _batches(bench: Bench, classifier: Any) -> Result:
    """The batch that `predict.batch_size: auto` takes beside the quickest of five, of all rounds' medians."""
    from driverwatch.inference.predict import Predictor  # imports Keras

    def of(crops: int | Literal["auto"]) -> Any:
        return Predictor(classifier, ["ten_crop"], bench.size, bench.input_size, crops_at_once=crops)

    sizes = [crops for crops in BATCHES_CROPS if 2 * crops // 10 <= len(bench.table)]
    indices, images = bench.few(max(sizes) // 10), bench.pack.pixels
    predictors = {f"{crops} crops": of(crops) for crops in sizes} | {"ours": of("auto")}
    made = dict[str, np.ndarray]()

    def predicted(name: str) -> None:
        made[name] = predictors[name](images, indices)["ten_crop"]

    timed = interleaved({name: Side(partial(predicted, name)) for name in predictors}, bench.asked.repeat)
    best = min((name for name in timed if name != "ours"), key=lambda name: timed[name].median)
    facts = {"model": bench.model, "images": len(indices), "best": best, "apart": _apart(made)}
    figure = speed(timed["ours"], timed[best])
    return Result("crops", "the best of five batch sizes", "higher", 0.95, figure, timed, facts)


def _folds(bench: Bench, indices: np.ndarray) -> Result:
    """Fold models that share their frozen layers over one pass, as `make predict` has them, beside one after the other."""
    from driverwatch.models.freezing import frozen_count
    from driverwatch.models.split_network import FoldEnsemble
    from driverwatch.training.optimizer import plan

    against = f"{FOLDS} fold models one after the other"
    models = [bench.classifier(bench.settings, deterministic=False) for _ in range(FOLDS)]
    frozen = frozen_count(models[0].backbone.layers, plan(bench.settings)[-1].freeze_until)
    if not frozen:
        skipped = f"{bench.model} freezes nothing that its folds could share"
        return Result("crops", against, "higher", skipped=skipped)
    for number, model in enumerate(models):
        for layer, like in list(zip(model.backbone.layers, models[0].backbone.layers, strict=True))[:frozen]:
            layer.set_weights(like.get_weights())
        for layer in model.backbone.layers[frozen:]:
            layer.set_weights([weight * (1 + 0.01 * number) for weight in layer.get_weights()])
    together, alone = _ten_crop(bench, FoldEnsemble(models)), [_ten_crop(bench, model) for model in models]
    images, made = bench.pack.pixels, dict[str, np.ndarray]()
    sides = {
        "ours": Side(lambda: made.update(ours=together(images, indices)["ten_crop"])),
        "alone": Side(lambda: made.update(alone=np.stack([one(images, indices)["ten_crop"] for one in alone], axis=1))),
    }
    timed = interleaved(sides, bench.asked.repeat)
    _apart(made)
    facts = {
        "model": bench.model,
        "images": len(indices),
        "frozen_layers": frozen,
        "layers": len(models[0].backbone.layers),
    }
    return Result("crops", against, "higher", None, speed(timed["ours"], timed["alone"]), timed, facts)


def _ten_crop(bench: Bench, model: Any) -> Any:
    from driverwatch.inference.predict import Predictor  # imports Keras

    crops_at_once = bench.settings.predict.batch_size
    return Predictor(model, ["ten_crop"], bench.size, bench.input_size, crops_at_once=crops_at_once)


def _apart(made: dict[str, np.ndarray]) -> float:
    """How far any probabilities are from ours. Raises `InputError` beyond `TOLERANCE`."""
    apart = {name: float(np.abs(found - made["ours"]).max()) for name, found in made.items()}
    if max(apart.values()) > TOLERANCE:
        raise InputError(
            f"bench: the sides of the row crops do not give the same probabilities ({apart}); this is a defect"
        )
    return max(apart.values())


def in_memory(images: np.ndarray, indices: np.ndarray, batch: int, size: tuple[int, int]) -> list[np.ndarray]:
    """uint8 (10 * B, h, w, 3) for each pass of `batch` images, view after view, as one pass of ours has them."""
    starts = range(0, len(indices), batch)
    parts = [cut_all(images[indices[start : start + batch]], "ten_crop", size) for start in starts]
    return [np.ascontiguousarray(part.reshape(-1, *part.shape[2:])) for part in parts]


def forward(classifier: Any, crops: list[np.ndarray], batch: int) -> np.ndarray:
    """Mean probabilities (N, C) over ten views."""
    parts = [np.asarray(classifier.predict_on_batch(part)) for part in crops]
    return np.concatenate([part.reshape(10, batch, -1).mean(axis=0) for part in parts])
