"""Where a competition's files lie below its folder, in Kaggle's layout: the defaults of a data set's YAML."""

from pathlib import Path

TABLE = "driver_imgs_list.csv"  # one line per labelled photo
TRAIN_IMAGES = "imgs/train/{label}/{image}"
TEST_IMAGES = "imgs/test/{image}"
SAMPLE_SUBMISSION = "sample_submission.csv"


def folder_of(template: str) -> Path:
    """The folder below which all files of a template are: `imgs/train` of `imgs/train/{label}/{image}`."""
    return Path(f"{template.split('{')[0]}x").parent
