"""The backbone table: every trunk that `backbone:` can name, as plain data.

It lies on the ground floor so that settings can check names, and `--help` can print them, without Keras.
Adding a backbone is one row here and one YAML in `configs/models/`.
"""

from __future__ import annotations  # the doctor reads this table under any Python from 3.8

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Scaling:
    """What pretrained weights expect of their input: `(channels - mean) / std`, channels in the given order, from 0-255."""

    order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]  # in the given order
    std: tuple[float, float, float]


TF = Scaling("rgb", (127.5,) * 3, (127.5,) * 3)  # keras.applications mode "tf": [-1, 1]
CAFFE = Scaling("bgr", (103.939, 116.779, 123.68), (1.0,) * 3)  # mode "caffe": BGR minus ImageNet's mean
TORCH = Scaling(
    "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
)  # mode "torch": ImageNet's mean and deviation
RAW = Scaling("rgb", (0.0,) * 3, (1.0,) * 3)  # networks that scale in their own first layers
SQUEEZENET = Scaling("bgr", (104.0, 117.0, 123.0), (1.0,) * 3)  # the Caffe release of SqueezeNet v1.0


@dataclass(frozen=True)
class Backbone:
    """One row: how a trunk is built, what its ImageNet weights expect, where it may be frozen."""

    constructor: str  # dotted name; called with weights=None, include_top=False, input_shape=(h, w, 3)
    scaling: Scaling
    native: int  # px, the side the published weights were trained at
    smallest: int  # px, the smallest side it can be built for
    freeze_points: tuple[str, ...] = ()  # block ends with stable names; any other layer name works too
    weight_files: tuple[str, ...] = ()  # names looked for in WEIGHTS=<folder>, first match wins
    auxiliary: tuple[str, ...] = ()  # layers where an auxiliary classifier hangs in training
    downloads: bool = True  # whether the constructor takes weights="imagenet"
    checkpoint: str = ""  # URL of the public PyTorch checkpoint that `make convert` makes the first weight file from
    checked_by: tuple[str, str] | None = None  # URL and MD5 of its download, where Keras does not check it


# Keras names no digest for the MobileNets; these MD5s are those that a public mirror of the files states beside Keras' own
# digests of the others. They have not been held against the original here, where there is no network.
STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications"
PYTORCH = "https://download.pytorch.org/models"  # file names end with the first digits of their SHA-256


def _mixed(last: int) -> tuple[str, ...]:
    return tuple(f"mixed{i}" for i in range(last + 1))


def _fires() -> tuple[str, ...]:
    return tuple(f"fire{i}_concat" for i in range(2, 10))


def _vgg_blocks() -> tuple[str, ...]:
    return tuple(f"block{i}_pool" for i in range(1, 6))


BACKBONES: dict[str, Backbone] = {
    "inception_v3": Backbone(
        "keras.applications.InceptionV3",
        TF,
        299,
        75,
        _mixed(10),
        ("inception_v3_imagenet_to_mixed8.weights.h5", "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    ),
    "mobilenet": Backbone(
        "keras.applications.MobileNet",
        TF,
        224,
        32,
        tuple(f"conv_pw_{i}_relu" for i in range(1, 14)),
        ("mobilenet_imagenet_to_conv_dw_13.weights.h5", "mobilenet_1_0_224_tf_no_top.h5"),
        checked_by=(f"{STORAGE}/mobilenet/mobilenet_1_0_224_tf_no_top.h5", "725ccbd03d61d7ced5b5c4cd17e7d527"),
    ),
    "mobilenet_v2": Backbone(
        "keras.applications.MobileNetV2",
        TF,
        224,
        32,
        ("expanded_conv_project_BN", *(f"block_{i}_project_BN" for i in (1, 3, 6, 10, 13, 16))),
        ("mobilenet_v2_imagenet_notop.weights.h5", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        checked_by=(
            f"{STORAGE}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            "f1a68526548f7541cda07e19ba6c85f4",
        ),
    ),
    "squeezenet": Backbone(
        "driverwatch.models.squeezenet.squeezenet",
        SQUEEZENET,
        227,
        21,
        _fires(),
        ("squeezenet_v1.0_imagenet.npz",),
        downloads=False,
    ),
    "squeezenet_torch": Backbone(
        "driverwatch.models.squeezenet.squeezenet_torch",
        TORCH,
        224,
        21,
        _fires(),
        ("squeezenet_v1.0_torch_imagenet.npz",),
        downloads=False,
        checkpoint=f"{PYTORCH}/squeezenet1_0-b66bff10.pth",
    ),
    "squeezenet_v1_1": Backbone(
        "driverwatch.models.squeezenet.squeezenet_v1_1",
        TORCH,
        224,
        17,
        _fires(),
        ("squeezenet_v1.1_imagenet.npz",),
        downloads=False,
        checkpoint=f"{PYTORCH}/squeezenet1_1-b8a52dc0.pth",
    ),
    "googlenet": Backbone(
        "driverwatch.models.googlenet.googlenet",
        TF,  # what torchvision's transform_input=True makes of its own mean and deviation
        224,
        15,
        tuple(f"inception{i}" for i in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")),
        ("googlenet_imagenet.npz",),
        downloads=False,
        checkpoint=f"{PYTORCH}/googlenet-1378be20.pth",
        auxiliary=("inception4a", "inception4d"),
    ),
    "alexnet": Backbone(
        "driverwatch.models.alexnet.alexnet",
        CAFFE,  # a mean and no deviation, as the HDF5 guides; with `mean: dataset` their own
        227,
        67,
        ("drop1", "drop2", "conv3_bn", "conv4_bn", "drop5"),
        downloads=False,
    ),
    "vgg16": Backbone(
        "keras.applications.VGG16",
        CAFFE,
        224,
        32,
        _vgg_blocks(),
        ("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",),
    ),
    "vgg19": Backbone(
        "keras.applications.VGG19",
        CAFFE,
        224,
        32,
        _vgg_blocks(),
        ("vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",),
    ),
    "resnet50": Backbone(
        "keras.applications.ResNet50",
        CAFFE,
        224,
        32,
        ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",),
    ),
    "xception": Backbone(
        "keras.applications.Xception",
        TF,
        299,
        71,
        ("block4_sepconv2_bn", "block8_sepconv3_bn", "block13_sepconv2_bn", "block14_sepconv2_act"),
        ("xception_weights_tf_dim_ordering_tf_kernels_notop.h5",),
    ),
    "efficientnet_b0": Backbone(
        "keras.applications.EfficientNetB0",
        RAW,
        224,
        32,
        ("block2b_add", "block3b_add", "block4c_add", "block6d_add", "top_activation"),
        ("efficientnetb0_notop.h5",),
    ),
    "tiny": Backbone(
        "driverwatch.models.tiny.tiny", TF, 96, 32, tuple(f"stage{i}_relu" for i in range(1, 5)), downloads=False
    ),
    "tiny_separable": Backbone(
        "driverwatch.models.tiny.tiny_separable",
        TF,
        96,
        32,
        tuple(f"stage{i}_relu" for i in range(1, 6)),
        downloads=False,
    ),
}
