"""The small synthetic competition that tests use, and the type of the fixtures that run commands in a project folder."""

import subprocess
from collections.abc import Callable

from driverwatch.data.sample import SampleOptions

MINI = SampleOptions(drivers=6, test_drivers=2, clips=1, frames=2, size="48x64", seed=3)
Verb = Callable[..., subprocess.CompletedProcess[str]]
SMALL = "input.pack=40x52 input.size=36x48 train.epochs=1 train.batch_size=16"
