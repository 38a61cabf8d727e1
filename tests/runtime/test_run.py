"""The run loop and the team of workers."""

from __future__ import annotations

import ctypes
import functools
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn.kernels.step.cpu  # noqa: F401
from fastnn.kernels import control_block
from fastnn.ops.declare import apply_effect
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.execute import BoundProgram
from fastnn.runtime.cpu.team import Team, _compiled, own_team
from fastnn.runtime.segment import aligned_zeros
from tests.runtime import interrupting
from tests.runtime.programs import Run, build, ring

WORKERS = range(1, 9)


def expected(items: int, phases: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    state = [np.zeros(items), np.zeros(items)]
    for _ in range(steps):
        for k in range(phases):
            total = 0.0
            for value in state[k % 2]:
                total += value
            state[1 - k % 2] = total % 1000.0 + np.arange(items)
    return state[0], state[1]


@pytest.mark.parametrize("workers", WORKERS)
def test_barriers(workers: int) -> None:
    """Every phase sees all of what the phase before has written, on every worker."""
    items, phases, steps = 37, 4, 200
    state, counts = np.zeros(2 * items), np.zeros(items, np.int64)
    run = Run(ring(items, phases), workers, state=state, counts=counts)
    assert len(run.bound.program.phases) >= phases
    run.start(steps)
    np.testing.assert_array_equal(state, np.concatenate(expected(items, phases, steps)))
    np.testing.assert_array_equal(counts, steps)
    assert run.control[control_block.STEP] == steps
    assert nobody_waits(run, workers)


def nobody_waits(run: Run, workers: int) -> bool:
    """Whether all workers have arrived at the barrier as often as it has opened."""
    arrived, opened = run.last.barrier[0], run.last.barrier[layout.OPENED] // 2
    return bool(opened > 0 and arrived == (workers * opened if workers > 1 else 0))


@pytest.mark.parametrize("workers", [1, 3])
def test_call_and_start_agree(workers: int) -> None:
    state, counts = np.zeros(2 * 5), np.zeros(5, np.int64)
    run = Run(ring(5, 3), workers, state=state, counts=counts)
    run.call(7)
    run.start(4)
    assert (counts == 11).all()
    np.testing.assert_array_equal(state, np.concatenate(expected(5, 3, 11)))


def test_fewer_items_than_workers() -> None:
    counts = np.zeros(2, np.int64)
    run = Run(ring(2, 2), 8, state=np.zeros(4), counts=counts)
    run.start(50)
    assert (counts == 50).all()


def test_programs_in_turn() -> None:
    """A run of several programs, as an epoch with a smaller last batch."""
    state, counts = np.zeros(10), np.zeros(5, np.int64)
    run = Run(ring(5, 2), 3, state=state, counts=counts)
    other = BoundProgram(ring(5, 4), run.memory)
    run.team.start(
        run.team.describe([(run.bound, 5), (other, 2), (run.bound, 0), (other, 1)], run.control),
        lambda: None,
    )
    assert (counts == 8).all()
    assert run.control[control_block.RUN_STEP] == 8


@pytest.mark.parametrize("workers", WORKERS)
def test_a_stop_is_taken_at_a_step_boundary(workers: int) -> None:
    """The request comes at any time; all workers leave after the same step."""
    items = 64
    counts = np.zeros(items, np.int64)
    run = Run(ring(items, 3), workers, state=np.zeros(2 * items), counts=counts)

    def stop() -> None:
        run.control[control_block.STOP_REQUEST] = 1

    run.start(10**9, poll=stop)  # would take hours
    done = int(run.control[control_block.STEP])
    assert 0 < done < 10**9
    assert (counts == done).all()
    assert run.control[control_block.STOP] == control_block.REQUESTED
    assert nobody_waits(run, workers)
    # and the team can go on
    run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0
    run.start(3)
    assert (counts == done + 3).all()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("callback")])
def test_an_exception_in_poll(workers: int, error: Any) -> None:
    counts = np.zeros(8, np.int64)
    run = Run(ring(8, 2), workers, state=np.zeros(16), counts=counts)

    def fail() -> None:
        raise error

    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else RuntimeError):
        run.start(10**9, poll=fail)
    done = int(run.control[control_block.STEP])
    assert (counts == done).all()
    run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0
    run.start(5)
    assert (counts == done + 5).all()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("way", ["start", "call"])
def test_ctrl_c_at_every_instruction(workers: int, way: str) -> None:
    """All of a run or none, or up to a step's end; and the next run is not touched."""
    counts = np.zeros(8, np.int64)
    run = Run(ring(8, 2), workers, state=np.zeros(16), counts=counts)

    def once() -> None:
        run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0
        (run.start if way == "start" else run.call)(3)

    once()
    many = interrupting.moments(once)
    for moment in range(many):
        before = int(run.control[control_block.STEP])
        # (how often `start` has to wait for the run is a matter of chance)
        assert interrupting.interrupt_at(once, moment) or moment > many // 2
        assert before <= run.control[control_block.STEP] <= before + 3
        assert (counts == run.control[control_block.STEP]).all()
        before = int(run.control[control_block.STEP])
        once()
        assert (counts == before + 3).all()
    assert many > 50


def test_ctrl_c_after_ctrl_c() -> None:
    """Signals that hit the hand-over of short runs, and each other's handling, again and again."""
    counts = np.zeros(8, np.int64)
    run = Run(ring(8, 2), 3, state=np.zeros(16), counts=counts)
    rng, caught = np.random.default_rng(0), 0
    with interrupting.alarms() as arm:
        while caught < 300:
            try:
                arm(*rng.uniform((2e-5, 5e-5), (2e-3, 5e-4)))
                for _ in range(10):
                    run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0
                    run.start(20, every=0.001)
            except KeyboardInterrupt:
                caught += 1
    assert (counts == run.control[control_block.STEP]).all()
    run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0
    before = counts.copy()
    run.start(10)
    assert (counts == before + 10).all()


def threads(team: Team) -> np.ndarray:
    """For each worker whether it has a thread."""
    begin = layout.TEAM_STATES + layout.TEAM_THREAD
    return np.asarray(team.table[begin :: layout.TEAM_STRIDE])


def states(team: Team) -> np.ndarray:
    return np.asarray(team.table[layout.TEAM_STATES :: layout.TEAM_STRIDE])


def eventually(condition: Callable[[], Any]) -> None:
    """Wait, for minutes if need be: the machine may be busy."""
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came about")


def test_threads_end_with_the_team() -> None:
    run = Run(ring(4, 2), 4, state=np.zeros(8), counts=np.zeros(4, np.int64))
    alive = threads(run.team)
    assert not alive.any()  # none until there is something to do
    run.start(2)
    assert alive.all()
    del run
    eventually(lambda: not alive.any())


def test_a_team_that_ctrl_c_leaves_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastnn.runtime.cpu.team._compiled", interrupted)
    said: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    with pytest.raises(KeyboardInterrupt):
        Team(2)
    gc.collect()
    assert not said


def are_asleep(found: np.ndarray) -> bool:
    return bool((found == layout.ASLEEP).all())


def none(alive: np.ndarray) -> bool:
    return not alive.any()


def test_a_team_that_goes_ends_the_run_that_it_was_left_with() -> None:
    counts = np.zeros(4, np.int64)
    run = Run(ring(4, 2), 3, state=np.zeros(8), counts=counts)
    for k in range(20):
        run.team = team = Team(3)
        run.start(2)
        alive, running, left = threads(team), team.table[layout.TEAM_RUNNING :], team.kept
        run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0
        left[:] = [team.describe([(run.bound, 1000)], run.control)]
        if k % 2:
            eventually(functools.partial(are_asleep, states(team)))
        _compiled("submit")(team.where, left[0].address, 0)
        run.team = own_team(3)
        del team
        assert running[0] == 0
        assert (counts == run.control[control_block.STEP]).all()
        eventually(functools.partial(none, alive))
        run.control[[control_block.STOP, control_block.STOP_REQUEST]] = 0


def test_threads_without_work_sleep() -> None:
    """Without work they are asleep soon, which costs nothing; and a run wakes them."""
    counts = np.zeros(4, np.int64)
    run = Run(ring(4, 2), 3, state=np.zeros(8), counts=counts)
    for k in range(3):
        run.start(2)
        run.call(1)
        eventually(lambda: (states(run.team) == layout.ASLEEP).all())
        assert (counts == 3 * (k + 1)).all()


def test_a_worker_has_one_thread() -> None:
    """A Ctrl-C may hide that a thread was started: another one for the same worker ends at once."""
    counts = np.zeros(4, np.int64)
    run = Run(ring(4, 2), 3, state=np.zeros(8), counts=counts)
    for _ in range(5):
        run.team.start_helpers()
        run.team.leader_ready = False
        run.start(50)
    assert (counts == 250).all()


def test_teams_belong_to_threads() -> None:
    mine = own_team(3)
    assert own_team(3) is mine
    assert own_team(2) is not mine
    others: list[Team] = []
    thread = threading.Thread(target=lambda: others.append(own_team(3)))
    thread.start()
    thread.join()
    assert others[0] is not mine
    counts = np.zeros(4, np.int64)
    run = Run(ring(4, 2), 3, state=np.zeros(8), counts=counts)
    run.team, seen = mine, []
    run.start(1_000, poll=lambda: seen.append((mine.busy, own_team(3) is mine)), every=1e-5)
    assert (True, False) in seen  # in the middle of a run there is another one
    assert own_team(3) is mine


# ---------------------------------------------------------------- denormal numbers


def scaling(dtype: str) -> Any:
    def fill(graph: Any) -> dict[str, Any]:
        x = graph.leaf("x", (9,), "x", offset=0)
        apply_effect(graph, "scale_up", x=x, factor=0.5)
        return {}

    return build(fill, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("workers", [1, 3])
def test_denormals_are_zero_inside(dtype: str, workers: int) -> None:
    tiny = np.finfo(dtype).tiny
    x = np.full(9, tiny, dtype)
    x[0], x[1] = 8 * tiny, tiny / 4  # stays normal; is denormal on the way in
    with np.errstate(all="ignore"):
        assert (tiny * np.dtype(dtype).type(0.5)) > 0  # outside, there are denormal numbers
    run = Run(scaling(dtype), workers, x=x)
    run.start(1)
    assert x[0] == 4 * tiny
    assert (x[1:] == 0).all()


def mxcsr() -> int:
    """The control bits of this thread's floating-point unit (x86), without the exception flags."""
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()
    assert libm.fegetenv(environment) == 0
    return int(environment[7]) & ~0x3F


def is_x86() -> bool:
    import platform

    return platform.system() == "Linux" and platform.machine() in ("x86_64", "AMD64")


@pytest.mark.skipif(not is_x86(), reason="reads the control word of x86 through glibc")
@pytest.mark.parametrize("daz", [False, True])
def test_the_control_word_is_restored(daz: bool) -> None:
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    saved = int(environment[7])
    try:
        environment[7] = (saved & ~0x8040) | (0x40 if daz else 0)
        libm.fesetenv(environment)
        before = mxcsr()
        assert bool(before & 0x40) == daz
        run = Run(scaling("float32"), 1, x=np.full(9, np.finfo("f4").tiny, "f4"))
        run.call(1)  # in this thread
        assert (run.memory["x"] == 0).all()
        assert mxcsr() == before
    finally:
        environment[7] = saved
        libm.fesetenv(environment)


@pytest.mark.skipif(not is_x86(), reason="reads the control word of x86 through glibc")
def test_the_control_word_is_restored_after_a_stop() -> None:
    run = Run(scaling("float32"), 1, x=np.full(9, 1.0, "f4"))
    run.control[control_block.STOP_REQUEST] = 1
    before = mxcsr()
    run.call(50)
    assert run.control[control_block.STEP] == 1
    assert mxcsr() == before
    assert np.float32(1e-38) * np.float32(0.1) > 0


def test_loop_is_compiled_once() -> None:
    address = compiler.loop_address()
    assert compiler.loop_address() == address
    assert aligned_zeros(3, np.float64).ctypes.data % 4096 == 0
