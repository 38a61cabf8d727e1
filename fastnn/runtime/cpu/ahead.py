"""Compiles kernels ahead, in several processes at once.

Numba compiles one function at a time in a process, so on a machine's first run the kernels that a
program lacks are compiled by worker processes (`python -m fastnn.runtime.cpu.ahead`), each fed one
variant after the other as a line of JSON. A worker compiles only what is exactly the same in its
process (the path in the cache is a hash of the code): users' own kernels, or sources that changed
meanwhile, are left to the process that needs them. Nothing here can fail a run: what no worker
compiled, `compiler.address` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from fastnn import switches
from fastnn.kernels import external, topics
from fastnn.kernels.declare import KERNELS, Array, Kernel
from fastnn.plan.program import Program
from fastnn.runtime import cache, sources
from fastnn.runtime.cpu import compiler
from fastnn.runtime.cpu.execute import available_cores, data_type_of
from fastnn.runtime.cpu.memory import Memory
from fastnn.runtime.keys import Unkeyed

#: kernel, float type, type of the data ("" where the kernel reads none); see `compiler.address`
Variant = tuple[str, str, str]
Report = Callable[[Variant, float], None]

#: the run loop and what hands runs over, which are compiled like kernels
LOOP: tuple[Variant, ...] = tuple((name, "", "") for name in compiler.LOOP_FUNCTIONS)
#: types of users' data that `common_variants` counts as common
DATA_TYPES = ("float32", "float64", "uint8", "int64", "int32")
#: fewer missing kernels than this are not worth a worker process
FEW = 3
#: at most so many worker processes (each takes about 200 MB)
MOST_WORKERS = 16
#: cache folders of other versions or machines that nobody used for so long are removed
KEPT_DAYS = 30
#: variants that this process has found in a cache folder: to look again would cost a hash each time
_seen: set[tuple[Path, Any]] = set()
_used = False  # whether this process has marked the cache folder as used


def variants(program: Program, memory: Memory) -> list[Variant]:
    """The compiled code that a program needs, the run loop included; each once."""
    found: dict[Variant, None] = dict.fromkeys(LOOP)
    for call in program.calls():
        if not KERNELS[call.kernel].traits.host:
            found[call.kernel, program.dtype, data_type_of(call, memory)] = None
    return list(found)


def path_of(variant: Variant) -> Path:
    """Where in the cache a variant is kept."""
    name, dtype, data_dtype = variant
    if variant in LOOP:
        return compiler.loop_path(name)
    return compiler.object_path(KERNELS[name], dtype, data_dtype)


def missing(wanted: Iterable[Variant]) -> list[Variant]:
    """Those that are neither loaded nor in the cache, each once, the longest first."""
    absent = []
    folder = compiler.cache_folder()
    for variant in dict.fromkeys(wanted):
        name, *types = variant
        key: Any = name if variant in LOOP else (KERNELS[name], *types)
        if key in compiler._loaded or (folder, key) in _seen:
            continue
        if _is_there(variant):
            _seen.add((folder, key))
        else:
            absent.append(variant)
    sources.remember()
    return sorted(absent, key=lambda v: v in LOOP or not KERNELS[v[0]].traits.slow_to_compile)


def _is_there(variant: Variant) -> bool:
    try:
        return compiler.is_there(path_of(variant))
    except Unkeyed:
        return False


def compile_missing(program: Program, memory: Memory) -> None:
    """Compile what a program lacks in worker processes, if it is worth while.

    Says so on standard error when it takes more than a second. Called before a program is bound.

    Args:
        program: the program about to be bound.
        memory: its segments; the element types of the user's data are taken from them.
    """
    wanted = variants(program, memory)
    others = alternatives(wanted)
    ensure([*wanted, *others])
    for name, *types in missing(others):  # what no worker process has compiled
        compiler.address(KERNELS[name], *types)


def alternatives(wanted: Iterable[Variant]) -> list[Variant]:
    """Kernels for the same work at other sizes: another batch size or model compiles nothing."""
    mine = [(KERNELS[v[0]].traits.family, v[1]) for v in wanted if v not in LOOP]
    families = {family for family, _ in mine} - {""}
    if families:
        topics.load("cpu")
    dtypes = sorted({dtype for family, dtype in mine if family})
    names = [name for name, kernel in KERNELS.items() if kernel.traits.family in families]
    return [(name, dtype, "") for dtype in dtypes for name in names]


def ensure(wanted: Iterable[Variant]) -> None:
    """Compile those of `wanted` that are missing; see `compile_missing`."""
    global _used
    if not _used:
        _used = True
        _mark_used()
    absent = [v for v in missing(wanted) if _is_ours(v)]
    if len(absent) < FEW or available_cores() < 2 or not _can_spawn():
        return
    compile_all(absent, announce=True)
    evict()


def compile_all(
    wanted: list[Variant],
    jobs: int | None = None,
    report: Report = lambda variant, seconds: None,
    announce: bool = False,
    program: tuple[str, ...] = ("fastnn.runtime.cpu.ahead",),
) -> int:
    """Compile variants into the cache in worker processes.

    Args:
        wanted: what to compile.
        jobs: number of processes; as many as cores, and no more than are worth while, if None.
        report: called with a variant and the seconds it took, in this thread, as each is done.
        announce: write a line to standard error when it takes more than a second.
        program: the module that a worker process runs, and its arguments.

    Returns:
        How many are there now. The rest no worker could compile.
    """
    count = jobs or min(available_cores(), -(-len(wanted) // 2), MOST_WORKERS)
    tasks: queue.SimpleQueue[Variant] = queue.SimpleQueue()
    for variant in wanted:
        tasks.put(variant)
    done: queue.SimpleQueue[tuple[Variant, float] | None] = queue.SimpleQueue()
    workers: list[subprocess.Popen[str]] = []
    start, compiled, announced = time.monotonic(), 0, not announce
    try:
        with contextlib.suppress(OSError):  # no more processes: go on with those there are
            for _ in range(count):
                workers.append(_start_worker(*program))
                arguments = workers[-1], tasks, done
                threading.Thread(target=_feed, args=arguments, daemon=True).start()
        running = len(workers)
        while running:
            try:
                result = done.get(timeout=0.1)
                if result is None:
                    running -= 1
                else:
                    compiled += 1
                    report(*result)
            except queue.Empty:
                pass
            if not announced and running and time.monotonic() - start > 1:
                announced = True
                sys.stderr.write(f"compiling {len(wanted)} kernels (once per machine)...\n")
                sys.stderr.flush()
    finally:
        for worker in workers:
            worker.kill()  # those that are done have nothing to lose; the others were interrupted
            worker.wait()
    compiler.compiled_count += compiled
    return compiled


def _start_worker(*program: str) -> subprocess.Popen[str]:
    paths = [str(Path(p).resolve()) for p in sys.path if p]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *program, *external.MODULES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if switches.on("FASTNN_DEBUG") else subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def _feed(worker: subprocess.Popen[str], tasks: Any, done: Any) -> None:
    """Give a worker one variant after the other; report what it has compiled."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        while True:
            variant = tasks.get_nowait()
            worker.stdin.write(json.dumps([*variant, str(path_of(variant))]) + "\n")
            worker.stdin.flush()
            seconds = json.loads(worker.stdout.readline())
            if seconds is not None:
                done.put((variant, seconds))
    except (queue.Empty, OSError, ValueError):  # nothing left to do, or the worker died
        pass
    finally:
        with contextlib.suppress(OSError):
            worker.stdin.close()
        worker.stdout.close()
        done.put(None)


def _is_ours(variant: Variant) -> bool:
    """Whether a worker can know this kernel: it comes from a module of fastnn's."""
    if variant in LOOP:
        return True
    scope = KERNELS[variant[0]].function.__globals__
    return str(scope.get("__name__", "fastnn.")).startswith("fastnn.")


def _can_spawn() -> bool:
    """Whether worker processes would run this Python, and can write to the cache."""
    if not sys.executable or getattr(sys, "frozen", False):
        return False
    folder = compiler.cache_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


# -------------------------------------------------------------------- all kernels


def load_all(modules: Iterable[str] = ()) -> None:
    """Import everything that declares kernels, those that have entered themselves (`fastnn.optim`
    does when it is imported), and these modules."""
    topics.load("cpu")
    external.load(modules)


def common_variants(dtypes: Iterable[str] = ("float32",)) -> list[Variant]:
    """All of fastnn's kernels for these float types, and for the common types of data."""
    load_all()
    return [*LOOP, *(v for dtype in dtypes for k in KERNELS.values() for v in _of(k, dtype))]


def _of(kernel: Kernel, dtype: str) -> Iterator[Variant]:
    reads_data = any(isinstance(p, Array) and p.dtype == "d" for p in kernel.params.values())
    for data_dtype in DATA_TYPES if reads_data else ("",):
        if _is_ours((kernel.name, dtype, data_dtype)):
            yield kernel.name, dtype, data_dtype


# -------------------------------------------------------------------- the cache


def cache_size() -> tuple[int, int]:
    """Number of compiled kernels in the cache, those of other versions included, and bytes."""
    sizes = [p.stat().st_size for p in compiler.cache_folder().glob("*/*.o")]
    return len(sizes), sum(sizes)


def _mark_used() -> None:
    """Set the cache folder's time to now, at most once a day."""
    folder = cache.folder(compiler.machine_hash())
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime > 86400:
            os.utime(folder)


def evict(days: float = KEPT_DAYS) -> list[Path]:
    """Remove cache folders of other versions or machines that were not used for so many days.

    Only folders that look exactly like fastnn's own are touched: named by a hash, with nothing but
    object files inside.

    Returns:
        The folders that were removed.
    """
    removed = []
    folders = compiler.cache_folder().glob("*") if compiler.cache_folder().is_dir() else ()
    for folder in list(folders):
        if folder.name == compiler.machine_hash() or not re.fullmatch("[0-9a-f]{32}", folder.name):
            continue
        with contextlib.suppress(OSError):
            age = time.time() - folder.lstat().st_mtime
            if age > days * 86400 and not folder.is_symlink() and _is_cache(folder):
                shutil.rmtree(folder)
                removed.append(folder)
    return removed


def _is_cache(folder: Path) -> bool:
    return folder.is_dir() and all(
        entry.is_file()
        and not entry.is_symlink()
        and (entry.suffix == ".o" or entry.name.startswith("tmp"))
        for entry in folder.iterdir()
    )


# -------------------------------------------------------------------- a worker process


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Compile one variant for each line of `requests`; answers seconds, or null if it could not."""
    for line in requests:
        name, dtype, data_dtype, path = json.loads(line)
        seconds = _compile((name, dtype, data_dtype), path)
        answers.write(json.dumps(seconds) + "\n")
        answers.flush()


def _compile(variant: Variant, path: str) -> float | None:
    name, dtype, data_dtype = variant
    if (variant not in LOOP and name not in KERNELS) or str(path_of(variant)) != path:
        return None  # a user's kernel, or other code than the process that asks has
    start = time.perf_counter()
    if cache.read(Path(path)) is not None:  # another process has compiled it meanwhile
        return 0.0
    if variant in LOOP:
        compiler.compile_loop_to(Path(path), name)
    else:
        compiler.compile_to(Path(path), KERNELS[name], dtype, data_dtype)
    return time.perf_counter() - start if Path(path).exists() else None


def main(modules: list[str]) -> None:
    """What a worker process does: answers on standard output what comes on standard input."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    answers, sys.stdout = sys.stdout, sys.stderr
    load_all(modules)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main(sys.argv[1:])
