"""The reference of make's targets and variables, as Markdown: read off the Makefile, with outputs and examples."""

from dataclasses import dataclass

from scripts.make_help import MEANINGS, TARGETS, variables_of_target
from scripts.markdown import item, paragraph

HEAD = """\
# Make targets

Every target of make: what it writes, the variables it takes, and an example. Variables are typed after the target, as in `make
report DATASET=demo`. `make help` prints a list in a terminal.

Every target but `help`, `doctor` and `clean` builds its environment (`.venv`) first where that is missing, so that `make setup`
is never needed. Targets skip what is finished: the same command resumes after Ctrl-C or a crash. `DATASET` and `DATA` may be
set in the environment. Without `DATASET`, every target but `demo`, `synthetic`, `bench` and `profile` means `statefarm`, the
competition.

`make docs` writes this page from the Makefile and `scripts/make_reference.py`. A test holds every example against the Makefile.
"""


@dataclass(frozen=True)
class Entry:
    """What the Makefile does not say of a target."""

    writes: str  # paths, or empty
    example: str = ""  # the command; empty: the target alone


RUN, CHECKPOINTS = (
    "`build/<dataset>/runs/<run>/`",
    "a checkpoint after each epoch, weights and predictions of each fold",
)
# by group and target, in the order of the page
GROUPS: dict[str, dict[str, Entry]] = {
    "Start here": {
        "help": Entry(""),
        "help-all": Entry(""),
        "doctor": Entry(""),
        "setup": Entry("`.venv/`; its log beside it", "make setup EXTRAS=cluster"),
        "demo": Entry(
            "`build/demo/` with `report/index.html` and `report/review.html`, `folds/demo.csv`, `submissions/demo/demo.csv` "
            "and `single_image.csv`"
        ),
        "status": Entry("", "make status DATASET=demo"),
        "clean": Entry("nothing; removes `build/`"),
    },
    "Data": {
        "data": Entry("`data/statefarm/` (or `DATA`)"),
        "client": Entry("`.venv-kaggle/`"),
        "synthetic": Entry("`build/demo/data/` (or `DATA`)", "make synthetic DRIVERS=8 TEST_DRIVERS=2 FRAMES=10"),
        "subset": Entry("the data set's images, in `DATA`", "make subset SOURCE=data/statefarm DATASET=statefarm_mini"),
        "folds": Entry("`folds/<dataset>.csv`; commit it", "make folds DATASET=demo"),
        "leakage": Entry("", "make leakage DATASET=demo"),
        "pack": Entry("`build/<dataset>/pack/<size>/train.h5` and `test.h5`", "make pack MODEL=resnet50"),
        "preview": Entry("`build/<dataset>/preview/<name>.png`", "make preview RUN=tiny DATASET=demo"),
    },
    "Train": {
        "train": Entry(f"{RUN}: {CHECKPOINTS}", 'make train MODEL=resnet50 SET="augment.preset=erasing"'),
        "linear-probe": Entry(RUN, "make linear-probe MODEL=vgg16 TRUNCATE_AT=block4_pool"),
        "lr-find": Entry("`build/<dataset>/lr_find/<model>.csv` and `.png`", "make lr-find MODEL=resnet50"),
        "search": Entry("`build/<dataset>/searches/<name>/`", "make search MODEL=resnet50 TRIALS=20"),
        "pseudo-labels": Entry(
            "`build/<dataset>/pseudo_labels/<name>/`", "make pseudo-labels NAME=teachers MODELS=resnet50"
        ),
        "pseudo-rounds": Entry("`build/<dataset>/runs/<run>-round<n>/`", "make pseudo-rounds RUN=resnet50 ROUNDS=2"),
        "refit": Entry("`build/<dataset>/runs/<run>-all/`", "make refit RUN=resnet50"),
        "reproduce": Entry(
            f"{RUN} of each run, `submissions/<dataset>/`",
            "make reproduce DATASET=statefarm_mini DATA=<folder> WEIGHTS=<folder>",
        ),
        "predict": Entry("predictions beside each fold's weights", 'make predict RUN=resnet50 TTA="five_crop shifts"'),
        "notebook": Entry("`build/<dataset>/notebook/<name>/`", "make notebook MODEL=resnet50 ACCOUNT=<you>"),
        "import-runs": Entry("`build/<dataset>/runs/`", "make import-runs RUNS_FROM=build/statefarm/from_kaggle"),
        "node": Entry("copies of the asking machine's files in `FOLDER`", "make node ADDRESS=<first>:6379"),
    },
    "Compare": {
        "score": Entry("", "make score MODELS=resnet50"),
        "tta": Entry("", "make tta RUN=tiny DATASET=demo"),
        "blends": Entry("`build/<dataset>/blends.json`, `build/<dataset>/calibration/`", "make blends DATASET=demo"),
        "knn": Entry(
            "`build/<dataset>/embeddings/`, `build/<dataset>/knn.json`",
            "make knn EMBEDDINGS=mobilenet_v2:block_13_expand_relu:2x2",
        ),
        "ablation": Entry(
            "`experiments/results/<dataset>/ablations.json`, `.md` and `.csv`",
            "make ablation DATASET=statefarm_mini TRAIN=1",
        ),
        "study": Entry(
            "`experiments/results/<dataset>/study-<name>.json` and `.md`", "make study DATASET=statefarm_mini"
        ),
        "data-scaling": Entry(
            "`experiments/results/<dataset>/curve-<model>.json`, `.md` and `.png`",
            'make data-scaling MODEL=mobilenet_v2_screen N_DRIVERS="3 6 10"',
        ),
    },
    "Submit": {
        "ensemble": Entry(
            "`submissions/<dataset>/<name>.csv`, its JSON, `out_of_fold/<name>.csv.gz`",
            'make ensemble MODELS="resnet50 vgg16"',
        ),
        "submissions": Entry("`submissions/<dataset>/`", "make submissions MODELS=tiny DATASET=demo"),
        "check": Entry("", "make check FILE=submissions/demo/demo.csv DATASET=demo"),
        "submit": Entry(
            "`submissions/ledger.csv`", 'make submit FILE=submissions/statefarm/ensemble.csv MESSAGE="mean of two"'
        ),
    },
    "Look at results": {
        "label-issues": Entry(
            "`experiments/results/<dataset>/label_issues.csv` and `.md`", "make label-issues NAME=ensemble"
        ),
        "card": Entry("`submissions/<dataset>/cards/<name>/`", "make card NAME=ensemble"),
        "report": Entry("`build/<dataset>/report/index.html`", "make report DATASET=demo"),
        "review": Entry("`build/<dataset>/report/review.html`", "make review DATASET=demo"),
        "trace": Entry("", "make trace IMAGE=img_1003.jpg DATASET=demo"),
        "classify": Entry("`CAM`, where one is asked for", "make classify IMAGE=frame.jpg RUN=tiny DATASET=demo"),
        "serve": Entry("", "make serve RUN=tiny DATASET=demo"),
        "export": Entry("`build/<dataset>/export/<run>.keras` (or `FILE`)", "make export RUN=tiny DATASET=demo"),
    },
    "Networks": {
        "backbones": Entry("", "make backbones MODEL=resnet101"),
        "layers": Entry("", "make layers MODEL=resnet50"),
        "convert": Entry(
            "a weight file in `WEIGHTS`", "make convert FILE=googlenet-1378be20.pth MODEL=googlenet WEIGHTS=<folder>"
        ),
    },
    "Develop": {
        "test": Entry("", "make test JOBS=4"),
        "test-slow": Entry(""),
        "test-all": Entry(""),
        "test-torch": Entry("`.venv-torch/`"),
        "test-cluster": Entry(""),
        "test-kills": Entry("", "make test-kills KILLS=60"),
        "test-size": Entry("`build/size/table.csv`", 'make test-size COMMANDS="pack score"'),
        "coverage": Entry("`build/coverage/`"),
        "lint": Entry(""),
        "lock": Entry("`requirements/*.txt`"),
        "audit": Entry(""),
        "docs": Entry("`docs/reference/`, `docs/dev/doc-commands.csv`"),
        "docs-images": Entry("`docs/images/*.png`"),
        "bench": Entry("`build/<dataset>/bench.json`", 'make bench BENCHMARKS="pack load"'),
        "profile": Entry("`build/<dataset>/profile.json`", "make profile MODEL=mobilenet_v2_96x128"),
    },
}


def make_page() -> str:
    """`docs/reference/make-targets.md`, whole."""
    parts = [HEAD.rstrip("\n")]
    for group, entries in GROUPS.items():
        parts.append(f"## {group}")
        for target, entry in entries.items():
            parts += [f"### `make {target}`", _section(target, entry)]
    items = [item(f"`{typed}`: {meaning}") for typed, meaning in MEANINGS]
    parts += ["## Variables", paragraph(VARIABLES), "\n".join(items)]
    return "\n\n".join(parts) + "\n"


VARIABLES = (
    "Text is taken as typed: no `$`, quote or backtick in it means anything to make or to a shell. `~` is the home folder. "
    "Switches are 1 or 0. Every target takes `V=1`, `DEBUG=1`, `PYTHON3=` and `ACCELERATOR=`."
)


def _section(target: str, entry: Entry) -> str:
    """What a target is for, what it writes, its variables, and its example."""
    _, what, _ = TARGETS[target]
    lines = [paragraph(f"{what[0].upper()}{what[1:]}."), ""]
    if entry.writes:
        lines.append(item(f"Writes {entry.writes}."))
    if variables := variables_of_target(target):
        lines.append(item(f"Variables: {', '.join(f'`{name}`' for name in variables)}."))
    return "\n".join([*lines, item(f"Example: `{entry.example or f'make {target}'}`")])
