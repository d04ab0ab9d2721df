"""Settings of models, ensembles and studies: every default once, with its unit or reason on the line."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from driverwatch.backbones import BACKBONES
from driverwatch.errors import nearest
from driverwatch.metrics import FLOOR
from driverwatch.neighbour_settings import Features, NeighbourSettings
from driverwatch.typed_yaml import Strict, parse

ViewSet = Literal["centre", "multi_scale", "five_crop", "shifts", "ten_crop", "ten_crop_keep", "ten_crop_swap"]
VIEW_SETS: tuple[ViewSet, ...] = get_args(ViewSet)  # smallest first; what they are stands in vision/views.py


SIZE = r"[1-9]\d{0,4}x[1-9]\d{0,4}"  # height x width
REGION = r"[a-z][a-z0-9_]{0,30}"
KEY = rf"{SIZE}(-{REGION}(\+{REGION})*)?"  # of a pack: the size of each region, and the regions unless it is the frame alone
WHOLE = "whole"  # the region that every data set has: the frame itself


def _size(text: object) -> object:
    if not isinstance(text, str) or not re.fullmatch(SIZE, text):
        raise ValueError("must be <height>x<width> in pixels, like 224x298")
    return text


def _boundary(until: object) -> object:
    whole = isinstance(until, int) and not isinstance(until, bool) and until >= 0
    share = isinstance(until, float) and 0 < until < 1
    if not (until is None or isinstance(until, str) or whole or share):
        raise ValueError("must be a layer or block, a number of layers, a share of them between 0 and 1, head, or null")
    return until


def _clip(level: object) -> object:
    if level != "fitted" and not (isinstance(level, float) and 1e-6 <= level <= 0.1):
        raise ValueError("must be a probability from 1e-6 to 0.1, or fitted")
    return level


def _known(names: list[str], kind: str, name: str) -> str:
    if name not in names:
        raise ValueError(f"must be a {kind} ({', '.join(names)}){nearest(name, names)}")
    return name


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must name each region once")
    return names


def _view_sets(names: object) -> object:
    """One name or several."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names:
        raise ValueError(f"must be one or several of {', '.join(VIEW_SETS)}")
    return [_known(list(VIEW_SETS), "view set", str(name)) for name in names]


Size = Annotated[str, BeforeValidator(_size)]
Region = Annotated[str, Field(pattern=f"^{REGION}$")]
Regions = Annotated[list[Region], Field(min_length=1, max_length=7), AfterValidator(_each_once)]  # a folder is named so
ViewSets = Annotated[list[ViewSet], BeforeValidator(_view_sets)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
L2 = [0.03, 0.1, 0.3, 1.0]
Boundary = Annotated[str | int | float | None, BeforeValidator(_boundary)]
Penalties = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
Factor = Annotated[float, Field(gt=0, le=1000)]
Clip = Annotated[float | str, BeforeValidator(_clip)]
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=100)]


def transforms(content: object) -> list[dict[str, dict[str, Any]]]:
    """A policy's list of one transform each as plain data; keywords left out are {}.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(content, list) or not all(map(_is_transform, content)):
        raise ValueError("expected a list of one transform each, like `- Affine: {rotate: [-5, 5], p: 0.5}`")
    return [{name: keywords or {} for name, keywords in transform.items()} for transform in content]


def _is_transform(entry: object) -> bool:
    """Whether it is one name and its keywords, or none."""
    if not isinstance(entry, dict) or len(entry) != 1:
        return False
    ((name, keywords),) = entry.items()
    named = isinstance(keywords, dict) and all(isinstance(keyword, str) for keyword in keywords)
    return isinstance(name, str) and (keywords is None or named)


def _policy(content: object) -> object:
    if content is None or (isinstance(content, str) and re.fullmatch(NAME, content)):
        return content
    if isinstance(content, str):
        raise ValueError("must be the name of a file in configs/policies, or a list of transforms")
    return transforms(content)


Policy = Annotated[str | list[dict[str, dict[str, Any]]] | None, BeforeValidator(_policy)]


def pixels(size: str) -> tuple[int, int]:
    """`"224x298"` -> `(224, 298)`: height, width. Of a pack's key, `"224x298-head+wheel"`, those of one region."""
    height, width = size.partition("-")[0].split("x")
    return int(height), int(width)


def key_of(size: str, regions: list[str]) -> str:
    """Name the pack that holds these regions of each photo, each resized to `size`: `224x298`, or `224x298-whole+head`."""
    return size if regions == [WHOLE] else f"{size}-{'+'.join(regions)}"


def regions_of(key: str) -> list[str]:
    """The regions in the pack of this key, in their order."""
    _, dash, names = key.partition("-")
    return names.split("+") if dash else [WHOLE]


class InputSettings(Strict):
    """Field of view: each region is resized to `pack`, networks see `size` cut from it, at one scale everywhere."""

    pack: Size  # of each region; a region of another shape is squashed or stretched to this one
    size: Size  # what the network takes of each region; equal to `pack` means all of it
    crop: Literal["random", "centre"] = "random"  # in training: the HDF5 guides' random patch, or the centre view
    regions: Regions = [WHOLE]  # by name, from the data set's YAML; several share a trunk and have a head each

    @property
    def key(self) -> str:
        """Names the pack that holds what this asks for."""
        return key_of(self.pack, self.regions)


class AugmentSettings(Strict):
    policy: Policy = None  # a file in configs/policies, or the list of transforms itself
    mirror: Literal["none", "keep", "swap"] = "none"  # half the images; labels kept, or c1/c3-like pairs swapped
    mix: Literal["none", "mixup", "cutmix", "splice"] = "none"  # images made of two of the fold's: vision/mix.py
    mix_share: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the training images in each epoch
    mix_alpha: Annotated[float, Field(ge=0.01, le=100)] | None = (
        None  # of the Beta(alpha, alpha) that shares come from; null: the papers' for ImageNet, 0.2 for mixup, 1 for cutmix
    )

    @property
    def beta(self) -> float:
        """`mix_alpha`, or its default for this kind of mixing."""
        return self.mix_alpha or {"mixup": 0.2}.get(self.mix, 1.0)

    @model_validator(mode="after")
    def _fits(self) -> "AugmentSettings":
        if self.mix_alpha is not None and self.mix not in ("mixup", "cutmix"):
            raise ValueError(f"mix_alpha belongs to mix: mixup or cutmix, got mix: {self.mix}; leave it out")
        return self


class HeadSettings(Strict):
    """What stands on the trunk: pooling, hidden layers if any, a new softmax."""

    pooling: Literal["average", "flatten"] = "average"  # flatten keeps where things are, and needs the input size fixed
    dense: list[Annotated[int, Field(ge=1, le=65_536)]] = []  # units of hidden ReLU layers between pooling and softmax
    normalization: bool = False  # batch normalisation after each hidden layer's ReLU
    dropout: Share = 0.2  # after each hidden layer; with none, before the softmax
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # L2 on the head's kernels
    auxiliary: Annotated[float, Field(ge=0)] = 0.3  # weight of each auxiliary classifier's loss, where there are any


class Stage(Strict):
    """One stretch of training; what it leaves out comes from `train`."""

    freeze_until: Boundary = (
        None  # layer or block, that many layers, that share of them, `head` (the whole trunk), or null
    )
    fit: Literal["gradient", "logistic"] = "gradient"  # logistic: solve for the softmax on features computed once
    l2: Penalties = L2  # of logistic regression: the one that does best on inner driver folds is taken
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    learning_rate: Rate | None = None
    rate_factors: dict[str, Factor] = {}  # layer or block: factor on the rate of all up to and including it
    # normalisation of layers that learn; default: frozen if pretrained, else train. Their dropout follows: none with `frozen`
    normalization: Literal["frozen", "train", "re-estimated"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Stage":
        if self.fit == "gradient":
            if self.l2 != L2:
                raise ValueError(
                    "l2 belongs to fit: logistic; for kernels' decay see head.weight_decay, train.weight_decay"
                )
            return self
        if self.freeze_until != "head":
            raise ValueError("fit: logistic trains the softmax alone and needs freeze_until: head")
        if self.epochs or self.learning_rate or self.rate_factors or self.normalization:
            raise ValueError("fit: logistic takes no epochs, learning_rate, rate_factors or normalization")
        return self


def _named_kind(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


class SplitSettings(Strict):
    """Which drivers each fit leaves out; `splits: all` is short for `splits: {kind: all}`. Only folds give an out-of-fold score."""

    kind: Literal["folds", "subsets", "all"] = "folds"  # the fold file's; many overlapping draws; nobody left out
    count: Annotated[int, Field(ge=1, le=1000)] | None = None  # fits; null: 10 subsets, 1 on all. Folds have theirs
    hold_out: Annotated[int, Field(ge=1)] | None = None  # drivers that each subset leaves out; null: 4

    @model_validator(mode="after")
    def _fits(self) -> "SplitSettings":
        if self.kind == "folds" and self.count is not None:
            raise ValueError("count belongs to subsets and all; the number of folds is the data set's")
        if self.kind != "subsets" and self.hold_out is not None:
            raise ValueError("hold_out belongs to kind: subsets")
        return self

    @property
    def held_out(self) -> int:
        """Drivers that each subset leaves out."""
        return self.hold_out or 4  # of 26, about what one of six folds holds

    @property
    def scored(self) -> bool:
        """Whether each driver is predicted by exactly the one model that has not seen them."""
        return self.kind == "folds"

    @property
    def unscored(self) -> str:
        """Why there is no out-of-fold score, in words."""
        return "trained on all drivers" if self.kind == "all" else "trained on overlapping subsets of the drivers"

    def fits(self, folds: int) -> int:
        """Number of models, where the data set has so many folds."""
        return {"folds": folds, "subsets": self.count or 10, "all": self.count or 1}[self.kind]


class PseudoSettings(Strict):
    """Images without labels with what teachers make of them, learnt from beside the labelled images."""

    runs: list[Name] = []  # finished runs as teachers: their mean counts
    taught: Name | None = None  # or what `make teach` wrote under this name: runs blended, balanced, smoothed
    # of a fold's held-out drivers too (or alone) the student sees the images, never a label: as it does of test drivers
    images: Literal["test", "held_out", "both"] = "test"
    views: Literal["auto", "centre", "five_crop", "ten_crop"] = "auto"  # as in ensembles
    kind: Literal["soft", "hard"] = "soft"  # the teachers' probabilities, or their first choice as if it were true
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0  # least top probability of an image that is taken; 0 takes all
    ratio: Factor = 1.0  # at most so many per labelled image, the most confident first
    balance: bool = False  # share that number out evenly among the classes that the teachers name
    weight: Factor = 1.0  # in the loss, of one such image; a labelled one has 1

    @model_validator(mode="after")
    def _once(self) -> "PseudoSettings":
        if len(set(self.runs)) < len(self.runs):
            raise ValueError("runs must name each teacher once")
        if bool(self.runs) == bool(self.taught):
            raise ValueError("must have either runs or taught")
        return self


class TrainSettings(Strict):
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 4  # of each stage that does not say its own
    learning_rate: Rate = 0.001  # the guides' SGD rate, a tenth of training from scratch
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: Share = 0.9  # SGD, with Nesterov's correction
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # decoupled, on kernels, in every optimizer
    schedule: Literal["constant", "cosine"] = "cosine"  # within each stage, down to 0
    warmup: Share = 0.0  # share of a stage's steps with a rising rate
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    label_smoothing: Share = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    select: Literal["last", "best"] = "last"  # best: the epoch that scores best on the held-out drivers ("selected on")
    patience: Annotated[int, Field(ge=1)] | None = (
        None  # end a stage after so many epochs without a better held-out loss
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    cache_trunk: Annotated[int, Field(ge=1, le=1000)] | None = (
        None  # compute frozen layers once per image and augmentation draw, with so many draws; null: in every step
    )
    cache_dtype: Literal["float16", "float32"] = "float16"  # of cached feature maps; pooled features are float32
    workers: Annotated[int, Field(ge=0, le=256)] = 0  # augmentation threads, 0: one per core; never changes a result
    stages: Annotated[list[Stage], Field(min_length=1)] = [Stage()]
    stop_after: Annotated[int, Field(ge=1)] | None = (
        None  # epochs of the last stage, whose schedule stays that of its `epochs`; null: all
    )
    splits: Annotated[SplitSettings, BeforeValidator(_named_kind)] = SplitSettings()
    pseudo: PseudoSettings | None = None

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        last = self.stages[-1]
        if self.stop_after and (last.fit == "logistic" or self.stop_after > (last.epochs or self.epochs)):
            raise ValueError("stop_after must be at most the last stage's epochs, and needs fit: gradient there")
        if self.splits.kind == "all" and self.looks_at_held_out:
            raise ValueError("splits: all holds nobody out; select must be last, and patience null")
        if self.pseudo and self.pseudo.images != "test" and self.splits.kind == "all":
            raise ValueError("splits: all holds nobody out; pseudo.images must be test")
        if self.pseudo and all(stage.fit == "logistic" for stage in self.stages):
            raise ValueError("pseudo needs a stage with fit: gradient; logistic regression takes labelled images alone")
        return self

    @property
    def planned(self) -> list[int]:
        """Epochs of each stage, as far as it goes."""
        epochs = [self.epochs_of(stage) for stage in self.stages]
        return [*epochs[:-1], self.stop_after or epochs[-1]]

    def epochs_of(self, stage: Stage) -> int:
        """Epochs that a stage's schedule is made for; a head that is solved for counts as one."""
        return 1 if stage.fit == "logistic" else stage.epochs or self.epochs

    @property
    def looks_at_held_out(self) -> bool:
        """Whether the held-out drivers decide which weights are kept, so that their loss flatters ("selected on")."""
        return self.select == "best" or self.patience is not None


class PredictSettings(Strict):
    views: ViewSets = ["ten_crop"]  # one or several; sets that are made of their views are written too
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 20  # crops in one forward pass; few suit a CPU, hundreds a GPU


class ModelSettings(Strict):
    """`configs/models/<name>.yaml`."""

    backbone: Annotated[str, AfterValidator(lambda name: _known(list(BACKBONES), "backbone", name))]
    weights: Literal["imagenet", "none"] = "imagenet"
    cut: str | None = None  # last layer kept of the backbone; null: all of it
    mean: Literal["weights", "dataset"] = "weights"  # what is subtracted: the weights' own mean, or this data set's
    input: InputSettings
    head: HeadSettings = HeadSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    predict: PredictSettings = PredictSettings()

    @property
    def honest_views(self) -> ViewSet:
        """`ten_crop` where training mirrored too, else `five_crop`: mirrored views of a network that never saw one mislead it."""
        return "ten_crop" if self.shows_mirrored else "five_crop"

    @property
    def shows_mirrored(self) -> bool:
        """Whether training shows mirrored images; logistic regression on the centre view alone does not."""
        centre_alone = self.train.cache_trunk is None and all(stage.fit == "logistic" for stage in self.train.stages)
        return self.augment.mirror != "none" and not centre_alone

    @model_validator(mode="after")
    def _fits(self) -> "ModelSettings":
        smallest = BACKBONES[self.backbone].smallest
        size, pack = pixels(self.input.size), pixels(self.input.pack)
        if min(size) < smallest:
            raise ValueError(f"input.size must be at least {smallest} px on each side for {self.backbone}")
        if size[0] > pack[0] or size[1] > pack[1]:
            raise ValueError("input.size must fit into input.pack")
        if self.weights == "none" and self.train.stages[0].freeze_until is not None:
            raise ValueError(
                "train.stages.0.freeze_until must be null with weights: none (random layers would stay random)"
            )
        if self.augment.mix != "none" and self.train.cache_trunk is not None:
            raise ValueError(
                f"augment.mix: {self.augment.mix} needs train.cache_trunk: null (every fold shares the cached images, and a mixed "
                "one would carry held-out drivers into training)"
            )
        if self.head.dense and any(stage.fit == "logistic" for stage in self.train.stages):
            raise ValueError("fit: logistic solves for a softmax alone; head.dense must be empty, or fit: gradient")
        return self


BlendName = Literal["mean", "geometric", "weighted", "weighted_geometric", "greedy", "per_class"]
BLEND_NAMES: tuple[BlendName, ...] = get_args(BlendName)
Calibration = Literal["none", "temperature", "bias"]
CALIBRATION_NAMES: tuple[Calibration, ...] = get_args(Calibration)


class ChainSettings(Strict):
    """What happens to the members' probabilities on their way to one row per image."""

    blend: BlendName = "mean"  # what no label decides; make blends says what the others score
    balance: Features | None = None  # features that tell drivers apart: classes are balanced within each; null: not
    neighbours: NeighbourSettings | None = None  # null: each image by itself, as single photos in use are
    calibrate: Calibration = "none"  # likewise
    clip: Clip = FLOOR  # lowest probability of a submission, or fitted out of fold

    @property
    def features(self) -> list[str]:
        """Where images are compared with each other, each once."""
        asked = [self.balance, self.neighbours.features if self.neighbours else None]
        return list(dict.fromkeys(text for text in asked if text is not None))


class EnsembleSettings(ChainSettings):
    """`configs/ensembles/<name>.yaml`."""

    runs: Annotated[list[Name], Field(min_length=1)]
    views: Literal["auto", ViewSet] = "auto"  # auto: ten_crop where training mirrored, else five_crop


def _begins_with_head(depths: list[str]) -> list[str]:
    if depths[:1] != ["head"] or len(set(depths)) < len(depths):
        raise ValueError("must begin with head, which the others are compared with, and name each depth once")
    return depths


class StudyModel(Strict):
    """One network of a study: where to freeze it, `head` being its features alone."""

    backbone: str
    cut: str | None = None
    freeze_until: Annotated[list[str], AfterValidator(_begins_with_head)]


class StudySettings(Strict):
    """`configs/studies/<name>.yaml`: the same training for several networks, each frozen to several depths."""

    settings: dict[str, Any]  # what every run has in common, as in a model's YAML
    head: dict[str, Any]  # the first stage, which every run begins with
    models: dict[Name, StudyModel]

    def runs(self, study: str) -> dict[str, ModelSettings]:
        """Settings of each run by its name."""
        made = {}
        for name, model in self.models.items():
            for depth in model.freeze_until:
                stages = [self.head] if depth == "head" else [self.head, {"freeze_until": depth}]
                content = {**self.settings, "backbone": model.backbone, "cut": model.cut}
                content["train"] = {**(content.get("train") or {}), "stages": stages}
                made[f"{study}-{name}-{depth}"] = parse(
                    ModelSettings, content, f"study {study}: {name} frozen to {depth}"
                )
        return made
