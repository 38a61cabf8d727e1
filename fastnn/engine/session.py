"""A session: memory, programs and a runtime that runs steps over data in memory."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnn.engine.access import Access, access_to
from fastnn.engine.arrays import Arrays
from fastnn.engine.builder import Built
from fastnn.engine.store import ParameterStore
from fastnn.errors import BusyError, OptionError, is_whole
from fastnn.kernels import control_block
from fastnn.plan.program import Program
from fastnn.runtime import devices
from fastnn.runtime.interface import Bound


def check_workers(workers: int | str) -> int | str:
    if workers == "auto":
        return workers
    if not is_whole(workers, 1):
        raise OptionError(f"workers: expected 'auto' or a whole number >= 1, got {workers!r}")
    return int(workers)


class Session:
    """Runs programs that share a model's parameters.

    Args:
        store: the parameters' memory.
        slots: names of the optimiser's slots.
        totals: how many running totals (loss and metrics).
        workers: number of workers, or "auto": what proves quickest.
        device: where it runs, as `devices.choose` says.
        graphs: whether a GPU replays a step as one CUDA graph.

    Attributes:
        runtime, memory, control, totals: see `fastnn/runtime/interface.py`.
        running: whether workers may be in the middle of a step.
        device_all_reduce: whether the devices take the mean of gradients over processes themselves.
    """

    def __init__(
        self, store: ParameterStore, slots: Sequence[str], totals: int, workers: int | str,
        device: str = devices.HOST, graphs: bool = True,
    ):  # fmt: skip
        self.store, self.device = store, device
        self.workers, self.graphs = check_workers(workers), graphs
        self.runtime = devices.runtime(device, store, slots, totals, self.workers, graphs)
        self.memory = self.runtime.memory
        self.control, self.totals = self.runtime.control, self.runtime.totals
        self.running = False
        self._slots = len(slots)
        self.device_all_reduce = False
        self._call: Access | None = None  # of a function of the host
        self.doubt()

    @property
    def ahead(self) -> bool:
        """Whether steps that the host feeds are sent ahead."""
        return self.runtime.ahead and (self.device_all_reduce or not self.runtime.functions)

    def doubt(self) -> None:
        """The next training step is not beyond doubt (`engine/guard.py`): the host has set
        parameters. Where one call looks at all slots, it can tell that all is well."""
        word = control_block.UNKNOWN if self._slots <= control_block.SLOTS_AT_ONCE else 1
        self.memory["guard"][control_block.DOUBT] = word

    def undo(self) -> tuple[list[str], bool]:
        """After a stop for a number that is not finite: all as it was before that step.

        Returns the names of the parameters that the step's update broke, and whether all could be
        put back.
        """
        broken: list[str] = []
        if self.runtime.read("guard")[control_block.BROKEN]:
            broken = [
                n for n, p in self.store.parameters.items() if not np.isfinite(p.read()).all()
            ]
        return broken, self.runtime.put_back()

    def set(self, name: str, array: Any) -> None:
        """Provide an external segment; programs bound before keep the one they have."""
        self.runtime.provide(name, array)

    def let_go(self) -> None:
        """Keep no array of the data that were provided; programs that are bound may be run again
        when arrays that lie where those did have been provided."""
        self.runtime.let_go()

    def lend(self, bounds: Sequence[Any], segments: Mapping[str, np.ndarray]) -> None:
        """Provide arrays to programs that are bound, on the CPU: they lie where those did that the
        programs were bound to."""
        runtime: Any = self.runtime
        runtime.lend(bounds, segments)

    def changed(self, name: str) -> None:
        """Say that the host has written to an array that was provided."""
        self.runtime.changed(name)

    def bind(self, program: Program) -> Any:
        """Give a program its memory (and compile what is not yet compiled)."""
        return self.runtime.bind(program)

    def bind_again(self, program: Program) -> Bound:
        """The same for a program that the host feeds nothing: if it has been bound to the memory
        that there is now, it has that still."""
        return self.runtime.bind_again(program)

    def team(self, program: Program) -> Any:
        """The workers for runs of a program, on the CPU."""
        runtime: Any = self.runtime
        return runtime.team(program)

    def synchronize(self) -> None:
        """End a run that was cut off, at the end of its step; a step that came to no good is
        undone."""
        self.runtime.synchronize()

    def run(
        self, segments: Sequence[tuple[Bound, int]], poll: Callable[[], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> int:  # fmt: skip
        """Run programs so many steps each, one after the other; returns the reason of a stop or 0.

        `meanwhile` is called once, and needs nothing of what runs.
        The control block's CURSOR is kept, RUN_STEP starts from 0.
        """
        self.store.check()
        self.store.check_set()
        self.check_not_within("a run")
        self.synchronize()  # before the control block is set, which it counts in
        control = self.control
        control[control_block.RUN_STEP] = control[control_block.STOP_REQUEST] = 0
        control[control_block.STOP] = 0
        self.hold(lambda: self.runtime.run(segments, poll, meanwhile))
        return int(control[control_block.STOP])

    def hold(self, run: Callable[[], None]) -> None:
        """Do a run in threads that end before the call does, or as soon as somebody needs it."""
        self.running, call, access = True, Access("a run", sys._getframe()), access_to(self.store)
        access.running(call, self.synchronize)
        try:
            run()
        except BaseException:
            self.synchronize()
            access.ended(call)
            raise
        finally:
            self.running = False
        access.ended(call)

    def on_host(self, what: str, function: Callable[[Bound], None]) -> int:
        """The number by which programs call a function of the host, which gets the bound program;
        `what` is what messages call it."""

        this = weakref.ref(self)  # which keeps the runtime, and that the function

        def call(bound: Bound) -> None:
            session = this()
            assert session is not None  # it runs the step
            session._call = Access(what, sys._getframe())
            try:
                function(bound)
            finally:
                session._call.end()

        self.runtime.functions.append(call)
        return len(self.runtime.functions) - 1

    def use_device_all_reduce(self, number: int, partners: Any) -> None:
        """The function of this number takes the mean over other processes, which have devices of
        their own: let these do it (an all-reduce), if they can, without the host."""
        self.device_all_reduce = self.runtime.use_device_all_reduce(number, partners)

    def check_not_within(self, what: str) -> None:
        """Raise BusyError in a function of the host: a step is going on in this memory."""
        if self._call is not None and self._call.held():
            raise BusyError(
                f"{what}: called within {self._call.what}, in the middle of a step of the same "
                "object; do it after the step, or in a callback"
            )

    def run_once(self, built: Built, *data: Arrays) -> Bound:
        """Run a step that the host feeds, once, on these data; it has the results then.

        Raises DataError for integers that are out of range.
        """
        built.check(*data)
        bound: Bound = self.bind(built.program)
        for arrays in data:
            arrays.write(bound)
        self.run([(bound, 1)], lambda: None)
        return bound


class CarriedStates:
    """Runs that belong together, as a context: where one of them raises, all buffers are as before
    the first. `before` is called ahead of each."""

    def __init__(self, session: Session):
        self.session = session
        self.saved: Any = None

    def __enter__(self) -> CarriedStates:
        return self

    def before(self, built: Built) -> None:
        """This step is run next."""
        if built.carries and self.saved is None:
            self.saved = self.session.runtime.save(["buffers"])

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None and self.saved is not None:
            self.session.runtime.restore(self.saved)


def segments_for(
    full: Any, rest: Any, samples: int, batch: int, begin: int = 0
) -> list[tuple[Any, int]]:
    """Steps that cover samples begin..samples: whole batches, then the rest."""
    steps, remainder = divmod(samples - begin, batch)
    found = [(full, steps)] if steps else []
    if remainder and rest is not None:
        found.append((rest, 1))
    return found
