"""The processes that train one model together, as one of them sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from fastnn.errors import OptionError, ProcessError
from fastnn.train.exchange import Exchanging

#: bytes of each process that are exchanged at once
CHUNK = 1 << 22
#: what a process comes to a meeting for: to leave, to average so many numbers, to begin an epoch
#: with such contents, to hand over bytes, to plan steps that exchange so many numbers
LEAVE, AVERAGE, BEGIN, GATHER, PLAN = 0, 1, 2, 3, 4


class Group(Exchanging):
    """The processes that train one model together, as one of them sees it.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        device: the device to train on that no other process has ("cuda:0", "cuda:1", ...), where
            `run` was asked for such; else that of the host.
    """

    rank: int
    size: int

    def share(self, samples: int) -> slice:
        """This process's samples: every `size`-th, as many for each process.

        Raises:
            OptionError: there are fewer samples than processes.
        """
        each = samples // self.size
        if not each:
            raise OptionError(
                f"parallel: expected at least one sample for each of {self.size} processes, got "
                f"{samples}; use fewer processes"
            )
        return slice(self.rank, each * self.size, self.size)

    def average(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Put the mean over all processes in each gradient's place: for `on_gradients`.

        Args:
            gradients: arrays by name, of the same names and shapes in every process.

        Raises:
            ProcessError: another process has ended, or computes another model.
        """
        self._meet(AVERAGE, sum(g.size for g in gradients.values()))
        for kind in sorted({g.dtype.char for g in gradients.values()}):
            arrays = [g for g in gradients.values() if g.dtype.char == kind]
            flat = np.concatenate([g.reshape(-1) for g in arrays])
            step = max(1, CHUNK // flat.itemsize)
            for begin in range(0, len(flat), step):
                part = flat[begin : begin + step]
                rows = self._gather(part)
                part[:] = rows[0]
                for row in rows[1:]:
                    part += row
                part /= self.size
            begin = 0
            for g in arrays:
                g[...] = flat[begin : begin + g.size].reshape(g.shape)
                begin += g.size

    def begin(self, contents: int) -> None:
        """See that all processes begin an epoch with the same; `fit` calls it.

        Args:
            contents: a checksum of parameters, optimiser, rates and steps done.

        Raises:
            ProcessError: another process has others, or has ended.
        """
        self._meet(BEGIN, contents)

    def _meet(self, purpose: int, number: int) -> None:
        """Wait for all processes, and see that they have come for the same."""
        rows = self._gather(np.array([purpose, number], np.int64))
        if found := disagreement([(int(row[0]), int(row[1])) for row in rows]):
            raise ProcessError(found)

    @abstractmethod
    def _gather(self, mine: np.ndarray) -> np.ndarray:
        """The arrays of all processes, by rank: shape (size, len(mine)); good until the next but
        one."""


def disagreement(rows: Sequence[tuple[int, int]]) -> str:
    """Why processes that have met for these purposes, with these numbers, can't go on; "" if they
    can."""
    left = [rank for rank, (purpose, _) in enumerate(rows) if purpose == LEAVE]
    if 0 < len(left) < len(rows):
        return (
            f"parallel: process {left[0]} has ended while others were in the middle of a "
            "training; give all processes as many steps (group.share, one batch size)"
        )
    if len({purpose for purpose, _ in rows}) > 1:
        begun = [rank for rank, (purpose, _) in enumerate(rows) if purpose == BEGIN]
        return (
            f"parallel: process {begun[0] if begun else 0} has begun another epoch, or exchanges "
            "something else, while others were in the middle of one; give all processes as many "
            "steps (group.share, one batch size)"
        )
    numbers = [number for _, number in rows]
    if len(set(numbers)) > 1 and rows[0][0] in (AVERAGE, PLAN):
        return (
            f"parallel: expected gradients of one model in all processes, got {numbers} numbers; "
            "build the same model in each"
        )
    if len(set(numbers)) > 1:
        other = next(rank for rank, number in enumerate(numbers) if number != numbers[0])
        return (
            "parallel: expected the same parameters, optimiser, learning rate and steps in all "
            f"processes before an epoch, got others in process {other} than in process 0; use one "
            "seed, load the same checkpoint in each, and change rates by what all have in common"
        )
    return ""
