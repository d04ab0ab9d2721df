"""The small synthetic competition that tests use, what its networks are trained by, and the type of fixtures that run commands."""

import subprocess
from collections.abc import Callable

from driverwatch.data.synthetic import SyntheticOptions

MINI = SyntheticOptions(drivers=6, test_drivers=2, clips=1, frames=2, size="48x64", seed=3)
Verb = Callable[..., subprocess.CompletedProcess[str]]
SMALL = "input.pack=40x52 input.size=36x48 train.epochs=1 train.batch_size=16"
QUICK = f"{SMALL} augment.hflip=none predict.tta=five_crop"  # predicts the views that it takes part with, and no others
