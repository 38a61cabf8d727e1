"""Hashes of kernels' machine code, so that a refactoring can show that no kernel's code changed.

Of an object file the contents of its sections of code and numbers count, and where they refer to
each other; names of symbols, which Numba numbers anew in each process, do not. Of PTX the text
counts, with its names numbered in order.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import re
import struct
import sys
from pathlib import Path
from typing import Any

#: compute capability that PTX is made for
CC = (9, 0)
#: sections of an object file that count, by the beginning of their names
SECTIONS = (b".text", b".ltext", b".rodata", b".lrodata")


def main(file: Path, against: Path | None, names: list[str], cuda: bool) -> int:
    hashes = every(names, cuda)
    file.write_text(json.dumps(hashes, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(hashes)} kernels' code in {file}\n")
    if against is None:
        return 0
    before = json.loads(against.read_text(encoding="utf-8"))
    gone, new = sorted(set(before) - set(hashes)), sorted(set(hashes) - set(before))
    changed = sorted(n for n in set(hashes) & set(before) if hashes[n] != before[n])
    for label, found in (("gone", gone), ("new", new), ("changed", changed)):
        sys.stdout.write(f"{label}: {len(found)} {' '.join(found)}\n")
    return int(bool(changed))


def every(names: list[str], cuda: bool) -> dict[str, str]:
    """Hashes by "kernel dtype [data's dtype]" (CUDA's begin with "cuda "), of all by default."""
    from fastnn.kernels.declare import CUDA_KERNELS, KERNELS

    _declare()
    tasks = [("cpu", *v) for n, k in sorted(KERNELS.items()) for v in _variants(n, k)]
    if cuda:
        tasks += [
            ("cuda", *v)
            for n, k in sorted(CUDA_KERNELS.items())
            for v in _variants(n, k)
            if not (k.traits.only_float32 and v[1] == "float64")
        ]
    if names:
        tasks = [task for task in tasks if task[1] in names]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), context, _declare
    ) as pool:
        found = pool.map(_hash, *zip(*tasks, strict=True), chunksize=4)
        return {_name(*task): digest for task, digest in zip(tasks, found, strict=True)}


def _declare() -> None:
    """Enter every kernel in the tables, all optimisers' included."""
    import fastnn
    from fastnn.kernels import topics
    from fastnn.runtime.cuda import report
    from tests.train.models import OPTIMIZERS

    topics.load("cpu")
    report.declare_all()
    for make in (*OPTIMIZERS.values(), lambda: fastnn.optim.Adam(amsgrad=True)):
        make().kernels()
    topics.load("cuda")


def _variants(name: str, kernel: Any) -> list[tuple[str, str, str]]:
    data = (
        ("float32", "uint8", "int64")
        if any(p.dtype == "d" for p in kernel.arrays.values())
        else ("",)
    )
    floats = ("float32", "float64")
    return [(name, dtype, d) for dtype in floats for d in data]


def _name(device: str, *variant: str) -> str:
    return " ".join(part for part in (device if device == "cuda" else "", *variant) if part)


def _hash(device: str, name: str, dtype: str, data: str) -> str:
    from fastnn.kernels.declare import CUDA_KERNELS, KERNELS

    if device == "cuda":
        from fastnn.runtime.cuda import compiler as cuda_compiler

        return ptx_hash(cuda_compiler.compile_ptxs(CUDA_KERNELS[name], dtype, data, [CC])[0])
    from fastnn.runtime.cpu import codegen, compiler

    kernel = KERNELS[name]
    code = compiler.obtain(
        lambda: compiler.object_path(kernel, dtype, data),
        lambda: codegen.compile_object(kernel, dtype, data),
        kernel,
        compiler.GENERATED,
    )
    return object_hash(code)


def object_hash(code: bytes) -> str:
    """The hash of an object file (ELF of 64 bits)."""
    digest = hashlib.blake2b(digest_size=12)
    for name, contents in sections(code):
        relocations = name.startswith(b".rela")
        if not name.removeprefix(b".rela").startswith(SECTIONS):
            continue
        if relocations:  # without the numbers of symbols
            entries = struct.iter_unpack("<QQq", contents)
            contents = repr([(at, info & 0xFFFFFFFF, more) for at, info, more in entries]).encode()
        digest.update(name + contents)
    return digest.hexdigest()


def sections(code: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of an ELF file's sections."""
    assert code[:6] == b"\x7fELF\x02\x01", "expected a little-endian ELF file of 64 bits"
    table, size, count, names = (
        *struct.unpack_from("<Q", code, 40),
        *struct.unpack_from("<HHH", code, 58),
    )
    heads = [struct.unpack_from("<IIQQQQ", code, table + k * size) for k in range(count)]
    strings = code[heads[names][4] :]
    empty = 8  # SHT_NOBITS
    return [
        (strings[h[0] : strings.index(b"\0", h[0])], code[h[4] : h[4] + h[5]])
        for h in heads
        if h[1] != empty
    ]


def ptx_hash(text: str) -> str:
    """The hash of PTX, without comments and with its long names numbered in order."""
    numbers: dict[str, str] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("//")]
    plain = re.sub(
        r"\b_?_?(?:ZN|fastnn|cudapy)\w+\$?\w*",
        lambda m: numbers.setdefault(m[0], f"name{len(numbers)}"),
        "\n".join(lines),
    )
    return hashlib.blake2b(plain.encode(), digest_size=12).hexdigest()
