"""A training step in the precision that `precision: auto` takes, beside the same step in float32."""

from benchmarks.result import Result
from benchmarks.timing import Side, interleaved, over_rounds, speed
from benchmarks.workload import Bench
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import CONFIGS
from driverwatch.training.precision import quicker, steps

NETWORKS = {"inception_v3": 1.4, "mobilenet_v2": 1.0}  # dense and depthwise convolutions: times as fast as float32
CLASSES = 10
AGAINST = "the same step in float32"


def results(bench: Bench) -> list[Result]:
    """Steps of the recommended recipe per second, over those in float32, by network."""
    return [_of(name, target, bench.asked.repeat) for name, target in NETWORKS.items()]


def _of(name: str, target: float, repeat: int) -> Result:
    settings = load(ModelSettings, CONFIGS / "models", name)
    made = {precision: Side(step) for precision, step in steps(settings, CLASSES).items()}
    timed = interleaved(made, repeat, warm_up=2)
    chosen = quicker({precision: timing.median for precision, timing in timed.items()})
    mixed = over_rounds(lambda plain, other: plain / other, *(timed[each].seconds for each in made))
    facts = {"model": name, "chosen": chosen, "mixed_bfloat16_over_float32": mixed._asdict(),
             "images_per_second": settings.train.batch_size / timed[chosen].median}  # fmt: skip
    timings = {"ours": timed[chosen], "theirs": timed["float32"]}
    return Result("precision", f"{name}: {AGAINST}", "higher", target, speed(*timings.values()), timings, facts)
