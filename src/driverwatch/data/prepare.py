"""A data set's way to packs: a synthetic one or a subset of a download, its folds, and both packs of a size."""

import re
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import KEY, key_of, larger_of, pixels, regions_of
from driverwatch.data import competition, folds, pack, pack_writer, synthetic
from driverwatch.data.competition import ImageTable
from driverwatch.data.context import CONFIGS, Context, absent, open_packs, table_of
from driverwatch.data.pack_writer import InvalidImagesError, Job
from driverwatch.errors import InputError, counted, listed, printable
from driverwatch.io.atomic import locked, making, replacing, replacing_folder, write_text
from driverwatch.io.console import duration, ending, say, track
from driverwatch.io.csv_tables import cell_problems, name_problems, read_csv, read_text
from driverwatch.io.manifests import free_bytes, read_json, require_space
from driverwatch.io.paths import user_path

if TYPE_CHECKING:
    import pandas as pd

TestImages = Literal["auto", "packed", "streamed"]  # `predict.test_images`
PACKED_BYTES = 4e9  # of test images' pixels at most, else they are streamed: the competition's at 180x240 take 10.3e9
DISK_SHARE = 0.5  # of the free disk that packs may fill before test images are streamed
LESS = ', or stream test images with SET="predict.test_images=streamed"'


def pick_subset(context: Context, source: Path) -> None:
    """Copy the listed images and their table rows from `source` (a full download, same layout), whole or not at all.

    The sample submission names the listed test images, each class equally likely.

    Raises:
        InputError: no list, something in the way, or images that the download lacks or labels otherwise (all listed).
    """
    import pandas as pd

    start, settings, data = time.monotonic(), context.settings, context.data
    named, (wanted, tests) = settings.columns, _wanted(settings)
    paths = [settings.test_images.format(image=image) for image in tests]
    labelled = zip(wanted[named.label], wanted[named.image], strict=True)
    paths += [settings.train_images.format(label=label, image=image) for label, image in labelled]
    _refuse_lacking(settings, source, wanted, paths)
    with making(data):
        if data.exists():
            raise InputError(f"{data}: is there already; remove it, or name another DATA= folder")
        size = sum((source / path).stat().st_size for path in paths)
        require_space(data.parent, size, "the copy", "name a folder on a larger disk with DATA=")
        with replacing_folder(data) as partial:
            for path in track(paths, len(paths), "copy"):
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / path, partial / path)
            wanted.to_csv(partial / settings.table, index=False, lineterminator="\n")
            (partial / settings.test_images.format(image="x")).parent.mkdir(parents=True, exist_ok=True)
            sample = pd.DataFrame({named.image: tests, **dict.fromkeys(settings.classes, 1 / len(settings.classes))})
            sample.to_csv(partial / settings.sample_submission, index=False, lineterminator="\n")
    drivers = f" of {wanted[named.driver].nunique()} drivers" if named.driver else ""
    say(f"{data}: {len(wanted)} labelled images{drivers}, {len(tests)} test images")
    ending(time.monotonic() - start, None, [f"make folds DATASET={context.dataset}"])


def _wanted(settings: DatasetSettings) -> "tuple[pd.DataFrame, list[str]]":
    """The listed table rows, and names of test images: rows with neither class nor driver.

    Raises:
        InputError: no list, or one that could lead out of its folder, or nowhere.
    """
    if settings.subset is None:
        raise InputError("subset: this dataset's YAML names no list (subset: <csv>); use DATASET=statefarm_mini")
    columns, label = settings.columns.named, settings.columns.label
    rows = read_text(user_path(settings.subset), columns)[columns]
    test = (rows[[column for column in columns if column != settings.columns.image]] == "").all(axis=1)
    wanted = rows[~test]
    problems = [problem for column in columns for problem in cell_problems(wanted[column])[0]]
    problems += name_problems(rows[settings.columns.image])[0]
    problems += [f"unknown class {name}" for name in sorted(set(wanted[label]) - set(settings.classes) - {""})]
    if problems or wanted.empty:
        raise InputError(f"{settings.subset}: expected a list of images:{listed(problems or ['it names none'])}")
    return wanted, list(rows.loc[test, settings.columns.image])


def _refuse_lacking(settings: DatasetSettings, source: Path, wanted: "pd.DataFrame", paths: list[str]) -> None:
    full = read_csv(source / settings.table, settings.columns.named)[settings.columns.named]
    known, asked = ({tuple(row) for row in frame.itertuples(index=False)} for frame in (full, wanted))
    missing = sorted(" ".join(row) for row in asked - known)
    missing += [f"file {path}" for path in paths if not (source / path).is_file()]
    if missing:
        lacks = f"lacks {len(missing)} of the listed images"
        raise InputError(f"{source}: {lacks}; is it the whole download?{listed(missing)}")


def draw(context: Context, options: synthetic.SyntheticOptions, force: bool) -> None:
    """Write a synthetic competition into the context's data folder. Raises as `synthetic.write`."""
    synthetic.write(options, context.settings, context.data, force)
    ending(then=[f"make folds DATASET={context.dataset}"])


def make_folds(context: Context, force: bool, skip: bool = False) -> None:
    """Write the fold file, or hold the one there against the data; the whole data set is checked either way."""
    start = time.monotonic()
    with locked(context.places.build, ".folds.lock", sweep=(context.places.folds.parent,)):
        _make_folds(context, force, skip)
    ending(time.monotonic() - start, None, [f"make train DATASET={context.dataset} MODEL=<one of configs/models>"])


def _make_folds(context: Context, force: bool, skip: bool) -> None:
    if sentence := absent(context):
        raise InputError(sentence)
    tables = competition.read_both(context.settings, context.data)
    missing = [f"missing file {path}" for path in tables.missing]
    for problem in _refused(context, tables.problems + missing, skip):
        say(f"left out: {problem}")
    if context.settings.columns.driver is None and (force or not context.places.groups.is_file()):
        _make_groups(context, tables.train, skip)
    table, _ = _grouped(context, tables.train, skip)
    path, kind = context.places.folds, "drivers" if context.settings.columns.driver else "groups of look-alikes"
    if path.is_file() and not force:
        found = folds.read(path, table)
        if found.count != context.settings.folds:
            way_out = "change the YAML, or make folds FORCE=1 (runs on the old folds then no longer count)"
            asked = f"the dataset's YAML asks for {context.settings.folds}"
            raise InputError(f"{path}: holds {found.count} folds, {asked}; {way_out}")
        said = f"{found.count} folds, {len(found.frame)} {kind}, checksum {found.checksum[:12]}"
        return say(f"{path}: fits the data ({said})")
    made = folds.make(table, context.settings.folds)
    folds.write(made, path)
    sums = made.frame.drop(columns="driver").groupby("fold").sum()
    sums.insert(0, "drivers", made.frame.groupby("fold").size())
    said = f"{made.count} folds of {len(made.frame)} {kind}, checksum {made.checksum[:12]}"
    return say(f"{path}: {said}\n{sums.to_string()}")


def _make_groups(context: Context, train: ImageTable, skip: bool) -> None:
    """Find which training images look alike and write a group for each, once."""
    import pandas as pd

    from driverwatch.data import near_duplicates

    found, invalid = near_duplicates.hashes(list(train.frame["path"]), context.data)
    for problem in _refused(context, list(invalid.values()), skip):
        say(f"left out: {problem}")
    seen = ~np.isin(np.arange(len(found)), list(invalid))
    numbers = near_duplicates.group(found[seen], context.settings.group_distance)
    frame = pd.DataFrame({"image": train.where(seen).names, "group": near_duplicates.group_names(numbers)})
    with replacing(context.places.groups) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    say(f"{context.places.groups}: {near_duplicates.summary(numbers, context.settings.folds)}")


def _grouped(context: Context, train: ImageTable, skip: bool) -> tuple[ImageTable, list[str]]:
    """The table with a driver for every image: its own, or else the group of look-alikes that the group file names.

    Returns the table, and what to say of images that were broken when groups were made: no fold may have them.

    Raises:
        InputError: no group file, or one of other images.
    """
    path = context.places.groups
    if context.settings.columns.driver is not None:
        return train, []
    if not path.is_file():
        raise InputError(f"{path}: no group file; run make folds first")
    known = read_csv(path, ["image", "group"])
    of_image = dict(zip(known["image"], known["group"], strict=True))
    there = train.frame["image"].isin(of_image).to_numpy(bool)
    if len(of_image) < len(known) or there.sum() < len(of_image) or not (there.all() or skip):
        way_out = "restore it, or make folds FORCE=1 (runs on the old folds then no longer count)"
        raise InputError(f"{path}: names other images than the table; {way_out}")
    kept = train.where(there)
    grouped = ImageTable(kept.frame.assign(driver=kept.frame["image"].map(of_image)), train.classes)
    lost = [f"{path}: in no group, since it was broken when groups were made" for path in train.frame["path"][~there]]
    return grouped, lost


def refuse_unready(context: Context, wanted: list[ModelSettings]) -> list[ModelSettings]:
    """Those of `wanted` that images have to be packed for first; refused where the images are not here."""
    unpacked = [each for each in wanted if not (context.places.pack(each.input.key) / "train.json").is_file()]
    if unpacked and (sentence := absent(context)):
        raise InputError(sentence)
    return unpacked


def make_packs(
    context: Context, size: str | None, model: str | None, overrides: str, force: bool, skip: bool = False
) -> None:
    """Pack training and test images at `size` (with regions, `180x240-whole+head`), or as `model` asks for."""
    test_images: TestImages = "auto"
    if size is None:
        if model is None:
            raise InputError("pack: expected SIZE=<height>x<width> or MODEL=<name>")
        settings = load(ModelSettings, CONFIGS / "models", model, overrides)
        size, test_images = settings.input.key, settings.predict.test_images
    elif not re.fullmatch(KEY, size) or min(pixels(size)) < 16:
        wanted = "<height>x<width>, 16 px or more each, like 180x240, or with regions 180x240-whole+head"
        raise InputError(f"SIZE={size}: expected {wanted}")
    start, asked = time.monotonic(), size
    size, regions = size.partition("-")[0], regions_of(size)
    if len(set(regions)) < len(regions):
        raise InputError(f"SIZE={size}-{'+'.join(regions)}: expected each region once")
    size = key_of(size, regions)
    folder = context.places.pack(size)
    packed = all((folder / f"{kind}.json").is_file() for kind in pack.KINDS)
    if packed and not context.data.is_dir() and not force:
        return say(f"{folder}: kept; {context.data} is not here to compare it with")
    _pack_both(context, size, force, skip, test_images)
    # for a model `make train` asks for its pack, and resumes by itself
    train = f"make train DATASET={context.dataset} MODEL=<one with input.pack {asked}>"
    return ending(time.monotonic() - start, None, [train]) if model is None else None


def pack_missing(context: Context, size: str) -> None:
    """Pack a size that a command needs and that is not there, from the images, and say so.

    No other pack can stand in for a run's: resized once more its pixels would be others, and a pack's checksum is of the images'
    own bytes. A key that names a larger pack (`Context.packs_for_embeddings`) is made from that. Broken images are left out if they
    were of the packs that are there, since runs of both are to know the same images.

    Raises:
        InputError: the images are not there, or as `make_packs`.
    """
    start, folder = time.monotonic(), context.places.pack(size)
    others = sorted(path.parent.name for path in folder.parent.glob("*/train.json") if path.parent != folder)
    if larger := larger_of(size):
        say(f"{folder}: no such pack, and {context.data} is not here; resizing {larger}, which counts as other images")
        _resize_both(context, size, larger)
    elif not context.data.is_dir():
        beside = f" (resized again, {', '.join(others)} would give other pixels)" if others else ""
        missing = f"no pack, and {context.data} is not here to make it from{beside}"
        raise InputError(f"{folder}: {missing}; give DATA=<folder of the images>")
    else:
        say(f"{folder}: no pack yet; packing {context.data} as make pack SIZE={size} would")
        _pack_both(context, size, False, any(_left_out(folder.parent / other) for other in others))
    megabytes = sum((folder / f"{kind}.h5").stat().st_size for kind in pack.KINDS) / 1e6
    say(f"{folder}: made in {duration(time.monotonic() - start)}, {megabytes:,.1f} MB")


def _resize_both(context: Context, size: str, larger: str) -> None:
    """Both packs of a key that names a larger pack, without what that was made without."""
    table, packs = open_packs(context, larger)
    for kind in pack.KINDS:
        images, folder = table_of(packs[kind], tuple(context.settings.classes)), context.places.pack(size)
        job = Job(images, context.data, folder, kind, size, table.checksum, True, regions=context.regions(size))
        pack_writer.write(replace(job, larger=packs[kind]))


def _left_out(folder: Path) -> bool:
    """Whether packs were made without what was broken (`SKIP_INVALID=1`), as far as their manifests can be read."""
    for kind in pack.KINDS:
        with suppress(InputError):
            made = read_json(folder / f"{kind}.json")
            if made.get("left_out") or made.get("left_out_rows"):
                return True
    return False


def _pack_both(context: Context, size: str, force: bool, skip: bool, test_images: TestImages = "auto") -> None:
    """Pack test images, then training images, unless both packs are there and nothing has changed since."""
    regions = context.regions(size)  # a wrong name ends here, before any image is read
    folder = context.places.pack(size)
    found = pack.sources(context.settings, context.data, [context.places.folds, context.places.groups])
    is_kept = test_images == "auto" or pack.is_streamed(folder) == (test_images == "streamed")
    if not force and is_kept and (there := pack.images_if_unchanged(folder, found)):
        for kind, count in there.items():
            say(f"{folder / kind}.h5: up to date ({count} images)")
        return
    if sentence := absent(context):
        raise InputError(sentence)
    tables = competition.read_both(context.settings, context.data)
    train, lost = _grouped(context, tables.train, skip)
    table, problems = folds.read(context.places.folds, train), tables.problems + lost
    rows = tuple(problems)
    test = Job(tables.test, context.data, folder, "test", size, table.checksum, skip, rows, regions=regions)
    jobs = [test, replace(test, table=train, kind="train")]
    jobs[0] = replace(test, streamed=_is_streamed(jobs, test_images))
    if not problems or skip:
        written = sum(job.size_bytes for job in jobs if force or not job.path.is_file())
        less = "" if jobs[0].streamed else LESS
        require_space(folder, written, "what is packed", f"choose a smaller pack size{less}")
    _write_both(context, jobs, problems, force)
    _refuse_empty_folds(context, folder, table, pack.read(folder, "train", table.checksum, size).drivers)
    if not problems:
        pack.note(folder, found)


def _write_both(context: Context, jobs: list[Job], problems: list[str], force: bool) -> None:
    """Test images first: an image among them must not be trained on. `problems` gets what is wrong with images."""
    test_pack: Path | None = None
    skip = jobs[0].skip
    for job in jobs:
        if problems and not skip:  # nothing will be written, but all that is broken is said at once
            problems += pack_writer.invalid(job)
            continue
        try:
            pack_writer.write(replace(job, test_pack=test_pack), force)
            test_pack = job.path
        except InvalidImagesError as invalid:
            problems += invalid.problems
    _refused(context, problems, skip)


def _refuse_empty_folds(context: Context, folder: Path, table: folds.FoldTable, drivers: np.ndarray) -> None:
    """Refuse packs in `folder` without any image to train or validate a fold on; `drivers` (N,): of the packed training images."""
    for fold in range(table.count):
        if 0 in (len(part) for part in table.indices(drivers, fold)):
            raise InputError(
                f"{folder}: every image of fold {fold}'s drivers, or of all others, was left out; fix some, or lower folds: in "
                f"configs/datasets/{context.dataset}.yaml and make folds FORCE=1"
            )


def _is_streamed(jobs: list[Job], test_images: TestImages) -> bool:
    """Whether the test pack, the first of `jobs`, is to hold no pixels: as is asked, as it is, or by its size and free disk."""
    if test_images != "auto":
        return test_images == "streamed"
    if (there := pack.is_streamed(jobs[0].folder)) is not None:
        return there
    both = sum(job.size_bytes for job in jobs)
    return jobs[0].size_bytes > PACKED_BYTES or both > free_bytes(jobs[0].folder) * DISK_SHARE


def _refused(context: Context, problems: list[str], skip: bool) -> list[str]:
    """Stop for `problems`, all at once and all in a file; with `skip` return them, to be recorded.

    Raises:
        InputError: there are problems and `skip` is not set.
    """
    path = context.places.build / "problems.txt"
    if not problems or skip:
        path.unlink(missing_ok=True)
        return problems
    head = f"{context.data}: {counted(problems)}; fix, or resume without with SKIP_INVALID=1"
    try:
        write_text(path, "".join(f"{printable(problem)}\n" for problem in problems))
    except InputError:  # no place for the whole list
        raise InputError(f"{head}:{listed(problems, 50)}") from None
    raise InputError(f"{head} (all are listed in {path}):{listed(problems)}")
