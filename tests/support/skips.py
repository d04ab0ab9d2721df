"""No test is skipped in silence: a pytest plugin that prints every skip with its reason, and fails a strict run for it.

`make test STRICT=1` (what CI runs) allows one reason alone: real images or weights that do not lie beside the clone.
"""

from collections import Counter

import pytest

from driverwatch.io.paths import is_on
from support.places import NO_REAL_DATA


def _skips(config: pytest.Config) -> Counter[str]:
    """Reasons of skipped tests of the whole run, with how many tests each skipped; empty in a worker of pytest-xdist."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    reasons = (report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr) for report in reports)
    return Counter(reason.removeprefix("Skipped: ") for reason in reasons)


def _forbidden(config: pytest.Config) -> list[str]:
    """Reasons that a strict run does not allow."""
    if not is_on("STRICT"):
        return []
    return [reason for reason in _skips(config) if not reason.startswith(NO_REAL_DATA)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skips = _skips(config)
    if not skips:
        return
    terminalreporter.section("skipped")
    for reason, count in skips.most_common():
        terminalreporter.line(f"{count} skipped: {reason}")
    if forbidden := _forbidden(config):
        terminalreporter.line(
            f"STRICT=1: this tier promises these tests; failed for {len(forbidden)} reasons", red=True
        )
