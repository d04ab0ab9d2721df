"""Where a competition's files lie below its folder, in Kaggle's layout: the defaults of a data set's YAML, and the doctor's."""

from __future__ import annotations  # the doctor imports this under any Python from 3.8

from pathlib import Path

TABLE = "driver_imgs_list.csv"  # one line per labelled photo
TRAIN_IMAGES = "imgs/train/{label}/{image}"
TEST_IMAGES = "imgs/test/{image}"
SAMPLE_SUBMISSION = "sample_submission.csv"


def folder_of(template: str) -> Path:
    """The folder below which all files of a template lie: `imgs/train` of `imgs/train/{label}/{image}` or `imgs/train/{image}`."""
    return Path(f"{template.split('{')[0]}x").parent
