"""A submission file, to the letter."""

from pathlib import Path

import numpy as np

from driverwatch.submission import build


def test_each_line_holds_its_own_images_probabilities(tmp_path: Path) -> None:
    values = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    path = tmp_path / "s.csv"
    build.write_submission(values, ["b.jpg", "a.jpg", "c.jpg"], ["img", "c0", "c1", "c2"], path)
    assert path.read_text().splitlines() == [
        "img,c0,c1,c2",
        "b.jpg,0.7000000,0.2000000,0.1000000",
        "a.jpg,0.1000000,0.8000000,0.1000000",
        "c.jpg,0.2500000,0.2500000,0.5000000",
    ]
    assert np.array_equal(
        build.read_submission(path, ["a.jpg", "b.jpg", "c.jpg"], ["img", "c0", "c1", "c2"])[0], values[1]
    )
