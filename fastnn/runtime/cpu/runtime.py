"""The CPU's implementation of the runtime's interface (see `fastnn/runtime/interface.py`)."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnn.errors import KernelError
from fastnn.kernels import control_block
from fastnn.plan.formula import SizedProgram
from fastnn.plan.program import Program
from fastnn.runtime import poison
from fastnn.runtime.cpu import fault
from fastnn.runtime.cpu.ahead import compile_missing
from fastnn.runtime.cpu.bound import DATA, CpuProgram, ResizedProgram, place_of
from fastnn.runtime.cpu.choice import choice_of
from fastnn.runtime.cpu.execute import allocate, available_cores
from fastnn.runtime.cpu.memory import Memory
from fastnn.runtime.cpu.orders import CpuOrders
from fastnn.runtime.cpu.single import CpuSingle
from fastnn.runtime.cpu.team import Description, Team, own_team
from fastnn.runtime.interface import Poll, Store
from fastnn.runtime.segment import aligned_zeros

#: how many bound programs are kept for the next run on the same data, and up to how many bytes of
#: other memory than the latest they keep alive
KEPT, KEPT_BYTES = 4, 32 << 20


def _call_host(functions: list[Callable[[Any], None]], number: int, bound: Any) -> None:
    """Call a function of the host for a program."""
    functions[number](bound)


class CpuRuntime:
    """Worker threads that run programs on arrays of the host.

    Args:
        store: the parameters' memory.
        slots: names of the optimiser's slots.
        totals: how many running totals.
        workers: number of workers, or "auto": what proves quickest while a program runs.
    """

    device = kind = "cpu"
    ahead = False

    def __init__(self, store: Store, slots: Sequence[str], totals: int, workers: int | str):
        self.store, self.workers = store, workers
        self.control = aligned_zeros(control_block.LENGTH, np.int64)
        self.totals = aligned_zeros(2 * totals, np.float64)
        self.memory: Memory = {**store.memory, "control": self.control, "totals": self.totals}
        for slot in slots:
            self.memory[f"slots/{slot}"] = aligned_zeros(store.size, store.dtype)
        self.memory["guard"] = aligned_zeros(control_block.GUARD_LENGTH, np.int64)
        for name in ("params", "buffers", *(f"slots/{slot}" for slot in slots)):
            # the system gives the pages when they are written, in most runs never
            self.memory[f"saved/{name}"] = aligned_zeros(self.memory[name].size, store.dtype)
        self.kept = False
        self.functions: list[Callable[[Any], None]] = []
        #: bound programs that others share the tables of, by the address of the program
        self._bases: weakref.WeakValueDictionary[int, CpuProgram] = weakref.WeakValueDictionary()
        #: the segments that are users' arrays
        self._lent: set[str] = set()
        #: what `bind_again` has bound, the latest at the end
        self._latest: list[CpuProgram] = []
        #: the last run of such programs only
        self._described: Description | None = None
        #: the run that is going on, or that an exception has cut off
        self._run: tuple[Team, Description] | None = None

    def use_device_all_reduce(self, number: int, partners: Any) -> bool:
        return False

    def provide(self, name: str, array: Any) -> None:
        given, known = np.asarray(array), self.memory.get(name)
        if known is None or place_of(given) != place_of(
            known
        ):  # programs know it by the array that it was
            self.memory[name] = given
        if name.startswith(DATA):
            self._lent.add(name)
        if name.startswith("result/") and poison.enabled():
            poison.fill(self.memory[name])

    def lend(self, bounds: Sequence[CpuProgram], segments: Mapping[str, np.ndarray]) -> None:
        """Provide arrays that lie where those did to which the programs were bound."""
        self.memory.update(segments)
        self._lent.update(segments)
        for bound in bounds:
            bound.base.memory.update(segments)

    def let_go(self) -> None:
        if self._run is None:
            for name in self._lent:
                self.memory.pop(name, None)
            self._lent.clear()
            for bound in self._latest:
                base: Any = bound.base
                base.let_go()

    def changed(self, name: str) -> None:
        """Nothing to do: programs read the host's arrays."""

    def read(self, name: str) -> np.ndarray:
        self.store.bring_to_host()
        return self.memory[name]

    def bind_again(self, program: Program) -> CpuProgram:
        before = self._latest
        for bound in before:
            base: Any = bound.base
            if bound.program is program and base.reads(self.memory):
                base.take(self.memory)
                return bound
        bound = self.bind(program)
        self._latest, left = [bound], KEPT_BYTES
        for other in reversed(before):
            memory = other.base.memory
            left -= sum(a.nbytes for n, a in memory.items() if a is not self.memory.get(n))
            if left < 0 or len(self._latest) == KEPT:
                break
            self._latest.insert(0, other)
        known = self._described
        if known is not None and any(b not in self._latest for b, _ in known.segments):
            self._described = None
        return bound

    def bind(self, program: Program) -> CpuProgram:
        if program.within is not None and (resized := self._resized(program, program.within)):
            return resized
        allocate(program, self.memory)
        compile_missing(program, self.memory)
        bound = CpuProgram(program, dict(self.memory))
        self._bases[id(program)] = bound
        return bound

    def _resized(self, program: Program, larger: Program) -> CpuProgram | None:
        """The program with the tables of a larger one."""
        base = self._bases.get(id(larger))
        if base is None or base.program is not larger or not base.reads(self.memory):
            base = self._bases[id(larger)] = self.bind(larger)
        base.take(self.memory)
        base.ready(self.count(larger))
        size = base.sizes.follow(program) if isinstance(program, SizedProgram) else None
        if size is None:
            size = base.sizes.add(base.tables_of(program))
        return ResizedProgram(program, base, size) if size is not None else None

    def bind_like(self, bound: Any, program: Program) -> CpuProgram:
        if not isinstance(program, SizedProgram) or program.formula is None:
            return CpuProgram(program, bound.memory)
        known = bound.base.by_formula.get(program.formula)
        if known is None:
            known = bound.base.by_formula[program.formula] = CpuProgram(program, bound.memory)
        size = known.sizes.follow(program)
        return (
            CpuProgram(program, bound.memory)
            if size is None
            else ResizedProgram(program, known, size)
        )

    @property
    def fixed(self) -> int | None:
        """How many workers run any program; None: what proves quickest."""
        return self.workers if isinstance(self.workers, int) else None

    def count(self, program: Program) -> int:
        """How many workers run a program; of those that may vary, what is quickest so far."""
        return self.fixed or choice_of(program).current

    def team(self, program: Program) -> Team:
        """As many of the calling thread's workers as run a program at present."""
        return own_team(self.count(program))

    def describe(self, segments: Sequence[tuple[Any, int]], again: bool = False) -> Description:
        """The description of a run; `again`: of one that is done again and again."""
        known = self._described
        if known is not None and not again and known.serves(segments):
            return known
        host = functools.partial(_call_host, self.functions)
        found = Description(segments, self.control, self.fixed, host, again)
        if all(bound in self._latest for bound, _ in segments):  # it keeps nothing else alive
            self._described = found
        return found

    def run(
        self, segments: Sequence[tuple[Any, int]], poll: Poll, meanwhile: Poll | None = None
    ) -> None:
        self.synchronize()
        self.store.bring_to_host()
        description = self.describe(segments)
        self.begin(description.keeps)
        team = own_team(description.workers)
        if description.short:
            self._run = team, description
            if meanwhile is not None:
                meanwhile()
            description.execute()
            self._run = None
        else:
            self.start(team, description, poll, meanwhile)
        if self.control[control_block.STOP] == control_block.KERNEL_FAILED:
            self.fail(segments)

    def start(
        self, team: Team, description: Description, poll: Poll, meanwhile: Poll | None = None
    ) -> None:
        """Do a run in the team's threads; `synchronize` knows of it if exceptions cut it off."""
        self._run = team, description
        team.start(description, poll, meanwhile=meanwhile)
        self._run = None

    def orders(self, samples: int) -> CpuOrders:
        return CpuOrders(samples)

    def holds(self, nbytes: int) -> bool:
        """Data are read where they lie."""
        return True

    def stream(self, held: Callable[[], bool]) -> None:
        """None: a step reads its inputs where the host writes them."""

    def synchronize(self) -> None:
        """End a run that exceptions, one upon another, have left behind, and undo its last step, if
        that came to no good: it is not counted, and who does it again is told."""
        if self._run is None:
            return
        team, description = self._run
        if team.does(description):
            team.finish(self.control)
        reason = self.control[control_block.STOP]
        if reason == control_block.NOT_FINITE:
            self.put_back()
        elif reason == control_block.KERNEL_FAILED:
            self.put_back(fault.find(description.segments, self.control)[1])
        self._run = None

    def single(self, bounds: Sequence[Any], names: Sequence[str], arrays: Sequence[Any]) -> Any:
        return CpuSingle(self, bounds, names, arrays)

    def save(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        self.store.bring_to_host()
        return {name: self.memory[name].copy() for name in names}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        for name, array in saved.items():
            self.memory[name][:] = array

    def begin(self, keeps: bool) -> None:
        """Before a run: the buffers that its first step is put back to."""
        self.kept = keeps
        if keeps:
            self.memory["saved/buffers"][:] = self.memory["buffers"]

    def fail(self, segments: Sequence[tuple[Any, int]]) -> None:
        """Raise KernelError for a kernel that has raised something; all is as before that step."""
        error, late = fault.find(segments, self.control)
        if not self.put_back(late):
            raise KernelError(
                f"{error}. Parameters and what the optimiser keeps may be those of half an update: "
                "load a checkpoint"
            )
        raise error

    def put_back(self, changed: bool | None = None) -> bool:
        if self.kept:
            self.memory["buffers"][:] = self.memory["saved/buffers"]
        guard = self.memory["guard"]
        broken, saved = bool(guard[control_block.BROKEN]), bool(guard[control_block.SAVED])
        broken = broken if changed is None else changed
        guard[:] = 0
        guard[control_block.DOUBT] = 1
        if broken and saved:
            for name in self.memory:
                if name == "params" or name.startswith("slots/"):
                    self.memory[name][:] = self.memory[f"saved/{name}"]
        return saved or not broken

    def note(self, program: Program) -> str:
        how = "as asked" if self.fixed else "the quickest so far"
        return f"{self.count(program)} of {available_cores()} cores, {how}"
