"""Whose code runs here: two machines that are to make one thing must run the same."""

import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from driverwatch.artifacts import differences, digest_of, provenance
from driverwatch.checkout import commit
from driverwatch.errors import listed

PACKAGE = Path(__file__).resolve().parent.parent


@cache
def facts() -> dict[str, Any]:
    """Digest of the package's files, the versions of what computes, Python's, and the commit where it is known."""
    files = [path for path in sorted(PACKAGE.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    code = digest_of([[str(p.relative_to(PACKAGE)), hashlib.sha256(p.read_bytes()).hexdigest()] for p in files])
    python = ".".join(map(str, sys.version_info[:2]))
    return {"code": code, "python": python, "versions": provenance()["versions"], "commit": commit()}


def strange(theirs: dict[str, Any]) -> str | None:
    """Why this machine must not do a part of what another one (its `facts`) does; None: it may."""
    mine = facts()
    here, there = ({key: made[key] for key in ("code", "python", "versions")} for made in (mine, theirs))
    if here["code"] != there["code"]:
        return (
            f"runs other code (commit {mine['commit'] or 'unknown'}) than the machine that asks (commit "
            f"{theirs['commit'] or 'unknown'}); bring {PACKAGE.parent.parent} to that commit and start its node again"
        )
    if found := differences(there, here):
        return f"has other packages than the machine that asks; make setup and make node there (asked -> there):{listed(found)}"
    return None
