"""Teams of worker threads that do runs.

The threads live in compiled code (`handover`) and hold no lock of Python's. A thread of the program
that wants a run has a team of its own for each number of workers, so runs of different threads go
side by side. A forked child finds its teams without threads; they get new ones when they are
needed.
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.cached import cached
from fastnn.kernels.declare import KERNELS
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.choice import choice_of, unit_of
from fastnn.runtime.segment import aligned_zeros

if TYPE_CHECKING:
    from fastnn.runtime.cpu.execute import BoundProgram

NANOSECONDS = 1_000_000_000
#: more steps than a run has
ENDLESS = 1 << 40
#: a run that takes no longer, by estimate, is done in the thread that asks for it: handing it over
#: would take some 20 microseconds, and Ctrl-C can wait for its end
SHORT, FEW_STEPS = 1e-3, 256


class Description:
    """What a run does: programs with their numbers of steps, in order.

    It owns the barrier at which the run's workers meet, and keeps the programs alive.

    Args:
        segments: the programs, each with its number of steps.
        control: the control block.
        workers: how many workers there are; None: as many as prove quickest, see `choosing`.
        host: what calls a function of the host for a program: function of both.
        again: whether the run is done again and again.

    Attributes:
        workers: how many workers the run may take.
        address: of the description's words.
        control: address of the control block.
        asks: whether there are calls of the host: then the run has to be started (`Team.start`).
        keeps: whether buffers are copied after each good step.
        short: whether it need not be, as the run is over within a millisecond.
    """

    def __init__(
        self, segments: Sequence[tuple[BoundProgram, int]], control: np.ndarray,
        workers: int | None, host: Callable[[int, BoundProgram], None] | None = None,
        again: bool = False,
    ):  # fmt: skip
        self.segments, self._control = list(segments), control
        self.host, self.asks = host, any(bound.asks for bound, _ in segments)
        self.keeps = any(bound.keeps for bound, _ in segments)
        words = [[n, 0, 1, 0] for _, n in segments]
        self.workers, self.choices = workers or 1, []
        self._most: list[int] = []
        for row, (bound, steps) in zip(words, segments, strict=True):
            if workers is not None:
                break
            choice = choice_of(bound.program)
            most = choice.most(ENDLESS if again else steps)
            row[1:] = choice.address, unit_of(bound.program), most
            self.choices.append(choice)
            self._most.append(most)
            self.workers = max(self.workers, choice.candidates[most])
        found = [bound.segment(n, self.workers) for bound, n in segments]
        self.table = np.array([f + w for f, w in zip(found, words, strict=True)], np.int64)
        self.words = aligned_zeros(layout.DESCRIPTION_WORDS, np.int64)
        self.address, self.control = int(self.words.ctypes.data), int(control.ctypes.data)
        barrier, count = self.address + 8 * layout.DESCRIPTION_BARRIER, len(self.table)
        self.words[:7] = (
            self.table.ctypes.data, count, barrier, self.control,
            workers is None and self.workers > 1, self.table.ctypes.data, count,
        )  # fmt: skip

    @cached
    def short(self) -> bool:
        if self.asks or sum(steps for _, steps in self.segments) > FEW_STEPS:
            return False
        seconds = 0.0
        for bound, steps in self.segments:
            seconds += steps * choice_of(bound.program).estimates[0]
            if any(KERNELS[call.kernel].may_raise for call in bound.program.calls()):
                return False  # a user's: nobody knows how long it takes
        return seconds <= SHORT

    @cached
    def execute(self) -> Callable[[], None]:
        """Do the run in the calling thread and its helpers."""
        return prepare(self)

    def serves(self, segments: Sequence[tuple[BoundProgram, int]]) -> bool:
        """Whether a description of these programs and steps would be the same."""
        return self.segments == list(segments) and self._most == [
            choice.most(steps) for choice, (_, steps) in zip(self.choices, segments, strict=False)
        ]

    @property
    def barrier(self) -> np.ndarray:
        """How often workers have arrived at the barrier in the last run on several, and how often
        it has opened (see `layout`)."""
        return self.words[layout.DESCRIPTION_BARRIER :]

    def asked_by(self, team: int) -> None:
        """Calls of the host are asked for in the table of the team at this address."""
        for bound, _ in self.segments if self.asks else ():
            for record in bound.asks.values():
                record[0, 0] = team

    def call_host(self, address: int) -> None:
        """Call the function of the host that the call with the record at this address means."""
        assert self.host is not None
        bound = next(bound for bound, _ in self.segments if address in bound.asks)
        self.host(int(bound.asks[address][0, 1]), bound)


@functools.cache
def _compiled(name: str) -> Any:
    return compiler.CALL(compiler.loop_address(name))


class Team:
    """So many workers, each a thread, that do the same run at the same time.

    A run is done by the calling thread and the helpers (`call`, `prepare`), or by threads of the
    team only, while the caller looks after other things (`start`). One at a time.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self.table = aligned_zeros(layout.TEAM_STATES + layout.TEAM_STRIDE * workers, np.int64)
        self.where = int(self.table.ctypes.data)
        self.running = self.table.data[layout.TEAM_RUNNING : layout.TEAM_RUNNING + 1]
        self.asked = self.table.data[layout.TEAM_ASKED : layout.TEAM_ASKED + 1]
        #: what the run that is going on does; the threads refer to this list, too, so a run that
        #: exceptions leave behind can't lose its memory, even if the team goes
        self.kept: list[Description] = []
        self.helpers_ready = self.leader_ready = False
        self._finish, self._dismiss = _compiled("finish"), _compiled("dismiss")
        self._reset()
        _teams[id(self)] = weakref.ref(self)

    def _reset(self) -> None:
        """No threads, no run."""
        self.table[:] = 0
        self.table[layout.TEAM_RUN] = compiler.loop_address()
        self.table[layout.TEAM_HELPERS] = self.workers - 1
        self.table[layout.TEAM_READ] = compiler.loop_address("read_clock")
        self.table[layout.TEAM_CLOCK] = _make_locks(self.where)
        self.helpers_ready, self.leader_ready = self.workers == 1, False

    @property
    def busy(self) -> bool:
        """Whether a run that was started is going on."""
        return self.running[0] != 0

    def does(self, description: Description) -> bool:
        """Whether this very run is going on."""
        return self.busy and description in self.kept

    def start_helpers(self) -> None:
        """Start the threads of the helpers, once; one that has a thread already keeps it."""
        for worker in range(1, self.workers):
            self._start_thread(worker)
        self.helpers_ready = True

    def _start_thread(self, worker: int) -> None:
        if not self.table[layout.TEAM_STATES + layout.TEAM_STRIDE * worker + layout.TEAM_THREAD]:
            kept = self.table, self.kept
            _thread.start_new_thread(_live, (_compiled("serve"), self.where, worker, kept))

    def describe(
        self, segments: Sequence[tuple[BoundProgram, int]], control: np.ndarray, host: Any = None
    ) -> Description:
        """The description of a run for so many workers."""
        return Description(segments, control, self.workers, host)

    def prepare(self, description: Description, fresh: bool = False) -> Callable[[], None]:
        """A function that does a run, with little overhead; see `prepare`."""
        if self.workers == 1:
            return prepare(description, fresh)
        self.start_helpers()
        lead = _compiled("lead")

        def execute() -> None:
            lead(self.where, description.address, int(fresh))

        return execute

    def call(self, description: Description) -> None:
        """Run once in the caller's thread and the helpers."""
        self.prepare(description)()

    def start(
        self, description: Description, poll: Callable[[], None], every: float = 0.05,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Run in the team's threads while this one calls `meanwhile` once, and `poll` every so many
        seconds.

        Ctrl-C (or any exception in `poll`) asks the workers to stop at the end of their step,
        waits for them, and goes on as an exception. Functions of the host are called here, too,
        while the workers wait; where one raises an exception the step ends without an update.
        """
        submit, wait, finish = _compiled("submit"), _compiled("wait"), self._finish
        where, control, nanoseconds = self.where, description.control, int(every * NANOSECONDS)
        running = self.running
        if not self.helpers_ready:
            self.start_helpers()
        if not self.leader_ready:
            self._start_thread(0)
            self.leader_ready = True
        self.kept[:] = [description]  # nothing is running: `own_team` gives no team that is busy
        try:
            description.asked_by(where)
            submit(where, description.address, 0)
            if meanwhile is not None:
                meanwhile()
            wait(where, nanoseconds, 0)
            due = time.monotonic() + every
            while running[0]:
                if address := self.asked[0]:
                    description.call_host(address)
                    _compiled("answer")(where, 0, 0)
                if not address or time.monotonic() >= due:
                    poll()
                    due = time.monotonic() + every
                wait(where, nanoseconds, 0)
        finally:
            finish(where, control, 0)
            self.kept.clear()  # not reached where an exception comes before `finish`: kept then

    def finish(self, control: np.ndarray) -> None:
        """Stop a run that is going on at the end of its step, and wait for that."""
        self._finish(self.where, int(control.ctypes.data), 0)

    def close(self) -> None:
        """End the threads, and before that a run that exceptions have left behind."""
        for description in self.kept:
            self._finish(self.where, description.control, 0)
        self._dismiss(self.where, 0, 0)

    def __del__(self) -> None:
        teams: Any = _teams  # None where Python has ended, and taken the module apart
        made = teams.pop(id(self), None) if teams else None  # not after an exception in `__init__`
        if made is not None and not sys.is_finalizing():
            self.close()


def _live(serve: Any, where: int, worker: int, kept: Any) -> None:
    """A worker's thread; it keeps the table and the run's description, not the team, so that the
    team can go."""
    serve(where, worker, 0)


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def _make_locks(where: int) -> int:
    """Make a table's mutex and condition variables; returns the clock that they go by."""
    libc, attributes = _libc(), (ctypes.c_int64 * 8)()
    libc.pthread_mutex_init(ctypes.c_void_p(where + 8 * layout.TEAM_MUTEX), None)
    libc.pthread_condattr_init(attributes)
    clock = 0  # the time of day
    if sys.platform == "linux":
        clock = 1  # a clock that nobody sets
        libc.pthread_condattr_setclock(attributes, clock)
    for condition in (layout.TEAM_POSTED, layout.TEAM_ENDED):
        libc.pthread_cond_init(ctypes.c_void_p(where + 8 * condition), attributes)
    return clock


# ---------------------------------------------------------------- a thread's teams

_mine = threading.local()
#: all teams, for a forked child
_teams: dict[int, weakref.ref[Team]] = {}


def own_team(workers: int) -> Team:
    """This thread's team of so many workers.

    (Another one, while that is in the middle of a run: somebody predicts in a callback.)
    """
    teams: Any = _mine.__dict__
    depth = 0
    while True:
        team: Team | None = teams.get((workers, depth))
        if team is None:
            team = teams[workers, depth] = Team(workers)
        if not team.busy:
            return team
        depth += 1


def prepare(description: Description, fresh: bool = False) -> Callable[[], None]:
    """A function that does a run in the calling thread and its helpers, with little overhead.

    Args:
        description: what to do; the caller keeps it alive.
        fresh: forget a stop that the control block holds from a run before.
    """
    # as C's numbers once and for all: ctypes takes 0.1 microseconds to make one of Python's
    address, new = ctypes.c_int64(description.address), ctypes.c_int64(int(fresh))
    workers = description.workers
    if workers == 1:
        run = ctypes.c_int64(compiler.loop_address())
        return functools.partial(_compiled("alone"), address, run, new)
    lead = _compiled("lead")

    def execute() -> None:
        team = own_team(workers)
        if not team.helpers_ready:
            team.start_helpers()
        lead(team.where, address, new)

    return execute


def _renew() -> None:
    """In a forked child the threads of the parent are gone, and locks may be as they left them."""
    for reference in list(_teams.values()):
        team = reference()
        if team is not None:
            team._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
