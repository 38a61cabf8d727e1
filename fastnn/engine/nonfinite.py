"""What happens when the loss is not finite: find out where it began, restore what is broken."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.engine.builder import GRADIENT
from fastnn.engine.model import Model
from fastnn.engine.session import Session
from fastnn.errors import ProcessError
from fastnn.kernels import control_block
from fastnn.kernels.declare import Array, kernel_of
from fastnn.plan.program import Operand, PlannedCall
from fastnn.runtime.interface import Bound


def explain(model: Model, session: Session, bound: Bound, where: str) -> str:
    """Undo the step that was stopped, and name the layer where the first such number arose."""
    overflowed = _finite(bound.view("loss"))  # as far as the loss goes, nothing is wrong
    lost = [n for n, p in model.named_arrays().items() if p.buffer and not _finite(p.read())]
    too_large = bool(session.runtime.read("guard")[control_block.OVERFLOW])  # scaled gradients
    broken, restored = session.undo()
    damaged = [n for n, p in model.named_parameters().items() if not _finite(p.read())]
    if damaged and not broken:
        return (
            f"the loss was not finite in {where}: parameter {damaged[0]!r} is not finite, and was "
            "not before this step; load or set finite parameters."
        )
    origin, expected = first_nonfinite(bound, session)
    if (
        session.device_all_reduce
        and not broken
        and overflowed
        and origin in ("the loss", "on_gradients")
    ):
        raise ProcessError(
            f"parallel: the loss of another process was not finite in {where}; its error says "
            "more. Parameters, optimiser and running statistics are those before this step"
        )
    if not broken and overflowed and lost:
        what = f"{where} made {lost[0]!r} not finite: the first such number came from {origin}"
    elif not broken and too_large and overflowed:
        what = (
            f"the gradients of {where} do not fit into float16, whatever they are multiplied by; "
            f"precision='bf16' has float32's range. The first such number came from {origin}"
        )
    elif not broken:
        what = f"the loss was not finite in {where}: the first such number came from {origin}"
    else:
        what = f"the update of {where} made parameter {broken[0]!r} not finite: "
        what += (
            "the step is too large"
            if origin == "the loss"
            else f"the first such number came from {origin}"
        )
    what += f" ({expected})" if expected else ""
    if not restored:
        return f"{what}. The parameters are damaged: load a checkpoint, lower the learning rate."
    return (
        f"{what}. Parameters, optimiser and running statistics are those before this step. Lower "
        "the learning rate, clip the gradients (clip_global_norm=1.0), check the data, or pass "
        "stop_on_nonfinite=False."
    )


def first_nonfinite(bound: Bound, session: Session) -> tuple[str, str]:
    """Run the stopped step's calls one by one until one writes NaN or infinity; what that was, and
    what it expects of the model's output."""
    kept = session.runtime.save(["buffers", *sorted(_slots(bound))])
    given = all(_finite(bound.view(n)) for n in bound.program.places if n.startswith(GRADIENT))
    try:
        for number, call in enumerate(bound.planned):
            kernel = kernel_of(call.kernel)
            if kernel.traits.checks or kernel.traits.bookkeeping or "params" in _written(call):
                continue
            operands = dict(zip(kernel.params, call.operands, strict=True))
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
                    where += _time_step(found, parameter, operands.get("steps"))
                    return where, kernel.traits.expects
    finally:
        session.runtime.restore(kept)
    return "the loss" if given else "on_gradients", ""


def _slots(bound: Bound) -> set[str]:
    """The optimiser's slots that calls write which don't write parameters: sums of gradients, and
    updates in several passes."""
    found = [w for w in map(_written, bound.planned) if "params" not in w]
    return {name for written in found for name in written if name.startswith("slots/")}


def _written(call: PlannedCall) -> set[str]:
    """The segments that a call writes to."""
    kernel = kernel_of(call.kernel)
    operands = dict(zip(kernel.params, call.operands, strict=True))
    return {_segment(operands[name]) for name, p in kernel.arrays.items() if p.writes}


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


def _segment(operand: Any) -> str:
    return operand.segment if isinstance(operand, Operand) else ""


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())
