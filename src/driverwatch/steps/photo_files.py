"""Which photos are meant, and where the overlay of each goes."""

from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.listing import walk

PHOTOS = (".jpg", ".jpeg", ".png")
PICTURES = (".png", ".jpg", ".jpeg")  # what overlays may be written as


def photo_files(images: list[Path]) -> list[Path]:
    """Files as they are named, and of folders every JPEG and PNG below, sorted; each once.

    Raises:
        InputError: a folder without photos.
    """
    found: dict[Path, None] = {}
    for path in images:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in walk(path) if p.suffix.lower() in PHOTOS and p.is_file())
            if not inside:
                raise InputError(f"IMAGE={path}: no photo in this folder; expected {', '.join(PHOTOS)} files")
        found |= dict.fromkeys(inside)
    return list(found)


def overlay_files(heatmap: str | None, photos: list[Path], images: list[Path]) -> dict[Path, Path]:
    """Where each photo's overlay goes: HEATMAP=<file> for one photo, a folder or a pattern with {image} for any number.

    Raises:
        InputError: another kind of picture, a missing folder, one below the folders among `images`, where the next run would
            take it for a photo, one file for several photos, or a photo as target.
    """
    if heatmap is None:
        return {}
    pattern = f"{heatmap}/{{image}}.png" if Path(heatmap).is_dir() else heatmap
    targets = {photo: Path(pattern.replace("{image}", photo.stem)) for photo in photos}
    owners: dict[Path, Path] = {}
    originals = {photo.resolve() for photo in photos}
    for photo, target in targets.items():
        if target.suffix.lower() not in PICTURES:
            raise InputError(f"HEATMAP={heatmap}: expected a .png or .jpg file, or a folder that is there")
        if not target.parent.is_dir():
            raise InputError(f"HEATMAP={heatmap}: no such folder as {target.parent}; make it first")
        if inside := [str(image) for image in images if image.is_dir() and image.resolve() in target.resolve().parents]:
            raise InputError(
                f"HEATMAP={heatmap}: lies inside IMAGE={inside[0]}, and would be taken for a photo; choose another"
            )
        if target.resolve() in originals:
            raise InputError(
                f"HEATMAP={heatmap}: would be written over the photo {target}; name another file or folder"
            )
        if (other := owners.setdefault(target, photo)) != photo:
            raise InputError(
                f"HEATMAP={heatmap}: {target} would be that of {other} and of {photo}; name a folder, or a pattern like "
                "maps/{image}.png, for photos of different names"
            )
    return targets
