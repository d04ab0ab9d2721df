"""What more drivers are worth: the law that is fitted, the runs that are trained, and the page."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.project import SMALL, Verb

from driverwatch.experiments.data_scaling import fit_power_law
from driverwatch.io.manifests import read_json

SET = f"{SMALL} predict.tta=centre augment.hflip=none"


def test_a_power_law_is_found_again_whoever_is_drawn() -> None:
    """Losses of every driver fall by the same law, so that no draw sees another one."""
    drivers = np.repeat(np.arange(6), [3, 9, 1, 5, 7, 2])
    hard = np.random.default_rng(0).uniform(0.5, 2, 6)[drivers]
    amounts = [2.0, 5.0, 11.0]
    found = fit_power_law(amounts, [hard * 3 * amount**-0.4 for amount in amounts], drivers)
    assert found.exponent == pytest.approx(0.4)
    assert found.coefficient == pytest.approx(3 * hard.mean())
    assert found.exponent_interval == pytest.approx((0.4, 0.4))
    at, low, high = found.loss(22)
    assert at == pytest.approx(3 * hard.mean() * 22**-0.4)
    assert low < at < high


def test_its_interval_is_of_drivers_not_of_images() -> None:
    """Drivers whose losses fall by laws of their own spread the exponent; more images of each add nothing."""
    random = np.random.default_rng(1)
    exponents, amounts = random.uniform(0, 1, 8), [2.0, 4.0, 8.0, 16.0]

    def found(images: int) -> tuple[float, float]:
        drivers = np.repeat(np.arange(8), images)
        return fit_power_law(amounts, [amount ** -exponents[drivers] for amount in amounts], drivers).exponent_interval

    few, many = found(2), found(200)
    assert few == pytest.approx(many, abs=1e-9)
    assert 0.1 < few[1] - few[0] < 0.6


@pytest.mark.line
def test_numbers_of_drivers_that_no_fold_has_are_refused(verb: Verb, project: Path, drawn: list[str]) -> None:
    place = [*drawn, "--set", SET]
    refused = verb("data-scaling", "tiny", "--n-drivers", "2 3", *place)
    assert refused.returncode == 2
    assert re.search(
        r"N_DRIVERS: each fold has 3 training drivers or more, so expected numbers below 3, got 3", refused.stderr
    )
    assert "expected whole numbers" in verb("data-scaling", "tiny", "--n-drivers", "2 few", *place).stderr
    assert not (project / "build/demo/studies").exists()


@pytest.mark.line
@pytest.mark.slow
def test_the_command_trains_and_writes_what_more_drivers_are_worth(verb: Verb, project: Path, drawn: list[str]) -> None:
    place = [*drawn, "--set", SET]
    made = verb("data-scaling", "tiny", "--n-drivers", "1 2", *place)
    assert made.returncode == 0, made.stderr
    runs = project / "build/demo/studies/curve"
    assert sorted(path.name for path in runs.iterdir()) == ["tiny-1-drivers", "tiny-2-drivers", "tiny-all-drivers"]
    results = project / "experiments/results/demo"
    facts = read_json(results / "curve-tiny.json")
    assert [(point["drivers"], point["images"]) for point in facts["points"]] == [(1, 20), (2, 40), (3, 60)]
    page = (results / "curve-tiny.md").read_text()
    lines = [line.split("|") for line in page.splitlines() if re.match(r"\| \d", line)]
    for line, point in zip(lines, facts["points"], strict=True):
        assert float(line[3]) == pytest.approx(point["log_loss"], abs=5e-4)
        assert [float(word) for word in line[4].split(" to ")] == pytest.approx(point["interval"], abs=5e-4)
    assert f"exponent {facts['exponent']:.2f}" in page
    assert (results / "curve-tiny.png").read_bytes().startswith(b"\x89PNG")
    assert "no run is there" in verb("ensemble", "--dataset", "demo").stderr

    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/fold*/manifest.json")}
    assert verb("data-scaling", "tiny", "--n-drivers", "1 2", *place).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
