"""Settings of training: stages, splits, pseudo-labels; every default once, with its unit or reason on the line."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from driverwatch.config.loading import Strict
from driverwatch.config.types import Name, Share, TtaSet


def _boundary(until: object) -> object:
    whole = isinstance(until, int) and not isinstance(until, bool) and until >= 0
    share = isinstance(until, float) and 0 < until < 1
    if not (until is None or isinstance(until, str) or whole or share):
        raise ValueError("must be a layer or block, a number of layers, a share of them between 0 and 1, head, or null")
    return until


Rate = Annotated[float, Field(gt=0, le=10)]
L2 = [0.03, 0.1, 0.3, 1.0]
AVERAGE_SPAN = 0.2  # of a stage: its first steps then weigh e^-5, however short it is
Boundary = Annotated[str | int | float | None, BeforeValidator(_boundary)]
Penalties = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
Factor = Annotated[float, Field(gt=0, le=1000)]


class Stage(Strict):
    """One stretch of training; what it leaves out comes from `train`."""

    # layer or block, that many layers, that share of them, `head` (the whole backbone), or null
    freeze_until: Boundary = None
    # linear_probe: solve for the softmax on features computed once
    fit: Literal["gradient", "linear_probe"] = "gradient"
    l2: Penalties = L2  # of the linear probe: the one that does best on inner driver folds is taken
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None  # null: `train.epochs`
    learning_rate: Rate | None = None  # null: `train.learning_rate`
    # layer-wise (discriminative) rates, by layer or block: factor on the rate of all up to and including it
    lr_multipliers: dict[str, Factor] = {}
    # normalisation of layers that learn; default: frozen if pretrained, else train. Their dropout follows: none with `frozen`
    normalization: Literal["frozen", "train", "recalibrated"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Stage":
        if self.fit == "gradient":
            if self.l2 != L2:
                other = "for kernels' decay see head.weight_decay, train.weight_decay"
                raise ValueError(f"l2 belongs to fit: linear_probe; {other}")
            return self
        if self.freeze_until != "head":
            raise ValueError("fit: linear_probe trains the softmax alone and needs freeze_until: head")
        if self.epochs or self.learning_rate or self.lr_multipliers or self.normalization:
            raise ValueError("fit: linear_probe takes no epochs, learning_rate, lr_multipliers or normalization")
        return self


def _named_kind(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


class SplitSettings(Strict):
    """Which drivers each model is validated on; `splits: all` is short for `splits: {kind: all}`. Only folds give an OOF score."""

    # folds: the committed file; reshuffled: as many other folds, which share few pairs of drivers with the file's; shuffle_split:
    # random validation drivers for each model; all: no validation drivers
    kind: Literal["folds", "reshuffled", "shuffle_split", "all"] = "folds"
    # models; null: 10 with shuffle_split, 1 with all. Folds have their own number
    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    val_drivers: Annotated[int, Field(ge=1)] | None = None  # validation drivers of each shuffle_split; null: 4
    # drivers that each model is trained on, of those that do not validate it; null: all of them. Fewer are always among more
    train_drivers: Annotated[int, Field(ge=1)] | None = None
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None  # of the shuffle; null: 0

    @model_validator(mode="after")
    def _fits(self) -> "SplitSettings":
        if self.kind in ("folds", "reshuffled") and self.count is not None:
            raise ValueError("count belongs to kind: shuffle_split and all; the number of folds is the data set's")
        if self.kind != "reshuffled" and self.split_seed is not None:
            raise ValueError("split_seed belongs to kind: reshuffled")
        if self.kind != "shuffle_split" and self.val_drivers is not None:
            raise ValueError("val_drivers belongs to kind: shuffle_split")
        return self

    @property
    def validation(self) -> int:
        """Drivers that each subset leaves out."""
        return self.val_drivers or 4  # of 26, about what one of six folds holds

    @property
    def scored(self) -> bool:
        """Whether each driver is predicted by exactly the one model that has not seen them, on the fold file's folds."""
        return self.kind == "folds"

    @property
    def unscored(self) -> str:
        """Why there is no out-of-fold score, in words."""
        how = {"all": "all drivers", "reshuffled": "other folds than the fold file's"}
        return f"trained on {how.get(self.kind, 'overlapping subsets of the drivers')}"

    def models(self, folds: int) -> int:
        """Number of models, where the data set has so many folds."""
        return {"shuffle_split": self.count or 10, "all": self.count or 1}.get(self.kind, folds)


class PseudoSettings(Strict):
    """Images without labels with what teachers make of them, trained on beside the labelled images."""

    runs: list[Name] = []  # finished runs as teachers: their mean counts
    labels: Name | None = None  # or what `make pseudo-labels` wrote under this name: runs blended, balanced, smoothed
    # of a fold's validation drivers too (or alone) the student sees the images, never a label: as it does of test drivers
    images: Literal["test", "validation", "both"] = "test"
    tta: Literal["auto", TtaSet] = "auto"  # as in ensembles
    kind: Literal["soft", "hard"] = "soft"  # the teachers' probabilities, or their first choice as if it were true
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0  # least top probability of an image that is taken; 0 takes all
    ratio: Factor = 1.0  # at most so many per labelled image, the most confident first
    class_balance: bool = False  # share that number out evenly among the classes that the teachers name
    weight: Factor = 1.0  # in the loss, of one such image; a labelled one has 1

    @model_validator(mode="after")
    def _once(self) -> "PseudoSettings":
        if len(set(self.runs)) < len(self.runs):
            raise ValueError("runs must name each teacher once")
        if bool(self.runs) == bool(self.labels):
            raise ValueError("must have either runs or labels")
        return self


class TrainSettings(Strict):
    """How a head and what is not frozen of the backbone are fitted, fold by fold."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 4  # of each stage that does not say its own
    learning_rate: Rate = 0.001  # the guides' SGD rate, a tenth of training from scratch
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"  # the guides'; adam where rates are small (1e-4)
    momentum: Share = 0.9  # SGD, with Nesterov's correction
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # decoupled, on kernels, in every optimizer
    schedule: Literal["constant", "cosine"] = "cosine"  # within each stage, down to 0
    warmup: Share = 0.0  # warm-up: share of a stage's steps whose rate rises; the last of these is at the full rate
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32  # images in one step; memory grows with it
    # that train a fold, each on an equal part of `batch_size`, which stays the whole step's, so that rates stay as they are;
    # all: of those there are. The result differs in rounding, as between machines, so a run may resume on other devices
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["all"] = 1
    # of a run, trained beside each other on this machine's cores. Small networks keep few cores busy; never changes a result
    parallel_folds: Annotated[int, Field(ge=1, le=64)] = 1
    label_smoothing: Share = 0.0  # share of each target spread evenly over all classes
    class_weights: Literal["none", "balanced"] = "none"  # balanced: a class's loss weighs by how seldom it is
    # images of the committed list experiments/results/<dataset>/label_issues.csv: down_weight: their loss weighs as it says;
    # drop: its label errors are left out. The list knows labels of validation drivers, so the OOF score is optimistic
    label_issues: Literal["none", "down_weight", "drop"] = "none"
    # ema: every step moves an exponential moving average of the trained weights too; it is what is validated, kept and predicted
    # with, while training goes on from the weights themselves. The next stage starts from it
    average_weights: Literal["none", "ema"] = "none"
    # of ema: share of a stage's steps that the average looks back over; momentum is 1 - 1 / (that many steps)
    average_span: Annotated[float, Field(gt=0, le=1)] = AVERAGE_SPAN
    # best: the epoch that scores best on the validation drivers (optimistic)
    select: Literal["last", "best"] = "last"
    # early stopping: end a stage after so many epochs without a better validation loss
    patience: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # of new layers, order, augmentation and dropout
    # compute frozen layers once per image and augmentation draw, with so many draws; null: in every step
    augmentation_passes: Annotated[int, Field(ge=1, le=1000)] | None = None
    cache_dtype: Literal["float16", "float32"] = "float16"  # of cached feature maps; pooled features are float32
    workers: Annotated[int, Field(ge=0, le=256)] = 0  # that augment, 0: one per core; never changes a result
    # what they are; auto: processes where it pays; same result
    loader: Literal["auto", "threads", "processes"] = "auto"
    stages: Annotated[list[Stage], Field(min_length=1)] = [Stage()]
    # epochs of the last stage, whose schedule stays that of its `epochs`; null: all
    max_epochs: Annotated[int, Field(ge=1)] | None = None
    splits: Annotated[SplitSettings, BeforeValidator(_named_kind)] = SplitSettings()
    pseudo: PseudoSettings | None = None

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        last = self.stages[-1]
        if self.max_epochs and (last.fit == "linear_probe" or self.max_epochs > (last.epochs or self.epochs)):
            raise ValueError("max_epochs must be at most the last stage's epochs, and needs fit: gradient there")
        if self.average_weights == "none" and self.average_span != AVERAGE_SPAN:
            raise ValueError("average_span belongs to average_weights: ema; leave it out")
        if self.splits.kind == "all" and self.uses_validation:
            raise ValueError("splits: all has no validation drivers; select must be last, and patience null")
        if self.pseudo and self.pseudo.images != "test" and self.splits.kind == "all":
            raise ValueError("splits: all has no validation drivers; pseudo.images must be test")
        if self.pseudo and all(stage.fit == "linear_probe" for stage in self.stages):
            raise ValueError("pseudo needs a stage with fit: gradient; logistic regression takes labelled images alone")
        return self

    @property
    def planned(self) -> list[int]:
        """Epochs of each stage, as far as it goes."""
        epochs = [self.epochs_of(stage) for stage in self.stages]
        return [*epochs[:-1], self.max_epochs or epochs[-1]]

    def epochs_of(self, stage: Stage) -> int:
        """Epochs that a stage's schedule is made for; a linear probe counts as one."""
        return 1 if stage.fit == "linear_probe" else stage.epochs or self.epochs

    @property
    def uses_validation(self) -> bool:
        """Whether the validation drivers decide which weights are kept, so that their loss is optimistic."""
        return self.select == "best" or self.patience is not None
