"""Training images made of two, each changed and cut on its own before: what the network sees shows the label's shares exactly.

Mixed before the random patch is cut, a box would be cut too, and its share be another than the label's; under an affine it would
leave the frame. Flipping comes after, of both as one, since their labels follow it together.

mixup blends two frames (Zhang et al. 2018, arXiv:1710.09412); CutMix puts a box of one into the other (Yun et al. 2019,
arXiv:1905.04899); same_class_halves puts the left part of one beside the right part of another of the same class. Where an
image is a mosaic, its regions are mixed alike: the same share, the same box, the same column in the px of each. So every region
shows as much of the partner as the label says, whatever part of the frame it is; a box of the frame would miss some of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from driverwatch.config.model import AugmentSettings
from driverwatch.data.regions import join, split

# of the width, where splices meet: outside of it, one part would hold hardly anything that decides
SEAM = (1 / 3, 2 / 3)
STREAM = 1  # keeps this randomness apart from the Augmenter's, which is seeded by (run seed, epoch, row) alone

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in px of one region: what the partner covers of each."""


@dataclass(frozen=True)
class Mixing:
    """Which images of a pack are mixed in one epoch, with whom and how; boxes are in px of what the network sees of a region.

    `partners` int (N,), the row itself where it stays as it is; `shares` float32 (N,) of the row's own label; `boxes` int32 (N, 4).
    """

    kind: str
    partners: np.ndarray
    shares: np.ndarray
    boxes: np.ndarray
    regions: int = 1  # R, how many are stacked in an image

    def mixed(self, image: np.ndarray, other: np.ndarray, row: int) -> np.ndarray:
        """Image `row` and its partner's, both as the network would see them alone, as one: uint8 (R * h, w, 3)."""
        if self.kind == "mixup":
            return blended(image, other, float(self.shares[row]))
        top, left, bottom, right = map(int, self.boxes[row])
        own, theirs = (split(np.asarray(one)[None], self.regions) for one in (image, other))
        return join(pasted(own, theirs, (top, left, bottom, right)), self.regions)[0]

    def targets(self, targets: np.ndarray) -> np.ndarray:
        """Label shares (N, C) of the whole pack -> those of the mixed images, float32 (N, C)."""
        own = self.shares[:, None]
        return (own * targets + (1 - own) * targets[self.partners]).astype(np.float32)


def blended(image: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """`share` of an image and the rest of another, uint8 (H, W, 3) each, rounded."""
    return np.rint(image * np.float32(share) + other * np.float32(1 - share)).astype(np.uint8)


def pasted(images: np.ndarray, others: np.ndarray, box: Box) -> np.ndarray:
    """Images with a box of others at the same place, uint8 (..., H, W, 3)."""
    top, left, bottom, right = box
    made = np.array(images)
    made[..., top:bottom, left:right, :] = others[..., top:bottom, left:right, :]
    return made


def cut_box(random: np.random.Generator, size: tuple[int, int], share: float) -> Box:
    """A box of the frame's own shape and 1 - `share` of its area about any point, cut off at the edges (CutMix, appendix A)."""
    sides = [length * np.sqrt(1 - share) for length in size]
    centres = [random.uniform(0, length) for length in size]
    starts, ends = (
        [round(min(max(centre + sign * side / 2, 0), length)) for centre, side, length in zip(centres, sides, size, strict=True)]
        for sign in (-1, 1)
    )  # fmt: skip
    return starts[0], starts[1], ends[0], ends[1]


def seam_box(random: np.random.Generator, size: tuple[int, int]) -> Box:
    """Everything right of a column in the middle of the frame."""
    first, last = int(np.ceil(SEAM[0] * size[1])), int(SEAM[1] * size[1])
    return 0, int(random.integers(first, max(first, last) + 1)), size[0], size[1]


def draw_mixing(
    augment: AugmentSettings,
    size: tuple[int, int],
    indices: np.ndarray,
    labels: np.ndarray,
    drivers: np.ndarray,
    seed: tuple[int, int],
    regions: int = 1,
) -> Mixing | None:
    """Draw an epoch's mixing; None where nothing is mixed.

    A row's draw depends on the seed, the row and which rows there are, never on their order or on who asks first.

    Args:
        size: height and width of what the network sees of one region.
        indices: the fold's training rows, among which all partners are found.
        labels: int (N,), of the whole pack.
        drivers: (N,), of the whole pack.
        seed: (run seed, epoch).
        regions: how many are stacked in an image.
    """
    if augment.mix == "none":
        return None
    count, indices = len(labels), np.unique(indices)
    unmixed = np.arange(count), np.ones(count, np.float32), np.zeros((count, 4), np.int32)
    made = Mixing(augment.mix, *unmixed, regions)
    pool = _same_class(indices, labels, drivers) if augment.mix == "same_class_halves" else lambda row: indices
    for row in map(int, indices):
        random = np.random.default_rng((*seed, row, STREAM))
        if random.random() >= augment.mix_prob:
            continue
        made.partners[row] = _partner(random, pool(row), row)
        if made.partners[row] != row:
            made.boxes[row], made.shares[row] = _drawn(random, augment, size)
    return made


def _drawn(random: np.random.Generator, augment: AugmentSettings, size: tuple[int, int]) -> tuple[Box, float]:
    """What the partner covers, and what that leaves of the row's own label."""
    if augment.mix == "same_class_halves":
        return seam_box(random, size), 1.0  # both are of one class
    share = float(random.beta(augment.beta, augment.beta))
    if augment.mix == "mixup":  # the larger part is the row's own, so that an epoch still shows every image
        return (0, 0, *size), max(share, 1 - share)
    top, left, bottom, right = box = cut_box(random, size, share)
    return box, 1 - (bottom - top) * (right - left) / (size[0] * size[1])


def _partner(random: np.random.Generator, pool: np.ndarray, row: int) -> int:
    """Any other of `pool`, sorted rows (M,); `row` where there is none."""
    place = int(np.searchsorted(pool, row))
    inside = place < len(pool) and pool[place] == row
    if len(pool) == inside:
        return row
    drawn = int(random.integers(len(pool) - inside))
    return int(pool[drawn + (inside and drawn >= place)])


def _same_class(indices: np.ndarray, labels: np.ndarray, drivers: np.ndarray) -> Callable[[int], np.ndarray]:
    """For a row, those of its class and other drivers; where the class has one driver alone, those of its class."""
    number = np.unique(drivers, return_inverse=True)[1]
    classes = {label: indices[labels[indices] == label] for label in np.unique(labels[indices])}

    def pool(row: int) -> np.ndarray:
        same = classes[labels[row]]
        others = same[number[same] != number[row]]
        return others if len(others) else same

    return pool
