"""Submissions as the JSON beside each tells of them, with what Kaggle's board said where the ledger knows."""

from pathlib import Path
from typing import Any

from driverwatch.artifacts import read_json
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.report.findings import Submission
from driverwatch.steps.context import Context
from driverwatch.submission import ledger
from driverwatch.writing import reason

UNKNOWN = float("nan")


def submitted(context: Context, folds: str | None) -> tuple[list[Submission], list[tuple[str, str]]]:
    """All submissions, and those that cannot be read with the reason.

    Args:
        folds: digest of today's folds; a submission of others is said to be so. None: not known.
    """
    found, unreadable = list[Submission](), list[tuple[str, str]]()
    book = context.places.submissions.parent / "ledger.csv"
    try:
        entries = [entry for entry in ledger.read(book) if entry.dataset == context.dataset]
    except InputError as error:
        entries = []
        unreadable.append((book.name, str(error)))
    scores = {entry.sha256: entry for entry in entries}
    for path in matching(context.places.submissions, "*.csv"):
        try:
            found.append(_submission(path, scores, folds))
        except (InputError, TypeError, ValueError, AttributeError, LookupError) as error:
            said = str(error) if isinstance(error, InputError) else f"{path.with_suffix('.json')}: {error}"
            unreadable.append((path.name, f"{' '.join(said.split())}; make ensemble writes it again"))
        except OSError as error:
            unreadable.append((path.name, reason(error)))
    return found, unreadable


def _submission(path: Path, scores: dict[str, ledger.Entry], folds: str | None) -> Submission:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise InputError(f"{beside}: no such file, so nothing is known of {path.name}")
    facts = read_json(beside)
    entry, hoped = scores.get(str(facts.get("submission"))), facts.get("hope") or {}
    low, high = facts.get("out_of_fold_95%") or (UNKNOWN, UNKNOWN)
    return Submission(
        path.stem,
        ", ".join(f"{run} ({views})" for run, views in facts["runs"].items()),
        _steps(facts.get("chain") or {}),
        _number(facts.get("out_of_fold_log_loss")),
        float(low),
        float(high),
        _number(facts.get("out_of_fold_right")),
        (_number(hoped.get("low")), _number(hoped.get("high")), _number(hoped.get("level"))),
        bool(facts.get("selected_on")),
        str(facts.get("commit") or ""),
        entry.public if entry else "",
        entry.private if entry else "",
        tuple(facts["runs"]),
        "; ".join(_notes(facts, folds)),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else UNKNOWN


def _steps(chain: dict[str, Any]) -> str:
    """Blend, balance, neighbours, calibration, as they were put one after another."""
    return ", ".join(chain.get("steps") or ["mean"])


def _notes(facts: dict[str, Any], folds: str | None) -> list[str]:
    notes = []
    if folds is not None and facts.get("folds") != folds:
        notes.append("of other folds than today's")
    if "out_of_fold_log_loss" not in facts:
        notes.append(str(facts.get("out_of_fold") or "a fold's models alone: not scored"))
    return notes
