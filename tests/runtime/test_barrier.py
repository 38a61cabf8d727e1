"""The barrier of the run loop, in every order in which workers can get on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.kernels.declare import kernel
from fastnn.ops.declare import apply_effect
from fastnn.runtime.cpu import layout, loop

from .programs import Run, build


@kernel
def dawdle(state: "inout rows i[R]", lo: "begin", hi: "end"):
    """Take a time that depends on the item and on how often it has been here: nothing to 20
    microseconds."""
    for i in range(lo, hi):
        x = state[i]
        for _ in range((x >> 33) % 7 * (x >> 21) % 3000):
            x = x * 6364136223846793005 + 1442695040888963407
        state[i] = x * 2862933555777941757 + 3037000493


@kernel
def add_up(given: "in whole i[R]", y: "out rows i[R]", lo: "begin", hi: "end"):
    """y[i] = sum(given) + i."""
    total = 0
    for k in range(given.shape[0]):
        total += given[k]
    for i in range(lo, hi):
        y[i] = total + i


class Left(BaseException):
    """A schedule is over before its workers are."""


class Schedule:
    """Workers that go through barriers by the functions of `loop`, one access of shared memory
    after the other, in a given order of workers.

    Attributes:
        state: what has been read and written so far; equal states go on alike,
            and it does not matter which worker is which.
        able: the workers that can get on.
    """

    #: the one that is being made
    now: Any = None

    def __init__(self, order: tuple[int, ...], workers: int, barriers: int, stop_at: int) -> None:
        Schedule.now = self
        self.workers, self.barriers, self.stop_at = workers, barriers, stop_at
        self.memory = {0: 0, 8 * layout.OPENED: 0}
        self.arrived, self.serial, self.over = [0] * workers, [0] * barriers, [False] * workers
        self.seen: list[list[Any]] = [[] for _ in range(workers)]
        self.waits_for: list[Any] = [None] * workers  # the word as it was when it said "wait"
        self.turn = [threading.Semaphore(0) for _ in range(workers)]
        self.back, self.left = threading.Semaphore(0), False
        self.failures: list[BaseException] = []
        self.mine = threading.local()
        threads = [threading.Thread(target=self._live, args=(k,)) for k in range(workers)]
        for thread in threads:
            thread.start()
            self.back.acquire()  # up to its first access
        for worker in order:
            self._let(worker)
        self.able = [
            k for k in range(workers)
            if not self.over[k] and self.waits_for[k] != self.memory[8 * layout.OPENED]
        ]  # fmt: skip
        self.stuck = not self.able and not all(self.over)
        alike = zip(map(tuple, self.seen), self.over, self.waits_for, strict=True)
        self.state = (*self.memory.values(), *sorted(map(repr, alike)))
        self.left = True
        for k, thread in enumerate(threads):
            self.turn[k].release()
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _let(self, worker: int) -> None:
        self.turn[worker].release()
        self.back.acquire()

    def _access(self) -> int:
        """Wait for this worker's turn."""
        worker: int = self.mine.worker
        self.back.release()
        self.turn[worker].acquire()
        if self.left:
            raise Left
        return worker

    def add(self, address: int, value: int) -> int:
        worker, before = self._access(), self.memory[address]
        self.memory[address] += value
        self.seen[worker].append(before)
        return before

    def load(self, address: int) -> int:
        worker = self._access()
        self.waits_for[worker] = self.memory[address]  # unless it gets on
        return self.memory[address]

    def publish(self, address: int, value: int) -> None:
        worker = self._access()
        self.memory[address] = value
        self.seen[worker].append("opened")

    def _live(self, worker: int) -> None:
        self.mine.worker = worker
        try:
            self._work(worker)
        except Left:
            return
        except BaseException as error:  # for the thread that has made the schedule
            self.failures.append(error)
        self.over[worker] = True
        if not self.left:
            self.back.release()

    def _work(self, worker: int) -> None:
        for passed in range(self.barriers):
            self.arrived[worker] += 1
            if loop.last_to_arrive(0, self.workers, passed):
                assert self.arrived == [passed + 1] * self.workers
                self.serial[passed] += 1
                stop = int(passed == self.stop_at)
                loop.open_barrier(0, passed, stop)
            else:
                stop = loop.meet(0, passed)
                self.waits_for[worker] = None
                self.seen[worker].append(stop)
            assert min(self.arrived) > passed  # nobody gets through before all are there
            assert self.serial[passed] == 1
            assert stop == (passed == self.stop_at)
            if stop:
                break


@pytest.mark.parametrize(("workers", "barriers"), [(2, 4), (3, 2)])
def test_every_order_of_accesses(
    workers: int, barriers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All orders of the accesses of workers, by the code that is compiled; no two that have led to
    the same state are followed."""
    for name, method in {"atomic_add": "add", "atomic_load": "load", "publish": "publish"}.items():

        def access(*given: int, _method: str = method) -> Any:
            return getattr(Schedule.now, _method)(*given)

        monkeypatch.setattr(loop, name, access)
    for name in ("pause", "yield_core"):
        monkeypatch.setattr(loop, name, lambda: None)
    known: set[Any] = set()
    ahead: list[tuple[int, ...]] = [()]
    ends = 0
    while ahead:
        order = ahead.pop()
        found = Schedule(order, workers, barriers, barriers - 1)
        assert not found.stuck, f"nobody gets on after {order}"
        if found.state in known:
            continue
        known.add(found.state)
        ends += all(found.over)
        ahead += [(*order, worker) for worker in found.able]
    assert ends > 0
    assert len(known) > 20


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_workers_that_dawdle_between_all_barriers(workers: int) -> None:
    """Each phase reads all of what the one before has written, in arrays that begin as garbage."""
    items, steps = 12, 150

    def fill(graph: Graph) -> dict[str, Value]:
        late = graph.leaf("late", (items,), "state", dtype="i", offset=0)
        a, b = (
            graph.leaf(name, (items,), "counts", dtype="i", offset=items * k)
            for k, name in enumerate("ab")
        )
        for source, target in ((a, b), (b, a), (a, b), (b, a)):
            apply_effect(graph, "dawdle", state=late)
            apply_effect(graph, "add_up", given=source, y=target)
        return {}

    program = build(fill)
    rng = np.random.default_rng(0)
    late, found = rng.integers(1 << 62, size=items), rng.integers(1 << 62, size=2 * items)
    alone = late.copy(), found.copy()
    run = Run(program, workers, state=late, counts=found)
    assert len(program.phases) >= 4
    run.call(steps)
    run.start(steps)
    assert run.control[control_block.STEP] == 2 * steps
    one = Run(program, 1, state=alone[0], counts=alone[1])
    one.call(2 * steps)
    assert (late == alone[0]).all()
    assert (found == alone[1]).all()
