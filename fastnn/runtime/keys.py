"""What compiled code depends on, as a hash: the key of the cache of machine code.

A kernel's key is made of what is compiled, as it is in memory: the source that its function and all
functions it reaches were compiled from (`sources.py`), and the exact value of every constant they
see. What files say since does not count. What can't be keyed exactly (`Unkeyed`) is not cached.

- A function counts with its source, defaults and closure, and with the globals that it names.
- A module counts with those of its attributes that any of these functions names.
- Numbers, strings, tuples, arrays and enums count bit by bit, with their types.
- Functions of NumPy, `math` and Numba count by name: how they are compiled is Numba's affair, whose
  version is part of the key. So do functions with a code generator of their own, whose module is
  part of the key (`generators`).
"""

from __future__ import annotations

import dis
import enum
import hashlib
import struct
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from fastnn.kernels import recorded
from fastnn.kernels.declare import HELPERS, CudaKernel, Kernel
from fastnn.runtime import sources

#: packages whose functions and classes Numba implements itself
LIBRARIES = frozenset({"builtins", "math", "cmath", "operator", "numpy", "numba", "llvmlite"})


class Unkeyed(Exception):
    """Something that a kernel depends on has no exact key; the message says what."""


def function_key(function: Callable[..., Any], generators: Collection[str] = ()) -> bytes:
    """Hash of all that a function's machine code depends on, but for compilers and options.

    Args:
        function: a plain function, a kernel's or a helper.
        generators: names of modules that are part of the key as a whole; their functions count by
            name.
    """
    walk = _Walk(generators)
    walk.function(function)
    walk.modules()
    return walk.digest.digest()


def modules_key(names: Iterable[str]) -> bytes:
    """Hash of the code of whole modules (see `recorded`)."""
    codes = [(name, recorded.code_of(name)) for name in names]
    which = tuple(id(code) for _, code in codes)
    if which not in _modules:
        digest = hashlib.blake2b(digest_size=16)
        for name, code in codes:
            digest.update(name.encode() + b"\0" + sources.of_module(code, code_digest))
        _modules[which] = digest.digest()
    return _modules[which]


def forget() -> None:
    """Look at sources anew."""
    _modules.clear()
    sources.forget()


def functions_of(function: Callable[..., Any], generators: Collection[str] = ()) -> list[Any]:
    """The helpers and `@njit` functions that a function reaches."""
    walk = _Walk(generators)
    walk.function(function)
    walk.modules()
    return walk.called


# -------------------------------------------------------------------- code

#: both by identity of code objects, which are kept
_modules: dict[tuple[int, ...], bytes] = {}
_digests: dict[int, tuple[types.CodeType, bytes, frozenset[str]]] = {}


def _of_code(code: types.CodeType) -> tuple[types.CodeType, bytes, frozenset[str]]:
    """A code object with its hash and all names in it; worked out once."""
    found = _digests.get(id(code))
    if found is None:
        digest = hashlib.blake2b(digest_size=16)
        names = set(code.co_names)
        digest.update(code.co_code + getattr(code, "co_exceptiontable", b""))
        numbers = (
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        )  # fmt: skip
        texts = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        digest.update(repr((numbers, texts)).encode())
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                names |= _of_code(constant)[2]
                digest.update(b"code" + code_digest(constant))
            else:
                digest.update(_constant(constant))
        found = _digests[id(code)] = code, digest.digest(), frozenset(names)
    return found


def code_digest(code: types.CodeType) -> bytes:
    """Hash of a code object and those in it; where it stands in a file does not count."""
    return _of_code(code)[1]


def _reads(code: types.CodeType, name: str) -> bool:
    """Whether code reads a global of this name."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return any(_reads(c, name) for c in inner) or any(
        i.argval == name and i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        for i in dis.get_instructions(code)
    )


# -------------------------------------------------------------------- values


def _tagged(value: Any, content: bytes) -> bytes:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}:{len(content)}:".encode() + content


def _constant(value: Any) -> bytes:
    """A value's type and bits; `Unkeyed` if it is no plain value."""
    kind = type(value)
    if value is None or value is Ellipsis or value is NotImplemented:
        return _tagged(value, repr(value).encode())
    if isinstance(value, enum.Enum):
        return _tagged(value, value.name.encode() + b"=" + _constant(value.value))
    if kind in (bool, int):
        return _tagged(value, str(int(value)).encode())
    if kind is float:
        return _tagged(value, struct.pack("<d", value))
    if kind is complex:
        return _tagged(value, struct.pack("<dd", value.real, value.imag))
    if kind is str:
        return _tagged(value, value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return _tagged(value, value)
    if kind in (range, slice):
        return _tagged(value, _constant((value.start, value.stop, value.step)))
    if isinstance(value, tuple):
        parts = b"".join(map(_constant, value))
        return _tagged(value, repr(getattr(value, "_fields", ())).encode() + parts)
    if kind in (frozenset, set):
        return _tagged(value, b"".join(sorted(map(_constant, value))))
    if isinstance(value, np.dtype):
        return _tagged(value, repr(value.descr if value.names else value.str).encode())
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        flags = (value.flags.c_contiguous, value.flags.f_contiguous, value.flags.writeable)
        head = repr((value.dtype.descr, value.dtype.str, value.shape, flags)).encode()
        return _tagged(value, head + value.tobytes())
    raise Unkeyed(f"a value of type {kind.__module__}.{kind.__qualname__}")


def _is_library(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in LIBRARIES


def _module_of(value: Any) -> Any:
    """The module that a function or class comes from; "numpy" for functions of elements; a module
    itself."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    return "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None)


# -------------------------------------------------------------------- the walk


class _Walk:
    """Goes through all that a function reaches, in an order that is the same in any process."""

    def __init__(self, generators: Collection[str]):
        self.digest = hashlib.blake2b(digest_size=16)
        self.generators = frozenset(generators)
        self.seen: dict[int, int] = {}  # objects in the order of their first visit
        self.alive: list[Any] = []
        self.called: list[Any] = []
        self.found_modules: list[types.ModuleType] = []
        self.names: set[str] = set()
        self.resolved: set[tuple[int, str]] = set()
        self.helpers = {id(h) for h in HELPERS}

    def add(self, content: bytes) -> None:
        self.digest.update(len(content).to_bytes(8, "little") + content)

    def again(self, value: Any) -> bool:
        """Whether a value was visited; notes where it comes up."""
        number = self.seen.get(id(value))
        if number is not None:
            self.add(f"again {number}".encode())
            return True
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        return False

    def function(self, function: Any) -> None:
        if self.again(function):
            return
        code, _, names = _of_code(function.__code__)
        self.names |= names
        self.add(b"function" + sources.of_function(code, code_digest))
        for default in function.__defaults__ or ():
            self.value(default)
        for name, default in sorted((function.__kwdefaults__ or {}).items()):
            self.add(name.encode())
            self.value(default)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in sorted(cells, key=lambda pair: pair[0]):
            self.add(name.encode())
            try:
                content = cell.cell_contents
            except ValueError:  # a name that has no value yet
                self.add(b"empty")
                continue
            self.value(content)
        scope = function.__globals__
        for name in sorted(names):
            if name in scope:
                self.add(name.encode())
                try:
                    self.value(scope[name])
                except Unkeyed:
                    if _reads(code, name):  # else an attribute is called like it
                        raise

    def modules(self) -> None:
        """The attributes of the modules seen that are named anywhere; goes on until none is new."""
        done = False
        while not done:
            done = True
            for number, module in enumerate(self.found_modules):  # may grow
                for name in sorted(self.names):
                    if (number, name) in self.resolved or not self.has(module, name):
                        continue
                    self.resolved.add((number, name))
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        value = getattr(module, name)
                    if _is_library(module.__name__) and _is_library(_module_of(value)):
                        # The source says its name; another Python's `math` has others, and a
                        # package has the modules in it that somebody has imported.
                        continue
                    self.add(f"{number}.{name}".encode())
                    self.value(value)
                    done = False

    @staticmethod
    def has(module: types.ModuleType, name: str) -> bool:
        if name in vars(module):
            return True
        return "__getattr__" in vars(module) and not _is_library(module.__name__) and (
            hasattr(module, name)
        )  # fmt: skip

    def value(self, value: Any) -> None:
        if isinstance(value, (Kernel, CudaKernel)):
            self.value(value.function)
        elif isinstance(value, types.FunctionType):
            self.plain_function(value)
        elif isinstance(value, types.ModuleType):
            self.add(f"module {value.__name__}".encode())
            if not self.again(value):
                self.found_modules.append(value)
        elif isinstance(value, type):
            self.kind(value)
        elif type(value).__module__ in self.generators:
            self.add(f"by name {type(value).__module__}.{type(value).__qualname__}".encode())
        elif isinstance(getattr(value, "py_func", None), types.FunctionType):  # @njit
            options = getattr(value, "targetoptions", {})
            self.add(f"compiled by Numba {sorted(options.items(), key=str)!r}".encode())
            if not any(value is c for c in self.called):
                self.called.append(value)
            self.function(value.py_func)
        elif isinstance(value, tuple) and any(map(callable, value)):
            self.add(f"tuple {len(value)} {getattr(value, '_fields', ())}".encode())
            for part in value:
                self.value(part)
        else:
            self.other(value)

    def plain_function(self, value: Any) -> None:
        module = value.__module__
        if id(value) not in self.helpers and (module in self.generators or _is_library(module)):
            self.add(f"by name {module}.{value.__qualname__}".encode())
        elif id(value) in self.helpers or id(value) in self.seen:
            if not any(value is c for c in self.called):
                self.called.append(value)
            self.function(value)
        else:
            raise Unkeyed(
                f"the function {value.__qualname__!r}, which is not decorated with @fnn.helper"
            )

    def kind(self, value: type) -> None:
        self.add(f"class {value.__module__}.{value.__qualname__}".encode())
        if issubclass(value, enum.Enum):
            for member in value.__members__.values():
                self.add(_constant(member))
        elif issubclass(value, tuple) and hasattr(value, "_fields"):
            self.add(repr(value._fields).encode())
        elif not (_is_library(value.__module__) or issubclass(value, BaseException)):
            raise Unkeyed(f"the class {value.__qualname__!r}")

    def other(self, value: Any) -> None:
        try:
            self.add(_constant(value))
            return
        except Unkeyed:
            kind = type(value)
            module = getattr(value, "__module__", None) or kind.__module__
            name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
            if isinstance(value, np.ufunc):
                module, name = "numpy", value.__name__
            if _is_library(module) and isinstance(name, str):
                self.add(f"by name {module}.{name}".encode())
            elif kind.__module__.startswith("numba."):
                self.numba(value)
            else:
                raise

    def numba(self, value: Any) -> None:
        """Types of Numba's count by their names, which say all of them."""
        numba: Any = sys.modules.get("numba")
        if numba is None or not isinstance(value, numba.types.Type):
            raise Unkeyed(f"a {type(value).__name__} of Numba's")
        self.add(f"type {value}".encode())
