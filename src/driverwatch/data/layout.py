"""Where the parts of a competition lie in a folder: archives of one competition are packed in more than one way."""

import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from driverwatch.dataset_settings import DatasetSettings
from driverwatch.errors import InputError, printable

DEEPEST = 6  # folders below the one that is searched
MOST = 2000  # folders that are looked into: DATA may be a whole home folder


def parts(settings: DatasetSettings) -> dict[str, bool]:
    """Tables and image folders by their paths below the data folder, and whether each is a folder."""
    templates = (settings.train_images, settings.test_images)
    folders = (PurePosixPath(f"{template.split('{')[0]}x").parent for template in templates)
    tables = (settings.table, settings.sample_submission)
    return dict.fromkeys(tables, False) | {str(folder): True for folder in folders if folder.parts}


def absent(settings: DatasetSettings, folder: Path) -> list[str]:
    """Parts that are not where the settings say."""
    return [part for part, is_folder in parts(settings).items() if not _is_there(folder / part, is_folder)]


def _is_there(path: Path, is_folder: bool) -> bool:
    if not is_folder:
        return path.is_file()
    return path.is_dir() and [each.name for each in _inside(path)] != [path.name]  # train/train holds the classes


def _inside(folder: Path) -> list[Path]:
    """What is in a folder but for hidden things and those that a Mac adds."""
    return [each for each in folder.iterdir() if not each.name.startswith((".", "__MACOSX"))]


def top(settings: DatasetSettings, folder: Path) -> Path:
    """The folder itself, or the one below it that everything is in."""
    wanted = {PurePosixPath(part).parts[0] for part in parts(settings)}
    for _ in range(DEEPEST):
        inside = _inside(folder)
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name in wanted:
            break
        folder = inside[0]
    return folder


def found(settings: DatasetSettings, folder: Path) -> dict[str, Path]:
    """Each part's place below a folder, in its own place or in another, where there is one.

    Raises:
        InputError: two places that are as good.
    """
    places = {}
    for part, is_folder in parts(settings).items():
        if _is_there(folder / part, is_folder):
            places[part] = folder / part
        elif (nearest := _nearest(folder, PurePosixPath(part).parts, is_folder)) is not None:
            places[part] = nearest
    return places


def _nearest(folder: Path, wanted: tuple[str, ...], is_folder: bool) -> Path | None:
    """The least deep place of these last names, or else of the last name alone."""
    for names in (wanted, wanted[-1:]):
        places = [path for path in _below(folder, is_folder) if path.parts[-len(names) :] == names]
        depth = min((len(path.parts) for path in places), default=0)
        best = [path for path in places if len(path.parts) == depth]
        if len(best) > 1:
            both = " and ".join(printable(str(path.relative_to(folder))) for path in best[:4])
            raise InputError(f"{folder}: holds {'/'.join(names)} at {both}; name one in the data set's YAML")
        if best:
            return best[0]
    return None


def _below(folder: Path, is_folder: bool) -> Iterator[Path]:
    """Folders, or files, below a folder, the least deep first."""
    left, seen = deque([(folder, 0)]), 0
    while left and seen < MOST:
        place, depth = left.popleft()
        seen += 1
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:  # somebody else's
            continue
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            is_one = entry.is_dir(follow_symlinks=False)
            if is_one == is_folder and (not is_folder or _is_there(Path(entry.path), True)):
                yield Path(entry.path)
            if is_one and depth < DEEPEST:
                left.append((Path(entry.path), depth + 1))


def arranged(settings: DatasetSettings, unpacked: Path, target: Path) -> Path:
    """The folder that has every part in its place: below `unpacked`, or where parts lie elsewhere `target`, moved there.

    Whatever a kill left in `target` is made again: what was moved is missing in `unpacked`, and is unpacked again.

    Raises:
        InputError: a part that is nowhere, or in two places; nothing was moved.
    """
    source = top(settings, unpacked)
    if not absent(settings, source):
        return source
    places = found(settings, source)
    if missing := [part for part in parts(settings) if part not in places]:
        held = ", ".join(sorted(printable(each.name) for each in _inside(source))[:8]) or "nothing"
        raise InputError(f"{source}: holds no {' and no '.join(missing)}; it holds {held}")
    shutil.rmtree(target, ignore_errors=True)
    for part, place in sorted(places.items(), key=lambda pair: -len(pair[1].parts)):  # one may lie in another
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        place.rename(target / part)
    for each in _inside(source):
        if each.is_file() and not (target / each.name).exists():
            each.rename(target / each.name)
    return target


def hint(settings: DatasetSettings, data: Path) -> str:
    """Where the parts are that `data` lacks: another folder that has them all, or each with its place; empty where none is."""
    lacking = absent(settings, data) if data.is_dir() else []
    if not lacking:
        return ""
    try:
        source = top(settings, data)
        if source != data and not absent(settings, source):
            return f"the competition lies deeper: use DATA={source}"
        places = found(settings, data)
    except (InputError, OSError) as error:
        return str(error)
    moves = [f"{places[part]} belongs to {data / part}" for part in lacking if part in places]
    return f"parts lie elsewhere: {'; '.join(moves)}" if moves else ""
