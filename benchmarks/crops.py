"""Ten-crop prediction, beside plain forward passes over crops in memory and the guides' way."""

from functools import partial
from typing import Any

import numpy as np

from benchmarks.baselines import input_size
from benchmarks.epoch_workload import built
from benchmarks.guides import predicted
from benchmarks.result import Line, Rival, beside
from benchmarks.timing import Side, interleaved, speed
from benchmarks.workload import Bench
from driverwatch.errors import InputError
from driverwatch.vision.views import cut_all

FAR = 1e-3  # by which mean probabilities of two sides may differ: the order of sums
SHARED = "Both give the mean of ten crops of the same images by the same network"


def lines(bench: Bench) -> list[Line]:
    """Images per second of ten-crop prediction."""
    classifier = built(bench, bench.settings, deterministic=False)
    from driverwatch.inference.predict import Predictor  # only after Keras was started, which it imports

    classifier.compile()
    predictor = Predictor(
        classifier, ["ten_crop"], bench.size, input_size(bench), crops_at_once=bench.settings.predict.batch_size
    )
    rows = bench.few(predictor.batch)
    images, path = bench.pack.pixels, bench.pack.images.path
    crops = in_memory(images, rows, predictor.batch, input_size(bench))
    made: dict[str, np.ndarray] = {}
    sides = {
        "ours": Side(lambda: made.update(ours=predictor(images, rows)["ten_crop"])),
        "plain": Side(lambda: made.update(plain=forward(classifier, crops, predictor.batch))),
        "classic": Side(lambda: made.update(classic=predicted(classifier, path, rows, input_size(bench)))),
    }
    timed = interleaved(sides, bench.asked.repeat)
    apart = {name: float(np.abs(found - made["ours"]).max()) for name, found in made.items()}
    _refuse_apart(apart)
    facts = {"model": bench.model, "images": len(rows), "images_at_once": predictor.batch, "apart": max(apart.values()),
             "images_per_second": len(rows) / timed["ours"].median}  # fmt: skip
    return [*beside("crops", SHARED, RIVALS, timed, facts), _folds(bench, rows)]


def _folds(bench: Bench, rows: np.ndarray) -> Line:
    """Fold models over one pass, as `make predict` has them, beside one after the other."""
    from driverwatch.inference.predict import Predictor
    from driverwatch.models.freezing import frozen_count
    from driverwatch.models.halves import Together
    from driverwatch.training.stages import plan

    line = partial(Line, "crops", f"{FOLDS} fold models one after the other", FOLDED, "Nothing.", "higher")
    models = [built(bench, bench.settings, deterministic=False) for _ in range(FOLDS)]
    frozen = frozen_count(models[0].trunk.layers, plan(bench.settings)[-1].freeze_until)
    if not frozen:
        return line(skipped=f"{bench.model} freezes nothing that its folds could share")
    for number, model in enumerate(models):
        for layer, like in list(zip(model.trunk.layers, models[0].trunk.layers, strict=True))[:frozen]:
            layer.set_weights(like.get_weights())
        for layer in model.trunk.layers[frozen:]:
            layer.set_weights([weight * (1 + 0.01 * number) for weight in layer.get_weights()])
    crops, images = bench.settings.predict.batch_size, bench.pack.pixels

    def ten_crop(model: Any) -> Predictor:
        return Predictor(model, ["ten_crop"], bench.size, input_size(bench), crops_at_once=crops)

    together, alone = ten_crop(Together(models)), [ten_crop(model) for model in models]
    made: dict[str, np.ndarray] = {}
    sides = {
        "ours": Side(lambda: made.update(ours=together(images, rows)["ten_crop"])),
        "alone": Side(lambda: made.update(alone=np.stack([one(images, rows)["ten_crop"] for one in alone], axis=1))),
    }
    timed = interleaved(sides, bench.asked.repeat)
    _refuse_apart({"alone": float(np.abs(made["ours"] - made["alone"]).max())})
    facts = {"model": bench.model, "images": len(rows), "frozen_layers": frozen, "layers": len(models[0].trunk.layers)}
    return line(figure=speed(timed["ours"], timed["alone"]), timings=timed, facts=facts)


FOLDS = 5
FOLDED = (
    "Both give the ten-crop means of five networks that share their frozen layers, as the folds of a run do; ours cuts "
    "the crops and computes the shared layers once, the rival for each network; the figure is our images per second over theirs."
)


RIVALS = [
    Rival(
        "plain",
        "forward passes over crops in memory",
        "ours uploads packed images and cuts them on the device; the rival finds uint8 crops ready in memory and runs "
        "them in as many passes of the same batch",
        "Reading and cutting, which the rival need not do.",
        0.95,
    ),
    Rival(
        "classic",
        "the guides' ten-crop",
        "the rival reads one image at a time through one HDF5 handle, cuts and mirrors on the host, and calls "
        "`predict` once per image",
        "Nothing.",
        1.5,
    ),
]


def _refuse_apart(apart: dict[str, float]) -> None:
    if max(apart.values()) > FAR:
        raise InputError(
            f"bench: the sides of the row crops do not give the same probabilities ({apart}); this is a defect"
        )


def in_memory(images: np.ndarray, rows: np.ndarray, batch: int, size: tuple[int, int]) -> list[np.ndarray]:
    """uint8 (10 * B, h, w, 3) for each pass of `batch` images, view after view, as one pass of ours has them."""
    starts = range(0, len(rows), batch)
    parts = [cut_all(images[rows[start : start + batch]], "ten_crop", size) for start in starts]
    return [np.ascontiguousarray(part.reshape(-1, *part.shape[2:])) for part in parts]


def forward(classifier: Any, crops: list[np.ndarray], batch: int) -> np.ndarray:
    """Mean probabilities (N, C) over ten views."""
    parts = [np.asarray(classifier.predict_on_batch(part)) for part in crops]
    return np.concatenate([part.reshape(10, batch, -1).mean(axis=0) for part in parts])
