"""The only module that imports CUDA packages: numba.cuda, cuda.core, cuda.bindings and nccl.

Everything is imported at the first use, so fastnn works, and costs the same, without them. What the
rest of fastnn needs of CUDA is listed here; another compiler package would take over by this file
and `fastnn/runtime/cuda/bridge.py`, which says how formulas are compiled.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from fastnn import switches
from fastnn.errors import DeviceError, OptionError
from fastnn.interrupts import uninterrupted
from fastnn.kernels import recorded

recorded.record()

#: what fastnn's extra "cuda13" brings; a test compares the two
NUMBA_CUDA, CUDA_CORE, NUMPY = "numba-cuda[cu13]>=0.30", "cuda-core>=1.0", "numpy<2.5"
INSTALL = f"pip install '{NUMBA_CUDA}' '{CUDA_CORE}' '{NUMPY}' ([cu12] for a driver of CUDA 12)"
#: what exchanges numbers between GPUs, as the extra "nccl13" brings it
NCCL = "pip install 'nccl4py>=0.6' nvidia-nccl-cu13 (nvidia-nccl-cu12 for a driver of CUDA 12)"

_importing = threading.RLock()


def simulated() -> bool:
    """Whether kernels run in Numba's simulator (as plain Python, a coroutine for each thread).

    Numba reads the variable when it is imported: it has to be set before.
    """
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"


def installed() -> bool:
    """Whether the packages that compile kernels for CUDA are there (a device need not be)."""
    return _found("numba_cuda") and _found("cuda")


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a package that is there and must not be imported
        return False


@functools.cache
def unfit() -> str:
    """Which installed package has a version that doesn't work, and what to do; "" if none."""
    core, compiler = _version("cuda-core"), _version("numba-cuda")
    if compiler and _number(compiler) < (0, 30):
        return (
            f"numba-cuda {compiler} is too old; expected 0.30 or later: pip install '{NUMBA_CUDA}'"
        )
    numpy = _version("numpy")
    if compiler and _number(numpy) >= (2, 5):
        return (
            f"numba-cuda does not work with NumPy {numpy}, only before 2.5: pip install '{NUMPY}'"
        )
    if core and _number(core) < (1, 0) and not simulated():
        return f"cuda-core {core} is too old; expected 1.0 or later: pip install '{CUDA_CORE}'"
    return ""


def _version(package: str) -> str:
    """An installed package's version, or ""."""
    import importlib.metadata  # not when fastnn is imported: it brings e-mail, zip files and more

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _number(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _require_fit() -> None:
    """Refuse packages that would fail at some later moment, in words of their own."""
    if problem := unfit():
        raise DeviceError(problem)


def compiler_version() -> tuple[tuple[str, str], ...]:
    """Versions of the packages that turn a kernel into machine code."""
    names = ("numba", "numba-cuda", "llvmlite", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink")
    return tuple((name, version) for name in names if (version := _version(name)))


# ---------------------------------------------------------------- devices


def numba_cuda() -> Any:
    """The module numba.cuda (the simulator's where that is on)."""
    _require_fit()
    with uninterrupted():
        import numba.cuda

    return numba.cuda


@functools.cache
def extension() -> Any:
    """The parts of Numba that teach it types and functions for CUDA."""
    _require_fit()
    with uninterrupted():
        return importlib.import_module("fastnn.kernels.cuda._types_nvvm").numba


def core() -> Any:
    """The package cuda.core: devices, streams, memory, modules, graphs."""
    _require_fit()
    with uninterrupted(), _importing:  # two threads at once would see it half-made
        return importlib.import_module("cuda.core")


def without_nccl() -> str:
    """Why GPUs can't exchange numbers by NCCL; empty if they can."""
    if _found("nccl"):
        return ""
    return f"nccl4py is not installed: {NCCL}"


def nccl() -> Any:
    """The module nccl.bindings.nccl: NCCL's C functions.

    Raises DeviceError where the package, or NCCL itself, is not there.
    """
    try:
        with uninterrupted(), _importing:
            found = importlib.import_module("nccl.bindings.nccl")
            found.get_version()
    except Exception as error:  # whatever the bindings raise where there is no library
        raise DeviceError(
            f"NCCL cannot be used ({type(error).__name__}: {error}): {NCCL}"
        ) from None
    return found


def driver() -> Any:
    """The module cuda.bindings.driver: the driver's C functions."""
    with uninterrupted(), _importing:
        return importlib.import_module("cuda.bindings.driver")


@functools.cache
def functions() -> Any:
    """The same functions without the bindings, for calls that don't wait: they keep Python's lock,
    take C's numbers and return their status."""
    return ctypes.PyDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def check(result: tuple[Any, ...]) -> Any:
    """What a function of the driver gave, without its status; an error if it failed."""
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"the CUDA driver says {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


#: blocks of a cluster, at most: as a rule, and where a device can place them
#: (`runtime/cuda/machine.py` asks); the driver wants to be told of more than the former
PORTABLE_CLUSTER, MOST_CLUSTER = 8, 16
#: the least compute capability: asynchronous copies to shared memory, TF32
OLDEST = (8, 0)


@functools.cache
def too_old(device: int) -> str:
    """Why kernels can't run on a device; empty if they can."""
    found = compute_capability(device)
    if found >= OLDEST:
        return ""
    name = "" if simulated() else f" ({core().Device(device).name})"
    return (
        f"cuda:{device}{name} has compute capability {found[0]}.{found[1]}, and kernels need "
        f"{OLDEST[0]}.{OLDEST[1]} or newer"
    )


@functools.cache
def ranges() -> Any:
    """The module `nvtx` where `FASTNN_NVTX=1` asks for ranges with layers' names, else None.

    Raises OptionError where the package is not there.
    """
    if not switches.on("FASTNN_NVTX"):
        return None
    try:
        return importlib.import_module("nvtx")
    except ImportError:
        raise OptionError(
            "FASTNN_NVTX=1: expected the package nvtx, which is not installed; pip install nvtx, "
            "or leave the variable unset"
        ) from None


@functools.cache
def reason() -> str:
    """Why CUDA cannot be used here; empty if at least one device can."""
    if found := no_driver():
        return found
    if simulated():
        return ""
    faults = [too_old(device) for device in range(len(core().Device.get_all_devices()))]
    return "" if "" in faults else "; ".join(faults)


def no_driver() -> str:
    """Why no device can be talked to; empty if one can."""
    if simulated():
        return unfit() if _found("numba_cuda") else f"numba-cuda is not installed: {INSTALL}"
    if not installed():
        return f"the CUDA packages are not installed: {INSTALL}"
    if problem := unfit():
        return problem
    if sys.platform == "linux":  # spares the import of the bindings where there is nothing to find
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "there is no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    try:
        (error,) = driver().cuInit(0)
        if int(error) == 0:
            error, count = driver().cuDeviceGetCount()
            if int(error) == 0:
                return "" if count else "the NVIDIA driver finds no device"
        return f"the NVIDIA driver cannot be started ({error.name})"
    except Exception as error:  # whatever the bindings raise for a missing or an old driver
        return f"there is no working NVIDIA driver ({type(error).__name__}: {error})".strip()


def available() -> bool:
    """Whether kernels can be run: on a device, or in the simulator."""
    return not reason()


def compute_capability(device: int = 0) -> tuple[int, int]:
    """What a device can do, as (major, minor)."""
    if simulated():
        return (9, 0)
    major, minor = core().Device(device).compute_capability
    return int(major), int(minor)


# ---------------------------------------------------------------- compiling


def compile_ptx(
    entry: Callable[..., None],
    argument_types: list[str],
    ccs: list[tuple[int, int]],
    name: str,
    launch_bounds: int | tuple[int, ...] | None = None,
) -> list[str]:
    """PTX of the kernel `entry`, under this name, for each compute capability. Needs no driver.

    `argument_types` are names of Numba's types. Numbers follow NumPy's rules (a division by zero
    is infinity); no fast-math: NaN and infinity stay.
    """
    from numba.cuda import types
    from numba.cuda.compiler import _compile_pyfunc_with_fixup as to_library

    signature = types.void(*(getattr(types, t) for t in argument_types))
    with _compute_capability_of(ccs[0]), _indices_as_written(), _modules_once():
        library, _ = to_library(
            entry, signature, device=False, cc=ccs[0], abi="numba", launch_bounds=launch_bounds
        )
        return [_renamed(library.get_asm_strs(cc=cc), name) for cc in ccs]


def _renamed(parts: list[Any], name: str) -> str:
    """The PTX with its one kernel under this name."""
    text = "".join(map(str, parts)).replace("\0", "")
    mangled = re.findall(r"\.entry\s+(\w+)", text)
    if len(mangled) != 1:
        raise RuntimeError(f"expected one kernel in the PTX, found {mangled}")
    # Numba's variables for its CPU run-time: nothing reads them
    lines = [x for x in text.splitlines() if not re.match(r"\.common .*_ZN08NumbaEnv\w+;", x)]
    # dynamic shared memory is declared with its element's alignment, and read 16 bytes at a time
    lines = [re.sub(r"^(\.extern \.shared \.align) \d+", r"\1 16", x) for x in lines]
    return "\n".join(lines).replace(mangled[0], name) + "\n"


@contextlib.contextmanager
def _compute_capability_of(cc: tuple[int, int]) -> Iterator[None]:
    """Numba asks the current device what functions called by a kernel are compiled for."""
    from numba.cuda import dispatcher

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        dispatcher.get_current_device = before


@contextlib.contextmanager
def _modules_once() -> Iterator[None]:
    """A function that several others call is linked once: its shared memory exists once."""
    from numba.cuda.cudadrv import nvvm

    before = nvvm.compile_ir

    def compile_ir(modules: Any, **options: Any) -> Any:
        once = modules if isinstance(modules, str) else list(dict.fromkeys(map(str, modules)))
        return before(once, **options)

    nvvm.compile_ir = compile_ir
    try:
        yield
    finally:
        nvvm.compile_ir = before


@contextlib.contextmanager
def _indices_as_written() -> Iterator[None]:
    """An index is taken as it is: -1 doesn't mean the last element (which costs three instructions
    at every access)."""
    from numba.cuda import types
    from numba.cuda.np import arrayobj

    def plain(context: Any, builder: Any, idxty: Any, idx: Any, size: Any) -> Any:
        return context.cast(builder, idx, idxty, types.intp)

    before = arrayobj.fix_integer_index
    arrayobj.fix_integer_index = plain
    try:
        yield
    finally:
        arrayobj.fix_integer_index = before


def link(ptx: str, cc: tuple[int, int]) -> tuple[bytes, str]:
    """Machine code (a cubin) of PTX, and the assembler's report of registers and spills."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    code = bytes(linker.link("cubin").code)
    return code, linker.get_info_log()
