"""What happens when the loss is not finite: find out where it began, restore what is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.kernels.declare import Array, declared
from fastnn.plan.program import Operand
from fastnn.runtime.interface import Bound
from fastnn.train.session import Session

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


class Snapshot:
    """Copies of parameters, buffers and slots."""

    def __init__(self, session: Session):
        self.buffers = session.runtime.save(["buffers"])
        self.rest = session.runtime.save(
            ["params", *(name for name in session.memory if name.startswith("slots/"))]
        )
        self.clock = session.clock.copy()

    def restore(self, session: Session) -> None:
        session.runtime.restore(self.buffers)
        session.runtime.restore(self.rest)


def explain(trainer: Trainer, feed: Any, epoch: int, step: int, snapshot: Snapshot) -> str:
    """Name the layer where the first non-finite number arose, and restore what is damaged."""
    session = trainer.session
    broken = [n for n, p in trainer.model.named_parameters().items() if not _finite(p.read())]
    origin = "" if broken else first_nonfinite(feed.last_bound(session), session)
    where = f"epoch {epoch + 1}, step {step + 1} of the epoch (step {trainer.step + 1} in all)"
    if broken:
        snapshot.restore(session)
        session.clock[:] = snapshot.clock
        trainer.cursor = 0
        return (
            f"the loss was not finite in {where}: the update before made parameter {broken[0]!r} "
            f"non-finite. Parameters were restored to those at the start of epoch {epoch + 1}. "
            "Lower the learning rate, or clip the gradients (clip_global_norm=1.0)."
        )
    if not _finite(session.runtime.read("buffers")):  # the forward pass has put the bad batch in
        session.runtime.restore(snapshot.buffers)
    return (
        f"the loss was not finite in {where}: the first such number came from {origin}. The "
        "parameters are those before this step (running statistics that were damaged, those at the "
        "start of the epoch). Lower the learning rate, check the data, or pass "
        "stop_on_nonfinite=False."
    )


def first_nonfinite(bound: Bound, session: Session) -> str:
    """Run the stopped step's calls one by one until one writes NaN or infinity."""
    buffers = session.runtime.save(["buffers"])
    try:
        for number, call in enumerate(bound.planned):
            kernel = declared(call.kernel)
            assert kernel is not None
            if kernel.name.startswith("accumulate") or kernel.name == "check_finite":
                continue
            operands = dict(zip(kernel.params, call.operands, strict=True))
            if any(p.writes and _home(operands[n]) == "params" for n, p in kernel.arrays.items()):
                break
            bound.run_call(number)
            for name, parameter in kernel.arrays.items():
                operand = operands[name]
                # what is written in part, or with gaps, has old contents between
                whole = parameter.mode in ("out", "inout") and not parameter.gaps
                if not (whole and isinstance(operand, Operand) and operand.dtype == "f"):
                    continue
                found = bound.read(operand)
                if not _finite(found):
                    where = f"{kernel.name} in {call.scope or 'the data'}"
                    return where + _time_step(found, parameter, operands.get("steps"))
    finally:
        session.runtime.restore(buffers)
    return "the loss"


def _time_step(found: np.ndarray, parameter: Array, steps: Any) -> str:
    """Where along the time axis (dimension T, or rows of so many steps) the first one stands."""
    if "T" in parameter.dims:
        axis = parameter.dims.index("T") - len(parameter.dims)
        time = np.moveaxis(found, axis, 0).reshape(found.shape[axis], -1)
    elif isinstance(steps, int) and parameter.dims[0] == "B" and found.shape[-1] % steps == 0:
        time = np.moveaxis(found.reshape(len(found), steps, -1), 1, 0).reshape(steps, -1)
    else:
        return ""
    bad = ~np.isfinite(time).all(axis=1)
    return f", time step {int(bad.argmax())}"


def _home(operand: Any) -> str:
    return operand.segment if isinstance(operand, Operand) else ""


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())
