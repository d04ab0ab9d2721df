"""A run as one file for others: the fold models' mean, preprocessing, class names and origin inside."""

import time
from pathlib import Path
from typing import Any, get_args

import numpy as np

from driverwatch.config.types import ExportFormat, pixels
from driverwatch.data.context import Context
from driverwatch.data.tta import cut, tta_set
from driverwatch.errors import InputError, nearest
from driverwatch.inference.predict_run import FoldModels, fold_models
from driverwatch.io.atomic import locked, replacing, scratch_beside
from driverwatch.io.console import ending, say
from driverwatch.io.manifests import provenance

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
KINDS = dict(zip(FORMATS, (".keras", ".onnx", ".xml", ".tflite"), strict=True))
TRIED = 4  # images on which a written file is held against the line
TOLERANCE = 1e-5  # largest difference of a probability


def export(
    context: Context, name: str, fold: int | None, file: Path | None, force: bool, form: str | None = None
) -> None:
    """Write a run's fold models as one file (`fold`: one of them alone), read it back and hold it against the line.

    Args:
        form: of `FORMATS`; None: as the name of `file` ends, else keras.

    Raises:
        InputError: nothing finished, a file of another kind, one that is there already, a file that gives other probabilities.
    """
    models = fold_models(context, name, fold)
    kind = _kind(file, form)
    path = file or context.places.export(name if fold is None else f"{name}-fold{fold}").with_suffix(kind)
    if file is not None and file.exists() and not force:
        raise InputError(f"FILE={path}: is there already; choose another name, or replace it with FORCE=1")
    from driverwatch.models import backend

    backend.start()
    with locked(path.parent, f".{path.name}.lock", sweep=()), scratch_beside(path) as scratch:
        made = scratch / f"model{kind}"
        difference, seconds = _write(models, made, facts(context, models))
        if not difference <= TOLERANCE:  # NaN, too
            raise InputError(
                f"{path}: not written, since it would give other probabilities than the line, by up to {difference:.1g}; this is "
                "a defect: please report it with the model's name"
            )
        _take(made, path)
    said = f"on {TRIED} images it gives the line's own probabilities within {difference:.0e}"
    say(f"{path}: {models.title}; {said}, {1000 * seconds / TRIED:.1f} ms an image")
    say(how_to(models))
    ending(then=[f"make serve RUN={name} DATASET={context.dataset}"])


def _kind(file: Path | None, form: str | None) -> str:
    """How the file's name ends."""
    if form is not None and form not in KINDS:
        raise InputError(f"FORMAT={form}: expected one of {', '.join(KINDS)}{nearest(form, list(KINDS))}")
    if file is None:
        return KINDS["keras" if form is None else form]
    kind = file.suffix.lower()
    if kind not in KINDS.values() or (form is not None and kind != KINDS[form]):
        expected = [KINDS[form]] if form is not None else list(KINDS.values())
        raise InputError(f"FILE={file}: expected a name that ends in {' or '.join(expected)}")
    return kind


def _take(made: Path, path: Path) -> None:
    """Give a file its name; OpenVINO's weights come first, so that what a kill leaves is no pair of two exports."""
    if path.suffix.lower() == KINDS["openvino"]:
        path.unlink(missing_ok=True)
        with replacing(path.with_suffix(".bin")) as temporary:
            made.with_suffix(".bin").replace(temporary)
    with replacing(path) as temporary:
        made.replace(temporary)


def _write(models: FoldModels, file: Path, said: dict[str, Any]) -> tuple[float, float]:
    """Write a file, read it back and try it; the largest difference of a probability, and seconds for all images tried."""
    from driverwatch.inference import exported_model as exporting
    from driverwatch.inference.class_activation import networks_of_run, probabilities

    settings = models.run.settings
    parts = settings, len(models.classes), models.mean, models.files
    exporting.write(exporting.joined(*parts), file, said)
    images = _images(models)
    answer, times = exporting.read(file), []
    for _ in range(3):  # the first of them may compile
        start = time.perf_counter()
        found = answer(images)
        times.append(time.perf_counter() - start)
    pack, size = pixels(settings.input.pack), pixels(settings.input.size)
    seen = cut(images, tta_set("centre", pack, size)[0], size, len(models.boxes))
    return float(np.abs(found - probabilities(networks_of_run(*parts), seen)).max()), min(times)


def _images(models: FoldModels) -> np.ndarray:
    """Pictures to try a file on: uint8 (TRIED, R * H, W, 3), coarse patches of random colours."""
    height, width = pixels(models.run.settings.input.pack)
    shape = len(models.boxes) * height, width
    patches = np.random.default_rng(0).integers(0, 256, (TRIED, -(-shape[0] // 8), -(-shape[1] // 8), 3), np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]


def facts(context: Context, models: FoldModels) -> dict[str, Any]:
    """What lies inside of the file, JSON-able: classes in output order, what the input must be, where it comes from."""
    run = models.run
    height, width = pixels(run.settings.input.pack)
    made = [run.manifest(number) for number in models.numbers]
    return {
        "run": run.name,
        "dataset": context.dataset,
        "title": context.settings.title,
        "classes": models.classes,
        "input": {
            "shape": [len(models.boxes) * height, width, 3],
            "channels": "RGB",
            "range": [0, 255],
            "region_size": [height, width],
            "regions": {name: list(box) for name, box in run.regions.items()} or {"whole": [0.0, 0.0, 1.0, 1.0]},
            "how_to": how_to(models),
        },
        "output": "probabilities, one per class in the order of `classes`; rows sum to 1",
        "folds": models.numbers,
        "weights": [one["weights"] for one in made],
        "trained_at": [one.get("commit") for one in made],
        "settings": run.settings.model_dump(),
        "origin": run.origin,
        **provenance(),
    }


def how_to(models: FoldModels) -> str:
    """What a caller must do to an image, in words."""
    height, width = pixels(models.run.settings.input.pack)
    shape = f"({len(models.boxes) * height}, {width}, 3)"
    what = "resize the whole image, whatever its shape,"
    if models.run.regions:
        boxes = "; ".join(f"{name} {list(box)}" for name, box in models.run.regions.items())
        what = f"cut these boxes, shares of height and width as [top, left, bottom, right]: {boxes}; resize each"
    stack = ", stack them from top to bottom in this order" if models.run.regions else ""
    return (
        f"decode the image as RGB, turned upright; {what} to {height} px high and {width} px wide (averaging areas, as OpenCV's "
        f"INTER_AREA){stack}; give it as {shape}, 0 to 255, uint8 or float, in a batch: scaling and centre crop are inside"
    )
