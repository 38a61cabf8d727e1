"""From a CUDA kernel's Python function to machine code (a cubin), once per machine.

As on the CPU (`fastnn/runtime/cpu/compiler.py`): the code is kept on disk under a hash of all that
can change it, so a warm process neither imports Numba nor compiles. No driver is needed to compile.

The compiled function bears the kernel's name (`entry_name`) and takes, in the order of the kernel's
parameters, for each array its address and its sizes (int64 each) and for each scalar a number:
"real" the program's float type, "double" float64, "int" int64 (`arguments`). An absent array has
address and sizes 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.interrupts import uninterrupted
from fastnn.kernels import recorded
from fastnn.kernels import types as element_types
from fastnn.kernels.declare import Array, CudaKernel
from fastnn.runtime import _cuda, cache, keys
from fastnn.runtime.compile_errors import refuse
from fastnn.runtime.cpu import compiler as files
from fastnn.runtime.cuda import machine

recorded.record()

#: begins the names of compiled functions, which profilers show
ENTRY = files.ENTRY


def entry_name(kernel: CudaKernel) -> str:
    """What the kernel's compiled function is called."""
    return f"{ENTRY}_{re.sub('[^A-Za-z0-9_]+', '__', kernel.name)}"


#: modules whose functions have code generators: they count in a kernel's key by name
GENERATED = frozenset(
    {"fastnn.kernels.simd"}
    | {f"fastnn.kernels.cuda.{name}" for name in ("device", "tile", "half", "exchange", "near")}
)
#: what code is generated for, by modules of such names
NVVM = ("types", "simd", "device", "tile", "half", "exchange", "near")
#: modules that make the code of every kernel: they are part of every key as a whole
GENERATORS = (
    *sorted(GENERATED),
    "fastnn.kernels._simd_ir",
    *(f"fastnn.kernels.cuda._{name}_nvvm" for name in NVVM),
    "fastnn.runtime.cuda.compiler",
    "fastnn.runtime.cuda.bridge",
    "fastnn.runtime._cuda",
    "fastnn.kernels.types",
)
#: number of kernels compiled (not loaded) by this process; tests assert that it stands still
compiled_count = 0
_lock = threading.RLock()
_loaded: dict[Any, Code] = {}


@dataclass(frozen=True)
class Code:
    """Machine code of a kernel, what the assembler says of it, and what its PTX says: the number
    of instructions on float64, and the alignment of dynamic shared memory (0: there is none)."""

    cubin: bytes
    report: str
    float64: int = 0
    alignment: int = 0


def common_hash() -> str:
    """Hash of all that is common to the kernels of this process: generators and versions."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(keys.modules_key(GENERATORS))
    python = (sys.implementation.name, sys.flags.optimize)
    digest.update(repr((python, np.__version__, _cuda.compiler_version())).encode())
    return digest.hexdigest()


def code_path(kernel: CudaKernel, dtype: str, data_dtype: str, cc: tuple[int, int]) -> Path:
    """The file that holds (or will hold) the machine code of this variant.

    Raises `keys.Unkeyed` for a kernel that can't be cached.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(keys.function_key(kernel.function, GENERATED))
    digest.update(repr((kernel.params, kernel.bounds_in(dtype), dtype, data_dtype)).encode())
    variant = "-".join(filter(None, (dtype, data_dtype, f"sm_{cc[0]}{cc[1]}")))
    folder = cache.folder(f"cuda-{common_hash()}")
    return folder / f"{cache.short(kernel.name)}-{variant}-{digest.hexdigest()}.cubin"


def code(kernel: CudaKernel, dtype: str, data_dtype: str, cc: tuple[int, int]) -> Code:
    """Machine code of the kernel for float type `dtype` and a device's compute capability; compiles
    it if need be. `data_dtype` is the NumPy type name of the 'd' arrays, where it has any."""
    return codes(kernel, dtype, data_dtype, [cc])[0]


def codes(
    kernel: CudaKernel, dtype: str, data_dtype: str, ccs: list[tuple[int, int]]
) -> list[Code]:
    """Machine code for several compute capabilities; Numba's part of the work is done once."""
    with uninterrupted(), _lock:
        absent = [cc for cc in ccs if (kernel, dtype, data_dtype, cc) not in _loaded]
        texts: dict[tuple[int, int], str] = {}

        def text(cc: tuple[int, int]) -> str:
            if cc not in texts:
                wanted = [c for c in absent[absent.index(cc) :] if c == cc or not _is_kept(c)]
                texts.update(
                    zip(wanted, compile_ptxs(kernel, dtype, data_dtype, wanted), strict=True)
                )
            return texts[cc]

        def _is_kept(cc: tuple[int, int]) -> bool:
            try:
                return os.path.exists(code_path(kernel, dtype, data_dtype, cc))
            except keys.Unkeyed:
                return False

        for cc in absent:
            content = files.obtain(
                lambda cc=cc: code_path(kernel, dtype, data_dtype, cc),  # type: ignore[misc]
                lambda cc=cc: _pack(assemble(text(cc), cc)),  # type: ignore[misc]
                kernel,
                GENERATED,
            )
            _loaded[kernel, dtype, data_dtype, cc] = _unpack(content)
        return [_loaded[kernel, dtype, data_dtype, cc] for cc in ccs]


def _pack(made: Code) -> bytes:
    head = {"report": made.report, "float64": made.float64, "alignment": made.alignment}
    return json.dumps(head).encode() + b"\n" + made.cubin


def _unpack(content: bytes) -> Code:
    head, cubin = content.split(b"\n", 1)
    return Code(cubin, **json.loads(head))


def assemble(ptx: str, cc: tuple[int, int]) -> Code:
    """Machine code of PTX."""
    global compiled_count
    compiled_count += 1
    alignments = re.findall(r"^\.extern \.shared \.align (\d+)", ptx, re.MULTILINE)
    on_float64 = re.findall(r"^\s*(?:@\S+\s+)?(?!ld\.param)[a-z]\S*\.f64", ptx, re.MULTILINE)
    return Code(
        *_cuda.link(ptx, cc),
        float64=len(on_float64),
        alignment=min(map(int, alignments), default=0),
    )


def compile_ptx(
    kernel: CudaKernel, dtype: str, data_dtype: str = "", cc: tuple[int, int] = (9, 0)
) -> str:
    """PTX of one variant: what people and tests read."""
    return compile_ptxs(kernel, dtype, data_dtype, [cc])[0]


def compile_ptxs(
    kernel: CudaKernel, dtype: str, data_dtype: str, ccs: list[tuple[int, int]]
) -> list[str]:
    """PTX for several compute capabilities; Numba's part of the work is done once."""
    with uninterrupted(), _lock:
        from numba.core.errors import NumbaError

        from fastnn.runtime.cuda import bridge

        entry, types = make_entry(kernel, dtype, data_dtype, bridge)
        try:
            bounds = kernel.bounds_in(dtype)
            return _cuda.compile_ptx(entry, types, ccs, entry_name(kernel), bounds)
        except NumbaError as error:
            refuse(
                f"CUDA kernel {kernel.name!r}", kernel.function, dtype, error,
                "loops, arithmetic, the math module, `cuda`",
            )  # fmt: skip


def make_entry(
    kernel: CudaKernel, dtype: str, data_dtype: str, bridge: Any
) -> tuple[Callable[..., None], list[str]]:
    """The function of numbers that calls the kernel on arrays, and its arguments' types."""
    names: list[str] = []
    types: list[str] = []
    values = []
    for k, parameter in enumerate(kernel.params.values()):
        if isinstance(parameter, Array):
            sizes = [f"n{k}_{axis}" for axis in range(len(parameter.dims))]
            names += [f"a{k}", *sizes]
            types += ["int64"] * (1 + len(sizes))
            kind = element_types.storage(parameter.dtype, dtype, data_dtype)
            values.append(f"array_at(a{k}, ({', '.join(sizes)},), np.{kind})")
        else:
            names.append(f"s{k}")
            types.append(element_types.scalar(parameter.kind, dtype))
            values.append(f"s{k}")
    source = f"def entry({', '.join(names)}):\n    kernel({', '.join(values)})\n"
    scope: dict[str, Any] = bridge.entry_scope(kernel.function, dtype)
    exec(compile(source, f"<entry of {kernel.name}>", "exec"), scope)
    return scope["entry"], types


def arguments(kernel: CudaKernel, dtype: str, operands: Mapping[str, Any]) -> list[Any]:
    """The entry's arguments, as NumPy scalars of their types.

    `operands` has, by parameter, (address, sizes) for an array and a number for a scalar.
    """
    result: list[Any] = []
    for name, parameter in kernel.params.items():
        value = operands[name]
        if isinstance(parameter, Array):
            address, sizes = value
            result += [np.int64(address), *map(np.int64, sizes)]
        else:
            result.append(np.dtype(element_types.scalar(parameter.kind, dtype)).type(value))
    return result


@dataclass(frozen=True)
class Launch:
    """How many blocks of how many threads, and bytes of dynamic shared memory.

    `empty`: there are no items, so nothing is launched. `cluster`: neighbouring blocks of a grid of
    one dimension that form a cluster.
    """

    grid: tuple[int, int, int]
    threads: tuple[int, int, int]
    shared: int
    empty: bool = False
    cluster: int = 1

    def __str__(self) -> str:
        grid, threads = ("x".join(map(str, size)) for size in (self.grid, self.threads))
        return f"{grid} blocks of {threads} threads with {self.shared} bytes of shared memory"


def launch_of(kernel: CudaKernel, sizes: Mapping[str, int], dtype: str) -> Launch:
    """The launch for these sizes (dimension letters and integer parameters, by name)."""
    grid, threads = kernel.launch(dict(sizes))
    if dtype == "float64" and kernel.traits.float64_threads:
        threads = min(threads, kernel.traits.float64_threads)
    limit = machine.block_limits()[1] // np.dtype(dtype).itemsize
    shared = kernel.shared({**sizes, "shared_limit": limit}) if kernel.shared else 0
    empty = 0 in ((grid,) if isinstance(grid, int) else grid)
    cluster = kernel.cluster(dict(sizes)) if kernel.cluster else 1
    size = shared * np.dtype(dtype).itemsize
    return Launch(_triple(grid), _triple(threads), size, empty, cluster)


def _triple(size: Any) -> tuple[int, int, int]:
    """One to three numbers, each at least 1, as three."""
    values = (size,) if isinstance(size, int) else tuple(size)
    x, y, z = (*(max(int(v), 1) for v in values), 1, 1)[:3]
    return x, y, z
