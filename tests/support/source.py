"""The package's source files."""

from support.places import ROOT

SOURCE = ROOT / "src" / "driverwatch"
FILES = sorted(SOURCE.rglob("*.py"))
