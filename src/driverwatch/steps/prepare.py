"""From photos to packs: draw or pick a competition, fold it by driver, pack it."""

import re
from pathlib import Path

from driverwatch.data import competition, folds, pack, sample
from driverwatch.errors import InputError
from driverwatch.settings import SIZE, ModelSettings, load
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.terminal import say


def draw(context: Context, options: sample.SampleOptions, force: bool) -> None:
    sample.write(options, context.settings, context.data, force)


def pick_subset(context: Context, source: Path) -> None:
    from driverwatch.data import subset

    subset.pick(context.settings, source, context.data)
    say(f"next: make folds DATASET={context.dataset}")


def make_folds(context: Context, force: bool) -> None:
    """Write the fold file, or hold the one there against the data; the whole data set is checked either way."""
    table, _ = competition.read_both(context.settings, context.data)
    path = context.places.folds
    if path.is_file() and not force:
        found = folds.read(path, table)
        if found.count != context.settings.folds:
            raise InputError(
                f"{path}: holds {found.count} folds, the dataset's YAML asks for {context.settings.folds}; "
                "change the YAML, or make folds FORCE=1 (runs on the old folds then no longer count)"
            )
        return say(
            f"{path}: fits the data ({found.count} folds, {len(found.frame)} drivers, digest {found.digest[:12]})"
        )
    made = folds.make(table, context.settings.folds)
    folds.write(made, path)
    sums = made.frame.drop(columns="driver").groupby("fold").sum()
    sums.insert(0, "drivers", made.frame.groupby("fold").size())
    return say(
        f"{path}: {made.count} folds of {len(made.frame)} drivers, digest {made.digest[:12]}\n{sums.to_string()}"
    )


def make_packs(context: Context, size: str | None, model: str | None, overrides: str, force: bool) -> None:
    """Pack training and test images at `size`, or at the size that `model` asks for."""
    if size is None:
        if model is None:
            raise InputError("pack: expected SIZE=<height>x<width> or MODEL=<name>")
        size = load(ModelSettings, CONFIGS / "models", model, overrides).input.pack
    elif not re.fullmatch(SIZE, size):
        raise InputError(f"SIZE={size}: expected <height>x<width> in pixels, like 180x240")
    folder = context.places.pack(size)
    if (
        not context.data.is_dir()
        and all((folder / f"{kind}.json").is_file() for kind in ("train", "test"))
        and not force
    ):
        return say(f"{folder}: kept; {context.data} is not here to compare it with")
    train, test = competition.read_both(context.settings, context.data)
    digest = folds.read(context.places.folds, train).digest
    pack.write(train, context.data, folder, "train", size, digest, force)
    return pack.write(test, context.data, folder, "test", size, digest, force)
