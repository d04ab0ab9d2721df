"""Commands of the README and of docs/: how they are found in the text, and by what each is run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINE = "cli/test_line.py::test_from_images_to_submission"
# by target: the test that runs its command, in this process or in one of its own
TESTED = {
    "backbones": "cli/test_line.py::test_help_needs_no_keras_and_no_pandas",
    "bench": "repository/test_bench.py::test_help_imports_nothing_heavy",
    "reproduce": "experiments/test_reproduce.py::test_a_recipe_resumes_from_whatever_is_built",
    "blends": "cli/test_line.py::test_blends_of_two_tta_sets",
    "card": "submission/test_card.py::test_the_command_writes_four_files_that_can_be_read_back",
    "check": LINE,
    "classify": LINE,
    "convert": "models/test_torch.py::test_conversion_needs_no_network_library",
    "data": "submission/test_kaggle_client.py::test_the_competition_arrives_whole_and_once",
    "data-scaling": "experiments/test_data_scaling.py::test_the_command_trains_and_writes_what_more_drivers_are_worth",
    "docs": "config/test_reference.py::test_the_page_is_todays",
    "doctor": "repository/test_doctor.py::test_makefile_needs_no_setup",
    "ensemble": LINE,
    "export": "inference/test_export.py::test_a_stranger_gets_what_the_line_says",
    "linear-probe": "experiments/test_features.py::test_features_then_an_ensemble",
    "refit": "experiments/test_pseudo_label_rounds.py::test_subsets_and_a_final_fit_have_no_score",
    "folds": LINE,
    "label-issues": "experiments/test_confident_learning.py::test_the_command_writes_a_list_that_a_training_follows",
    "lock": "repository/test_packaging.py::test_every_requirement_is_locked_with_hashes",
    "audit": "repository/test_packaging.py::test_the_audit_asks_for_each_lock",
    "layers": "cli/test_commands.py::test_layers_of_models",
    "leakage": "data/test_leakage.py::test_the_command_prints_both_splits",
    "ablation": "experiments/test_ablations.py::test_the_numbers_are_those_computed_by_hand",
    "knn": "experiments/test_features.py::test_neighbours_are_looked_for_among_features",
    "node": "remote/test_loopback.py::test_interrupted_and_a_machine_lost_it_ends_as_a_local_run",
    "notebook": "remote/test_kaggle_notebook.py::test_weights_travel_along_and_then_no_internet_is_needed",
    "pack": LINE,
    "trace": LINE,
    "predict": LINE,
    "preview": "training/test_preview.py::test_the_command_draws_a_sheet",
    "profile": "repository/test_bench.py::TestRows::test_profile",
    "pseudo-rounds": "experiments/test_pseudo_label_rounds.py::test_rounds_teach_one_another",
    "report": "report/test_report.py::test_the_page_needs_nothing_beside_it",
    "review": "report/test_review_page.py::test_filters_leave_what_numpy_leaves",
    "lr-find": "training/test_lr_finder.py::test_the_command_rises_step_by_step_and_touches_no_run",
    "synthetic": "cli/test_other_competition.py::test_the_whole_pipeline_on_another_competition",
    "score": LINE,
    "search": "experiments/test_search.py::test_the_command_searches_and_scores_again",
    "serve": "report/test_serve_page.py::test_the_command_answers_as_classify_does_and_ends_at_ctrl_c",
    "status": "report/test_status.py::test_nothing_at_all",
    "study": "experiments/test_features.py::test_a_study_writes_its_table_and_stays_out_of_ensembles",
    "submissions": LINE,
    "submit": "submission/test_kaggle_client.py::test_each_failure_of_an_upload_is_one_sentence",
    "subset": "cli/test_line.py::test_subset_picks_the_listed_images",
    "import-runs": "remote/test_import_runs.py::test_a_run_comes_home_and_takes_part_beside_a_local_one",
    "pseudo-labels": "experiments/test_reproduce.py::test_teachers_speak_once_before_their_first_student",
    "test-cluster": "remote/test_loopback.py::test_interrupted_and_a_machine_lost_it_ends_as_a_local_run",
    "test-kills": "cli/test_kills.py::test_killed_at_random",
    "test-size": "repository/test_fullsize.py::test_private_memory_of_all_processes_is_seen",
    "test-torch": "models/test_torch.py::test_outputs_are_pytorchs",
    "train": LINE,
    "tta": "data/test_tta.py::test_views_are_compared_from_files_alone",
}
# what no test and no CI runs as it is typed, and why; the test above then runs the same code on something else
APART = {
    "reproduce": "real images and weights: by hand (docs/results.md)",
    "bench": "minutes of a machine that does nothing else: by hand (docs/dev/benchmarks.md); row by row by tests",
    "client": "the package index: `make data` and `make submit` install it too; by hand",
    "lock": "the package index: by test on what it wrote",
    "label-issues": "by hand (experiments/results/statefarm_mini/label_issues.md); by test on made-up probabilities",
    "card": "by hand (submissions/statefarm_mini/cards); by test on a copy of that submission",
    "convert": "a public checkpoint: nothing is downloaded here; by test on a random one",
    "data": "Kaggle: by test on a stand-in of its server",
    "linear-probe": "weights: by test on random ones",
    "ablation": "real images and weights: by hand (experiments/results/statefarm_mini/ablations.md)",
    "knn": "weights: by test on random ones",
    "node": "other machines: by test as processes of one",
    "notebook": "Kaggle: the notebook is executed by a test over folders mounted as there",
    "profile": "a machine that does nothing else: by hand",
    "setup": "every other command runs it; `ACCELERATOR=cuda` has no GPU here, `EXTRAS=` is by hand",
    "study": "real images and weights: by hand (experiments/results/statefarm_mini/study-freezing.md)",
    "submit": "Kaggle: by test on a stand-in of its server",
    "subset": "the full download: by test on synthetic images",
    "import-runs": "what came back from Kaggle: by test on what the executed notebook left",
    "test-all": "by hand, half an hour",
    "coverage": "by hand, an hour and more",
    "docs-images": "Chromium and the demo: by hand; how pages are photographed, by test",
    "test-cluster": "by hand, minutes",
    "test-kills": "by hand, more kills than the test's",
    "test-size": "by hand, a quarter of an hour",
    "test-torch": "needs PyTorch; by hand",
}


@dataclass(frozen=True, order=True)
class Command:
    """What a page says to type: targets, and variables with their values."""

    targets: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    page: str

    @property
    def text(self) -> str:
        return " ".join(["make", *self.targets, *(f"{key}={_quoted(value)}" for key, value in self.variables)])


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"[\s*]", value) else value


def pages() -> list[Path]:
    """The README and every page of docs/ that people write, decisions included."""
    written = {"error-messages.md", "settings.md", "models.md"}
    return [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name not in written)]


def commands_of(path: Path) -> list[Command]:
    """The commands in a page's sh blocks, in its indented blocks, behind `$` in its other blocks, and in its code spans."""
    text, page = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    found = []
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = fence[2].replace("\\\n", " ").splitlines()
        found += [line for line in lines if fence[1] == "sh" and line.strip()]
        found += [line.removeprefix("$ ") for line in lines if fence[1] != "sh" and line.startswith("$ ")]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found += [line.strip() for line in re.findall(r"^ {4}(make (?:.*\\\n)*.*)", prose, re.MULTILINE)]
    found += [span for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose) if span.split()[:1] == ["make"]]
    return [parsed(one, page) for one in found if one.split()[0] == "make"]


def parsed(line: str, page: str) -> Command:
    """Targets and variables of a line, as a shell would split it; what stands in <> or [] is a name for something."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)[1:]
    targets = [word for word in words if "=" not in word]
    variables = dict.fromkeys(word for word in words if "=" in word)
    return Command(tuple(targets), tuple(tuple(word.split("=", 1)) for word in variables), page)  # type: ignore[misc]
