"""Makes the object code that comes with the package: kernels of common nets, for the usual CPUs.

`setup.py` runs this when fastnn is installed or a wheel is built:

    python -m fastnn.cli.shipping FOLDER TARGET...

Each target becomes a pack (`runtime/cpu/shipped.py`) in the folder. "native" is the CPU that this
runs on, and its code is that which a first training would compile here. The others are kinds of CPU
that need not be this one, on Linux also of another architecture: programs are planned for them and
their code is made, not run. "usual" is all of these.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fastnn.errors import OptionError
from fastnn.kernels.cpu import target, tile_unit
from fastnn.kernels.declare import KERNELS
from fastnn.runtime import cache, keys
from fastnn.runtime.cpu import ahead, compiler, shipped

_V3 = (
    "cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "cx16", "sahf", "popcnt", "sse3", "ssse3",
    "sse4.1", "sse4.2", "crc32", "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe",
    "xsave",
)  # fmt: skip
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_PAIRS = (*_V4, "avx512bf16")
_TILES = (*_PAIRS, "amx-tile", "amx-bf16")


def _target(cpu: str, features: Iterable[str], *kind: Any) -> target.Target:
    return target.Target(cpu, ",".join(f"+{name}" for name in features), *kind)


#: the kinds of CPU that packs can be made for, by architecture and name; all that a kind's code may
#: use is in its list of features
TARGETS = {
    "x86_64": {
        "x86-64-v3": _target("x86-64-v3", _V3, "AVX2", 256, True, 16),
        "x86-64-v4": _target("x86-64-v4", _V4, "AVX-512", 512, True, 32),
        "x86-64-v4-pairs": _target("x86-64-v4", _PAIRS, "AVX-512", 512, True, 32, False, True),
        "x86-64-v4-tiles": _target("x86-64-v4", _TILES, "AVX-512", 512, True, 32, True),
    },
    "aarch64": {
        "aarch64": _target("generic", ("fp-armv8", "neon"), "NEON", 128, True, 32),
    },
}
NATIVE = "native"
USUAL = "usual"
PROGRAM = "fastnn.cli.shipping"
#: the exit status for targets that there are not; 1: not all kernels were compiled
WRONG = 2


def known() -> dict[str, target.Target]:
    """All targets that code can be made for here."""
    return {NATIVE: target.host(), **usual()}


def usual() -> dict[str, target.Target]:
    """Those that a wheel is made for: on Linux all of them, elsewhere this architecture's."""
    architectures = TARGETS if sys.platform == "linux" else (_architecture(),)
    return {n: kind for a in architectures for n, kind in TARGETS.get(a, {}).items()}


def _architecture() -> str:
    return shipped.platform().split()[1]


# -------------------------------------------------------------------- what is shipped


def common() -> list[ahead.Variant]:
    """The kernels of common nets, trained with common optimisers, in float32; for a CPU with a tile
    unit or AVX-512-BF16 also at the precisions that make use of it."""
    from fastnn.testing.null import null_device

    host = target.host()
    precisions = ("bf16", "medium", "high") if host.tile_unit else ("bf16",) * host.pairs
    with null_device("cpu") as null:
        for train in itertools.chain(_trainings(), *map(_unit_trainings, precisions)):
            train()
    ahead.load_all()
    names = dict.fromkeys(c.kernel for program in null.programs for c in program.calls())
    wanted = dict.fromkeys(ahead.LOOP)
    for name in names:
        if not KERNELS[name].traits.host:
            wanted.update(dict.fromkeys(ahead._of(KERNELS[name], "float32")))
    wanted.update(dict.fromkeys(ahead.alternatives(list(wanted))))
    return list(wanted)


def _trainings() -> Iterator[Callable[[], Any]]:
    """Trainings of common nets: an epoch each, on data that stand for any."""
    import numpy as np

    from fastnn import nn, optim

    rows, classes = np.zeros((40, 20), np.float32), np.zeros(40, np.int64)
    images, steps = np.zeros((40, 1, 28, 28), np.float32), np.zeros((40, 7, 20), np.float32)

    def mlp(*between: Any) -> list[Any]:
        return [nn.Linear(20, 128), *(between or (nn.ReLU(),)), nn.Linear(128, 10)]

    for rule in ("adam", optim.SGD(0.1), optim.SGD(0.1, momentum=0.9), optim.AdamW()):
        yield _fit(mlp(), rows, classes, optimizer=rule)
    yield _fit(mlp(), rows, classes, optimizer=optim.Adam(clip_norm=1.0))
    for activation in (nn.Tanh(), nn.Sigmoid(), nn.GELU()):
        yield _fit(mlp(activation), rows, classes)
    yield _fit([nn.Dropout(0.2), *mlp(nn.ReLU(), nn.Dropout(0.5))], rows, classes)
    yield _fit(mlp(), rows, np.zeros((40, 10), np.float32), "mse")
    wide, many = np.zeros((70, 784), np.float32), np.zeros(70, np.int64)  # with large weights
    layers = [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 10)]
    yield _fit(layers, wide, many, batch_size=64)
    yield _fit(
        [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 10)],
        images, classes,
    )  # fmt: skip
    for recurrent in (nn.RNN(20, 32), nn.LSTM(20, 32), nn.GRU(20, 32)):
        yield _fit([recurrent, _last(), nn.Linear(32, 10)], steps, classes)


def _unit_trainings(precision: str) -> Iterator[Callable[[], Any]]:
    """The same for nets that are large enough for the tile unit."""
    import numpy as np

    from fastnn import nn

    rows, classes = np.zeros((128, 256), np.float32), np.zeros(128, np.int64)
    steps = np.zeros((128, 7, 64), np.float32)
    options: dict[str, Any] = {"batch_size": 128, "precision": precision}
    layers = [nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    yield _fit(layers, rows, classes, **options)
    for recurrent in (nn.RNN(64, 64), nn.LSTM(64, 64), nn.GRU(64, 64)):
        layers = [nn.Linear(64, 64), recurrent, _last(), nn.Linear(64, 10)]
        yield _fit(layers, steps, classes, **options)


def _fit(
    layers: list[Any], x: Any, y: Any, loss: str = "cross_entropy", optimizer: Any = "adam",
    batch_size: int = 16, **more: Any,
) -> Callable[[], Any]:  # fmt: skip
    def run() -> None:
        import fastnn as fnn
        from fastnn import nn

        metrics = ["accuracy"] if y.dtype.kind == "i" else []
        model = nn.Sequential(*layers)
        trainer = fnn.Trainer(model, loss, optimizer, metrics=metrics, **more)
        trainer.fit(x, y, batch_size=batch_size, validation=(x, y), verbose=False)
        trainer.evaluate(x, y)
        model.predict(x)

    return run


def _last() -> Any:
    from fastnn import nn

    class Last(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[:, -1]

    return Last()


# -------------------------------------------------------------------- making it


def make(folder: Path, name: str, wanted: list[ahead.Variant], jobs: int | None = None) -> Path:
    """Compile kernels for a target and write its pack; returns its path.

    Those that are in the cache, or in an earlier pack, are not compiled again. They are called what
    a machine with an empty cache calls them: its table of sources may name other sources of the
    same byte code.
    """
    start = time.perf_counter()
    folder_of_user = cache.folder(compiler.machine_hash())
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["FASTNN_CACHE"] = temporary
        keys.forget()
        members = _cached(wanted, folder_of_user) if name == NATIVE else {}
        absent = [v for v in wanted if ahead.path_of(v).name not in members]
        ahead.compile_all(absent, jobs, program=(PROGRAM, "worker", name))
        members.update(_cached(absent))
    host = target.host()
    about = {
        "form": shipped.FORM,
        "platform": shipped.platform(),
        "cpu": host.cpu,
        "features": host.features,
        "kind": shipped.describe(host),
        "generators": keys.modules_key(compiler.GENERATORS).hex(),
        "settings": repr(compiler.shipped_settings()),
        "made by": compiler._versions()[2:],
        "seconds": round(time.perf_counter() - start, 1),
    }
    path = folder / f"{name}.zip"
    shipped.write(path, about, {n: anonymous(code) for n, code in members.items()})
    return path


def anonymous(code: bytes) -> bytes:
    """The same code without the builder's folders.

    Numba puts where an exception is raised into object code, pickled: the name of the file, which
    nothing here reads, keeps its length.
    """
    found = bytearray(code)
    for start in re.finditer(rb"(?s)(?=(\x8c)(.)|(X)(..\0\0))", code):  # a text and its length
        mark, length = start[1] or start[3], start[2] or start[4]
        begin = start.start() + len(mark + length)
        end = begin + int.from_bytes(length, "little")
        text = code[begin:end]
        if text.endswith(b".py") and code[end : end + 1] == b"\x94":
            found[begin:end] = re.split(rb"[/\\]", text)[-1].rjust(len(text), b"/")
    return bytes(found)


def _cached(wanted: Iterable[ahead.Variant], folder: Path | None = None) -> dict[str, bytes]:
    """Those that are in a folder of a cache, or in a pack, by the names of their files."""
    paths = map(ahead.path_of, wanted)
    found = {p.name: compiler.cached(folder / p.name if folder else p) for p in paths}
    return {name: code for name, code in found.items() if code is not None}


def _become(name: str) -> None:
    """Plan and compile for a target from now on, in this process, which runs no kernel."""
    if name == NATIVE:
        return
    wanted = known()[name]
    target.host = lambda: wanted
    tile_unit.usable = lambda: wanted.tile_unit
    architecture = next(a for a, kinds in TARGETS.items() if name in kinds)
    if architecture != _architecture():
        _cross(architecture)


def _cross(architecture: str) -> None:
    """Have LLVM, and Numba with it, make code for another architecture."""
    from llvmlite import binding

    triple = f"{architecture}-unknown-linux-gnu"
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        binding.Target.from_triple(triple)
    except RuntimeError as error:
        raise OptionError(
            f"this llvmlite makes no code for {architecture} ({error}): leave out the targets "
            f"{', '.join(TARGETS[architecture])}, or use llvmlite's wheel from PyPI, which does"
        ) from None
    binding.get_process_triple = lambda: triple


def _environment(name: str) -> dict[str, str]:
    """The environment of processes that compile for a target: it is Numba's, too."""
    settings = {n: v for n, v in os.environ.items() if n.startswith(("NUMBA_", "FASTNN_"))}
    found = {n: v for n, v in os.environ.items() if n not in settings or n == "FASTNN_CACHE"}
    if name != NATIVE:
        wanted = known()[name]
        found["NUMBA_CPU_NAME"], found["NUMBA_CPU_FEATURES"] = wanted.cpu, wanted.features
    return found


def main(arguments: list[str]) -> None:
    what, *rest = arguments
    if what == "worker":
        _become(rest[0])
        ahead.main(rest[1:])
    elif what == "pack":
        folder, name = rest
        _become(name)
        wanted = common()
        path = make(Path(folder), name, wanted)
        sys.stderr.write(f"{path}: {path.stat().st_size >> 10} KiB\n")
        if absent := len(wanted) - len(shipped.Pack(path)):
            raise SystemExit(f"{absent} of {len(wanted)} kernels could not be compiled for {name}")
    else:
        names = [n for given in rest for n in (usual() if given == USUAL else (given,))]
        for name in names:
            if name not in known():
                raise OptionError(
                    f"expected one of {', '.join(known())} or {USUAL} as a target, got {name!r}"
                )
        codes = [
            subprocess.run(
                [sys.executable, "-P", "-m", PROGRAM, "pack", what, name],
                check=False, env=_environment(name),
            ).returncode
            for name in names
        ]  # fmt: skip
        raise SystemExit(any(codes))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(WRONG)
