"""What a stage may say: shares of layers, rates by depth, statistics measured again, heads, auxiliary classifiers."""

from pathlib import Path

import keras
import numpy as np
import pytest

from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import TrainSettings
from driverwatch.errors import InputError
from driverwatch.models.backend import load_state, write_state
from driverwatch.models.classifier import Classifier, build
from driverwatch.models.freezing import freeze, frozen_count
from driverwatch.training.epoch import reseed
from driverwatch.training.optimizer import KINDS, check, lr_multipliers, make_optimizer, plan, prepare, untouched

pytestmark = pytest.mark.keras
MEAN = (100.0, 110.0, 120.0)
RANDOM = np.random.default_rng(0)


def settings(backbone: str = "tiny", size: str = "32x48", weights: str = "none", **more: object) -> ModelSettings:
    content = {"backbone": backbone, "weights": weights, "input": {"pack": size, "size": size}, **more}
    return parse(ModelSettings, content, "test")


def classifier_of(made: ModelSettings, classes: int = 10) -> Classifier:
    return build(made, classes, MEAN, None, load=False)


# --- freezing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "frozen"), [(0.5, 7), (0.01, 0), (0.99, 13)])
def test_a_share_of_the_layers(share: float, frozen: int) -> None:
    classifier = classifier_of(settings())
    assert len(classifier.backbone.layers) == 14
    assert frozen_count(classifier.backbone.layers, share) == frozen
    freeze(classifier, share, False)
    assert [layer.trainable for layer in classifier.backbone.layers] == [False] * frozen + [True] * (14 - frozen)


def test_shares_beyond_one_and_text_like_numbers_are_refused() -> None:
    for until in (1.5, -0.5):
        with pytest.raises(InputError, match="freeze_until"):
            settings(weights="imagenet", train={"stages": [{"freeze_until": until}]})


def test_random_layers_may_be_frozen_once_they_were_trained() -> None:
    with pytest.raises(InputError, match="random layers would stay random"):
        settings(train={"stages": [{"freeze_until": "stage1"}]})
    with pytest.raises(InputError, match="random layers would stay random"):
        settings(train={"stages": [{"freeze_until": 0.5}]})
    settings(train={"stages": [{}, {"freeze_until": "stage1"}]})


def test_a_frozen_part_is_untouched_until_a_stage_trains_it() -> None:
    made = settings(
        weights="imagenet",
        train={"stages": [{"freeze_until": "head"}, {"freeze_until": "stage2"}, {"freeze_until": "stage3"}]},
    )
    classifier, stages = classifier_of(made), plan(made)
    assert [untouched(classifier, stages, i) for i in range(3)] == [True, True, False]


def test_wrong_names_in_rate_factors_are_found_before_training() -> None:
    made = settings(train={"stages": [{"lr_multipliers": {"stage9": 0.1}}]})
    with pytest.raises(InputError, match="lr_multipliers: stage9 is no layer or block"):
        check(classifier_of(made), plan(made))


# --- learning rates by depth ------------------------------------------------------------------------------------------


def test_factors_hold_up_to_their_boundary() -> None:
    made = settings(train={"stages": [{"lr_multipliers": {"stage1": 0.1, "stage3": 0.5}}]})
    classifier = classifier_of(made)
    factors = lr_multipliers(classifier, plan(made)[0])
    by_layer = {path.split("/")[-2]: factor for path, factor in factors.items()}
    assert {name: factor for name, factor in by_layer.items() if name.endswith("conv")} == {
        "stage1_conv": 0.1, "stage2_conv": 0.5, "stage3_conv": 0.5, "stage4_conv": 1.0,
    }  # fmt: skip
    assert not any("top" in path for path in factors)


@pytest.mark.parametrize("optimizer", sorted(KINDS))
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_factor_scales_the_update(optimizer: str, decay: float) -> None:
    """Under Adam too, where scaling the gradient would do nothing; and with weight decay."""
    train = TrainSettings(optimizer=optimizer, weight_decay=decay)

    def moved(factors: dict[str, float], gradient: float = 1.0) -> np.ndarray:
        kernels = [keras.Variable(np.full(3, 2.0, "float32"), name=f"kernel{i}") for i in range(2)]
        made = make_optimizer(train, 0.01, {kernels[0].path: factors[0]} if factors else {})
        made.build(kernels)
        for _ in range(3):
            made.apply([keras.ops.full((3,), gradient)] * 2, kernels)
        return np.stack([kernel.numpy() for kernel in kernels]) - 2.0

    plain, scaled = moved({}), moved({0: 0.25})
    assert np.allclose(plain[0], plain[1])
    assert np.array_equal(scaled[1], plain[1])
    assert np.allclose(scaled[0], 0.25 * plain[0], rtol=0.02)  # decay acts on what is left
    if optimizer != "sgd" and not decay:
        assert np.allclose(moved({}, gradient=0.25)[0], plain[0], rtol=1e-3)


@pytest.mark.parametrize("optimizer", sorted(KINDS))
def test_without_factors_the_optimizers_are_keras_own(optimizer: str) -> None:
    train = TrainSettings(optimizer=optimizer, weight_decay=0.01)
    theirs = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[optimizer]
    extra = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    start = RANDOM.normal(size=5).astype("float32")
    ends = []
    for made in (make_optimizer(train, 0.01, {}), theirs(0.01, weight_decay=0.01, **extra)):
        kernel = keras.Variable(start, name="kernel")
        made.build([kernel])
        for step in range(4):
            made.apply([keras.ops.convert_to_tensor(np.cos(start + step))], [kernel])
        ends.append(kernel.numpy())
    assert np.allclose(*ends, rtol=1e-5)


def test_weight_decay_spares_biases_and_normalisation() -> None:
    made = make_optimizer(TrainSettings(optimizer="adamw", weight_decay=0.5), 0.1, {})
    variables = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("kernel", "bias", "gamma", "beta")]
    made.build(variables)
    made.apply([keras.ops.zeros((2,))] * 4, variables)
    assert [float(v.numpy()[0]) for v in variables] == pytest.approx([0.95, 1, 1, 1])


def test_frozen_layers_drop_nothing() -> None:
    """So that they give the same in training as in their cache."""
    classifier = classifier_of(settings("alexnet", "67x67", head={"dropout": 0.0}))
    images = RANDOM.integers(0, 256, (2, 67, 67, 3), np.uint8)
    freeze(classifier, "head", train_statistics=True)
    assert np.array_equal(np.asarray(classifier(images, training=True)), np.asarray(classifier(images)))
    freeze(classifier, "drop2", train_statistics=False)
    assert [classifier.backbone.get_layer(name).rate for name in ("drop1", "drop2", "drop5")] == [0.0, 0.0, 0.25]


# --- heads ------------------------------------------------------------------------------------------------------------


def test_hidden_layers_as_the_guides_have_them() -> None:
    head = {"pooling": "flatten", "dense": [16, 8], "normalization": True, "dropout": 0.5, "weight_decay": 0.01}
    classifier = classifier_of(settings(head=head))
    kinds = [[type(layer).__name__ for layer in block.layers] for block in classifier.hidden]
    assert kinds == [["Dense", "BatchNormalization"], ["Dropout", "Dense", "BatchNormalization"]]
    assert classifier.hidden[0].layers[0].kernel.shape == (2 * 3 * 64, 16)
    images = RANDOM.integers(0, 256, (4, 32, 48, 3), np.uint8)
    found = classifier.predict(images, verbose=0)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    kernels = [w.numpy() for w in classifier.weights if "kernel" in w.path and "stage" not in w.path]
    assert len(kernels) == 3
    assert float(sum(classifier.losses)) == pytest.approx(sum(0.01 * (k**2).sum() for k in kernels), rel=1e-4)


def test_a_backbone_that_keeps_its_dense_layers_needs_no_pooling() -> None:
    made = settings("vgg16", "32x32", truncate_at="fc2")
    classifier = classifier_of(made)
    assert classifier.backbone.output_shape == (None, 4096)
    assert classifier.predict(np.zeros((1, 32, 32, 3), np.uint8), verbose=0).shape == (1, 10)


def test_alexnet_is_the_guides(tmp_path: Path) -> None:
    """Trunk and head together, with 1000 classes: 62,378,344 of the ungrouped network and 19,136 of normalisation."""
    made = load(ModelSettings, Path("configs/models"), "guide_alexnet_hdf5")
    keras.backend.clear_session()
    classifier = classifier_of(made, 1000)
    statistics = sum(int(np.prod(w.shape)) for w in classifier.non_trainable_weights if "moving" in w.path)
    assert classifier.count_params() - statistics == 62_378_344 + 2 * (96 + 256 + 384 + 384 + 256 + 4096 + 4096)
    assert len(classifier.losses) == 8  # an L2 penalty on each kernel


def test_dropout_layers_are_seeded_apart() -> None:
    classifier = classifier_of(settings(head={"dense": [8, 8], "dropout": 0.5}))
    reseed(classifier, (1, 2))
    generators = [
        layer.seed_generator for layer in classifier._flatten_layers() if isinstance(layer, keras.layers.Dropout)
    ]
    states = {tuple(generator.state.numpy()) for generator in generators}
    assert len(states) == 2
    reseed(classifier, (1, 2))
    assert states == {tuple(generator.state.numpy()) for generator in generators}


# --- auxiliary classifiers --------------------------------------------------------------------------------------------


@pytest.fixture
def googlenet() -> Classifier:
    keras.utils.set_random_seed(1)
    return classifier_of(settings("googlenet", "64x80", head={"dropout": 0.0}), 4)


def test_auxiliary_classifiers_are_there_in_training_alone(googlenet: Classifier) -> None:
    images = RANDOM.integers(0, 256, (2, 64, 80, 3), np.uint8)
    assert googlenet(images, training=False).shape == (2, 4)
    in_training = np.asarray(googlenet(images, training=True))
    assert in_training.shape == (2, 3, 4)
    assert np.allclose(in_training.sum(axis=2), 1, atol=1e-5)
    assert np.allclose(in_training[:, 0], np.asarray(googlenet(images)), atol=1e-5)
    cut = classifier_of(settings("googlenet", "64x80", truncate_at="inception4b"), 4)
    assert cut.taps == ("inception4a",)
    assert classifier_of(settings("googlenet", "64x80", truncate_at="inception3b"), 4).taps == ()


def test_auxiliary_losses_weigh_three_tenths_and_no_metric_counts_them(googlenet: Classifier) -> None:
    stage = plan(settings("googlenet", "64x80"))[0]
    prepare(googlenet, stage, TrainSettings(), 1, {})
    targets = np.eye(4, dtype="float32")[[1, 2]]
    found = keras.ops.convert_to_tensor(RANDOM.dirichlet(np.ones(4), (2, 3)).astype("float32"))
    one = [float(googlenet.loss(targets, found[:, i])) for i in range(3)]
    total = float(googlenet.compute_loss(None, targets, found, None))
    assert total == pytest.approx(one[0] + 0.3 * (one[1] + one[2]), rel=1e-5)
    shown = googlenet.compute_metrics(None, targets, found, None)
    assert float(shown["accuracy"]) == np.mean(np.asarray(found)[:, 0].argmax(axis=1) == [1, 2])


@pytest.mark.slow
def test_an_auxiliary_on_a_frozen_tap_rests(googlenet: Classifier) -> None:
    images = RANDOM.integers(0, 256, (2, 64, 80, 3), np.uint8)
    for until, outputs in (("inception3b", (2, 3, 4)), ("inception4a", (2, 2, 4)), ("head", (2, 4))):
        freeze(googlenet, until, train_statistics=False)
        assert googlenet(images, training=True).shape == outputs
    assert not any("auxiliary" in w.path for w in googlenet.trainable_weights)


@pytest.mark.slow
def test_a_step_moves_the_auxiliary_classifiers_and_they_are_kept(googlenet: Classifier, tmp_path: Path) -> None:
    freeze(googlenet, "inception3b", train_statistics=False)
    adam = settings("googlenet", "64x80", train={"optimizer": "adam"})
    prepare(googlenet, plan(adam)[0], adam.train, 1, {})
    googlenet.run_eagerly = True  # a single step: its graph takes longer to trace than to compute
    before = {id(w): w.numpy() for w in googlenet.weights}
    images = RANDOM.integers(0, 256, (8, 64, 80, 3), np.uint8)
    googlenet.train_on_batch(images, np.eye(4, dtype="float32")[RANDOM.integers(0, 4, 8)])
    trainable = {id(w) for w in googlenet.trainable_weights}
    for weight in googlenet.weights:
        if (
            "auxiliary" not in weight.path or "moving" not in weight.path
        ):  # the new classifiers keep statistics of their own
            assert np.array_equal(weight.numpy(), before[id(weight)]) != (id(weight) in trainable), weight.path
    assert sum("auxiliary" in w.path for w in googlenet.trainable_weights) == 2 * 7
    write_state(tmp_path / "w.h5", {"model": googlenet.weights}, {})
    again = classifier_of(settings("googlenet", "64x80", head={"dropout": 0.0}), 4)
    load_state(tmp_path / "w.h5", {"model": again.weights})
    assert np.array_equal(np.asarray(again(images)), np.asarray(googlenet(images)))


def test_logistic_stages_ask_for_what_they_need() -> None:
    with pytest.raises(InputError, match="needs freeze_until: head"):
        settings(weights="imagenet", train={"stages": [{"freeze_until": "stage1", "fit": "linear_probe"}]})
    with pytest.raises(InputError, match=r"head\.dense must be empty"):
        settings(
            weights="imagenet", head={"dense": [5]}, train={"stages": [{"freeze_until": "head", "fit": "linear_probe"}]}
        )
