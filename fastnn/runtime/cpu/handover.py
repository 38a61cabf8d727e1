"""How runs are handed over between threads: compiled, by words of a team's table.

The thread that wants a run calls one compiled function, which a signal of Python's cannot cut in
two: what it asks for is done wholly or not at all, whatever exception comes before or after. No
lock of Python's takes part. Each function has the signature of a kernel: `record` is the address of
the team's table (see `layout`). Threads without work wait awake for some 100 microseconds, then
asleep on a condition variable; so nothing is spent on an idle team.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from fastnn.kernels import recorded
from fastnn.kernels.control_block import FAULT, STOP, STOP_REQUEST, WORKERS
from fastnn.runtime.cpu import choosing
from fastnn.runtime.cpu.layout import (
    ASLEEP,
    CANDIDATE_WORKERS,
    DESCRIPTION_ALL,
    DESCRIPTION_CHOOSES,
    DESCRIPTION_COUNT,
    OPENED,
    QUIT,
    READY,
    SEGMENT_ALL,
    SEGMENT_CHOICE,
    SEGMENT_MOST,
    SEGMENT_STEPS,
    SEGMENT_UNIT,
    SEGMENT_WORDS,
    TASK,
    TEAM_ACTIVE,
    TEAM_ASKED,
    TEAM_CLOCK,
    TEAM_DESCRIPTION,
    TEAM_DONE,
    TEAM_ENDED,
    TEAM_FAILED,
    TEAM_HELPERS,
    TEAM_MUTEX,
    TEAM_POSTED,
    TEAM_READ,
    TEAM_REFUSES,
    TEAM_RUN,
    TEAM_RUNNING,
    TEAM_SHOWN,
    TEAM_STATES,
    TEAM_STRIDE,
    TEAM_THREAD,
    TEAM_TIME,
)
from fastnn.runtime.cpu.loop import SPINS
from fastnn.runtime.cpu.machine import (
    atomic_add,
    atomic_load,
    atomic_replace,
    atomic_store,
    atomic_swap,
    call_address,
    pause,
    yield_core,
)
from fastnn.runtime.cpu.numba_bridge import words

recorded.record()

#: turns that a thread without work stays awake: some 100 to 200 microseconds
PATIENCE = 4000
SECOND = 1_000_000_000

_I64 = ir.IntType(64)


def _call_c(name: str, builder: Any, args: Any) -> Any:
    """Call a C function of integers that returns an int."""
    kind = ir.FunctionType(ir.IntType(32), [_I64] * len(args))
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.sext(builder.call(function, args), _I64)


def _of_one(name: str) -> Any:
    @intrinsic
    def function(tc: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call_c(name, builder, args)

        return types.int64(types.int64), codegen

    return function


def _of_two(name: str) -> Any:
    @intrinsic
    def function(tc: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call_c(name, builder, args)

        return types.int64(types.int64, types.int64), codegen

    return function


def _of_three(name: str) -> Any:
    @intrinsic
    def function(tc: Any, a: Any, b: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call_c(name, builder, args)

        return types.int64(types.int64, types.int64, types.int64), codegen

    return function


lock = _of_one("pthread_mutex_lock")
unlock = _of_one("pthread_mutex_unlock")
wake_all = _of_one("pthread_cond_broadcast")
sleep_on = _of_two("pthread_cond_wait")
sleep_until = _of_three("pthread_cond_timedwait")
get_time = _of_two("clock_gettime")

candidate, decide, learn = choosing.candidate, choosing.decide, choosing.learn
arrive = choosing.arrive
for _function in choosing.FUNCTIONS:
    register_jitable(_function)


@register_jitable
def begin(description: int, fresh: int) -> None:
    """No kernel has raised; with `fresh`, the control block holds no stop of a run before."""
    parts = words(description)
    atomic_store(parts[3] + 8 * FAULT, 0)
    if fresh != 0:
        control = words(parts[3])
        control[STOP_REQUEST] = 0
        control[STOP] = 0


@register_jitable
def post(record: int, first: int, last: int, what: int) -> None:
    """Set the state of some workers, and wake those that sleep."""
    sleeping = 0
    for k in range(first, last):
        if atomic_swap(record + 8 * (TEAM_STATES + TEAM_STRIDE * k), what) == ASLEEP:
            sleeping += 1
    if sleeping > 0:
        lock(record + 8 * TEAM_MUTEX)
        wake_all(record + 8 * TEAM_POSTED)
        unlock(record + 8 * TEAM_MUTEX)


@register_jitable
def run_team(record: int, workers: int) -> None:
    """Run what the team's description says, on so many workers of which this is the first."""
    team = words(record)
    description = team[TEAM_DESCRIPTION]
    team[TEAM_ACTIVE] = workers
    parts = words(description)
    words(parts[3])[WORKERS] = workers
    barrier = parts[2]
    atomic_store(barrier, 0)  # a fork may have copied it from the middle of a run
    atomic_store(barrier + 8 * OPENED, 0)
    atomic_store(record + 8 * TEAM_DONE, 0)
    post(record, 1, workers, TASK)
    call_address(team[TEAM_RUN], description, 0, workers)
    turns = 0
    while atomic_load(record + 8 * TEAM_DONE) < workers - 1:
        turns += 1
        if turns > SPINS:
            yield_core()
        else:
            pause()


@register_jitable
def clock(record: int) -> int:
    """What the team's clock shows, in nanoseconds."""
    team = words(record)
    call_address(team[TEAM_READ], record + 8 * TEAM_SHOWN, team[TEAM_CLOCK], 0)
    return SECOND * team[TEAM_SHOWN] + team[TEAM_SHOWN + 1]


@register_jitable
def by_spells(record: int, description: int) -> None:
    """Run the description's segments on as many workers as prove quickest meanwhile."""
    parts = words(description)
    control = words(parts[3])
    for k in range(parts[DESCRIPTION_COUNT]):
        at = parts[DESCRIPTION_ALL] + 8 * SEGMENT_WORDS * k
        segment = words(at)
        parts[0], parts[1] = at, 1
        left, unit, choice = segment[SEGMENT_ALL], segment[SEGMENT_UNIT], segment[SEGMENT_CHOICE]
        if choice == 0:
            segment[SEGMENT_STEPS] = left
            run_team(record, 1)
            left = 0
        else:
            arrive(words(choice), left, unit)
        while left > 0 and control[STOP] == 0:
            use, steps, warm = decide(words(choice), left, unit, segment[SEGMENT_MOST])
            segment[SEGMENT_STEPS] = steps
            begun = clock(record)
            run_team(record, words(choice)[candidate(use) + CANDIDATE_WORKERS])
            time = clock(record) - begun
            if control[STOP] == 0:  # else not all of the steps were made
                learn(words(choice), use, warm, steps, unit, time)
            left -= steps
        if control[STOP] != 0:
            break


@register_jitable
def take_the_lead(record: int) -> None:
    """Run the team's description as its first worker, together with helpers."""
    team = words(record)
    description = team[TEAM_DESCRIPTION]
    begin(description, 0)
    if words(description)[DESCRIPTION_CHOOSES] != 0:
        by_spells(record, description)
    else:
        run_team(record, team[TEAM_HELPERS] + 1)


def read_clock(where: int, number: int, _: int) -> None:
    """Write what a clock of the system shows: seconds, nanoseconds."""
    get_time(number, where)


def alone(description: int, run: int, fresh: int) -> None:
    """Do a run in this thread only; `run` is the address of the run loop."""
    begin(description, fresh)
    words(words(description)[3])[WORKERS] = 1
    call_address(run, description, 0, 1)


def lead(record: int, description: int, fresh: int) -> None:
    """Do a run in this thread and the helpers."""
    begin(description, fresh)
    words(record)[TEAM_DESCRIPTION] = description
    take_the_lead(record)


def serve(record: int, worker: int, _: int) -> None:
    """What a worker's thread does from its beginning to its end.

    A second thread for the same worker returns at once.
    """
    team = words(record)
    state = record + 8 * (TEAM_STATES + TEAM_STRIDE * worker)
    if atomic_swap(state + 8 * TEAM_THREAD, 1) != 0:
        return
    turns = 0
    while True:
        now = atomic_load(state)
        if now == TASK:
            if worker == 0:
                take_the_lead(record)
                atomic_replace(state, TASK, READY)
                lock(record + 8 * TEAM_MUTEX)
                atomic_store(record + 8 * TEAM_RUNNING, 0)
                wake_all(record + 8 * TEAM_ENDED)
                unlock(record + 8 * TEAM_MUTEX)
            else:
                call_address(team[TEAM_RUN], team[TEAM_DESCRIPTION], worker, team[TEAM_ACTIVE])
                atomic_replace(state, TASK, READY)
                atomic_add(record + 8 * TEAM_DONE, 1)
            turns = 0
        elif now == QUIT:
            atomic_store(state + 8 * TEAM_THREAD, 0)
            return
        elif turns < PATIENCE:
            turns += 1
            if turns % 64 == 0:
                yield_core()
            else:
                pause()
        else:
            atomic_replace(state, READY, ASLEEP)
            lock(record + 8 * TEAM_MUTEX)
            while atomic_load(state) == ASLEEP:
                sleep_on(record + 8 * TEAM_POSTED, record + 8 * TEAM_MUTEX)
            unlock(record + 8 * TEAM_MUTEX)
            turns = 0


def submit(record: int, description: int, _: int) -> None:
    """Have a run done by the team's threads, without this one."""
    words(record)[TEAM_DESCRIPTION] = description
    atomic_store(record + 8 * TEAM_ASKED, 0)
    atomic_store(record + 8 * TEAM_REFUSES, 0)
    atomic_store(record + 8 * TEAM_RUNNING, 1)
    post(record, 0, 1, TASK)


@register_jitable
def goes_on_alone(record: int) -> bool:
    """Whether a run is going on and asks nothing."""
    return atomic_load(record + 8 * TEAM_RUNNING) != 0 and atomic_load(record + 8 * TEAM_ASKED) == 0


def wait(record: int, nanoseconds: int, _: int) -> None:
    """Wait so long at most for the end of the run that was submitted, or until it asks."""
    turns = 0
    while goes_on_alone(record) and turns < PATIENCE // 4:
        turns += 1
        if turns % 64 == 0:
            yield_core()
        else:
            pause()
    if not goes_on_alone(record):
        return
    team = words(record)
    get_time(team[TEAM_CLOCK], record + 8 * TEAM_TIME)
    end = team[TEAM_TIME + 1] + nanoseconds
    team[TEAM_TIME] += end // SECOND
    team[TEAM_TIME + 1] = end % SECOND
    lock(record + 8 * TEAM_MUTEX)
    if goes_on_alone(record):
        sleep_until(record + 8 * TEAM_ENDED, record + 8 * TEAM_MUTEX, record + 8 * TEAM_TIME)
    unlock(record + 8 * TEAM_MUTEX)


def finish(record: int, control: int, _: int) -> None:
    """Ask a run that is going on to stop at the end of its step, and wait for that. If it asks for
    something, now or before that, the step fails."""
    running = record + 8 * TEAM_RUNNING
    if atomic_load(running) == 0:
        return
    atomic_store(control + 8 * STOP_REQUEST, 1)
    lock(record + 8 * TEAM_MUTEX)
    atomic_store(record + 8 * TEAM_REFUSES, 1)
    atomic_store(record + 8 * TEAM_ASKED, 0)
    wake_all(record + 8 * TEAM_POSTED)
    while atomic_load(running) != 0:
        sleep_on(record + 8 * TEAM_ENDED, record + 8 * TEAM_MUTEX)
    unlock(record + 8 * TEAM_MUTEX)
    atomic_store(control + 8 * STOP_REQUEST, 0)


def ask(record: int, _: int, __: int) -> None:
    """What stands for a kernel in a call of the host: ask the thread that has submitted the run to
    call the function, and wait until it has. Raises an exception unless that has gone well."""
    team = words(record)[0]
    asked, failed = team + 8 * TEAM_ASKED, team + 8 * TEAM_FAILED
    lock(team + 8 * TEAM_MUTEX)
    atomic_store(failed, 1)
    if atomic_load(team + 8 * TEAM_REFUSES) == 0:
        atomic_store(asked, record)
        wake_all(team + 8 * TEAM_ENDED)
    unlock(team + 8 * TEAM_MUTEX)
    turns = 0
    while atomic_load(asked) != 0 and turns < PATIENCE:
        turns += 1
        if turns % 64 == 0:
            yield_core()
        else:
            pause()
    lock(team + 8 * TEAM_MUTEX)
    while atomic_load(asked) != 0:
        sleep_on(team + 8 * TEAM_POSTED, team + 8 * TEAM_MUTEX)
    unlock(team + 8 * TEAM_MUTEX)
    if atomic_load(failed) != 0:
        raise RuntimeError


def answer(record: int, _: int, __: int) -> None:
    """What the run has asked for is done."""
    lock(record + 8 * TEAM_MUTEX)
    atomic_store(record + 8 * TEAM_FAILED, 0)
    atomic_store(record + 8 * TEAM_ASKED, 0)
    wake_all(record + 8 * TEAM_POSTED)
    unlock(record + 8 * TEAM_MUTEX)


def dismiss(record: int, _: int, __: int) -> None:
    """End the threads of a team without a run."""
    post(record, 0, words(record)[TEAM_HELPERS] + 1, QUIT)
