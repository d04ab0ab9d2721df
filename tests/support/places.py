"""Where the repository is, and the folder of real images and weights that may lie beside it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
NO_REAL_DATA = "no real data beside the clone"  # the one reason to skip that CI allows

needs_images = pytest.mark.skipif(not (SHARED / "statefarm").is_dir(), reason=f"{NO_REAL_DATA}: images")
needs_weights = pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason=f"{NO_REAL_DATA}: ImageNet weights")
