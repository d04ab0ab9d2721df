"""A line of the table: one figure of ours against a rival or a limit, with the aim, met or not."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from benchmarks.timing import Spread, Timing, speed


@dataclass(frozen=True)
class Line:
    """What both sides do, what came of it, and which way is better.

    Args:
        row: the family it belongs to, as ROWS= names it.
        against: the other side.
        what: one sentence: what both sides do, and what the figure is.
        left_out: what neither side, or only one, has to do.
        better: which way is.
        aim: the least (or most) that is aimed at; None: nothing is.
        figure: None where the line could not be measured.
        timings: of each side.
        facts: whatever else was counted.
        skipped: why there is no figure.
    """

    row: str
    against: str
    what: str
    left_out: str
    better: Literal["higher", "lower"]
    aim: float | None = None
    figure: Spread | None = None
    timings: dict[str, Timing] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None

    @property
    def key(self) -> str:
        return f"{self.row}: {self.against}"

    @property
    def met(self) -> bool | None:
        """Whether the median meets the aim; None where there is no aim or no figure."""
        if self.aim is None or self.figure is None:
            return None
        return self.figure.median >= self.aim if self.better == "higher" else self.figure.median <= self.aim

    @property
    def plain(self) -> dict[str, Any]:
        """JSON-able, with every repetition's seconds."""
        figure = None if self.figure is None else self.figure._asdict()
        return {**asdict(self), "figure": figure, "met": self.met}


class Rival(NamedTuple):
    """One of several sides that ours is timed in turn with."""

    side: str  # its name among the timings
    against: str
    what: str
    left_out: str
    aim: float


def beside(row: str, shared: str, rivals: list[Rival], timed: dict[str, Timing], facts: dict[str, Any]) -> list[Line]:
    """A line for each rival at the same work: our images per second over theirs.

    Args:
        shared: how the sentence begins for all of them.
        timed: every side's, ours among them as `ours`.
    """
    return [
        Line(
            row,
            rival.against,
            f"{shared}; {rival.what}; the figure is our images per second over theirs.",
            rival.left_out,
            "higher",
            rival.aim,
            speed(timed["ours"], timed[rival.side]),
            {side: timed[side] for side in ("ours", rival.side)},
            facts,
        )
        for rival in rivals
    ]
