"""What a runtime is: it gives programs memory and runs them. `cpu` and `cuda` are the two.

A runtime belongs to a session. Its `memory` maps names of segments to NumPy arrays; whoever takes
one may read it and write to it between runs, on any device: where the segment lives on a device,
taking it fetches it, and the next run sends it back. (So don't keep an array over a run: on a
device it shows what was there when it was taken.) To look without sending back, `read`.

`control` (see `kernels/control_block.py`) and `totals` are up to date between runs, and written
freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from fastnn.plan.program import Operand, PlannedCall, Program
from fastnn.runtime.orders import Orders
from fastnn.runtime.segment import Segment

Poll = Callable[[], None]


class Store(Protocol):
    """A model's parameters and buffers, as runtimes need them.

    Attributes:
        dtype: "float32" or "float64".
        size: elements of the segment "params", and so of "grads" and of each slot.
        segments: by name, the pieces of memory; their arrays on the host are `memory`.
        away: whether a device holds copies that are up to date: the host must not use its arrays
            before `bring_to_host`.
    """

    dtype: str
    size: int
    segments: dict[str, Segment]
    away: bool

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """The segments' arrays on the host, for reading and writing."""

    def bring_to_host(self, name: str | None = None) -> None:
        """Fetch a segment (or all) from its device, to be read and written on the host."""


class Bound(Protocol):
    """A program with its memory.

    Attributes:
        program: the program.
    """

    program: Program

    @property
    def planned(self) -> list[PlannedCall]:
        """Its calls in the order in which one worker makes them, those of loops in each step."""

    @property
    def nbytes(self) -> int:
        """About how much memory it holds alone, on the host."""

    def view(self, name: str) -> np.ndarray:
        """The contents at one of the program's places, for reading."""

    def write(self, name: str, array: Any) -> None:
        """Set the contents at one of the program's places."""

    def edit(self, names: Sequence[str]) -> AbstractContextManager[dict[str, np.ndarray]]:
        """The arrays at some of the program's places, by name: what is written to them within the
        context is there for the calls that follow."""

    def read(self, operand: Operand) -> np.ndarray:
        """The contents of an operand, for reading."""

    def run_call(self, number: int) -> None:
        """Make one of the planned calls, alone and over all its items."""

    def timed(self) -> Iterator[tuple[Sequence[int], float]]:
        """Make a step's calls one by one, in order: numbers of those made at once, and seconds.
        Functions of the host are left out."""

    def segment_sizes(self) -> dict[str, int]:
        """Bytes of the memory that it uses, by segment."""


class Single(Protocol):
    """A step that is run one at a time, from Python, with little overhead.

    Attributes:
        loss: after a run, the loss: an array of one number.
    """

    loss: np.ndarray

    def run(self, arrays: Sequence[Any]) -> None:
        """Write the inputs, then run the programs in turn until one stops."""


class Stream(Protocol):
    """Steps that are sent ahead of the device; see `fastnn/runtime/cuda/stream.py`.

    Attributes:
        failed: the program of the step that stopped the run, if one has.
    """

    @property
    def failed(self) -> Bound | None: ...

    def send(self, bound: Any, names: Sequence[str], arrays: Sequence[Any], poll: Poll) -> bool:
        """Have a step made on these inputs, which may be written to when this returns; whether all
        is well so far."""

    def synchronize(self, poll: Poll = ...) -> bool:
        """Wait until all that was sent is done; whether it came to a good end."""


class Runtime(Protocol):
    """Runs programs; see the module's text.

    Attributes:
        device: "cpu" or "cuda:0", "cuda:1", ...
        kind: "cpu" or "cuda": which kernels its programs are made of.
        ahead: whether steps that the host feeds are sent ahead (`stream`).
        functions: what calls of the host call (`kernels/host.py`), by number: functions of the
            bound program that is in the middle of a step. They are called in the thread that has
            called `run`, while all else waits; an exception from one ends the step before it
            changes a parameter, and goes on as it is.
    """

    device: str
    kind: str
    ahead: bool
    control: np.ndarray
    totals: np.ndarray
    functions: list[Callable[[Any], None]]

    @property
    def memory(self) -> MutableMapping[str, np.ndarray]:
        """The segments by name."""

    def use_device_all_reduce(self, number: int, partners: Any) -> bool:
        """A function of the host takes the mean of its arrays over other processes, which have
        devices of their own; returns whether the devices will do that, by an all-reduce."""

    def provide(self, name: str, array: Any) -> None:
        """Provide an external segment; it may lie on the device already."""

    def let_go(self) -> None:
        """Keep no array of the host's that was provided as data or for results, unless a run that
        was left behind goes on."""

    def changed(self, name: str) -> None:
        """The host has written to an array that it provided."""

    def read(self, name: str) -> np.ndarray:
        """A segment's contents, for reading."""

    def bind(self, program: Program) -> Bound:
        """Give a program its memory (and compile what is not yet compiled)."""

    def bind_again(self, program: Program) -> Bound:
        """The same for a program that the host feeds nothing; it may be bound already."""

    def bind_like(self, bound: Any, program: Program) -> Bound:
        """Bind a program to the very memory that another one has."""

    def run(
        self, segments: Sequence[tuple[Bound, int]], poll: Poll, meanwhile: Poll | None = None
    ) -> None:
        """Run programs so many steps each, one after the other, until one stops.

        Calls `meanwhile` once, while they run if possible: work of the host that needs nothing of
        theirs.
        Calls `poll` now and then; Ctrl-C, or any exception from it, ends the run at a step's
        boundary and goes on as an exception.
        """

    def synchronize(self) -> None:
        """End a run that exceptions, one upon another, have left going on, at a step's boundary."""

    def orders(self, samples: int) -> Orders:
        """What draws the orders in which steps read so many samples."""

    def holds(self, nbytes: int) -> bool:
        """Whether so many bytes of data fit into the device's memory, beside the programs."""

    def stream(self, held: Callable[[], bool]) -> Stream | None:
        """What sends steps ahead until `synchronize`, or until `held` says that nobody feeds it any
        more; None where a step's inputs are written where it reads them."""

    def single(
        self, bounds: Sequence[Bound], names: Sequence[str], arrays: Sequence[Any]
    ) -> Single:
        """What runs these programs once at a time, with inputs like these arrays."""

    def save(self, names: Sequence[str]) -> Any:
        """A copy of some segments, kept where they are."""

    def restore(self, saved: Any) -> None:
        """Put back what `save` returned."""

    def put_back(self) -> bool:
        """After a stop for a number that is not finite: parameters, slots and buffers as they were
        before that step. Says whether that was possible (see `engine/guard.py`)."""

    def note(self, program: Program) -> str:
        """What was decided about running this program, for people."""
