"""What a machine says of Keras changes no run: it is set back, refused by name, and shown by the doctor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.doctoring import Make, makes_places, says, write

from driverwatch.errors import InputError
from driverwatch.models import backend
from scripts.doctor import project

STRANGE = {
    "floatx": "float16",
    "epsilon": 0.5,
    "image_data_format": "channels_first",
    "backend": "jax",
    "nnx_enabled": True,
}


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


def test_where_keras_looks(tmp_path: Path) -> None:
    assert backend.config_file({"KERAS_HOME": "/k"}, tmp_path) == Path("/k/keras.json")
    assert backend.config_file({}, tmp_path) == tmp_path / ".keras" / "keras.json"
    for home in (None, tmp_path / "none"):
        assert backend.config_file({}, home) == Path("/tmp/.keras/keras.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"floatx": "float8"}', "floatx: 'float8' is nothing that Keras takes"),
        ('{"floatx": null}', "floatx: None"),
        ('{"epsilon": 1}', "epsilon: 1 is"),
        ('{"image_data_format": "last"}', "image_data_format: 'last'"),
        ("[1]", "expected a JSON object"),
        ('"text"', "expected a JSON object"),
    ],
)
def test_what_keras_would_fail_on_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / ".keras" / "keras.json", text)
    with pytest.raises(InputError) as error:
        backend.settle({}, tmp_path)
    assert str(error.value).startswith(f"{path}: {said}")
    assert "remove" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "{}", json.dumps(STRANGE)])
def test_everything_else_is_set_back(tmp_path: Path, text: str) -> None:
    write(tmp_path / ".keras" / "keras.json", text)
    environ = {
        "KERAS_BACKEND": "",
        "KERAS_MAX_EPOCHS": "many",
        "KERAS_MAX_STEPS_PER_EPOCH": "1",
        "KERAS_NNX_ENABLED": "1",
    }
    backend.settle(environ, tmp_path)
    assert environ == {"KERAS_BACKEND": "tensorflow", "KERAS_NNX_ENABLED": "false"}


def test_a_backend_that_cannot_train_is_refused() -> None:
    for name, more in (("theano", "expected tensorflow, jax or torch"), ("tensorflw", "did you mean tensorflow")):
        with pytest.raises(InputError, match=more):
            backend.settle({"KERAS_BACKEND": name}, None)
    environ = {"KERAS_BACKEND": "jax"}
    backend.settle(environ, None)
    assert environ["KERAS_BACKEND"] == "jax"


def test_the_doctor_shows_it(place: Make) -> None:
    s = place()
    says(project.keras_configuration(s), "ok", "float32, channels_last, on tensorflow")
    file = write(Path(s.environ["HOME"]) / ".keras" / "keras.json", json.dumps(STRANGE))
    shown = ("not followed: floatx: float16, epsilon: 0.5, image_data_format: channels_first, backend: jax", str(file))
    says(project.keras_configuration(s), "ok", *shown)
    says(
        project.keras_configuration(place(environ={"KERAS_MAX_STEPS_PER_EPOCH": "1"})),
        "ok",
        "KERAS_MAX_STEPS_PER_EPOCH=1",
    )
    says(
        project.CHECKS["Keras"](place(environ={"KERAS_BACKEND": "theano"})),
        "problem",
        "expected tensorflow",
        "unset it",
    )
    write(file, '{"floatx": "float8"}')
    says(project.keras_configuration(s), "problem", "floatx: 'float8'", "remove that line")


def test_a_command_says_it_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "keras.json", '{"epsilon": "small"}')
    program = "from driverwatch.models import backend; backend.start()"
    made = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "keras.json: epsilon: 'small' is nothing that Keras takes" in made.stderr


PROGRAM = """
import json, sys
from driverwatch.models import backend
backend.start()
import keras, numpy as np
from driverwatch.models.classifier import build
from driverwatch.config.model import ModelSettings
from driverwatch.config.loading import parse
content = {"backbone": "tiny", "weights": "none", "input": {"pack": "32x32", "size": "32x32"}}
backend.deterministic(3)
made = build(parse(ModelSettings, content, "here"), 4, (80.0,) * 3, None, load=False)
rows = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
config = keras.config
state = [config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy().name, config.backend()]
state += [config.max_epochs(), config.max_steps_per_epoch()]
dtypes = sorted({weight.dtype for weight in made.trainable_weights})
print(json.dumps({"state": state, "dtypes": dtypes, "rows": np.asarray(made(rows)).tolist()}))
"""


def computed(home: Path, **environ: str) -> dict:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KERAS_")}
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**inherited, "KERAS_HOME": str(home), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(made.stdout.splitlines()[-1])


@pytest.mark.slow
def test_numbers_are_those_of_a_machine_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    write(tmp_path / "strange" / "keras.json", json.dumps(STRANGE))
    plain = computed(tmp_path / "plain")
    assert plain["state"] == ["float32", 1e-7, "channels_last", "float32", "tensorflow", None, None]
    assert plain["dtypes"] == ["float32"]
    assert (
        computed(tmp_path / "strange", KERAS_MAX_EPOCHS="0", KERAS_MAX_STEPS_PER_EPOCH="1", KERAS_NNX_ENABLED="1")
        == plain
    )
