"""Orders of samples: functions of a seed and an epoch alone, the same on any device."""

from __future__ import annotations

import threading

import numpy as np

_mine = threading.local()


def generator(seed: int, epoch: int) -> np.random.Generator:
    """This thread's generator, where one with this key would begin: a new one takes four times as
    long, most of it for a seed from the system that the key replaces."""
    if not hasattr(_mine, "generator"):
        philox = np.random.Philox(key=np.zeros(2, np.uint64))
        _mine.generator, _mine.begin = np.random.Generator(philox), philox.state
    _mine.begin["state"]["key"] = np.array([seed, epoch], np.uint64)
    _mine.generator.bit_generator.state = _mine.begin
    found: np.random.Generator = _mine.generator
    return found


class Orders:
    """Draws the orders of so many samples, one after the other.

    Attributes:
        order: the last one: element k says which sample comes at place k.
    """

    def __init__(self, samples: int):
        self.samples = samples
        self.order = np.arange(samples)
        self._key: tuple[int, int] | None = None

    def draw(self, seed: int, epoch: int) -> np.ndarray:
        """The order of an epoch, as it stays until the next call; one that was drawn last is there
        already."""
        if self._key != (seed, epoch):
            self._key = None  # whatever comes between
            self._fill(seed, epoch)
            self._key = seed, epoch
        return self.order

    def _fill(self, seed: int, epoch: int) -> None:
        self.order = generator(seed, epoch).permutation(self.samples)
