"""Functions of gradients that exchange them with other processes, which train the same model."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.runtime import devices

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


class Exchanging(ABC):
    """Several processes that train one model: what a trainer knows of `fastnn.parallel`.

    Attributes:
        device: the device that each process has for itself; the host's where it has none.
    """

    device: str = devices.HOST

    @abstractmethod
    def average(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Put the mean over all processes in each gradient's place."""

    @abstractmethod
    def begin(self, contents: int) -> None:
        """See that all processes begin an epoch with the same; raises ProcessError if not."""


def partners(on_gradients: Any) -> Exchanging | None:
    """The processes whose mean a trainer's `on_gradients` takes, if it is nothing else."""
    owner = getattr(on_gradients, "__self__", None)
    if owner is None:
        return None
    return owner if isinstance(owner, Exchanging) and on_gradients == owner.average else None


def agree(trainer: Trainer) -> None:
    """See that an epoch begins alike in all processes: else their models would drift apart, and
    the mean of their gradients would be that of nothing."""
    group = partners(trainer.on_gradients)
    if group is None:
        return
    found = zlib.crc32(np.array([trainer.step, trainer.learning_rate], np.float64).tobytes())
    for name in ("params", *(f"slots/{slot}" for slot in trainer.optimizer.arrays)):
        contents: Any = np.ascontiguousarray(trainer.session.runtime.read(name))
        found = zlib.crc32(contents, found)
    group.begin(found)
