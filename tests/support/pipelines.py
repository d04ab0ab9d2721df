"""Rows of members, and the labels that pipelines are fitted to."""

from dataclasses import dataclass

import numpy as np

from driverwatch.ensemble.transform import MemberPredictions


@dataclass
class World:
    """Labelled images of drivers in sets, and members that are right as often as their skill says."""

    rows: MemberPredictions
    labels: np.ndarray
    drivers: np.ndarray

    def at(self, order: np.ndarray) -> "World":
        return World(self.rows.at(order), self.labels[order], self.drivers[order])


def world(seed: int = 0, members: int = 3, classes: int = 4, drivers: int = 8, each: int = 15, sets: int = 4) -> World:
    chance = np.random.default_rng(seed)
    driver = np.repeat(np.arange(drivers), each)
    labels = chance.integers(classes, size=len(driver))
    scores = chance.normal(size=(members, len(driver), classes))
    scores[:, np.arange(len(driver)), labels] += np.linspace(0.5, 2.5, members)[:, None]
    p = np.exp(scores)
    names = np.array([f"img_{i}.jpg" for i in range(len(driver))])
    return World(
        MemberPredictions(names, p / p.sum(axis=2, keepdims=True), driver % sets),
        labels,
        np.char.add("p", driver.astype(str)),
    )
