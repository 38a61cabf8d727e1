"""What a program has the host do: a function of Python's, between two phases of a step.

To the planner it is one more kernel, made on demand for so many arrays: any of them may be read and
written as a whole. No device has code for it. A runtime stops there, has the thread that wants the
run call the function of this number (`fastnn/runtime/interface.py`), and goes on, or ends the step
where the function has raised an exception.
"""

from __future__ import annotations

from .declare import HOST_CALLS, Kernel
from .signature import Array, Scalar
from .traits import Traits


def call_host() -> None:
    """The host's function of this number, which may read and write the arrays."""
    raise NotImplementedError("runtimes call functions of the host themselves")


def host_call(arrays: int) -> str:
    """The name of a call of the host with so many arrays, `x0`, `x1`, ..., and its `number`."""
    name = f"call_host_{arrays}"
    if name not in HOST_CALLS:
        params: dict[str, Array | Scalar] = {"number": Scalar("int")}
        for k in range(arrays):
            params[f"x{k}"] = Array("inout", "whole", "f", (f"N{k}",))
        traits = Traits(host=True, bookkeeping=True)
        HOST_CALLS[name] = Kernel(name, call_host, params, None, traits=traits)
    return name
