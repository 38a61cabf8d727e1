"""From a kernel's Python function to the address of its machine code, once per machine.

Numba compiles a kernel to optimised LLVM code; the object file made of it is kept on disk. A later
process loads the object file with llvmlite alone (well under a millisecond, Numba is not even
imported). Every compiled function has the one signature ``void f(int64 *record, int64 lo,
int64 hi)``: the record holds an address and sizes for each array and one word for each scalar.

A cache entry's name is a hash of everything that can change the code: all of `kernels/` and this
file, the versions of Numba and llvmlite, the CPU, the vector width, and for each kernel a
fingerprint of its byte code with all that it refers to (so a user's kernel in a notebook is
cached safely, too). A file ends with a checksum: one that was cut off or damaged is made anew.
Where the cache can't be written, a process compiles for itself, with one warning.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import re
import tempfile
import threading
import time
import types as pytypes
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn.kernels
from fastnn.errors import ProgramError
from fastnn.kernels.declare import Array, Kernel

#: NumPy types of the element-type letters that don't depend on the program
FIXED_TYPES = {"r": "float64", "i": "int64"}
ENTRY = "fastnn_entry"
#: what the names of Numba's C functions begin with: a user's kernel may call some (math.gamma)
NUMBA_HELPER = b"numba_"
#: length of the checksum at the end of a cache file
CHECKSUM_BYTES = 16
#: number of kernels compiled (not loaded) by this process; tests assert that it stands still
compiled_count = 0
_warned = False  # that the cache cannot be written
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it has not
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
_loaded: dict[Any, int] = {}
_keep_alive: list[Any] = []  # execution engines own the machine code


def cache_folder() -> Path:
    """Where object files are kept: `FASTNN_CACHE`, or fastnn's folder in the user's cache."""
    chosen = os.environ.get("FASTNN_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(base) / "fastnn" if base else Path.home() / ".cache" / "fastnn"


@functools.cache
def machine_hash() -> str:
    """Hash of all that is common to the kernels of this process: sources, versions, CPU."""
    from fastnn.kernels.cpu import target

    digest = hashlib.blake2b(digest_size=16)
    root = Path(fastnn.kernels.__file__).parent
    folders = (root, root / "cpu", Path(__file__).parent)
    for path in [path for folder in folders for path in sorted(folder.glob("*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    host = target.host()
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    digest.update(repr((versions, host)).encode())
    return digest.hexdigest()


def fingerprint(function: Any, seen: set[int] | None = None) -> bytes:
    """Hash of a function's byte code, constants, defaults and, recursively, what it refers to."""
    seen = set() if seen is None else seen
    if id(function) in seen:
        return b"again"
    seen.add(id(function))
    digest = hashlib.blake2b(digest_size=16)

    def add(value: Any) -> None:
        if isinstance(value, Kernel):
            value = value.function
        if isinstance(value, pytypes.FunctionType):
            digest.update(fingerprint(value, seen))
        elif isinstance(value, pytypes.CodeType):
            digest.update(value.co_code)
            for constant in value.co_consts:
                add(constant)
            digest.update(repr((value.co_names, value.co_varnames)).encode())
        elif isinstance(value, pytypes.ModuleType):
            digest.update(value.__name__.encode())
            if id(value) not in seen:  # what the function may take from the module
                seen.add(id(value))
                for name in sorted(names & set(vars(value))):
                    add(getattr(value, name))
        elif isinstance(value, np.ndarray):
            digest.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
        else:
            text = "callable" if callable(value) else repr(value)
            digest.update(re.sub(" at 0x[0-9a-f]+", "", text).encode())  # the same in any process

    names = _names(function.__code__)
    add(function.__code__)
    add(function.__defaults__)
    for cell in function.__closure__ or ():
        add(cell.cell_contents)
    for name in sorted(names):
        if name in function.__globals__:
            add(function.__globals__[name])
    return digest.digest()


def _names(code: pytypes.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, pytypes.CodeType):
            names |= _names(constant)
    return names


def object_path(kernel: Kernel, dtype: str, data_dtype: str) -> Path:
    """The file that holds (or will hold) the object code of this variant."""
    return cache_folder() / machine_hash() / _object_name(kernel, dtype, data_dtype)


@functools.cache
def _object_name(kernel: Kernel, dtype: str, data_dtype: str) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(fingerprint(kernel.function) + repr((kernel.params, dtype, data_dtype)).encode())
    variant = dtype if not data_dtype else f"{dtype}-{data_dtype}"
    return f"{kernel.name}-{variant}-{digest.hexdigest()}.o"


def address(kernel: Kernel, dtype: str, data_dtype: str = "") -> int:
    """Address of the kernel's machine code for float type `dtype`; compiles it if need be.

    `data_dtype` is the NumPy type name of the 'd' arrays, for kernels that have any.
    """
    found = _loaded.get((kernel, dtype, data_dtype))
    if found is not None:
        return found
    with _lock:
        found = _loaded.get((kernel, dtype, data_dtype))
        if found is None:
            path = object_path(kernel, dtype, data_dtype)
            code = _read(path) or _make(path, lambda: compile_object(kernel, dtype, data_dtype))
            found = _loaded[kernel, dtype, data_dtype] = load_object(code)
        return found


def loop_address(name: str = "run") -> int:
    """Address of a compiled function of `loop` or `handover`."""
    found = _loaded.get(name)
    if found is not None:
        return found
    with _lock:
        found = _loaded.get(name)
        if found is None:
            path = cache_folder() / machine_hash() / f"{name}.o"
            code = _read(path) or _make(path, lambda: _compile_loop(name))
            found = _loaded[name] = load_object(code)
        return found


def _compile_loop(name: str) -> bytes:
    from fastnn.runtime.cpu import handover, loop, numba_bridge

    module = loop if name == "run" else handover
    return _emit(numba_bridge.optimised_llvm(getattr(module, name), ENTRY))


def load_object(code: bytes) -> int:
    """Load an object file into the process and return the address of its entry."""
    from llvmlite import binding

    if NUMBA_HELPER in code:  # LLVM would end the process for a function that it can't find
        from numba.core.registry import cpu_target

        _keep_alive.append(cpu_target.target_context)  # making it tells LLVM the addresses
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target_machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _keep_alive.append(engine)
    return int(engine.get_function_address(ENTRY))


def _target_machine() -> Any:
    from llvmlite import binding

    from fastnn.kernels.cpu import target

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    host = target.host()
    return binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
        cpu=host.cpu, features=host.features, opt=3, reloc="default", codemodel="jitdefault",
        jit=True,
    )  # fmt: skip


def compile_to(path: Path, kernel: Kernel, dtype: str, data_dtype: str = "") -> float:
    """Compile one variant into the file `path`; returns the seconds it took.

    The file appears at once and whole (written aside, then renamed), so several processes may
    compile the same kernel at the same time.
    """
    start = time.perf_counter()
    _make(path, lambda: compile_object(kernel, dtype, data_dtype))
    return time.perf_counter() - start


def _make(path: Path, compile_code: Callable[[], bytes]) -> bytes:
    """Compile, keep the object code in the cache if that can be written, and return it."""
    global compiled_count, _warned
    code = compile_code()
    compiled_count += 1
    try:
        _write(path, code)
    except OSError as error:
        if not _warned:
            _warned = True
            warnings.warn(
                f"the kernel cache {cache_folder()} cannot be written ({error}); every process "
                "compiles its kernels again. Set FASTNN_CACHE to a folder that can be written",
                stacklevel=2,
            )
    return code


def _write(path: Path, code: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(code + _checksum(code))
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _read(path: Path) -> bytes | None:
    """The object code in a cache file; None where there is none, or not as it was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    return code if code and checksum == _checksum(code) else None


def _checksum(code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=CHECKSUM_BYTES).digest()


def compile_object(kernel: Kernel, dtype: str, data_dtype: str = "") -> bytes:
    """The object code of a kernel's entry."""
    return _emit(compile_llvm(kernel, dtype, data_dtype))


def _emit(llvm: str) -> bytes:
    from llvmlite import binding

    module = binding.parse_assembly(llvm)
    module.verify()
    return bytes(_target_machine().emit_object(module))


def assembly(kernel: Kernel, dtype: str = "float32", data_dtype: str = "") -> str:
    """The machine code of a kernel as assembly text, for people and tests that read it."""
    from llvmlite import binding

    module = binding.parse_assembly(compile_llvm(kernel, dtype, data_dtype))
    return str(_target_machine().emit_assembly(module))


def compile_llvm(kernel: Kernel, dtype: str, data_dtype: str) -> str:
    """The optimised LLVM text of a kernel's entry."""
    from numba.core.errors import NumbaError

    from fastnn.runtime.cpu import numba_bridge

    with _lock:
        entry = make_entry(kernel, dtype, data_dtype, numba_bridge)
        try:
            return numba_bridge.optimised_llvm(entry, ENTRY)
        except NumbaError as error:
            raise ProgramError(
                f"kernel {kernel.name!r} ({kernel.function.__module__}) cannot be compiled for "
                f"{dtype}. A kernel may use loops, arithmetic, the math module and functions that "
                f"are decorated with @fnn.helper; it must not make arrays. Numba says: {error}"
            ) from None


def make_entry(kernel: Kernel, dtype: str, data_dtype: str, bridge: Any) -> Callable[..., None]:
    """The function `entry(record, lo, hi)` that unpacks a record and calls the kernel."""
    element = {"f": dtype, "d": data_dtype, **FIXED_TYPES}
    slot, arguments = 0, []
    for parameter in kernel.params.values():
        if isinstance(parameter, Array):
            sizes = ", ".join(f"r[{slot + 1 + k}]" for k in range(len(parameter.dims)))
            kind = f"np.{element[parameter.dtype]}"
            arguments.append(f"array_at(r[{slot}], ({sizes},), {kind})")
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


def record_length(kernel: Kernel) -> int:
    """Words in a record of this kernel."""
    return sum(1 + len(p.dims) if isinstance(p, Array) else 1 for p in kernel.params.values())


#: C signature of every compiled kernel; calling through ctypes releases the GIL
CALL = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
