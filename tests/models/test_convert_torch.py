"""The converter without PyTorch: names, axes, and every way in which a checkpoint can be another one."""

import hashlib
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from driverwatch.config.backbones import BACKBONES
from driverwatch.errors import InputError
from driverwatch.models import convert_torch
from driverwatch.models.convert_torch import LAYOUTS, converted_arrays, tensors
from driverwatch.models.convert_torch import convert as step

# parameters that torchvision states (num_params of its weights), normalisation's scale and shift among them
PUBLISHED = {"googlenet": 6_624_904, "squeezenet_torch": 1_248_424, "squeezenet_v1_1": 1_235_496}


def state(backbone: str = "squeezenet_v1_1") -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {t.source: random.normal(size=t.shape).astype(np.float32) for t in tensors(backbone)}


def test_every_row_with_a_checkpoint_has_a_conversion() -> None:
    packaged = {name for name, row in BACKBONES.items() if row.package}
    assert {name for name, row in BACKBONES.items() if row.checkpoint} == set(PUBLISHED)
    assert set(PUBLISHED) | packaged == {name for name in LAYOUTS if BACKBONES[name].weight_files}
    assert len({BACKBONES[name].weight_files[0] for name in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_parameters_are_as_many_as_published(backbone: str) -> None:
    sizes = [np.prod(t.shape) for t in tensors(backbone) if "/moving_" not in t.target]
    assert sum(sizes) == PUBLISHED[backbone]
    assert (
        len({t.source for t in tensors(backbone)})
        == len({t.target for t in tensors(backbone)})
        == len(tensors(backbone))
    )


def test_axes_are_turned() -> None:
    given = state("googlenet")
    arrays = converted_arrays(given, "googlenet", "x").arrays
    kernel = arrays["inception3a_branch2_conv2/kernel"]
    assert kernel.shape == (3, 3, 96, 128)
    assert kernel[0, 2, 5, 7] == given["inception3a.branch2.1.conv.weight"][7, 5, 0, 2]
    assert arrays["fc/kernel"][3, 900] == given["fc.weight"][900, 3]
    assert np.array_equal(arrays["conv2_bn/moving_variance"], given["conv2.bn.running_var"])
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays.values())


def test_what_a_network_here_has_no_place_for_is_left_out_and_said() -> None:
    given = state("googlenet")
    extra = {"aux1.fc1.weight": np.zeros((1, 1)), "aux2.conv.bn.num_batches_tracked": np.array(7)}
    converted = converted_arrays({**given, **extra, "conv1.bn.num_batches_tracked": np.array(7)}, "googlenet", "x")
    assert (converted.auxiliary, converted.counters) == (list(extra), ["conv1.bn.num_batches_tracked"])
    assert set(converted.arrays) == set(converted_arrays(given, "googlenet", "x").arrays)


def test_another_checkpoint_is_one_sentence_of_each_kind() -> None:
    given = state()
    del given["classifier.1.bias"]
    given["aux1.fc1.weight"] = np.zeros(3)
    given["features.0.weight"] = np.zeros((96, 3, 7, 7), np.float32)
    with pytest.raises(InputError) as error:
        converted_arrays(given, "squeezenet_v1_1", "a.pth")
    assert str(error.value).split("\n  - ") == [
        "a.pth: expected PyTorch's weights of squeezenet_v1_1:",
        "lacks classifier.1.bias",
        "has left over aux1.fc1.weight",
        "has of other shapes features.0.weight (96, 3, 7, 7), not (64, 3, 3, 3)",
    ]
    with pytest.raises(InputError, match=r"lacks conv1\.conv\.weight.* and 2\d\d more"):
        converted_arrays(state(), "googlenet", "a.pth")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_infinities(value: float) -> None:
    given = state()
    given["features.3.squeeze.bias"][3] = value
    with pytest.raises(InputError, match=r"without finite real numbers features\.3\.squeeze\.bias"):
        converted_arrays(given, "squeezenet_v1_1", "a.pth")
    with pytest.raises(InputError, match=r"without finite real numbers features\.0\.bias"):
        converted_arrays({**state(), "features.0.bias": np.zeros(64, np.int64)}, "squeezenet_v1_1", "a.pth")


def test_a_backbone_without_a_conversion() -> None:
    with pytest.raises(InputError, match=r"MODEL=googlenett: expected one of googlenet, .*did you mean googlenet\?"):
        tensors("googlenett")


class Tensor:
    """As much of PyTorch's as is read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> "Tensor":
        return self

    def numpy(self) -> np.ndarray:
        if self.array.dtype == object:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


def pretend(monkeypatch: pytest.MonkeyPatch, holds: object) -> None:
    """A PyTorch whose every file holds this."""

    def load(path: Path, map_location: str, weights_only: bool) -> object:
        assert weights_only
        assert map_location == "cpu"
        if isinstance(holds, Exception):
            raise holds
        return holds

    torch = types.ModuleType("torch")
    torch.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "squeezenet.pth"
    path.write_bytes(b"a checkpoint")
    return path


def test_the_file_is_written_whole_and_the_same_each_time(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = state()
    pretend(monkeypatch, {name: Tensor(array) for name, array in given.items()})
    target = tmp_path / "weights" / BACKBONES["squeezenet_v1_1"].weight_files[0]
    step(file, "squeezenet_v1_1", target.parent)
    assert capsys.readouterr().out == (
        f"{target}: 52 arrays of squeezenet_v1_1\n"
        f"  next   make classify MODEL=squeezenet_v1_1 WEIGHTS={target.parent} IMAGE=<image>\n"
    )
    first = target.read_bytes()
    step(file, "squeezenet_v1_1", target.parent)
    assert target.read_bytes() == first
    with np.load(target) as archive:
        assert np.array_equal(archive["fire2_squeeze1x1/bias"], given["features.3.squeeze.bias"])


def test_nothing_is_written_of_a_checkpoint_that_does_not_fit(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {name: Tensor(array) for name, array in list(state().items())[:-1]})
    with pytest.raises(InputError, match=rf"{file}: expected PyTorch's weights .*\n  - lacks classifier.1.bias"):
        step(file, "squeezenet_v1_1", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        ({"state_dict": {"a": 1}}, "expected plain tensors by name, got state_dict: a dict"),
        ({"epoch": 3}, "got epoch: a int"),
        ({3: Tensor(np.zeros(1))}, "got 3: a Tensor"),
        ({"a": Tensor(np.zeros(1, object))}, "got a: Got unsupported ScalarType BFloat16"),
        ({}, "expected a state dict .*, got dict"),
        ([Tensor(np.zeros(1))], "expected a state dict .*, got list"),
        (ValueError("Unsupported operand 149"), r"cannot be read as one \(Unsupported operand 149\)"),
    ],
)
def test_what_is_no_state_dict(file: Path, monkeypatch: pytest.MonkeyPatch, holds: object, said: str) -> None:
    pretend(monkeypatch, holds)
    with pytest.raises(InputError, match=said):
        convert_torch.read(file)


def test_checksums_in_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"a": Tensor(np.ones(2))})
    checksum = hashlib.sha256(b"x").hexdigest()
    right, wrong = tmp_path / f"googlenet-{checksum[:8]}.pth", tmp_path / "googlenet-1378be20.pth"
    for path in (right, wrong):
        path.write_bytes(b"x")
    assert np.array_equal(convert_torch.read(right)["a"], np.ones(2))
    with pytest.raises(
        InputError, match=f"its SHA-256 begins {checksum[:8]}, its name says 1378be20; fetch the file again"
    ):
        convert_torch.read(wrong)


def test_no_file_no_pytorch_no_bomb(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"FILE=.*nowhere.pth: no such file"):
        convert_torch.read(tmp_path / "nowhere.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="PyTorch is not installed"):
        convert_torch.read(file)
    monkeypatch.setattr(convert_torch, "LARGEST", 10**5)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10**6))
    with pytest.raises(InputError, match="unpacks to 1000000 bytes, expected at most 100000"):
        convert_torch.read(file)
