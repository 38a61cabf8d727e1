"""From a kernel to the address of its machine code, once per machine.

Numba makes the object file (`codegen.py`), which is kept on disk. A later process loads it with
llvmlite alone (well under a millisecond, Numba is not even imported).

A cache entry's name is a hash of everything that can change the code, as it is in memory: the code
of the modules that generate it, the versions of Numba and llvmlite, the CPU, the vector
width, and for each kernel what it is made of (`fastnn/runtime/keys.py`), so a user's kernel in a
notebook is cached safely, too. `fastnn/runtime/cache.py` reads and writes the files. Where the
cache can't be written, a process compiles for itself, with one warning. A Ctrl-C waits while a
kernel is compiled or loaded: an exception in the middle of an import leaves Numba unusable.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastnn.errors import ProgramError, warn
from fastnn.interrupts import uninterrupted
from fastnn.kernels.declare import Array, Kernel
from fastnn.runtime import cache, keys, sources
from fastnn.runtime.compile_errors import refuse_without_package
from fastnn.runtime.cpu import codegen, helper_functions, shipped
from fastnn.runtime.cpu.checks import check_tile_unit, checked
from fastnn.runtime.cpu.codegen import OUT_OF_BOUNDS, compile_object, emit, lock, target_machine

ENTRY = codegen.ENTRY
#: those that give the state of NumPy's and Python's random numbers
RANDOM = (b"numba_get_np_random_state", b"numba_get_py_random_state")
#: modules whose functions have code generators: they count in a kernel's key by name
GENERATED = frozenset(
    f"fastnn.kernels.{name}" for name in ("simd", "cpu.tile", "cpu.tile_unit", "cpu.target")
)
#: modules that make the code of every kernel: they are part of every key as a whole
GENERATORS = (
    *sorted(GENERATED),
    "fastnn.kernels.types",
    "fastnn.kernels._simd_ir",
    "fastnn.kernels.cpu._types_llvm",
    "fastnn.kernels.cpu._bounds_llvm",
    "fastnn.kernels.cpu._simd_llvm",
    "fastnn.kernels.cpu._tile_llvm",
    "fastnn.kernels.cpu._transpose_llvm",
    "fastnn.kernels.cpu._tile_unit_llvm",
    "fastnn.kernels.cpu._tile_unit_pack_llvm",
    "fastnn.kernels.cpu._pairs_llvm",
    "fastnn.runtime.cpu.codegen",
    "fastnn.runtime.cpu.numba_bridge",
)
#: those that make the run loop
LOOP_MODULES = (
    "fastnn.kernels.control_block",
    "fastnn.runtime.cpu.layout",
    "fastnn.runtime.cpu.loop",
    "fastnn.runtime.cpu.machine",
    "fastnn.runtime.cpu.handover",
    "fastnn.runtime.cpu.choosing",
    "fastnn.runtime.cpu.permuting",
)
#: the run loop, what hands runs over to workers, and what draws orders: compiled like kernels
LOOP_FUNCTIONS = (
    "run", "alone", "lead", "serve", "submit", "wait", "finish", "dismiss", "ask", "answer",
    "read_clock", "permute",
)  # fmt: skip
#: settings of Numba's that don't change the code
NO_MATTER = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_ENABLE_CUDASIM"}
#: number of kernels compiled (not loaded) by this process; tests assert that it stands still
compiled_count = 0
_warned = False  # that the cache cannot be written
_loaded: dict[Any, int] = {}
_pinned: dict[int, tuple[Any, bytes]] = {}  # functions that were compiled, as they were then
_keep_alive: list[Any] = []  # execution engines own the machine code
_words: dict[int, int] = {}  # checked mode: where the code at an address notes an index


def cache_folder() -> Path:
    """Where object files are kept: `FASTNN_CACHE`, or fastnn's folder in the user's cache."""
    return cache.chosen()


def machine_hash() -> str:
    """Hash of all that is common to the kernels of this process: generators, versions, CPU."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(keys.modules_key(GENERATORS) + _environment())
    return digest.hexdigest()


def _environment() -> bytes:
    """Versions, CPU, and settings of Numba's from the environment."""
    from fastnn.kernels.cpu import target

    check_tile_unit()
    return _machine(_versions(), target.host(), checked()) + repr(_settings()).encode()


def _settings() -> list[tuple[str, str]]:
    """Settings of Numba's from the environment that change the code."""
    found = {n: v for n, v in os.environ.items() if n.startswith("NUMBA_")}
    return sorted((n, v) for n, v in found.items() if n not in NO_MATTER)


def shipped_pack() -> shipped.Pack | None:
    """The code that came with the package and serves this process, if there is any.

    Machine code needs none of the libraries that made it, so their versions do not count.
    """
    settings = shipped_settings(checked(), _settings())
    return shipped.pack(keys.modules_key(GENERATORS), settings)


def shipped_settings(check: bool = False, numba: Sequence[Any] = ()) -> tuple[Any, ...]:
    """What shipped code depends on beside its source and target; by default as it is made."""
    return sys.implementation.name, sys.flags.optimize, check, list(numba)


@functools.cache
def _machine(*parts: Any) -> bytes:
    return repr(parts).encode()


@functools.cache
def _versions() -> tuple[Any, ...]:
    packages = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    return (sys.implementation.name, sys.flags.optimize, *packages)


def object_path(kernel: Kernel, dtype: str, data_dtype: str) -> Path:
    """The file that holds (or will hold) the object code of this variant.

    Raises `keys.Unkeyed` for a kernel that can't be cached.
    """
    return cache.folder(machine_hash()) / object_name(kernel, dtype, data_dtype)


def object_name(kernel: Kernel, dtype: str, data_dtype: str) -> str:
    """The name of that file: it says what the kernel is made of, on any machine."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(keys.function_key(kernel.function, GENERATED))
    digest.update(repr((kernel.params, kernel.items is None, dtype, data_dtype)).encode())
    variant = dtype if not data_dtype else f"{dtype}-{data_dtype}"
    return f"{cache.short(kernel.name)}-{variant}-{digest.hexdigest()}.o"


def loop_path(name: str = "run") -> Path:
    """The file of a compiled function of `loop`."""
    return cache.folder(machine_hash()) / loop_object_name(name)


def loop_object_name(name: str) -> str:
    return f"{name}-{keys.modules_key(LOOP_MODULES).hex()}.o"


def address(kernel: Kernel, dtype: str, data_dtype: str = "") -> int:
    """Address of the kernel's machine code for float type `dtype`; compiles it if need be.

    `data_dtype` is the NumPy type name of the 'd' arrays, for kernels that have any.
    """
    found = _loaded.get((kernel, dtype, data_dtype))
    if found is not None:
        return found
    with uninterrupted(), lock:
        found = _loaded.get((kernel, dtype, data_dtype))
        if found is None:
            code = obtain(
                lambda: object_path(kernel, dtype, data_dtype),
                lambda: _compile(kernel, dtype, data_dtype),
                kernel,
                GENERATED,
            )
            _refuse_random(kernel, code)
            found = _loaded[kernel, dtype, data_dtype] = load_object(code)
            if kernel.traits.tile_unit:
                from fastnn.kernels.cpu.tile_unit import usable

                usable()  # asks for the permission
        return found


def _compile(kernel: Kernel, dtype: str, data_dtype: str) -> bytes:
    try:
        return compile_object(kernel, dtype, data_dtype)
    except ImportError as error:
        refuse_without_package(f"kernel {kernel.shown!r}", kernel.function, error)


def _refuse_random(kernel: Kernel, code: bytes) -> None:
    """Refuse a kernel that draws numbers from the generators of NumPy or Python: each thread has a
    state of its own there, so bits would depend on the number of workers and on no seed."""
    if any(name in code for name in RANDOM):
        raise ProgramError(
            f"kernel {kernel.shown!r} ({kernel.function.__module__}) draws from np.random or "
            "random, which know neither the seed nor the step; draw in forward, with "
            "ops.uniform_like or ops.normal_like, and pass the numbers to the kernel as an input"
        )


def loop_address(name: str = "run") -> int:
    """Address of a compiled function of `loop`, `handover` or `permuting`."""
    found = _loaded.get(name)
    if found is not None:
        return found
    with uninterrupted(), lock:
        found = _loaded.get(name)
        if found is None:
            code = obtain(lambda: loop_path(name), lambda: _compile_loop(name))
            found = _loaded[name] = load_object(code)
        return found


def _compile_loop(name: str) -> bytes:
    from fastnn.runtime.cpu import handover, loop, numba_bridge, permuting

    places = {"run": loop, "permute": permuting}
    return emit(numba_bridge.optimised_llvm(getattr(places.get(name, handover), name), ENTRY))


def load_object(code: bytes) -> int:
    """Load an object file into the process and return the address of its entry."""
    from llvmlite import binding

    _keep_alive.append(helper_functions.make_known(code))
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _keep_alive.append(engine)
    address = int(engine.get_function_address(ENTRY))
    if checked() and OUT_OF_BOUNDS.encode() in code:
        _words[address] = int(engine.get_global_value_address(OUT_OF_BOUNDS))
    return address


def noted(address: int) -> tuple[int, ...]:
    """What the code at this address has noted of an index out of bounds, which is cleared.

    In the checked mode: kind of access, address of the array, flat index, number of elements, or
    index, size and number of an axis (see `_bounds_llvm`); empty where nothing is noted.
    """
    if address not in _words:
        return ()
    words = (ctypes.c_int64 * 5).from_address(_words[address])
    values = tuple(words)
    words[0] = 0
    return values if values[0] else ()


def compile_to(path: Path, kernel: Kernel, dtype: str, data_dtype: str = "") -> float:
    """Compile one variant into the file `path`, if that is its path; returns the seconds."""
    start = time.perf_counter()
    with uninterrupted(), lock:
        _make(
            path,
            lambda: object_path(kernel, dtype, data_dtype),
            lambda: _compile(kernel, dtype, data_dtype),
            kernel,
            GENERATED,
        )
    sources.remember()
    return time.perf_counter() - start


def compile_loop_to(path: Path, name: str) -> None:
    """The same for a function of `loop`, `handover` or `permuting`."""
    with uninterrupted(), lock:
        _make(path, lambda: loop_path(name), lambda: _compile_loop(name), None, frozenset())
    sources.remember()


def obtain(
    path_of: Callable[[], Path],
    compile_code: Callable[[], bytes],
    kernel: Any = None,
    generated: frozenset[str] = frozenset(),
) -> bytes:
    """Machine code from the cache, or compiled and kept there."""
    try:
        path = path_of()
    except keys.Unkeyed as reason:
        cache.note(
            f"kernel {kernel.shown!r} is compiled anew in each process: it depends on {reason}, "
            "which can't be told from another"
        )
        path = None
    code = cached(path) if path is not None else None
    code = code or _make(path, path_of, compile_code, kernel, generated)
    sources.remember()
    return code


def cached(path: Path) -> bytes | None:
    """The machine code for a path in the cache: from there, or what came with the package."""
    code = cache.read(path)
    if code is None and (pack := shipped_pack()) is not None:
        code = pack.read(path.name)
    return code


def is_there(path: Path) -> bool:
    """Whether the machine code for a path in the cache need not be compiled."""
    return os.path.exists(path) or ((pack := shipped_pack()) is not None and path.name in pack)


def _make(
    path: Path | None,
    path_of: Callable[[], Path],
    compile_code: Callable[[], bytes],
    kernel: Any,
    generated: frozenset[str],
) -> bytes:
    """Compile, keep the code in the cache if that can be written, and return it.

    It is kept only if the key is the same afterwards, when all that was used is in memory.
    """
    global compiled_count, _warned
    exact = kernel is None or _pin(kernel.function, generated)
    with _collecting_later():
        code = compile_code()
    compiled_count += 1
    if path is None or not exact or path_of() != path:
        return code
    try:
        cache.write(path, code)
    except OSError as error:
        if not _warned:
            _warned = True
            warn(
                f"the kernel cache {cache_folder()} cannot be written ({error}); every process "
                "compiles its kernels again. Set FASTNN_CACHE to a folder that can be written",
            )
    return code


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """Python's collector of garbage waits. Numba makes objects by the million, and to look through
    all of them again and again takes up to an eighth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _pin(function: Any, generated: frozenset[str]) -> bool:
    """Whether what a kernel calls will be compiled as it is now.

    Numba compiles a helper once in a process, with the constants of that moment. A helper that
    sees others since is an error: its new meaning can't be had any more.
    """
    exact = True
    try:
        reached = keys.functions_of(function, generated)
    except keys.Unkeyed:
        return False
    for called in reached:
        python = getattr(called, "py_func", called)
        key = keys.function_key(python, generated)
        known = _pinned.setdefault(id(called), (called, key))
        if known[1] != key:
            raise ProgramError(
                f"{python.__qualname__!r} is compiled already with other values of what it refers "
                "to (globals, closures); they are constants for compiled code. Define the function "
                "again, or make what changes a parameter"
            )
        exact = exact and (known[1] is not key or not getattr(called, "overloads", None))
    return exact


def record_length(kernel: Kernel) -> int:
    """Words in a record of this kernel."""
    return sum(1 + len(p.dims) if isinstance(p, Array) else 1 for p in kernel.params.values())


#: C signature of every compiled kernel, which returns 0 unless it has raised an exception; calling
#: through ctypes releases the GIL
CALL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
