"""An estimate of a step's time on so many workers: what runs begin with, until they have measured
(see `choosing`).

A barrier between workers costs about 0.5 microseconds on an idle machine, and waking them costs
more; a step so short that splitting gains less runs on one worker, without a trial.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.kernels.declare import KERNELS
from fastnn.plan.program import PlannedCall, PlannedPhase, PlannedRepeat, Program

#: what one worker is assumed to reach, for estimates only
FLOPS = 60e9
BYTES = 8e9
#: seconds that a barrier costs with several workers, the imbalance before it included; at least
BARRIER, LEAST = 3e-6, 0.5e-6
#: least gain that is worth using one more worker
GAIN = 1.15


def call_seconds(call: PlannedCall) -> float:
    """Rough time of a call on one worker."""
    kernel = KERNELS[call.kernel]
    letters: dict[str, int] = {}
    moved = 0
    for _, parameter, operand in call.arrays():
        if not operand.external:
            letters.update(zip(parameter.dims, operand.dims, strict=True))
            size = 1
            for extent in operand.dims:
                size *= extent
            if parameter.axis != "whole":
                moved += 4 * size
    if kernel.traits.product:
        product = 2.0
        for letter in kernel.traits.product:
            product *= letters.get(letter, 1)
        return product / FLOPS
    return moved / BYTES


class Cost:
    """What a step takes: groups' times, by the number of blocks that workers share; times of what
    one worker does alone; and barriers."""

    def __init__(self, program: Program) -> None:
        self.groups: dict[int, float] = {}
        self.serial, self.barriers = 0.0, 0
        self._add(program.phases, 1)

    def _add(self, phases: Sequence[PlannedPhase | PlannedRepeat], times: int) -> None:
        for phase in phases:
            if isinstance(phase, PlannedRepeat):
                self._add(phase.body, times * phase.length)
                continue
            for group in phase.groups:
                blocks = max(-(-group.items // group.grain), 1)
                seconds = times * _calls_seconds(group.calls)
                self.groups[blocks] = self.groups.get(blocks, 0.0) + seconds
            self.serial += times * _calls_seconds(phase.serial)
            self.barriers += times

    def seconds(self, workers: int) -> float:
        """Rough time of a step on so many workers."""
        shared = sum(
            seconds * -(-blocks // workers) / blocks for blocks, seconds in self.groups.items()
        )
        return shared + self.serial + (self.barriers * BARRIER if workers > 1 else 0.0)

    @property
    def most(self) -> int:
        """More workers than this would find nothing to do."""
        return max(self.groups, default=1)

    @property
    def may_gain(self) -> bool:
        """Whether half of the work that can be shared takes longer than the cheapest barriers."""
        return sum(self.groups.values()) / 2 > self.barriers * LEAST

    def fastest(self, candidates: Sequence[int]) -> int:
        """The best of these numbers of workers; of numbers about as good, the smallest."""
        best, seconds = candidates[0], self.seconds(candidates[0])
        for workers in candidates[1:]:
            estimate = self.seconds(workers)
            if estimate * GAIN < seconds:
                best, seconds = workers, estimate
        return best


def _calls_seconds(calls: Sequence[PlannedCall | PlannedRepeat]) -> float:
    return sum(
        call_seconds(c) if isinstance(c, PlannedCall) else c.length * _calls_seconds(c.body)
        for c in calls
    )
