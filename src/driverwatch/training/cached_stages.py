"""Which frozen layers are computed once and kept, stage by stage, and what is trained and predicted on their outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.config.model import PredictSettings
from driverwatch.config.types import pixels
from driverwatch.data.augment import Inputs, Joined
from driverwatch.data.pack import Pack
from driverwatch.data.tta import View, tta_set
from driverwatch.inference.feature_cache import FeatureCache, Outputs, augmented_pass, tta_pass
from driverwatch.inference.predict import FeaturePredictor, Predictor, whole_predictor
from driverwatch.io.console import say
from driverwatch.models.classifier import Classifier
from driverwatch.models.devices import ONE, Devices
from driverwatch.models.freezing import frozen_count
from driverwatch.models.split_network import FrozenPart, SplitPoint, TrainedPart, split_point
from driverwatch.run import Run
from driverwatch.training.optimizer import StagePlan, untouched


@dataclass(frozen=True)
class CachedStage:
    """What is trained in a stage, and the cache of what it is trained on."""

    cut: SplitPoint
    tail: TrainedPart
    cache: FeatureCache


class StageCaching:
    """Splits a run's classifier where its settings ask for it (`train.augmentation_passes`, `fit: linear_probe`) and it can."""

    def __init__(
        self,
        classifier: Classifier,
        run: Run,
        stages: list[StagePlan],
        feature_caches: Path,
        devices: Devices = ONE,
        images: int = 0,
    ) -> None:
        """Plan what of a run's stages is cached, of so many `images` of all packs."""
        self.classifier, self.run, self.stages, self.feature_caches = classifier, run, stages, feature_caches
        self.devices, self.images = devices, images
        self.draws = run.settings.train.augmentation_passes
        self.regions = len(run.settings.input.regions)
        self.image, self.size = pixels(run.settings.input.pack), pixels(run.settings.input.size)

    def cached_stage(self, stage: StagePlan) -> CachedStage | None:
        """The split classifier and its cache for a stage, or None where every layer is computed in every step."""
        frozen = frozen_count(self.classifier.backbone.layers, stage.freeze_until)
        if stage.settings.fit == "gradient" and (self.draws is None or frozen == 0):
            return None
        cut = split_point(self.classifier, frozen)
        if cut is None or (cut.layer and not untouched(self.classifier, self.stages, stage.number)):
            reason = "no single tensor lies below the boundary" if cut is None else "an earlier stage trained it"
            say(f"{self.run.name}: the backbone of stage {stage.number} ({stage.name}) is not cached: {reason}")
            return None
        if cut.between:
            more = f"{cut.between} more frozen layers are in branches"
            say(f"{self.run.name}: the backbone is cached up to {cut.layer}; {more}")
        frozen_part = FrozenPart(self.classifier, cut)
        dtype = self.run.settings.train.cache_dtype if cut.layer else "float32"
        with self.devices.scope():
            tail = TrainedPart(self.classifier, cut)
        engine, passes = self.run.settings.predict.engine, self.images * (self.draws or 1)
        return CachedStage(cut, tail, FeatureCache(self.feature_caches, frozen_part, dtype, engine, passes))

    def inputs(self, cached: CachedStage, packs: tuple[Pack, ...], epoch: int) -> Inputs:
        """What an epoch trains on: the cached outputs of one draw, each epoch the next one, in turn.

        `packs`: one, or two; rows of the second are numbered from where the first's end, as are its seeds.
        """
        draw, count = epoch % (self.draws or 1), len(packs[0].names)
        first = self._augmented(cached, packs[0], draw)
        return first if len(packs) == 1 else Joined(first, self._augmented(cached, packs[1], draw, count), count)

    def features(self, cached: CachedStage, pack: Pack) -> list[Outputs]:
        """What logistic regression is fitted on: the centre view, or with `train.augmentation_passes` every draw."""
        if self.draws is None:
            centre = tta_pass(tta_set("centre", self.image, self.size)[0], self.size, self.regions)
            return [cached.cache.outputs(pack, centre, f"{self.run.name}: features, centre view")]
        return [self._augmented(cached, pack, draw) for draw in range(self.draws)]

    def _augmented(self, cached: CachedStage, pack: Pack, draw: int, first: int = 0) -> Outputs:
        label = f"{self.run.name}: frozen layers, draw {draw + 1} of {self.draws}"
        return cached.cache.outputs(pack, augmented_pass(self.run, draw, first), label)

    def validation_predictor(self, cached: CachedStage | None) -> Predictor:
        """The centre view, for the validation drivers after each epoch."""
        return self._predictor(PredictSettings(tta=["centre"], batch_size=64, engine="keras"), cached)

    def predictor(self, cached: CachedStage | None, predict: PredictSettings) -> Predictor:
        """For final predictions: the whole network, or the head on cached features where the whole backbone was frozen."""
        return self._predictor(predict, cached if cached and cached.cut.layer is None else None)

    def _predictor(self, predict: PredictSettings, cached: CachedStage | None) -> Predictor:
        if cached is None:
            asked: Any = (predict.tta, predict.batch_size, predict.engine, self.images)
            return whole_predictor(self.classifier, self.run, *asked)

        def outputs(pack: Pack, view: View) -> np.ndarray:
            label = f"{self.run.name}: frozen layers, {len(pack.names)} images, "
            label += f"{view.height}x{view.width} view at {view.top}, {view.left}"
            return cached.cache.outputs(pack, tta_pass(view, self.size, self.regions), label).array

        # over several devices the stage's own part is split
        tail = cached.tail if self.devices.count == 1 else TrainedPart(self.classifier, cached.cut)
        about = predict.tta, self.image, self.size, self.run.columns
        return FeaturePredictor(tail, outputs, *about, lambda: cached.cache.computed_by)
