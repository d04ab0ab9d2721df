"""Print line coverage per room: of `make test` alone, of all tiers together, and the share of the second that the first reaches.

    python scripts/coverage_rooms.py <folder for data> -- [pytest options ...]

Runs the default tier under coverage.py, then every other test, both with processes that tests start. Data files stay in
the folder; a tier whose data file is there is not run again. Exit status: 0 if the share of all rooms is 0.9 or more.
"""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from coverage import Coverage, CoverageData

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = "not slow and not zoo and not cluster and not torch"
TIERS = {"test": DEFAULT, "others": f"not ({DEFAULT})"}
WANTED = 0.9  # share of the lines of all tiers that the default tier must reach


def measure(folder: Path, tier: str, options: list[str]) -> Path:
    """The data file of a tier under coverage.py (by pytest-cov, which gathers it from all workers), made unless it is there."""
    data = (folder / f"{tier}.coverage").resolve()
    if not data.is_file():
        command = [sys.executable, "-m", "pytest", "--cov", "--cov-report=", *options, "-m", TIERS[tier]]
        if subprocess.run(command, env={**os.environ, "COVERAGE_FILE": str(data)}, check=False).returncode:
            print(f"tests of {tier} failed; their coverage is counted all the same", file=sys.stderr)
    return data


def rooms(files: list[Path]) -> dict[str, tuple[int, int]]:
    """Statements and covered statements of each room, as data files together have them."""
    data = CoverageData(no_disk=True)
    for file in files:
        part = CoverageData(str(file))
        part.read()
        data.update(part)
    coverage = Coverage(data_file=None, config_file=str(ROOT / "pyproject.toml"))
    coverage.get_data().update(data)
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    package, tools = ROOT / "src" / "driverwatch", [ROOT / "benchmarks", ROOT / "scripts"]
    for path in sorted(path for folder in (package, *tools) for path in folder.rglob("*.py")):
        _, lines, _, missing, _ = coverage.analysis2(str(path))
        inside = path.relative_to(package if path.is_relative_to(package) else ROOT).parts
        room = found[inside[0] if len(inside) > 1 else "(top)"]
        room[0] += len(lines)
        room[1] += len(lines) - len(missing)
    return {name: (total, covered) for name, (total, covered) in found.items()}


def main() -> int:
    """Run what is missing and print the table."""
    folder, options = Path(sys.argv[1]), sys.argv[sys.argv.index("--") + 1 :]
    folder.mkdir(parents=True, exist_ok=True)
    alone = rooms([measure(folder, "test", options)])
    together = rooms([measure(folder, tier, options) for tier in TIERS])
    print(f"{'room':12} {'lines':>6} {'make test':>10} {'all tiers':>10} {'share':>6}")
    for name in [*sorted(together), "all"]:
        everything = name == "all"
        total = sum(lines for lines, _ in together.values()) if everything else together[name][0]
        here, there = (
            (sum(c for _, c in found.values()) if everything else found[name][1]) for found in (alone, together)
        )
        print(f"{name:12} {total:6} {here / total:10.1%} {there / total:10.1%} {here / max(there, 1):6.2f}")
    return int(here / max(there, 1) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
