"""A device that plans, binds and counts, and computes nothing: for tests of programs.

Within `null_device` every trainer, step and predictor gets a runtime of this kind instead of the
one it asks for. Models are traced, differentiated and planned as ever; a run counts its calls and
moves the control block and the totals' counts on as if all had gone well. No kernel is compiled and
no GPU is needed, so programs for CUDA can be looked at anywhere.

    with null_device("cuda") as null:
        fnn.Trainer(model, "mse").fit(x, y, epochs=1, batch_size=16, verbose=False)
    print(null.programs[0])
    assert null.launches["linear_forward"] == 4
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.errors import OptionError
from fastnn.kernels import control_block, types
from fastnn.kernels.declare import kernel_of
from fastnn.plan.program import Operand, PlannedCall, Program
from fastnn.runtime import devices
from fastnn.runtime.interface import Poll
from fastnn.runtime.orders import Orders

#: multiprocessors and bytes of shared memory for a block, of an H200: CUDA's plans depend on them
BLOCK_LIMITS = 132, 232_448, 16


class Null:
    """What was bound and run within `null_device`.

    Attributes:
        kind: "cpu" or "cuda".
        programs: all that were bound, in order, each once.
        launches: how often each kernel was called.
        steps: steps that were run.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.programs: list[Program] = []
        self.launches: Counter[str] = Counter()
        self.steps = 0

    def bound(self, program: Program) -> None:
        if not any(program is known for known in self.programs):
            self.programs.append(program)

    def ran(self, program: Program, steps: int) -> None:
        self.steps += steps
        for call, times in program.times():
            self.launches[call.kernel] += steps * times


class NullProgram:
    """A program whose places hold zeros."""

    def __init__(self, program: Program):
        self.program = program
        self.advances = any(kernel_of(call.kernel).traits.advances for call in program.calls())

    @cached
    def planned(self) -> list[PlannedCall]:
        return [call for _, call, _ in self.program.steps()]

    @property
    def nbytes(self) -> int:
        return self.program.nbytes

    def read(self, operand: Operand) -> np.ndarray:
        return np.zeros(operand.dims, types.storage(operand.dtype, self.program.dtype))

    def view(self, name: str) -> np.ndarray:
        return self.read(self.program.places[name])

    def write(self, name: str, array: Any) -> None:
        np.broadcast_to(array, self.program.places[name].dims)  # refuses what doesn't fit

    def edit(self, names: Sequence[str]) -> Any:
        return contextlib.nullcontext({name: self.view(name) for name in names})

    def run_call(self, number: int) -> None:
        """Computes nothing."""

    def timed(self) -> Iterator[tuple[Sequence[int], float]]:
        for number in range(len(self.planned)):
            yield [number], 0.0

    def segment_sizes(self) -> dict[str, int]:
        return {name: size for name, size in self.program.sizes.items() if size}


class NullRuntime:
    """See `fastnn/runtime/interface.py` for what each does on a device that computes."""

    ahead = False

    def __init__(self, null: Null, store: Any, slots: Sequence[str], totals: int):
        self.null, self.kind = null, null.kind
        self.device = "cpu" if null.kind == "cpu" else "cuda:0"
        self.control = np.zeros(control_block.LENGTH, np.int64)
        self.totals = np.zeros(2 * totals)
        self.functions: list[Callable[[Any], None]] = []  # nothing is computed for them
        self.memory: dict[str, np.ndarray] = {
            **store.memory,
            "control": self.control,
            "totals": self.totals,
            "guard": np.zeros(control_block.GUARD_LENGTH, np.int64),
        }
        for slot in slots:
            self.memory[f"slots/{slot}"] = np.zeros(store.size, store.dtype)

    def provide(self, name: str, array: Any) -> None:
        self.memory[name] = np.asarray(array)

    def let_go(self) -> None:
        """Nothing to do."""

    def changed(self, name: str) -> None:
        """Nothing to do."""

    def read(self, name: str) -> np.ndarray:
        return self.memory[name]

    def bind(self, program: Program) -> NullProgram:
        self.null.bound(program)
        return NullProgram(program)

    def bind_again(self, program: Program) -> NullProgram:
        return self.bind(program)

    def bind_like(self, bound: Any, program: Program) -> NullProgram:
        return self.bind(program)

    def run(
        self, segments: Sequence[tuple[Any, int]], poll: Poll, meanwhile: Poll | None = None
    ) -> None:
        for bound, steps in segments:
            self.null.ran(bound.program, steps)
            self.totals[1::2] += steps
            if bound.advances:
                self.control[[control_block.STEP, control_block.RUN_STEP]] += steps
                self.control[control_block.CURSOR] += steps * bound.program.batch
        if meanwhile is not None:
            meanwhile()
        poll()

    def synchronize(self) -> None:
        """Nothing to do: runs end before they return."""

    def orders(self, samples: int) -> Orders:
        return Orders(samples)

    def holds(self, nbytes: int) -> bool:
        """Whatever there is."""
        return True

    def stream(self, held: Callable[[], bool]) -> None:
        """None: steps run at once."""

    def single(self, bounds: Sequence[Any], names: Sequence[str], arrays: Sequence[Any]) -> Any:
        return NullSingle(self, bounds)

    def save(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self.memory[name].copy() for name in names}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        for name, array in saved.items():
            self.memory[name][...] = array

    def put_back(self) -> bool:
        return True

    def note(self, program: Program) -> str:
        return "computes nothing"


class NullSingle:
    """Programs that are run one step at a time."""

    def __init__(self, runtime: NullRuntime, bounds: Sequence[Any]):
        self.runtime, self.bounds = runtime, bounds
        self.control, self.loss = runtime.control, np.zeros(1)

    def run(self, arrays: Sequence[Any]) -> None:
        self.runtime.run([(bound, 1) for bound in self.bounds], lambda: None)


@contextlib.contextmanager
def null_device(kind: str = "cpu", block_limits: tuple[int, ...] = BLOCK_LIMITS) -> Iterator[Null]:
    """Within this context programs for a kind of device are planned, and nothing is computed.

    Args:
        kind: "cpu" or "cuda".
        block_limits: the GPU's multiprocessors, bytes of shared memory that a block may have, and
            blocks of a cluster (none where left out).

    Returns:
        What is planned and counted, a `Null`.
    """
    if kind not in ("cpu", "cuda"):
        raise OptionError(f"null_device: expected 'cpu' or 'cuda', got {kind!r}")
    null = Null(kind)

    def runtime(device: str, store: Any, slots: Any, totals: int, *more: Any) -> NullRuntime:
        return NullRuntime(null, store, slots, totals)

    def choose(device: str = "auto") -> str:
        return "cpu" if kind == "cpu" else "cuda:0"

    stand_ins = {"runtime": runtime, "choose": choose, "block_limits": lambda kind: block_limits}
    before = {name: getattr(devices, name) for name in stand_ins}
    try:
        for name, stand_in in stand_ins.items():
            setattr(devices, name, stand_in)
        yield null
    finally:
        for name, original in before.items():
            setattr(devices, name, original)
