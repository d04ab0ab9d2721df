"""The pages with results say what the committed out-of-fold files and records say."""

import json
import subprocess
from pathlib import Path

import pytest
from support.places import ROOT

from driverwatch.io.manifests import checksum_of_file
from driverwatch.io.paths import is_on
from scripts import results_tables

PAGE = ROOT / "docs" / "results.md"
LEAKAGE = ROOT / "docs" / "explain" / "grouped-validation.md"
LABELS = ROOT / "docs" / "how-to" / "train-and-tune.md"
SUBMISSIONS = ROOT / "submissions" / "statefarm_mini"


@pytest.mark.parametrize(("page", "tables"), [(PAGE, 5), (LEAKAGE, 1)], ids=["results", "leakage"])
def test_the_tables_are_todays(page: Path, tables: int) -> None:
    """`make docs` writes them."""
    if is_on("WRITE_DOCS"):
        page.write_text(results_tables.with_tables(page.read_text(), ROOT))
    assert page.read_text().count(": begin -->") == tables
    assert page.read_text() == results_tables.with_tables(page.read_text(), ROOT), "run make docs"


def test_the_readme_says_what_the_record_of_leakage_says() -> None:
    rows = json.loads((ROOT / "experiments/results/statefarm_mini/leakage.json").read_text())["rows"]
    shares = {row["split"]: f"{row['accuracy']:.1%}" for row in rows if row["classifier"] == "nearest neighbour"}
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"reaches {shares['random']} accuracy on a random split, {shares['drivers']} on [unseen drivers]" in readme


@pytest.mark.parametrize("method", results_tables.METHODS, ids=lambda method: method.name)
def test_each_score_is_that_of_its_file(method: results_tables.Method) -> None:
    made = json.loads((SUBMISSIONS / f"{method.name}.json").read_text())
    score, checksum = results_tables.oof_score_of(SUBMISSIONS / "out_of_fold" / f"{method.name}.csv.gz")
    assert checksum == made["out_of_fold_rows"]
    assert score.log_loss == pytest.approx(made["out_of_fold_log_loss"], abs=6e-5)
    assert score.standard_error == pytest.approx(made["out_of_fold_standard_error"], abs=6e-5)
    assert score.accuracy == pytest.approx(made["out_of_fold_accuracy"], abs=6e-5)
    page = PAGE.read_text().replace(results_tables.UNBROKEN, " ")
    assert f"{score.log_loss:.3f} ± {score.standard_error:.3f}" in page
    assert f"| `{method.name}` | `{checksum[:12]}` |" in page


def test_the_list_of_label_issues_is_of_the_committed_rows() -> None:
    record = json.loads((ROOT / "experiments/results/statefarm_mini/label_issues.json").read_text())
    rows = SUBMISSIONS / "out_of_fold" / f"{record['submission']}.csv.gz"
    again = f"make label-issues NAME={record['submission']} DATASET=statefarm_mini, then its page and the cards"
    assert record["out_of_fold"] == checksum_of_file(rows), again
    assert f" lists {record['errors']} probable errors" in " ".join(LABELS.read_text().split()), again


def test_every_label_is_of_a_row_of_the_record() -> None:
    record = json.loads((ROOT / "experiments/results/statefarm_mini/ablations.json").read_text())
    known = {(row["kind"], row["ablation"]) for row in record["rows"]}
    assert {(kind, name) for kind, names in results_tables.LABELS.items() for name in names} <= known


def test_ablations_are_grouped_by_their_intervals() -> None:
    helped, none, hurt = (part.split("###")[0] for part in results_tables.ablations(ROOT).split("### ")[1:])
    assert "| per-driver class balancing" in helped
    assert "noise floor" in none
    assert "horizontal flip" in hurt and "horizontal flip" not in helped + none


def test_commits_that_are_marked_are_not_of_this_repository() -> None:
    """In a clone that has the whole history; a shallow one has hardly any commit."""
    shallow = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=True
    ).stdout.strip()
    record = json.loads((ROOT / "experiments/results/statefarm_mini/ablations.json").read_text())
    for commit in sorted({commit for row in record["rows"] for commit in row["commits"]}):
        names = commit.split(" to ")
        asked = [["git", "-C", str(ROOT), "cat-file", "-e", f"{name}^{{commit}}"] for name in names]
        known = all(subprocess.run(each, capture_output=True, check=False).returncode == 0 for each in asked)
        assert shallow == "true" or known == (commit not in results_tables.ELSEWHERE), commit
