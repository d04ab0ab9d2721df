"""The report: every section in its order, put into one page."""

from driverwatch.report import making, results
from driverwatch.report.findings import Findings
from driverwatch.report.page import render


def page(found: Findings) -> str:
    """The whole page as HTML."""
    sections = [
        results.verdict(found),
        results.submissions(found),
        results.runs(found),
        results.by_driver(found),
        results.by_class(found),
        results.confusions(found),
        making.learning(found),
        making.calibration(found),
        making.levers(found),
        making.folds(found),
        making.pictures(found),
        making.making(found),
    ]
    return render("report.html", found=found, sections=sections)
