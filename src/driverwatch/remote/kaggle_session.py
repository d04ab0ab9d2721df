"""A session on Kaggle's or Colab's machine, as the notebook's cells call it: inputs found, commands run, an end in time.

Images and attached files are read where they are mounted, packs are in the scratch folder, and only runs are in the output,
of which Kaggle keeps up to 20 GB.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Annotated, Any, Literal

from pydantic import Field

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import Strict, load, parse
from driverwatch.config.types import Name
from driverwatch.errors import InputError, printable
from driverwatch.io.console import duration, say
from driverwatch.io.paths import Places, is_of_tools, user_path

SESSION_HOURS = 12.0  # of a GPU session; then Kaggle ends it and keeps no output
STATUS_SECONDS = 600.0  # for the status at the end, beyond the plan's hours
DEPTH = 5  # folders below the input: notebooks/<account>/<slug>/runs/<run>; older sessions have <slug>/ alone
IMAGE_FOLDERS = ("imgs", "test", "train")  # a mounted disk lists them slowly
BUNDLED = Path(__file__).parent.parent / "project"  # settings and folds, in the wheel that make notebook builds
WHEEL = "driverwatch-*.whl"  # in the attached data set
SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"  # what Kaggle makes of a title: lower case, single hyphens

Reference = Annotated[str, Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_-]*/{SLUG}$", max_length=120)]  # account/slug


class Plan(Strict):
    """What a notebook trains: make's variables, repeated in its first cell."""

    notebook: Reference  # itself, to say how its output is fetched
    dataset: Name
    model: Name
    run: Name
    commit: str = ""  # of this project
    overrides: str = ""  # SET=
    tta: str = ""  # TTA=: more TTA sets, predicted once every fold is trained
    hours: Annotated[float, Field(gt=0, le=SESSION_HOURS)] = 11.0  # the rest is for starting and saving
    service: Literal["kaggle", "colab"] = "kaggle"
    weights_from: Reference | Literal[""] = ""  # KAGGLE_WEIGHTS=: a data set on Kaggle with local weight files


@dataclass(frozen=True)
class Session:
    """Where everything is, and when to stop."""

    plan: Plan
    project: Path  # settings, folds, packs; its runs are a link into the output
    weights: Path  # folder of local weight files: the attached data set, or the one that the plan names
    data: Path  # the competition
    output: Path  # what is kept
    earlier: list[Path]  # the run's folders in the outputs of earlier versions
    ends: float  # `time.monotonic()`

    @property
    def _options(self) -> list[str]:
        return ["--dataset", self.plan.dataset, "--data", str(self.data)]

    def pack(self) -> None:
        """Check the folds against the images, and pack these at the model's size."""
        self._finish("folds")
        self._finish("pack", "--model", self.plan.model, "--set", self.plan.overrides)

    def resume(self) -> None:
        """Import what earlier versions left, if any is attached."""
        for folder in self.earlier:
            self._finish("import-runs", str(folder))
        if not self.earlier:
            say("no earlier version is attached: the run starts here")

    def train(self) -> bool:
        """True once every fold is trained and predicted; False if the session's hours ended that. Prints what to do next."""
        plan, at_home = self.plan, f"build/{self.plan.dataset}/from_kaggle"
        options = ["--run", plan.run, "--set", plan.overrides, "--weights", str(self.weights)]
        done = self.run("train", plan.model, *options)
        if done and plan.tta:
            done = self.run("predict", plan.run, "--tta", plan.tta)
        self._python(["-m", "driverwatch", "status", *self._options], STATUS_SECONDS)
        on_kaggle = plan.service == "kaggle"
        if done:
            say(f"\n{plan.run}: finished. At home:")
            fetched = f".venv-kaggle/bin/kaggle kernels output {plan.notebook} -p {at_home}"
            say(f"  {fetched}" if on_kaggle else f"  download the folder {self.output} from Google Drive as {at_home}")
            say(f"  make import-runs RUNS_FROM={at_home} DATASET={plan.dataset}")
        else:
            far = f"stopped after {plan.hours:g} hours; the next version resumes from its last finished epoch:"
            say(f"\n{plan.run}: {far}")
            again = f"make notebook MODEL={plan.model} ... RESUME_FROM={plan.notebook}   # at home, and the two commands it prints"
            say(f"  {again}" if on_kaggle else "  run this notebook again")
        return done

    def run(self, command: str, *arguments: str) -> bool:
        """Whether a command of the project finished; False if the session's hours ended it. Its output is printed as it comes.

        Raises:
            InputError: it failed; its own words stand above.
        """
        seconds = max(self.ends - time.monotonic(), 0.0)
        status = self._python(["-m", "driverwatch", command, *arguments, *self._options], seconds)
        if status and time.monotonic() >= self.ends:
            return False
        if status:
            raise InputError(f"{command}: ended with status {status}; its own words stand above")
        return True

    def _finish(self, command: str, *arguments: str) -> None:
        """Run a command that the session cannot resume without."""
        if not self.run(command, *arguments):
            raise InputError(
                f"{command}: not done within {self.plan.hours:g} hours; give the notebook more with HOURS="
            )

    def _python(self, arguments: list[str], seconds: float) -> int:
        """The exit status of this Python, run in the project and terminated after `seconds`; its output is printed as it comes.

        What it writes is whole or not there, and a fold's process ends with the one that trains.
        """
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.project,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "DRIVERWATCH_COMMIT": self.plan.commit},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            timer = Timer(seconds, process.terminate)
            timer.start()
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                return process.wait()
            except BaseException:  # the notebook's stop button
                process.terminate()
                raise
            finally:
                timer.cancel()


def start(plan: dict[str, Any], places: tuple[str, str, str], started: float) -> Session:
    """The session: attached inputs found, the project laid out in the scratch folder.

    Args:
        plan: as `Plan`.
        places: folders of input (read only), output (kept) and scratch (not kept).
        started: `time.monotonic()` when the notebook started.

    Raises:
        InputError: something that must be attached is not.
    """
    mine = parse(Plan, plan, "PLAN in the first cell")
    attached, output, scratch = (user_path(place).absolute() for place in places)  # commands run in the project
    folders, project = _folders(attached), scratch / "driverwatch"
    files = _only(attached, [folder for folder in folders if any(folder.glob(WHEEL))], f"{WHEEL}: its data set")
    shutil.copytree(BUNDLED, project, dirs_exist_ok=True)
    settings = load(DatasetSettings, project / "configs" / "datasets", mine.dataset)
    tables = (settings.table, settings.sample_submission)
    competitions = [folder for folder in folders if all((folder / table).is_file() for table in tables)]
    data = _only(attached, competitions, f"{' and '.join(tables)}: {settings.title}")
    earlier = [f for f in folders if f.parts[-2:] == ("runs", mine.run) and (f / "run.json").is_file()]
    runs = Places(mine.dataset, project).runs
    (output / "runs").mkdir(parents=True, exist_ok=True)
    runs.parent.mkdir(parents=True, exist_ok=True)
    if not runs.is_symlink():
        runs.symlink_to((output / "runs").resolve(), target_is_directory=True)
    weights = fetched_weights(mine.weights_from) if mine.weights_from else files
    session = Session(mine, project, weights, data, output, earlier, started + mine.hours * 3600)
    named = {"images": data, "attached files": files, "weights": weights, "project": project, "runs": output / "runs"}
    for name, path in [*named.items(), *(("earlier version", folder) for folder in earlier)]:
        say(f"{name:15} {path}")
    say(f"{'stops after':15} {duration(session.ends - time.monotonic())}")
    return session


def fetched_weights(reference: str) -> Path:
    """The folder of a data set on Kaggle, which `kagglehub` mounts in a Kaggle notebook and downloads elsewhere.

    Its weight files are looked up by name and checksum, as in any folder of WEIGHTS.

    Raises:
        InputError: whatever kagglehub says.
    """
    import kagglehub  # part of Kaggle's and Colab's image

    try:
        return Path(kagglehub.dataset_download(reference))
    except Exception as error:  # kagglehub's own errors, and those of its HTTP library
        said = printable(" ".join(str(error).split()))
        raise InputError(f"KAGGLE_WEIGHTS={reference}: kagglehub has no such data set here ({said})") from error


def _folders(top: Path) -> list[Path]:
    """Folders up to `DEPTH` below `top`, without those of images."""
    found = []
    for folder, names, _ in os.walk(top, followlinks=True):
        found.append(Path(folder))
        inside = len(found[-1].relative_to(top).parts) < DEPTH
        names[:] = sorted(n for n in names if inside and n not in IMAGE_FOLDERS and not is_of_tools(n))
    return found


def _only(top: Path, found: list[Path], what: str) -> Path:
    if len(found) != 1:
        got = ", ".join(map(str, found)) or "nothing of the kind"
        raise InputError(
            f"{top}: expected one folder with {what}, attached to this notebook, got {got}; fix its inputs"
        )
    return found[0]
