"""From a kernel's Python function to an object file: Numba makes optimised LLVM code, llvmlite
machine code of it.

Every compiled function has the one signature ``int64 f(int64 *record, int64 lo, int64 hi)``: the
record holds an address and sizes for each array and one word for each scalar; the result is not 0
where the kernel has raised an exception.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any

from fastnn.errors import ProgramError
from fastnn.interrupts import uninterrupted
from fastnn.kernels import recorded, simd, types
from fastnn.kernels.declare import Array, Kernel
from fastnn.runtime.compile_errors import refuse

recorded.record()

ENTRY = "fastnn_entry"
#: the words in which checked code notes an index (`fastnn.kernels.cpu._bounds_llvm`)
OUT_OF_BOUNDS = "fastnn_out_of_bounds"
#: functions that need Python's lock or Numba's memory: compiled code has neither
NEEDS_PYTHON = re.compile(r'^declare [^@]*@"?(Py(?!_FatalError)\w+|NRT_\w+)', re.MULTILINE)
lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it has not
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )


def target_machine() -> Any:
    from llvmlite import binding

    from fastnn.kernels.cpu import target

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    host = target.host()
    return binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
        cpu=host.cpu, features=host.features, opt=3, reloc="default", codemodel="jitdefault",
        jit=True,
    )  # fmt: skip


def compile_object(kernel: Kernel, dtype: str, data_dtype: str = "") -> bytes:
    """The object code of a kernel's entry."""
    return emit(compile_llvm(kernel, dtype, data_dtype))


def emit(llvm: str) -> bytes:
    from llvmlite import binding

    module = binding.parse_assembly(llvm)
    module.verify()
    return bytes(target_machine().emit_object(module))


def assembly(kernel: Kernel, dtype: str = "float32", data_dtype: str = "") -> str:
    """The machine code of a kernel as assembly text, for people and tests that read it."""
    from llvmlite import binding

    module = binding.parse_assembly(compile_llvm(kernel, dtype, data_dtype))
    return str(target_machine().emit_assembly(module))


def compile_llvm(kernel: Kernel, dtype: str, data_dtype: str) -> str:
    """The optimised LLVM text of a kernel's entry."""
    with uninterrupted(), lock:
        from numba.core.errors import NumbaError

        from fastnn.runtime.cpu import numba_bridge

        entry = make_entry(kernel, dtype, data_dtype, numba_bridge)
        try:
            text = numba_bridge.optimised_llvm(entry, ENTRY)
        except NumbaError as error:
            refuse(
                f"kernel {kernel.shown!r}", kernel.function, dtype, error,
                "loops, arithmetic, the math module",
            )  # fmt: skip
    if needed := NEEDS_PYTHON.search(text):
        raise ProgramError(
            f"kernel {kernel.shown!r} ({kernel.function.__module__}) does something that needs "
            f"Python while it runs ({needed[1]}), such as printing or making objects; a kernel may "
            "use loops, arithmetic, the math module and functions that are decorated with "
            "@fnn.helper"
        )
    return text


def adds_lanes(function: Callable[..., None]) -> bool:
    """Whether a kernel's function, or one that it reaches, calls `sum_lanes`.

    Such a kernel has vectors of one width on every CPU, or its sums would differ between them.
    """
    seen: dict[int, Any] = {}

    def reaches(function: Any) -> bool:
        if isinstance(function, tuple):
            return any(map(reaches, function))
        function = getattr(function, "py_func", function)
        if function is simd.sum_lanes:
            return True
        generated = getattr(function, "__module__", None) == simd.__name__
        if id(function) in seen or generated or not isinstance(function, FunctionType):
            return False
        seen[id(function)] = function
        return any(map(reaches, _named(function)))

    return reaches(function)


def _named(function: FunctionType) -> list[Any]:
    """What the names in a function's code may stand for."""
    codes, names = [function.__code__], set()
    for code in codes:  # grows
        names |= set(code.co_names)
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that has no value yet
            found.append(cell.cell_contents)
    modules = [value for value in found if isinstance(value, ModuleType)]
    return found + [vars(m)[name] for m in modules for name in names if name in vars(m)]


def make_entry(kernel: Kernel, dtype: str, data_dtype: str, bridge: Any) -> Callable[..., None]:
    """The function `entry(record, lo, hi)` that unpacks a record and calls the kernel."""
    slot, arguments = 0, []
    at = "sums_array_at" if adds_lanes(kernel.function) else "array_at"
    for parameter in kernel.params.values():
        if isinstance(parameter, Array):
            sizes = ", ".join(f"r[{slot + 1 + k}]" for k in range(len(parameter.dims)))
            kind = f"np.{types.storage(parameter.dtype, dtype, data_dtype)}"
            arguments.append(f"{at}(r[{slot}], ({sizes},), {kind})")
            slot += 1 + len(parameter.dims)
        else:
            real = {"int": "{}", "double": "as_float({})", "real": f"np.{dtype}(as_float({{}}))"}
            arguments.append(real[parameter.kind].format(f"r[{slot}]"))
            slot += 1
    if kernel.items is not None:
        arguments += ["lo", "hi"]
    source = (
        "def entry(record, lo, hi):\n    r = words(record)\n    kernel("
        + ",\n        ".join(arguments)
        + ")\n"
    )
    scope = bridge.entry_scope(kernel.function)
    exec(compile(source, f"<entry of {kernel.name}>", "exec"), scope)
    entry: Callable[..., None] = scope["entry"]
    return entry
