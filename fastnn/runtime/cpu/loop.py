"""The run loop: compiled once, executes any program's table on one worker.

It has the same signature as every kernel: `record` is the address of the run's description, `lo`
the worker's number, `hi` the number of workers. All workers call it at the same time with the same
description. Nothing in it allocates, raises or touches Python.
"""

from __future__ import annotations

from numba.extending import register_jitable

from fastnn.kernels import recorded
from fastnn.kernels.control_block import FAULT, KERNEL_FAILED, STOP
from fastnn.runtime.cpu.layout import (
    ADVANCE_WORDS,
    BARRIER,
    BEGIN,
    CALL_WORDS,
    GROUP,
    LOCAL_OPERAND_WORDS,
    MOVE_WORDS,
    OPENED,
    PLACED_WORDS,
    ROW_WORDS,
    SEGMENT_WORDS,
    SIZE_WORDS,
    WATCH_WORDS,
)
from fastnn.runtime.cpu.machine import (
    atomic_add,
    atomic_load,
    atomic_replace,
    call_address,
    flush_to_zero,
    pause,
    publish,
    restore_rounding,
    short_at,
    yield_core,
)
from fastnn.runtime.cpu.numba_bridge import words

recorded.record()

#: turns of the waiting loop before a worker lets others have the core
SPINS = 400
#: more items than there are
ALL = 1 << 62


@register_jitable
def any_bits(begin: int, size: int) -> bool:
    """Whether any of so many bytes, an even number, is not 0."""
    at = begin + size
    while at > begin:
        at -= 2
        if short_at(at) != 0:
            return True
    return False


@register_jitable
def placed(table: int, worker: int, begin: int, times: int) -> int:
    """The worker's own copy of a record, with the addresses that change: local operands lie so that
    the group's item `begin` is at the start of the worker's local memory, and what moves in loops
    is where the worker's steps say."""
    head = words(table)
    mine = head[0] * worker + head[1] + head[0]
    copy, first, steps = words(mine), words(head[1]), words(times)
    at = table + 8 * PLACED_WORDS
    for _ in range(head[2]):
        operand = words(at)
        copy[operand[0]] = operand[1] + operand[2] * worker - operand[3] * begin
        at += 8 * LOCAL_OPERAND_WORDS
    end = at + 8 * MOVE_WORDS * head[3]
    word = -1
    while at < end:
        move = words(at)
        by = move[2] * steps[move[1]]
        if move[0] == word:  # in several loops
            copy[word] += by
        else:
            word = move[0]
            copy[word] = first[word] + by
        at += 8 * MOVE_WORDS
    return mine


@register_jitable
def wanted(times: int, loop: int, begin: int, end: int) -> bool:
    """Whether the step in which a loop is has to be made for items `begin` to `end`: not where none
    of their sequences goes on."""
    watch = words(loop)[6]
    if watch == 0:
        return True
    head, steps = words(watch), words(times)
    at, size = head[0] + head[1] * begin, head[1] * (min(end, head[2]) - begin)
    for depth in range(head[3]):
        at += words(watch + 8 * WATCH_WORDS)[depth] * steps[depth]
    return any_bits(at, size)


@register_jitable
def enter(times: int, depth: int, loop: int, worker: int, begin: int, end: int) -> bool:
    """Begin a loop for items `begin` to `end`: is there a step? Then what moves is placed where it
    is in the first one. In reverse time this is the last that was made."""
    head, steps = words(loop), words(times)
    steps[depth] = 0
    while not wanted(times, loop, begin, end):
        steps[depth] += 1
        if head[5] == 0 or steps[depth] >= head[0]:
            return False
    tables = words(head[2])
    for k in range(head[1]):
        placed(tables[k], worker, begin, times)
    return True


@register_jitable
def goes_on(times: int, depth: int, loop: int, worker: int, begin: int, end: int) -> bool:
    """End a step of a loop: is there another? Then the worker's records move on to it."""
    head, steps = words(loop), words(times)
    steps[depth] += 1
    if steps[depth] >= head[0] or not wanted(times, loop, begin, end):
        return False
    for k in range(head[3]):
        move = words(head[4] + 8 * ADVANCE_WORDS * k)
        words(move[0] + move[1] * worker)[0] += move[2]
    return True


@register_jitable
def note_fault(control: int, call: int, record: int, lo: int, hi: int, worker: int) -> None:
    """Note in the control block that a call has raised; the first one counts."""
    if atomic_replace(control + 8 * FAULT, 0, call) == 0:
        place = words(control)
        place[FAULT + 1] = record
        place[FAULT + 2] = lo
        place[FAULT + 3] = hi
        place[FAULT + 4] = worker


@register_jitable
def run_blocks(
    row: int, first: int, times: int, control: int, lo: int, hi: int, block: int, worker: int
) -> bool:
    """A group's calls on items `lo` to `hi`, block after block; whether one has raised."""
    count = words(row)[5]
    for begin in range(lo, hi, block):
        end = min(begin + block, hi)
        c = 0
        while c < count:
            at = first + 8 * CALL_WORDS * c
            call = words(at)
            c += 1
            if call[0] == 0:
                if call[2] < 0:
                    if not enter(times, call[1], call[3], worker, begin, end):
                        c = -call[2]
                elif goes_on(times, call[1], call[3], worker, begin, end):
                    c = call[2]
                continue
            where = call[1]
            if call[3] < 0:
                where -= call[3] * (worker + 1)
            elif call[3] != 0:
                where = placed(call[3], worker, begin, times)
            if call_address(call[0], where, begin * call[2], end * call[2]) != 0:
                note_fault(control, at, where, begin * call[2], end * call[2], worker)
                return True
    return False


@register_jitable
def run_serial(row: int, first: int, times: int, control: int, worker: int) -> None:
    """The serial calls of a barrier, up to one that raises."""
    for c in range(words(row)[5]):
        if atomic_load(control + 8 * FAULT) != 0:
            break
        at = first + 8 * CALL_WORDS * c
        call = words(at)
        where = call[1]
        if call[3] < 0:
            where -= call[3] * (worker + 1)
        elif call[3] != 0:
            where = placed(call[3], worker, 0, times)
        if call_address(call[0], where, 0, 1) != 0:
            note_fault(control, at, where, 0, 1, worker)


@register_jitable
def last_to_arrive(barrier: int, workers: int, passed: int) -> bool:
    """Arrive at the barrier, as one that has passed it so often in this run; whether all the others
    have arrived already."""
    return workers == 1 or atomic_add(barrier, 1) == workers * (passed + 1) - 1


@register_jitable
def open_barrier(barrier: int, passed: int, stop: int) -> None:
    """Let the others pass, and tell them whether to stop. Nobody else writes this word meanwhile,
    and who waits looks at no other."""
    publish(barrier + 8 * OPENED, 2 * (passed + 1) + stop)


@register_jitable
def meet(barrier: int, passed: int) -> int:
    """Wait until the barrier has opened; whether to stop."""
    turns = 0
    while True:
        opened = atomic_load(barrier + 8 * OPENED)
        if opened > 2 * passed + 1:
            return opened & 1
        turns += 1
        if turns > SPINS:
            yield_core()
        else:
            pause()


@register_jitable
def resize(sizes: int, barrier: int, workers: int, passed: int) -> None:
    """Make the tables those of a size, unless they are: one worker does, the others wait."""
    if not last_to_arrive(barrier, workers, passed):
        meet(barrier, passed)
        return
    head = words(sizes)
    last = words(head[0])
    if last[0] != head[1]:
        last[0] = head[1]
        for k in range(head[2]):
            word = words(sizes + 8 * (SIZE_WORDS + 2 * k))
            words(word[0])[0] = word[1]
    open_barrier(barrier, passed, 0)


def run(record: int, worker: int, workers: int) -> None:
    """Execute the described run as one of `workers`."""
    description = words(record)
    rounding = flush_to_zero()
    barrier = description[2]
    control = words(description[3])
    stopped = failed = False
    passed = 0  # barriers
    for s in range(description[1]):
        segment = words(description[0] + 8 * SEGMENT_WORDS * s)
        times = segment[4] + segment[5] * worker
        sizes = words(segment[6])[0]
        if sizes != 0:
            resize(sizes, barrier, workers, passed)
            passed += 1
        for _ in range(segment[3]):
            r = 0
            while r < segment[1]:
                at = segment[0] + 8 * ROW_WORDS * r
                row = words(at)
                first = segment[2] + 8 * CALL_WORDS * row[4]
                r += 1
                if row[0] == GROUP:
                    if failed:
                        continue  # to the next barrier, where all workers learn of it
                    me = (worker + row[6]) % workers
                    blocks = (row[1] + row[2] - 1) // row[2]
                    lo = blocks * me // workers * row[2]
                    hi = min(row[1], blocks * (me + 1) // workers * row[2])
                    failed = run_blocks(at, first, times, description[3], lo, hi, row[3], worker)
                elif row[0] == BARRIER:
                    if last_to_arrive(barrier, workers, passed):
                        run_serial(at, first, times, description[3], worker)
                        if atomic_load(description[3] + 8 * FAULT) != 0:
                            control[STOP] = KERNEL_FAILED
                        stopped = control[STOP] != 0
                        open_barrier(barrier, passed, int(stopped))
                    else:
                        stopped = meet(barrier, passed) != 0
                    passed += 1
                    if stopped:
                        break
                elif row[0] == BEGIN:
                    if not enter(times, row[1], row[2], worker, 0, ALL):
                        r = row[3]
                elif goes_on(times, row[1], row[2], worker, 0, ALL):
                    r = row[3]
            if stopped:
                break
        if stopped:
            break
    restore_rounding(rounding)
