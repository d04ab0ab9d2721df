"""Settings of a model: every default once, with its unit or reason on the line.

A model's YAML says only what differs from the recommended recipe, `configs/recommended.yaml`, over which it is read.
"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import Strict, named_file, overridden, parse, read_yaml
from driverwatch.config.training import Boundary, TrainSettings
from driverwatch.config.types import (
    NAME,
    WHOLE,
    EngineName,
    Regions,
    Share,
    Size,
    TtaSet,
    TtaSets,
    key_of,
    known_name,
    pixels,
)
from driverwatch.errors import InputError

Transforms = list[dict[str, dict[str, Any]]]


RECIPE = "recommended.yaml"  # beside the folder of models
Content = dict[str, Any]  # settings as plain data


class ModelFile(Strict):
    """What a model's YAML, or `SET=`, may say beside its settings: it is written out in them before they are checked."""

    # what the file is read over: the recipe in configs/recommended.yaml, or none, for settings that must not move with it
    base: Literal["recommended", "none"] = "recommended"
    # freeze point of every stage that names none of its own, such as the recipe's second one
    freeze_until: Boundary = None


KEYS = tuple(ModelFile.model_fields)


def transforms(content: object) -> Transforms:
    """A preset's list of one transform each as plain data; keywords left out are {}.

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


def _preset(content: object) -> object:
    if content is None or (isinstance(content, str) and re.fullmatch(NAME, content)):
        return content
    if isinstance(content, str):
        raise ValueError("must be the name of a file in configs/presets, or a list of transforms")
    return transforms(content)


Preset = Annotated[str | Transforms | None, BeforeValidator(_preset)]


class InputSettings(Strict):
    """Field of view: each region is resized to `pack`, networks see `size` cut from it, at one scale everywhere."""

    pack: Size  # of each region; a region of another shape is squashed or stretched to this one
    size: Size  # what the network takes of each region; equal to `pack` means all of it
    crop: Literal["random", "centre"] = "random"  # in training: the HDF5 guides' random patch, or the centre view
    regions: Regions = [WHOLE]  # by name, from the data set's YAML; several share a backbone and have a head each

    @property
    def key(self) -> str:
        """Names the pack that holds what this asks for."""
        return key_of(self.pack, self.regions)


class AugmentSettings(Strict):
    """What training does to images, in this order: the preset, the patch, mixing, the flip."""

    preset: Preset = None  # a file in configs/presets, or the list of transforms itself
    # half the images; labels kept, or c1/c3-like pairs swapped
    hflip: Literal["none", "keep_labels", "swap_left_right"] = "none"
    # images made of two of the fold's: data/mix.py
    mix: Literal["none", "mixup", "cutmix", "same_class_halves"] = "none"
    mix_prob: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the training images in each epoch
    # of the Beta(alpha, alpha) that shares come from; null: the papers' for ImageNet, 0.2 for mixup, 1 for cutmix
    mix_alpha: Annotated[float, Field(ge=0.01, le=100)] | None = None

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
    """What stands on the backbone: pooling, hidden layers if any, a new softmax."""

    pooling: Literal["average", "flatten"] = "average"  # flatten keeps where things are, and needs the input size fixed
    dense: list[Annotated[int, Field(ge=1, le=65_536)]] = []  # units of hidden ReLU layers between pooling and softmax
    normalization: bool = False  # batch normalisation after each hidden layer's ReLU
    dropout: Share = 0.2  # after each hidden layer; with none, before the softmax
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # L2 on the head's kernels
    auxiliary: Annotated[float, Field(ge=0)] = 0.3  # weight of each auxiliary classifier's loss, where there are any


PROCESSOR_CROPS = 20  # in one forward pass: two images' ten crops
ACCELERATOR_CROPS = 640


class PredictSettings(Strict):
    """What `make train` predicts once a fold is trained; decides no weights, so it is no part of a run's identity."""

    tta: TtaSets = ["ten_crop"]  # one or several; sets that are made of their views are written too
    # crops in one forward pass, of several images together; auto: 20 on a processor, 640 on an accelerator. Where memory is
    # too small for a pass, it is halved and prediction goes on. Results differ by rounding alone
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = "auto"
    # packed: raw pixels in the pack; streamed: decoded from their files in each pass, so that the pack takes no disk; auto: as
    # the pack that is there, else packed where all test images take at most 4 GB and both packs half of the free disk
    test_images: Literal["auto", "packed", "streamed"] = "auto"
    # what computes predictions, embeddings and cached features; auto: OpenVINO in float32 on a processor where it is installed
    # (make setup EXTRAS=openvino) and 10,000 forward passes or more pay for converting the network, else Keras
    engine: EngineName = "auto"
    test: bool = True  # the test images too; false: validation drivers alone, as a search does (`make predict` resumes)


class ModelSettings(Strict):
    """`configs/models/<name>.yaml`, read over `configs/recommended.yaml`; the defaults below hold where neither says anything."""

    file_keys: ClassVar[tuple[str, ...]] = tuple(ModelFile.model_fields)
    # what the backbone is: one line of backbones.csv (`make backbones` lists them)
    backbone: Annotated[str, AfterValidator(lambda name: known_name(list(BACKBONES), "backbone", name))]
    weights: Literal["imagenet", "none"] = "imagenet"  # none: random, so that nothing may be frozen at first
    truncate_at: str | None = None  # last layer kept of the backbone; null: all of it
    mean: Literal["weights", "dataset"] = "weights"  # what is subtracted: the weights' own mean, or this data set's
    # what layers compute in; weights stay float32. auto: float32 or mixed_bfloat16, by a few timed steps before a run begins,
    # which then keeps it. On processors with AMX, bfloat16 quickens dense convolutions and slows depthwise ones
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = "float32"
    # where settings, epochs, scores and checksums are copied to (make setup EXTRAS=tracking); never changes a result
    tracking: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    input: InputSettings
    head: HeadSettings = HeadSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    predict: PredictSettings = PredictSettings()

    @property
    def default_tta(self) -> TtaSet:
        """`ten_crop` where training flipped too, else `five_crop`: flipped views of a network that never saw one mislead it."""
        return "ten_crop" if self.trains_with_flips else "five_crop"

    @property
    def trains_with_flips(self) -> bool:
        """Whether training shows flipped images; logistic regression on the centre view alone does not."""
        probes = all(stage.fit == "linear_probe" for stage in self.train.stages)
        return self.augment.hflip != "none" and not (probes and self.train.augmentation_passes is None)

    @classmethod
    def from_file(cls, content: dict[str, Any], path: Path, overrides: str) -> dict[str, Any]:
        """A model's YAML over the recommended recipe, with `SET=`'s overrides."""
        return overridden(over_recipe(content, path, overrides), picked(overrides, False), cls)

    @model_validator(mode="after")
    def _fits(self) -> "ModelSettings":
        smallest = BACKBONES[self.backbone].smallest
        size, pack = pixels(self.input.size), pixels(self.input.pack)
        if min(size) < smallest:
            raise ValueError(f"input.size must be at least {smallest} px on each side for {self.backbone}")
        if size[0] > pack[0] or size[1] > pack[1]:
            raise ValueError("input.size must fit into input.pack")
        if self.weights == "none" and self.train.stages[0].freeze_until is not None:
            why = "random layers would stay random"
            raise ValueError(f"train.stages.0.freeze_until must be null with weights: none ({why})")
        if self.augment.mix != "none" and self.train.augmentation_passes is not None:
            why = "every fold shares the cached images, and a mixed one would carry validation drivers into training"
            raise ValueError(f"augment.mix: {self.augment.mix} needs train.augmentation_passes: null ({why})")
        if self.head.dense and any(stage.fit == "linear_probe" for stage in self.train.stages):
            raise ValueError("fit: linear_probe solves for a softmax alone; head.dense must be empty, or fit: gradient")
        return self


def read_preset(folder: Path, preset: str | Transforms | None) -> tuple[str, Transforms]:
    """Where a preset stands, for sentences about it, and its transforms; none of them is tried.

    Args:
        preset: a file's name in `folder`, the transforms themselves, or None, the empty preset.

    Raises:
        InputError: no such file, or anything but a list of transforms in it.
    """
    where, content = "augment.preset", preset or []
    if isinstance(preset, str):
        path = named_file(folder, preset, "augment.preset: {path} does not exist")
        where, content = str(path), read_yaml(path)
    try:
        return where, transforms(content)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def over_recipe(content: Content, path: Path, overrides: str) -> Content:
    """A model's settings over the recommended recipe: its section `from_scratch` with `weights: none`, else `fine_tuning`.

    Args:
        content: the YAML of the model, at `path`.
        overrides: of `SET=`; only `weights` and the keys of `ModelFile` are looked at.

    Raises:
        InputError: such a key holds something else, no stage takes the freeze point, or the recipe's file lacks the section.
    """
    said = overridden({}, picked(overrides, True))
    passed_by = ("freeze_until",) if said.get("weights") == "none" else ()  # nothing random may be frozen
    asked = {key: content[key] for key in KEYS if key in content and key not in passed_by}
    asked |= {key: said[key] for key in KEYS if key in said}
    file = parse(ModelFile, asked, str(path))
    made = {key: value for key, value in content.items() if key not in KEYS}
    if file.base == "recommended":
        scratch = said.get("weights", content.get("weights")) == "none"
        made = merged(_section(path.parent.parent / RECIPE, "from_scratch" if scratch else "fine_tuning"), made)
    return _frozen(made, file.freeze_until, path) if "freeze_until" in asked else made


def picked(overrides: str, early: bool) -> str:
    """What of `SET=` `over_recipe` looks at (`early`), or what it has not taken of it."""
    keys = (*KEYS, "weights") if early else KEYS
    return " ".join(one for one in overrides.split() if (one.partition("=")[0] in keys) is early)


def _section(path: Path, name: str) -> Content:
    if not path.is_file():
        raise InputError(f"{path}: is not there; restore it (git checkout), or say base: none in the model's YAML")
    sections = read_yaml(path)
    if not isinstance(sections, dict) or not isinstance(sections.get(name), dict):
        raise InputError(f"{path}: expected settings of a model below {name}:")
    return dict(sections[name])


def merged(below: Content, above: Content) -> Content:
    """Two levels of settings as one: mappings key by key (a null is an empty one), all else (lists too) as `above` has it."""
    shared = below.keys() & above.keys()
    both = {key for key in shared if isinstance(below[key], dict) and isinstance(above[key], dict | None)}
    return {**below, **above, **{key: merged(below[key], above[key] or {}) for key in both}}


def _frozen(content: Content, until: str | int | float | None, path: Path) -> Content:
    """The same settings with a freeze point in every stage that names none. Raises `InputError` if each names its own."""
    train = content.get("train") or {}
    stages = train.get("stages", [{}]) if isinstance(train, dict) else None
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return content  # refused for that
    if all("freeze_until" in stage for stage in stages):
        last = len(stages) - 1
        way_out = f"set train.stages.{last}.freeze_until"
        raise InputError(f"{path}: freeze_until is for stages that name none, and each does; {way_out}")
    return {**content, "train": {**train, "stages": [{"freeze_until": until, **stage} for stage in stages]}}
