"""The review page's numbers and rows: by hand and by name, whatever the order of rows; refusals in a sentence."""

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from support.finished import CLASSES, World, skilled, world  # noqa: F401
from support.reviewing import images_of, rows_of, space_of, with_pixels

from driverwatch.data.pack import LeftOut
from driverwatch.ensemble import embeddings
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.members import Member
from driverwatch.errors import InputError
from driverwatch.inference.predictions import default_tta_of, prediction_path
from driverwatch.metrics import log_loss
from driverwatch.report import example_images, review_page
from driverwatch.report import review_measures as measures

NUMPY = {"Float32Array": "<f4", "Int32Array": "<i4", "Uint16Array": "<u2"}


def unpacked(made: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(made["data"]), NUMPY[made["type"]]).reshape(made["shape"])


Members = arrays(
    np.float64, st.tuples(st.integers(2, 4), st.integers(0, 5), st.integers(2, 6)), elements=st.floats(1e-9, 1)
)


@given(Members)
def test_divergence_is_symmetric_zero_for_equal_rows_and_at_most_ln_2(raw: np.ndarray) -> None:
    members = raw / raw.sum(axis=2, keepdims=True)
    found = measures.divergence(members)
    assert found.shape == members.shape[1:2]
    assert ((found >= 0) & (found <= np.log(2))).all()
    assert np.allclose(found, measures.divergence(members[::-1]), atol=1e-12)
    assert np.allclose(measures.divergence(np.repeat(members[:1], 3, axis=0)), 0, atol=1e-12)


def test_divergence_is_the_mean_over_pairs_of_what_scipy_says() -> None:
    members = rows_of(0, 3, 7, 4)
    pairs = [jensenshannon(members[a], members[b], axis=1) ** 2 for a, b in ((0, 1), (0, 2), (1, 2))]
    assert measures.divergence(members) == pytest.approx(np.mean(pairs, axis=0))


def test_divergence_of_rows_that_share_no_class_is_ln_2_and_of_one_run_nothing() -> None:
    apart = np.array([[[1.0, 0, 0]], [[0, 0.5, 0.5]]])
    assert measures.divergence(apart) == pytest.approx([np.log(2)])
    assert measures.divergence(apart[:1]).tolist() == [0]


def test_entropy_of_sure_even_and_mixed_rows() -> None:
    found = measures.entropy(np.array([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]]))
    assert found == pytest.approx([0, np.log(4), np.log(2)])


def test_ranking_is_by_value_then_by_name_without_rows_that_have_none() -> None:
    names, values = np.array(["d", "b", "c", "a"]), np.array([1.0, 2, 1, np.nan])
    assert names[measures.ranking(values, names)].tolist() == ["b", "c", "d"]
    assert len(measures.ranking(np.empty(0), np.empty(0, str))) == 0


@given(st.permutations(range(8)), st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_ranking_is_the_same_whatever_the_order_of_rows(order: list[int], values: list[int]) -> None:
    names, value = np.array(list("abcdefgh")), np.array(values, float)
    there = names[measures.ranking(value, names)]
    assert names[order][measures.ranking(value[order], names[order])].tolist() == there.tolist()


@given(arrays(np.float64, st.integers(0, 20), elements=st.floats(0, 1)))
def test_quantising_is_off_by_half_a_step_at_most(shares: np.ndarray) -> None:
    back = measures.quantise(shares).astype(np.float64) / measures.STEPS
    assert (np.abs(back - shares) <= 0.5 / measures.STEPS + 1e-12).all()
    assert 0.5 / measures.STEPS < 7.7e-6


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.uint16])
def test_packed_arrays_come_back(kind: type) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    assert np.array_equal(unpacked(measures.packed_array(array)), array)
    assert measures.packed_array(array[:0])["data"] == ""


def test_images_are_sorted_by_name_with_all_that_is_theirs() -> None:
    names = np.array([f"{i:02d}.jpg" for i in range(9)])
    columns = np.arange(9) % 3, np.array([f"p{i}" for i in range(9)]), np.arange(9) % 2
    members, order = rows_of(1, 2, 9, 3), np.random.default_rng(2).permutation(9)
    straight = measures.sorted_images(names, *columns, members)
    shuffled = measures.sorted_images(names[order], *(column[order] for column in columns), members[:, order])
    for field in ("names", "labels", "drivers", "folds", "members"):
        assert np.array_equal(getattr(straight, field), getattr(shuffled, field)), field


def test_images_named_twice_or_of_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="named once"):
        images_of(["a", "b", "a"])
    with pytest.raises(InputError, match="probabilities of shape"):
        measures.sorted_images(np.array(["a"]), np.zeros(1), np.array(["p"]), np.zeros(1), np.ones((1, 1)))
    with pytest.raises(InputError, match="other lengths"):
        measures.ReviewImages(np.array(["a"]), np.zeros(2), np.array(["p"]), np.zeros(1), np.ones((1, 1, 1)))


def test_losses_are_those_of_make_score_and_the_first_of_equal_classes_is_said() -> None:
    images = images_of([f"{i}.jpg" for i in range(9)])
    images.members[:, 0] = [[0.5, 0.5, 0], [0, 0.5, 0.5]]
    found = measures.measure(images, ["a", "b"])
    assert found.judges == ["mean of 2", "a", "b"]
    assert found.losses.mean(axis=1) == pytest.approx(
        [log_loss(rows, images.labels) for rows in [blending.mean(list(images.members)), *images.members]]
    )
    assert found.said[:, 0].tolist() == [1, 0, 1]


def test_one_run_is_its_own_judge_and_images_without_labels_have_no_loss() -> None:
    found = measures.measure(images_of(["a", "b"], runs=1, known=False), ["only"])
    assert found.judges == ["only"]
    assert np.isnan(found.losses).all()
    assert (found.divergence == 0).all()


def test_heads_are_the_first_of_each_ranking() -> None:
    images = images_of([f"{i:02d}" for i in range(20)], seed=5)
    found = measures.measure(images, ["a", "b"])
    expected = {int(np.argmax(value)) for value in (found.losses[0], found.entropies[0], found.divergence)}
    assert set(measures.heads(found, images.names, 1).tolist()) == expected
    unknown = images_of(["a", "b", "c"], known=False)
    assert measures.heads(measures.measure(unknown, ["a", "b"]), unknown.names, 99).tolist() == [0, 1, 2]


def test_the_page_says_nothing_of_test_images_but_what_runs_say() -> None:
    train, test = images_of(["c", "a", "b"]), images_of(["z", "y"], seed=1, known=False)
    sets = measures.measure(train, ["m", "n"]), measures.measure(test, ["m", "n"])
    made = measures.content(train, test, sets)
    assert made["names"] == ["a", "b", "c", "y", "z"]
    assert [unpacked(made[key]).shape for key in ("label", "driver", "fold")] == [(3,)] * 3
    assert unpacked(made["loss"]).shape == (3, 3)
    assert unpacked(made["said"]).shape == (3, 5)
    shares = unpacked(made["probabilities"]) / measures.STEPS
    assert np.abs(shares - np.concatenate([train.members, test.members], axis=1)).max() < 7.7e-6
    assert unpacked(made["divergence"])[3:] == pytest.approx(measures.divergence(test.members), rel=1e-6)


def test_rows_are_joined_by_name(world: World) -> None:  # noqa: F811
    for name, seed in (("one", 1), ("two", 9)):
        world.run(name, seed=seed)
    shown = review_page.read_predictions(world.context, [], None)
    train, folds = shown.train, world.folds.of_driver
    assert shown.runs == ["one", "two"]
    assert train.names.tolist() == sorted(world.packs["train"].names)
    assert train.drivers.tolist() == [name[:2] for name in train.names]
    assert train.folds.tolist() == [folds[driver] for driver in train.drivers]
    for place in (0, 20, 53):
        name, label, fold = train.names[place], train.labels[place], train.folds[place]
        expected = skilled(np.array([name]), np.array([label]), 9 + int(fold), 1.5)[0]
        assert train.members[1, place] == pytest.approx(expected, rel=1e-5)
    mean = np.mean([skilled(shown.test.names, shown.test.labels, 1 + fold, 1.5) for fold in range(3)], axis=0)
    assert shown.test.members[0] == pytest.approx(mean, rel=1e-5)
    assert (shown.test.labels == -1).all()


def test_a_test_image_that_a_pack_lacks_is_left_out(world: World, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    one, two = world.run("one"), world.run("two", seed=5)
    test = world.packs["test"]
    lacked = LeftOut(test.names[3:4], np.array([""]), np.array([-1]), np.array(["invalid"]))
    less = replace(
        test, names=np.delete(test.names, 3), labels=test.labels[1:], drivers=test.drivers[1:], left_out=lacked
    )
    smaller = replace(world, packs={**world.packs, "test": less})
    for number in range(3):
        smaller.finish(two, number, 5, 1.5, np.empty(0, np.int64))
    found = review_page._test_images([Member(one, test, "five_crop"), Member(two, less, "five_crop")], world.folds)
    assert found.names.tolist() == sorted(less.names)
    assert "1 test images that not every run's pack holds" in capsys.readouterr().out


def test_runs_without_folds_are_refused_when_named_and_else_left_out(
    world: World,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    world.run("whole", splits={"kind": "all"})
    with pytest.raises(InputError, match=r"whole: no out-of-fold predictions to review: .*; leave it out of MODELS="):
        review_page.read_predictions(world.context, ["whole"], None)
    with pytest.raises(InputError, match="no finished run has out-of-fold predictions"):
        review_page.read_predictions(world.context, [], None)
    world.run("folded")
    assert review_page.read_predictions(world.context, [], None).runs == ["folded"]
    assert "left out: " in capsys.readouterr().out


def test_a_run_of_other_images_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    world.run("one")
    other = replace(world.packs["train"], checksum="another")
    monkeypatch.setattr(blending, "open_packs", lambda *_: (world.folds, {**world.packs, "train": other}))
    with pytest.raises(InputError, match="was trained on another pack than today's"):
        review_page.read_predictions(world.context, ["one"], None)


def test_views_that_were_not_predicted_are_refused(world: World) -> None:  # noqa: F811
    world.run("one")
    with pytest.raises(InputError, match=r"validation-ten_crop.h5: no such predictions; run make predict"):
        review_page.read_predictions(world.context, ["one"], "ten_crop")
    with pytest.raises(InputError, match="no finished run has out-of-fold predictions"):
        review_page.read_predictions(world.context, [], "ten_crop")


def test_of_all_runs_one_that_lacks_its_tta_set_is_left_out(
    world: World,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = world.run("one")
    world.run("two", seed=5)
    prediction_path(run.fold(1), "test", default_tta_of(run)).unlink()
    assert review_page.read_predictions(world.context, [], None).runs == ["two"]
    said = capsys.readouterr().out
    assert "left out: " in said
    assert "make predict RUN=one TTA=five_crop does" in said


def test_neighbours_are_of_an_image_s_own_fold_and_never_itself() -> None:
    images = images_of([f"{i:02d}" for i in range(30)])
    found = review_page.nearest_images(space_of(images.names), images)
    assert found.indices.shape == (30, review_page.NEAR)
    assert (images.folds[found.indices] == images.folds[:, None]).all()
    assert (found.indices != np.arange(30)[:, None]).all()
    alone = images_of(["a", "b"])
    assert (review_page.nearest_images(space_of(alone.names), alone).indices == -1).all()


def test_neighbours_are_numbered_over_both_sets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    world.run("one")
    shown = review_page.read_predictions(world.context, [], None)
    space = space_of(np.concatenate([shown.train.names, shown.test.names]))
    monkeypatch.setattr(embeddings, "open_embeddings", lambda *_: space)
    said, made = review_page._knn(world.context, shown, "made up")
    near, cosine = unpacked(made["near"]), unpacked(made["cosine"])
    assert said == "neighbours by made up"
    assert (near[:54] < 54).all()
    assert (near[54:] >= 54).all()
    names, features = (
        np.concatenate([shown.train.names, shown.test.names]),
        dict(zip(space.names, space.features, strict=True)),
    )
    one, other = features[names[60]], features[names[near[60, 0]]]
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert 2 * float(cosine[60, 0]) / measures.STEPS - 1 == pytest.approx(expected, abs=4e-5)


def test_without_features_there_are_no_neighbours_and_named_ones_must_be_there(world: World) -> None:  # noqa: F811
    world.run("one")
    shown = review_page.read_predictions(world.context, [], None)
    assert review_page._knn(world.context, shown, None)[1] == {"features": None}
    with pytest.raises(InputError, match="EMBEDDINGS=/"):
        review_page._knn(world.context, shown, "/")


def test_features_on_disk_are_found_by_their_files_names(project: Path, demo_settings: Any) -> None:
    from driverwatch.config.ensemble import embedding_source
    from driverwatch.data.context import Context
    from driverwatch.io.paths import Places

    context = Context("demo", demo_settings, Places("demo"), project / "data")
    asked = ["mobilenet_v2", "mobilenet_v2:block_13_expand_relu:2x2", "inception_v3:mixed7", "tiny:3x4"]
    context.places.embeddings.mkdir(parents=True)
    for text in asked:
        (context.places.embeddings / embedding_source(text).file).touch()
    (context.places.embeddings / "stranger-1x1.h5").touch()
    assert sorted(embeddings.built(context)) == sorted(asked)


def test_thumbnails_show_the_image_of_their_number(world: World, tmp_path: Path) -> None:  # noqa: F811
    world.run("one")
    shown = review_page.read_predictions(world.context, [], None)
    packs = {kind: with_pixels(pack, tmp_path, kind) for kind, pack in world.packs.items()}
    shown = replace(shown, pack=packs["train"], members=[replace(shown.members[0], test=packs["test"])])
    sets = measures.measure(shown.train, ["one"]), measures.measure(shown.test, ["one"])
    made = review_page._thumbnails(shown, sets)
    names = [*shown.train.names, *shown.test.names]
    assert sorted(made) == list(range(66))  # all are among the first 200
    for number in (0, 30, 65):
        content = base64.b64decode(made[number].split(",")[1])
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert abs(int(picture.mean()) - sum(names[number].encode()) % 256) <= 2


def test_doubted_labels_are_those_of_the_list(world: World) -> None:  # noqa: F811
    world.run("one")
    names = review_page.read_predictions(world.context, [], None).train.names
    assert review_page._doubted(world.context, names) == []
    path = world.context.places.label_issues
    path.parent.mkdir(parents=True)
    path.write_text("rank,img\n1,p3_4.jpg\n2,gone.jpg\n")
    [number] = review_page._doubted(world.context, names)
    assert names[number] == "p3_4.jpg"


@pytest.mark.parametrize(("regions", "shade"), [(["whole"], 0), (["head", "whole"], 1), (["head", "wheel"], 0)])
def test_of_packed_regions_the_whole_frame_is_shown(regions: list[str], shade: int) -> None:
    image = np.concatenate([np.full((4, 5, 3), number, np.uint8) for number in range(len(regions))])
    assert np.array_equal(example_images.whole_frame(image, regions), np.full((4, 5, 3), shade, np.uint8))


def test_no_keras_is_imported_where_no_class_activation_map_is_asked_for() -> None:
    code = (
        "import sys, driverwatch.report.review_page, driverwatch.report.review_page; "
        "print([name for name in ('keras', 'tensorflow') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_class_activation_maps_are_asked_of_models_that_have_not_seen_the_driver(world: World) -> None:  # noqa: F811
    from driverwatch.report.review_page import requests

    world.run("one")
    world.run("two", seed=7)
    shown = review_page.read_predictions(world.context, [], None)
    sets = measures.measure(shown.train, shown.runs), measures.measure(shown.test, shown.runs)
    found = requests(world.context, shown, sets, 4, 1)
    assert [each.number for each in found[:4]] == np.argsort(-sets[0].losses[0], kind="stable")[:4].tolist()
    for each in found[:4]:
        assert each.folds == [shown.train.folds[each.number]]
        said, label = sets[0].said[2, each.number], shown.train.labels[each.number]
        assert each.labels == ([said] if said == label else [said, label])
        assert each.path.parent.name == CLASSES[label]
    assert all(each.folds == [0, 1, 2] and len(each.labels) == 1 for each in found[4:])
    assert {each.path.name for each in found[4:]} <= set(world.packs["test"].names)


@pytest.mark.keras
def test_maps_of_test_images_are_of_all_fold_models_and_of_training_images_of_one(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from driverwatch.inference import class_activation
    from driverwatch.report import review_page as maps

    run = world.run("one")
    monkeypatch.setattr(type(run), "verify", lambda _, fold: Path(f"weights{fold}"))
    monkeypatch.setattr(maps, "channel_mean", lambda *_: (0.0, 0.0, 0.0))
    monkeypatch.setattr(maps, "_pixels", lambda _: np.zeros((36, 44, 3), np.uint8))
    monkeypatch.setattr(
        class_activation, "networks_of_run", lambda _settings, _classes, _mean, files: lambda: iter(files)
    )
    seen: list[tuple[str, int]] = []

    def heat(network: Path, image: np.ndarray, label: int) -> tuple[np.ndarray, str]:
        assert image.shape == (32, 40, 3)
        seen.append((network.name, label))
        return np.eye(4, dtype=np.float32), "class activation"

    monkeypatch.setattr(class_activation, "heat", heat)
    monkeypatch.setattr(class_activation, "is_linear", lambda _: False)
    shown = review_page.read_predictions(world.context, [], None)
    train, test = maps.MapRequest(3, Path("x"), [1, 0], [2]), maps.MapRequest(60, Path("y"), [2], [0, 1, 2])
    made = maps._of_run(world.context, shown.members[0], [train, test])
    assert sorted(seen) == [("weights0", 2), ("weights1", 2), ("weights2", 0), ("weights2", 1), ("weights2", 2)]
    assert [(each["number"], each["label"], each["folds"]) for each in made] == [
        (3, 1, [2]),
        (3, 0, [2]),
        (60, 2, [0, 1, 2]),
    ]
    assert all(each["picture"].startswith("data:image/png;base64,") for each in made)
    assert test.sums[2].max() == 3
