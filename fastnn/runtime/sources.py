"""The source that code in memory was compiled from, in a form that no version of Python changes.

What a cache of machine code is keyed by has to be what ran, never what a file says later. Byte code
is that, but differs from one version of Python to the next. So the source is looked up where Python
finds it for tracebacks, compiled once more, and compared with the code in memory. Where that is the
same, the code counts by its source: its syntax tree without comments, documentation, annotations
and places. Where it is not, because the file was edited or there is none, it counts by its byte
code, for this version of Python.

To compile sources again costs about as much as importing them, so what was found is kept in the
cache: a table from the name and the hash of byte code, which is exact, to that of its source.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import functools
import hashlib
import inspect
import json
import linecache
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from fastnn.runtime import cache

#: how many codes the table holds
MOST = 8192
#: flags of a code object that are given to the compiler: of `from __future__ import ...`
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
#: what of a syntax tree does not count, by the node's field
_UNCOUNTED = ("ctx", "kind", "type_comment", "annotation", "returns")
Digest = Callable[[types.CodeType], bytes]

_table: dict[str, str] = {}
_read_from: set[Any] = set()
_changed = False


def of_function(code: types.CodeType, digest: Digest) -> bytes:
    """Hash of a function's source, or of its byte code for this Python.

    Args:
        code: the function's code, as it is in memory.
        digest: exact hash of a code object.
    """
    return _of(code, digest, _function_source)


def of_module(code: types.CodeType, digest: Digest) -> bytes:
    """The same for the code of a whole module."""
    return _of(code, digest, _module_source)


def remember() -> None:
    """Keep what was found for other processes, if there is anything new."""
    global _changed
    if not _changed:
        return
    _changed = False
    path = _path()
    mine = dict(_table)
    _read_from.clear()
    _known().update(mine)  # what others have found meanwhile, too
    content = json.dumps(dict(list(_table.items())[-MOST:])).encode()
    with contextlib.suppress(OSError):  # the next process finds it once more
        cache.write(path, content)


def forget() -> None:
    """Know nothing but what the cache's table says, where the cache is now."""
    _table.clear()
    _read_from.clear()


def _of(code: types.CodeType, digest: Digest, find: Callable[..., bytes | None]) -> bytes:
    global _changed
    exact = digest(code)
    entry = f"{code.co_name} {exact.hex()}"  # a source has the function's name, byte code has not
    known = _known().get(entry)
    if known is not None:
        return bytes.fromhex(known)
    found = None
    with contextlib.suppress(SyntaxError, ValueError, OSError, RecursionError):
        found = find(code, digest)
    if found is None:
        python = f"{sys.implementation.cache_tag} {sys.hexversion >> 16}".encode()
        return hashlib.blake2b(python + exact, digest_size=16).digest()
    _table[entry] = found.hex()
    _changed = True
    return found


def _path() -> Any:
    tag = sys.implementation.cache_tag or sys.implementation.name
    return cache.folder("sources") / f"{tag}-{sys.flags.optimize}.json"


def _known() -> dict[str, str]:
    place = os.environ.get("FASTNN_CACHE")  # where the cache is meant to be costs more to ask
    if place not in _read_from:
        _read_from.add(place)
        with contextlib.suppress(ValueError):
            found = json.loads(cache.read(_path()) or b"{}")
            _table.update(found if isinstance(found, dict) else {})
    return _table


# -------------------------------------------------------------------- from code to source


def _module_source(code: types.CodeType, digest: Digest) -> bytes | None:
    linecache.checkcache(code.co_filename)
    source = "".join(linecache.getlines(code.co_filename))
    if not source:
        return None
    again = compile(source, code.co_filename, "exec", dont_inherit=True)
    return _hash(_compiled(ast.parse(source))) if digest(again) == digest(code) else None


def _compiled(module: ast.Module) -> ast.Module:
    """Without the bodies of what runs as plain Python alone (`recorded.plain`)."""
    for node in module.body:
        marks = getattr(node, "decorator_list", [])
        if any(ast.unparse(mark) == "recorded.plain" for mark in marks):
            node.body, node.decorator_list = [], []  # type: ignore[attr-defined]
    return module


def _function_source(code: types.CodeType, digest: Digest) -> bytes | None:
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename)
    block = inspect.getblock(lines[code.co_firstlineno - 1 :]) if lines else []
    if not block:
        return None
    indent = block[0][: len(block[0]) - len(block[0].lstrip())]
    head = ""
    if code.co_flags & inspect.CO_NESTED:
        head = "def outer():\n" + "".join(f"{indent or ' '}{n} = 0\n" for n in code.co_freevars)
    elif indent:
        head = "if True:\n"
    # calls of what a file has imported are compiled in another way than calls of methods
    for imports in ("", _imports("".join(lines))):
        found = _compared(imports + head + "".join(block), code, digest)
        if found is not None:
            return found
    return None


@functools.lru_cache(maxsize=8)
def _imports(source: str) -> str:
    """A statement that imports all names that a file imports."""
    parts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {(a.asname or a.name).partition(".")[0] for part in parts for a in part.names} - {"*"}
    return f"import {', '.join(sorted(names))}\n" if names else ""


def _compared(source: str, code: types.CodeType, digest: Digest) -> bytes | None:
    """Hash of the function's source if that is what its code was compiled from."""
    flags = code.co_flags & FUTURE
    tree = compile(source, code.co_filename, "exec", ast.PyCF_ONLY_AST | flags, True)
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == code.co_name]
    if not found:
        return None
    found[0].decorator_list = []  # they run when the function is made, and are no part of it
    again = _within(compile(tree, code.co_filename, "exec", flags, True), code.co_name)
    if again is None or digest(again) != digest(code):
        return None
    return _hash(found[0])


def _within(code: types.CodeType, name: str) -> types.CodeType | None:
    """The code of a function of this name in others, the outermost."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    for found in (*(c for c in inner if c.co_name == name), *(_within(c, name) for c in inner)):
        if found is not None:
            return found
    return None


# -------------------------------------------------------------------- the form


def _hash(tree: ast.AST) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    _write(tree, digest.update)
    return digest.digest()


def _write(node: Any, put: Callable[[bytes], Any]) -> None:
    """A syntax tree as bytes: the same for the same tree, in any version of Python."""
    if isinstance(node, ast.Constant):
        put(b"constant ")
        _put_constant(node.value, put)
    elif isinstance(node, ast.AST):
        put(f"({type(node).__name__}".encode())
        for name in node._fields:
            value = getattr(node, name, None)
            if name in _UNCOUNTED or value is None or value == []:
                continue
            if name == "body" and _documented(node, value):
                value = value[1:]
            put(f" {name}=".encode())
            _write(value, put)
        put(b")")
    elif isinstance(node, list):
        put(f"[{len(node)} ".encode())
        for part in node:
            _write(part, put)
        put(b"]")
    else:  # names, and None in a list
        text = repr(node).encode()
        put(f"{len(text)}:".encode() + text)


def _put_constant(value: Any, put: Callable[[bytes], Any]) -> None:
    text = value.hex() if isinstance(value, float) else repr(value)
    put(f"{type(value).__name__} {len(text)}:{text}".encode("utf-8", "surrogatepass"))


def _documented(node: Any, body: list[Any]) -> bool:
    """Whether a body begins with documentation."""
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module, ast.AsyncFunctionDef)):
        return False
    first = body[0]
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
