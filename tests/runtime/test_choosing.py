"""The number of workers is chosen by time, which tests make up: none of them waits for a clock."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.kernels import control_block
from fastnn.runtime.cpu import choice as choices
from fastnn.runtime.cpu import choosing, compiler, layout
from fastnn.runtime.cpu.choice import Choice, ladder
from fastnn.runtime.cpu.choosing import HOLD, arrive, candidate, decide, learn, mean_of
from fastnn.runtime.cpu.team import Description, Team

from .machines import regret
from .programs import Run, ring

#: nanoseconds that a step takes on so many workers, at a time
Step = Callable[[int, int], int]


class Runs:
    """Runs of an imagined machine with so many candidates."""

    def __init__(self, estimates: dict[int, int], current: int, step: Step, unit: int = 1):
        self.step, self.unit, self.now, self.workers = step, unit, 0, list(estimates)
        self.words = [0] * (layout.CHOICE_WORDS + layout.CANDIDATE_WORDS * len(estimates))
        self.words[layout.CHOICE_COUNT] = len(estimates)
        self.words[layout.CHOICE_CURRENT] = self.workers.index(current)
        self.words[layout.CHOICE_TRIED], self.words[layout.CHOICE_SIDE] = -1, 1
        for k, (workers, estimate) in enumerate(estimates.items()):
            self.words[candidate(k)] = workers
            self.words[candidate(k) + layout.CANDIDATE_ESTIMATE] = estimate
            self.words[candidate(k) + layout.CANDIDATE_HOLD] = HOLD

    @property
    def current(self) -> int:
        return self.workers[self.words[layout.CHOICE_CURRENT]]

    def run(self, steps: int, most: int | None = None) -> dict[int, int]:
        """So many steps; how many of them on how many workers."""
        found = dict.fromkeys(self.workers, 0)
        last = len(self.workers) - 1 if most is None else most
        arrive(self.words, steps, self.unit)
        while steps > 0:
            use, count, warm = decide(self.words, steps, self.unit, last)
            assert 1 <= count <= steps
            assert use <= last
            time = count * self.step(self.workers[use], self.now)
            learn(self.words, use, warm, count, self.unit, time)
            self.now += time
            found[self.workers[use]] += count
            steps -= count
        return found


@pytest.mark.parametrize("unit", [1, 9600])
@pytest.mark.parametrize(
    ("first", "times"),
    [
        (2, {1: 80_000, 2: 150_000}),
        (1, {1: 80_000, 2: 150_000}),
        (2, {1: 900_000, 2: 500_000}),
        (1, {1: 900_000, 2: 500_000}),
        (1, {1: 4_600, 2: 7_000}),
        (2, {1: 350_000_000, 2: 700_000_000}),
        (1, {1: 350_000_000, 2: 700_000_000}),
    ],
)
def test_the_quickest_is_kept_and_trials_cost_little(
    first: int, times: dict[int, int], unit: int
) -> None:
    best, estimates = min(times.values()), {1: 200_000, 2: 110_000}
    runs = Runs(estimates, first, lambda workers, now: times[workers], unit)
    steps = 3_000_000_000 // best + 300
    runs.run(steps)
    assert times[runs.current] == best
    assert runs.now < 1.035 * steps * best


def test_a_run_of_a_few_steps_tries_nothing() -> None:
    times = {1: 80_000, 2: 150_000}
    assert Runs({1: 60_000, 2: 110_000}, 1, lambda w, now: times[w]).run(20) == {1: 20, 2: 0}
    # but what short runs have learnt adds up
    runs = Runs({1: 200_000, 2: 110_000}, 2, lambda w, now: times[w])
    for _ in range(50):
        runs.run(20)
    assert runs.current == 1


def test_a_busy_machine_and_one_that_is_idle_again() -> None:
    busy = 1_000_000_000, 3_000_000_000

    def step(workers: int, now: int) -> int:
        if workers == 1:
            return 900_000
        return 1_400_000 if busy[0] <= now < busy[1] else 500_000

    runs = Runs({1: 900_000, 2: 500_000}, 2, step)
    seen, late = [], []
    while runs.now < 5_000_000_000:
        found, now = runs.run(100), runs.now
        seen.append((now, runs.current))
        # 300 ms after a change all but trials run on the best
        if all(not 0 <= now - change < 300_000_000 for change in busy):
            late.append(found[1 if busy[0] <= now < busy[1] else 2])
    assert {1, 2} == {current for _, current in seen}
    assert sum(late) > 98.5 * len(late)
    assert min(late) >= 80


@pytest.mark.parametrize("slow_for", [2_000_000, 6_000_000])
def test_a_core_that_has_slept_is_slow_at_first(slow_for: int) -> None:
    """Two workers take 35 microseconds once both cores are awake, which takes longer than the first
    spells of a trial; one takes 54."""
    last, woken = 1, 0

    def step(workers: int, now: int) -> int:
        nonlocal last, woken
        if workers > last:
            woken = now
        last = workers
        return 54_000 if workers == 1 else 72_000 if now - woken < slow_for else 35_000

    runs = Runs({1: 211_000, 2: 114_000}, 1, step)
    while runs.now < 1_000_000_000:
        runs.run(277)
    assert runs.current == 2


@pytest.mark.parametrize("slower", [400_000, 2_500_000, 30_000_000])
def test_runs_of_one_step_each(slower: int) -> None:
    """As a compiled step makes them. A machine gets busy while two workers are current."""
    runs = Runs({1: 211_000, 2: 114_000}, 2, lambda w, now: 280_000 if w == 1 else slower)
    begun = 0
    for k in range(2000):
        begun = runs.now if k == 1000 else begun
        runs.run(1)
    assert runs.current == 1
    assert runs.now - begun < 1.03 * 1000 * 280_000 + 2 * slower


def test_two_workers_are_quicker_and_slower_by_turns() -> None:
    """A virtual machine's processors are near each other and far from each other by turns."""
    far = 1_000_000_000, 2_000_000_000

    def step(workers: int, now: int) -> int:
        return 54_000 if workers == 1 else 78_000 if far[0] <= now < far[1] else 33_000

    runs, ideal = Runs({1: 211_000, 2: 114_000}, 2, step), 0
    while runs.now < 3_000_000_000:
        ideal += 277 * min(step(1, runs.now), step(2, runs.now))
        runs.run(277)
    assert runs.now < 1.06 * ideal


def test_threads_that_spin_for_10_ms_before_each_run_do_not_keep_it_from_two_workers() -> None:
    """As those of a library that has just computed do: two workers get on badly meanwhile."""
    spinning, slow, steps, turns = 10_000_000, {1: 54_000, 2: 120_000}, 2000, 60
    runs, on_two = Runs({1: 211_000, 2: 114_000}, 2, lambda workers, now: 0), 0
    for _ in range(turns):
        begun, left = runs.now, steps
        arrive(runs.words, left, 1)
        while left > 0:
            use, count, warm = decide(runs.words, left, 1, 1)
            workers = runs.workers[use]
            late = max(begun + spinning - runs.now, 0)
            slowly = min(count, -(-late // slow[workers]))
            quick = 54_000 if workers == 1 else 35_000
            time = slowly * slow[workers] + (count - slowly) * quick
            learn(runs.words, use, warm, count, 1, time)
            runs.now += time
            left -= count
            on_two += count * (workers == 2)
    assert on_two > 0.9 * turns * steps


def test_steps_that_take_longer_than_a_trial_are_soon_on_the_better_number() -> None:
    """An LSTM's, while a neighbour keeps the other core busy: two workers take 89 ms and one 73,
    a fifth more or less each time."""
    better, lost = 73_000_000, []
    for seed in range(20):
        draw = random.Random(seed)

        def step(workers: int, now: int, draw: random.Random = draw) -> int:
            return int(draw.gauss(1, 0.2) * (better if workers == 1 else 89_000_000))

        runs = Runs({1: better, 2: 40_000_000}, 2, step, unit=9600)
        for _ in range(32):  # a run of Python's each
            runs.run(1)
        lost.append(runs.now / (32 * better))
    assert sum(lost) / len(lost) < 1.1


def test_little_is_lost_on_imagined_machines() -> None:
    """Cores that wake late, stalls, neighbours that come and go: on 120 of `machines`."""
    lost = sorted(regret(seed, choosing) for seed in range(120))
    assert sum(lost) / len(lost) < 1.025
    assert lost[60] < 1.012  # half of them
    assert lost[108] < 1.08  # nine in ten


def test_a_process_that_is_halted_goes_on_trying() -> None:
    """For an hour, in the middle of a trial; and then the other number is the better one."""
    hour, halted, changed = 3_600_000_000_000, [], False

    def step(workers: int, now: int) -> int:
        time = {1: 700_000 if changed else 400_000, 2: 500_000}[workers]
        if workers == 2 and now > 500_000_000 and not halted:
            halted.append(now)
            return time + hour
        return time

    runs = Runs({1: 400_000, 2: 500_000}, 1, step)
    while not halted:
        runs.run(1000)
    changed = True
    runs.run(10_000)
    assert runs.current == 2
    learn(runs.words, 1, 0, 100, 1, -hour)  # a clock is set back
    assert runs.words[layout.CHOICE_ELAPSED] > 0


def test_times_of_64_bits_do_not_overflow() -> None:
    """A step of two minutes, by measurement and by estimate."""
    words = np.array(Runs(dict.fromkeys((1, 2), 120_000_000_000), 1, lambda w, now: 1).words)
    words[candidate(0) + layout.CANDIDATE_MEAN] = mean = 1024 * 120_000_000_000
    assert mean_of(words, 1) == mean


def test_numbers_about_as_good_are_not_taken_in_turn() -> None:
    rng = np.random.default_rng(0)

    def step(workers: int, now: int) -> int:
        return int(rng.normal(500_000, 10_000)) - 5_000 * workers

    runs = Runs({1: 500_000, 2: 500_000}, 1, step)
    changes, before = 0, 1
    for _ in range(200):
        runs.run(100)
        changes, before = changes + (runs.current != before), runs.current
    assert changes <= 2


def test_what_disappoints_is_left_alone_ever_longer() -> None:
    """Two workers are quick in the first spells after one has worked for long, and slow then."""
    spells = {1: 0, 2: 0}

    def step(workers: int, now: int) -> int:
        spells[workers] += 1
        if workers == 1:
            spells[2] = 0 if spells[1] > 5 else spells[2]
            return 100_000
        spells[1] = 0
        return 60_000 if spells[2] < 6 else 160_000

    runs = Runs({1: 100_000, 2: 60_000}, 1, step)
    runs.run(20_000)
    begun = runs.now
    runs.run(100_000)
    assert runs.now - begun < 1.05 * 100_000 * 100_000


def test_many_workers() -> None:
    assert ladder(1) == [1]
    assert ladder(2) == [1, 2]
    assert ladder(7) == [1, 2, 3, 4, 6, 7]
    assert ladder(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    times = {w: 1_000_000 // w + 40_000 * w for w in ladder(16)}  # 4 or 6
    for first in ladder(16):
        runs = Runs(dict.fromkeys(ladder(16), 1_000_000), first, lambda w, now: times[w])
        runs.run(20_000)
        assert times[runs.current] < 1.03 * min(times.values())
        assert runs.now < 1.06 * 20_000 * min(times.values())
    runs = Runs(times, 1, lambda w, now: times[w])
    assert not any(list(runs.run(5_000, most=1).values())[2:])


# ---------------------------------------------------------------- the compiled run


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "available_cores", lambda: 2)


@pytest.fixture
def tries(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any program may gain by two workers, however small it is."""
    for name, value in {"may_gain": True, "most": 2}.items():
        monkeypatch.setattr(choices.Cost, name, value)
    monkeypatch.setattr(Choice, "most", lambda self, steps: 1)


class Clock:
    """A clock for a team: each step of its runs takes so many nanoseconds on so many workers."""

    def __init__(self, team: Team, times: dict[int, int]):
        self.team, self.times, self.now, self.calls = team, times, 0, 0
        self.taken = dict.fromkeys(times, 0)
        self.function = compiler.CALL(self._read)
        address = ctypes.cast(self.function, ctypes.c_void_p).value
        team.table[layout.TEAM_READ] = address

    def _read(self, where: int, _: int, __: int) -> int:
        self.calls += 1
        if self.calls % 2 == 0:  # a spell is over
            words = (ctypes.c_int64 * 8).from_address(int(self.team.table[1]))
            steps = (ctypes.c_int64 * 11).from_address(words[0])[layout.SEGMENT_STEPS]
            workers = int(self.team.table[layout.TEAM_ACTIVE])
            self.taken[workers] += steps
            self.now += steps * self.times[workers]
        shown = (ctypes.c_int64 * 2).from_address(where)
        shown[0], shown[1] = divmod(self.now, 1_000_000_000)
        return 0


def choosing_run(steps: int, times: dict[int, int], stop: int = 0) -> tuple[Run, Clock, Choice]:
    """A run of a ring of 64 items, and what has been found."""
    run = Run(ring(64, 3), 2, state=np.zeros(128), counts=np.zeros(64, np.int64))
    clock = Clock(run.team, times)
    description = Description([(run.bound, steps)], run.control, None)
    assert description.workers == 2
    run.control[control_block.STOP_REQUEST] = stop
    run.team.call(description)
    run.team.call(description) if not stop else None
    return run, clock, description.choices[0]


@pytest.mark.usefixtures("tries")
@pytest.mark.parametrize("best", [1, 2])
def test_a_run_takes_the_quickest_with_the_same_bits(best: int) -> None:
    times = {best: 70_000, 3 - best: 90_000}
    run, clock, choice = choosing_run(3000, times)
    assert choice.current == best
    assert sum(clock.taken.values()) == 6000
    assert clock.now < 1.015 * 6000 * 70_000  # what trials have cost
    assert min(clock.taken.values()) > 0
    assert run.control[control_block.STEP] == 6000
    fixed = Run(ring(64, 3), 1, state=np.zeros(128), counts=np.zeros(64, np.int64))
    fixed.call(6000)
    assert (run.memory["counts"] == 6000).all()
    assert run.memory["state"].tobytes() == fixed.memory["state"].tobytes()


@pytest.mark.usefixtures("tries")
def test_a_stop_ends_all_spells() -> None:
    run, _, choice = choosing_run(3000, {1: 70_000, 2: 90_000}, stop=1)
    assert run.control[control_block.STEP] == 1
    assert choice.words[layout.CHOICE_ELAPSED] == 0  # of steps that were not made nothing is known


@pytest.mark.usefixtures("two_cores")
def test_a_trainer_chooses_and_has_the_same_bits() -> None:
    x = np.random.default_rng(0).standard_normal((256, 96)).astype(np.float32)
    y = np.arange(256) % 7

    def train(workers: Any) -> tuple[bytes, fnn.Trainer]:
        model = nn.Sequential(nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 7))
        trainer = fnn.Trainer(model, "cross_entropy", "adam", workers=workers, seed=3)
        trainer.fit(x, y, epochs=12, batch_size=8, verbose=False)
        found = [trainer.predict(x)] + [p for _, p in sorted(model.state_dict().items())]
        return b"".join(np.asarray(a).tobytes() for a in found), trainer

    bits, trainer = train("auto")
    assert bits == train(1)[0] == train(3)[0]
    built = next(iter(trainer._built.values()))
    words = choices.choice_of(built.program).words
    assert words[layout.CHOICE_ELAPSED] > 0
    assert words[candidate(0) + layout.CANDIDATE_SEEN] + words[candidate(1) + layout.CANDIDATE_SEEN]
