"""Ten-crop prediction by OpenVINO, beside its plain forward passes of the same network and batch, and beside Keras."""

import importlib.util

import numpy as np

from benchmarks.crops import TOLERANCE, in_memory
from benchmarks.result import Result
from benchmarks.timing import Side, interleaved, speed
from benchmarks.workload import Bench
from driverwatch.config.types import EngineName
from driverwatch.errors import InputError

AGAINST = {
    "plain": ("OpenVINO's forward passes over crops in memory, float32", 0.9),
    "own_choice": ("OpenVINO's forward passes in the precision of its choice", None),
    "keras": ("the same ten-crop by Keras", 1.0),
}


def results(bench: Bench) -> list[Result]:
    """Our images per second over those of each other side."""
    if importlib.util.find_spec("openvino") is None:
        skipped = "OpenVINO is not installed; make setup EXTRAS=openvino"
        return [Result("engine", against, "higher", target, skipped=skipped) for against, target in AGAINST.values()]
    from driverwatch.inference.engine import converted
    from driverwatch.inference.predict import Predictor

    classifier = bench.classifier(bench.settings, deterministic=False)
    classifier.compile()

    def of(engine: EngineName) -> Predictor:
        at_once = bench.settings.predict.batch_size
        return Predictor(classifier, ["ten_crop"], bench.size, bench.input_size, crops_at_once=at_once, engine=engine)

    ours, keras = of("openvino"), of("keras")
    indices, images = bench.few(ours.batch), bench.pack.pixels
    crops = in_memory(images, indices, ours.batch, bench.input_size)
    plain, own_choice = (converted(classifier, crops[0], precision) for precision in ("f32", None))
    made: dict[str, np.ndarray] = {}

    def passes(name: str, network: object) -> Side:
        def forward() -> None:
            rows = [network(part).reshape(10, ours.batch, -1).mean(axis=0) for part in crops]  # type: ignore[operator]
            made[name] = np.concatenate(rows)

        return Side(forward)

    sides = {
        "ours": Side(lambda: made.update(ours=ours(images, indices)["ten_crop"])),
        "plain": passes("plain", plain),
        "own_choice": passes("own_choice", own_choice),
        "keras": Side(lambda: made.update(keras=keras(images, indices)["ten_crop"])),
    }
    timed = interleaved(sides, bench.asked.repeat)
    apart = {name: float(np.abs(found - made["ours"]).max()) for name, found in made.items()}
    if not ours.computed_by.startswith("openvino") or max(apart["plain"], apart["keras"]) > TOLERANCE:
        raise InputError(
            f"bench: the sides of the row engine do not give the same probabilities ({apart}); this is a defect"
        )
    facts = {"model": bench.model, "images": len(indices), "images_at_once": ours.batch, "apart": apart,
             "engine": ours.computed_by, "images_per_second": len(indices) / timed["ours"].median}  # fmt: skip
    return [
        Result("engine", against, "higher", target, speed(timed["ours"], timed[side]),
               {name: timed[name] for name in ("ours", side)}, facts)
        for side, (against, target) in AGAINST.items()
    ]  # fmt: skip
