"""An imagined machine of two cores, for the choice of a number of workers: how long steps take on
it, with what goes wrong on real ones. Times are nanoseconds; nothing here looks at a clock."""

from __future__ import annotations

import random
from typing import Any

from fastnn.runtime.cpu import layout

MS = 1_000_000
#: what a thread waits awake before it sleeps
AWAKE = 150_000


class Machine:
    """Steps of one net on one and two workers.

    Drawn by a seed: what a step takes on each number, how long threads take to wake, for how long a
    core that has slept is slow, how often the system takes the cores away; and, in half of the
    machines, times at which another process keeps the second core busy: then two workers get on
    only in their share of slices of some milliseconds, of which the first after a sleep is longer.
    """

    def __init__(self, seed: int, length: int = 2000 * MS):
        draw = random.Random(seed)
        self.draw = random.Random(seed + 1)
        self.one = 5_000 * 20_000 ** draw.random()  # 5 microseconds to 0.1 seconds
        self.two = self.one * draw.choice([0.5 + 0.5 * draw.random(), 4 ** draw.random()])
        self.wake = draw.randint(20_000, 200_000)
        self.slow, self.slow_for = (
            1 + 1.5 * draw.random(),
            draw.randint(0, draw.choice([1, 3, 12]) * MS),
        )
        self.noise, self.stalls = 0.03 * draw.random(), 10 * draw.random()
        self.period, self.share = draw.randint(2 * MS, 8 * MS), draw.uniform(0.4, 0.6)
        self.credit = draw.randint(0, 6 * MS)
        self.busy: list[tuple[float, float]] = []
        at = draw.expovariate(1 / (300 * MS)) if draw.random() < 0.5 else float(length)
        while at < length:
            end = at + draw.expovariate(1 / (500 * MS))
            self.busy.append((at, end))
            at = end + draw.expovariate(1 / (500 * MS))
        self.now, self.last_two, self.woken = 0.0, -1e18, 0.0

    def run(self, workers: int, steps: int) -> int:
        """So many steps; how long they took."""
        begun = self.now
        if workers == 2:
            if begun - self.last_two > AWAKE:
                self.now += self.wake
                self.woken = self.now
            self._together(steps * self.two)
            self.last_two = self.now
        else:
            self.now += steps * self.one * (1.03 if self._competitor(begun) else 1)
        work = self.now - begun
        stalls = self.draw.random() < 1 - 2 ** (-self.stalls * workers * work / 1e9)
        self.now += self.draw.expovariate(1 / MS) if stalls else 0
        self.now += work * self.noise * self.draw.uniform(-1, 1)
        return round(self.now - begun)

    def _competitor(self, at: float) -> bool:
        return any(begin <= at < end for begin, end in self.busy)

    def _together(self, work: float) -> None:
        """Two workers do what takes them so long on an idle machine."""
        cold = min(max(self.woken + self.slow_for - self.now, 0), work * self.slow)
        self.now += cold
        work -= cold / self.slow
        while work > 1:
            edges = [e for span in self.busy for e in span if e > self.now]
            until = min(edges, default=1e18)
            if not self._competitor(self.now):
                done = min(work, until - self.now)
            elif self.now - self.woken < self.credit:
                done = min(work, until - self.now, self.woken + self.credit - self.now)
            else:
                place = self.now % self.period
                mine = self.share * self.period
                if place >= mine:
                    self.now += self.period - place
                    continue
                done = min(work, mine - place)
            self.now += done + 1  # time that is too short to be added would last for ever
            work -= done


def chosen(machine: Machine, choosing: Any, first: int, steps: int, unit: int, run: int) -> float:
    """The time that runs of so many steps each take, in all so many, with the choice of `choosing`;
    `first` is what an estimate takes for the better number."""
    c, words = [0] * layout.CHOICE_WORDS, layout.CANDIDATE_WORDS
    for k in range(2):
        c += [0] * words
        at = choosing.candidate(k)
        c[at + layout.CANDIDATE_WORKERS] = k + 1
        estimate = machine.one if k + 1 == first else 1.3 * machine.one
        c[at + layout.CANDIDATE_ESTIMATE] = round(estimate)
        c[at + layout.CANDIDATE_HOLD] = choosing.HOLD
    c[layout.CHOICE_COUNT], c[layout.CHOICE_CURRENT] = 2, first - 1
    c[layout.CHOICE_TRIED], c[layout.CHOICE_SIDE] = -1, 1
    for begin in range(0, steps, run):
        left = min(run, steps - begin)
        if hasattr(choosing, "arrive"):
            choosing.arrive(c, left, unit)
        while left > 0:
            use, count, warm = choosing.decide(c, left, unit, 1)
            choosing.learn(c, use, warm, count, unit, machine.run(use + 1, count))
            left -= count
    return machine.now


def fixed(machine: Machine, workers: int, steps: int) -> float:
    """The time of so many steps on so many workers."""
    spell = max(round(10 * MS / machine.one), 1)
    for begin in range(0, steps, spell):
        machine.run(workers, min(spell, steps - begin))
    return machine.now


def regret(seed: int, choosing: Any, length: int = 2000 * MS) -> float:
    """The choice's time over that of the better fixed number."""
    draw = random.Random(-1 - seed)
    steps = max(round(length / Machine(seed, length).one), 1)
    best = min(fixed(Machine(seed, length), workers, steps) for workers in (1, 2))
    run = max(round(steps * 0.001 ** draw.random()), 1)
    first = draw.choice([1, 2])
    machine = Machine(seed, length)
    return chosen(machine, choosing, first, steps, draw.choice([1, 9600]), run) / best
