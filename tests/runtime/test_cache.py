"""The cache of compiled kernels: what hits it, what misses it, and what may happen to its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.kernels.feed.cpu
from fastnn import nn
from fastnn.errors import ProgramError
from fastnn.kernels import topics
from fastnn.kernels.declare import (
    CUDA_KERNELS,
    HELPERS,
    KERNELS,
    CudaKernel,
    Kernel,
    helper,
    kernel,
)
from fastnn.runtime import _cuda, sources
from fastnn.runtime.cpu import compiler
from fastnn.runtime.cuda import compiler as cuda_compiler
from fastnn.testing.kernels import call
from tests.train.models import MODELS, OPTIMIZERS, fresh

ROOT = Path(__file__).resolve().parents[2]


def double(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = 2.0 * x[i]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, of which this process knows nothing yet."""
    monkeypatch.setattr(sources, "_table", {})
    monkeypatch.setattr(sources, "_read_from", set())
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def declared(function: Callable[..., None] = double) -> Kernel:
    """A kernel that this process has not loaded yet."""
    result: Kernel = kernel(function, name="test_double")
    del KERNELS["test_double"]
    return result


def works(doubling: Kernel) -> bool:
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    call(doubling, x=x, y=y)
    return bool((y == 2 * x).all())


def compiled_by(action: Callable[[], Any]) -> int:
    before = compiler.compiled_count
    action()
    return compiler.compiled_count - before


def names(cache: Path) -> list[str]:
    """The files in a cache by their endings: object files, and the table of sources."""
    found = []
    for path in cache.rglob("*"):
        if path.is_file():
            folder = "sources/" if path.parent.name == "sources" else ""
            found.append(f"{folder}*{path.suffix}")
    return sorted(found)


def test_file_serves_the_next(cache: Path) -> None:
    assert compiled_by(lambda: works(declared())) == 1
    assert compiled_by(lambda: works(declared())) == 0
    assert names(cache) == ["*.o", "sources/*.json"]  # nothing left over


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda code: b"",
    "cut in half": lambda code: code[: len(code) // 2],
    "cut by a byte": lambda code: code[:-1],
    "a byte changed": lambda code: code[:200] + bytes([code[200] ^ 1]) + code[201:],
    "zeros": lambda code: bytes(len(code)),
    "text": lambda code: b"not an object file",
    "longer": lambda code: code + b"x",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_made_anew(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    assert works(declared())
    path = next(cache.rglob("*.o"))
    good = path.read_bytes()
    path.write_bytes(damage(good))
    again = declared()
    assert compiled_by(lambda: works(again)) == 1
    assert works(again)
    assert path.read_bytes() != damage(good)
    assert compiled_by(lambda: works(declared())) == 0


def test_a_file_that_cannot_be_looked_at_is_not_there() -> None:
    """Say in a folder of another user's; here its name is too long."""
    assert not compiler.is_there(Path("/" + "x" * 300))


def test_file_vanishes(cache: Path) -> None:
    doubling = declared()
    assert works(doubling)
    shutil.rmtree(cache)
    assert compiled_by(lambda: works(doubling)) == 0  # loaded already
    assert compiled_by(lambda: works(declared())) == 1


@pytest.mark.parametrize("kind", ["a file", "cannot be made"])
def test_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Kernels are compiled for the process alone; one warning says so."""
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" if kind == "a file" else tmp_path / "file" / "below"
    monkeypatch.setenv("FASTNN_CACHE", str(place))
    monkeypatch.setattr(compiler, "_warned", False)
    with pytest.warns(UserWarning, match=r"cannot be written.*FASTNN_CACHE") as found:
        assert [works(declared()) for _ in range(2)] == [True, True]
    assert len(found) == 1
    assert str(place) in str(found[0].message)


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_warned", False)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert works(declared())
    assert [p for p in cache.rglob("*") if p.is_file()] == []


# ---------------------------------------------------------------- the name of a file


def test_variants_have_files_of_their_own() -> None:
    gather = KERNELS["gather_rows"]
    paths = {
        compiler.object_path(gather, dtype, data)
        for dtype in ("float32", "float64")
        for data in ("uint8", "float32")
    }
    assert len(paths) == 4


def test_what_makes_a_cuda_kernels_code_is_part_of_its_files_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its operands' types come from annotations, which a function's source counts without."""
    topics.load("cuda")
    kernel = CUDA_KERNELS["gather_rows"]
    other = replace(kernel.params["y"], dtype="r")  # type: ignore[type-var]

    def path(kernel: CudaKernel, *variant: Any) -> Path:
        return cuda_compiler.code_path(kernel, *variant)

    mine: tuple[Any, ...] = ("float32", "uint8", (9, 0))
    paths = [
        path(kernel, *mine),
        path(kernel, "float64", *mine[1:]),
        path(kernel, "float32", "int64", (9, 0)),
        path(kernel, *mine[:2], (8, 0)),
        path(replace(kernel, params={**kernel.params, "y": other}), *mine),
        path(replace(kernel, bounds=(64, 3)), *mine),
    ]
    monkeypatch.setattr(_cuda, "compiler_version", lambda: (("numba-cuda", "999.0"),))
    paths.append(path(kernel, *mine))
    monkeypatch.setattr(np, "__version__", "999.0")
    paths.append(path(kernel, *mine))
    assert len({p.name for p in paths}) == 6
    assert len(set(paths)) == len(paths)


def test_key_holds_versions_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = compiler.machine_hash()
    compiler._versions.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "999.0")
    assert compiler.machine_hash() != mine
    monkeypatch.undo()
    compiler._versions.cache_clear()
    assert compiler.machine_hash() == mine
    monkeypatch.setenv("NUMBA_OPT", "0")
    assert compiler.machine_hash() != mine


def test_renamed_and_swapped_files_are_made_anew(cache: Path) -> None:
    def triple(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            y[i] = 3.0 * x[i]

    assert works(declared())
    two = next(cache.rglob("*.o"))
    assert not works(declared(triple))
    three = next(p for p in cache.rglob("*.o") if p != two)
    three.replace(two)
    assert compiled_by(lambda: works(declared())) == 1
    assert works(declared())


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners on this system")
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o602])
def test_file_that_others_may_write_is_ignored(cache: Path, mode: int) -> None:
    assert works(declared())
    path = next(cache.rglob("*.o"))
    path.chmod(mode)
    assert compiled_by(lambda: works(declared())) == 1
    assert compiled_by(lambda: works(declared())) == 0  # it was replaced by one of our own


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners on this system")
def test_somebody_elses_files_are_ignored(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A private folder takes the place of a folder that belongs to somebody else."""
    assert works(declared())
    folder = next(cache.rglob("*.o")).parent
    true_state, other = os.lstat, folder.stat()

    def lstat(path: Any, **options: Any) -> Any:
        found = true_state(path, **options)
        if (found.st_dev, found.st_ino) == (other.st_dev, other.st_ino):
            found = os.stat_result([*found[:4], 54321, *found[5:10]])
        return found

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert compiled_by(lambda: works(declared())) == 1
    assert compiled_by(lambda: works(declared())) == 0
    assert len(list((tmp_path / "home" / "fastnn").rglob("*.o"))) == 1
    assert [r.getMessage() for r in caplog.records if "is not used" in r.getMessage()] != []
    assert len([r for r in caplog.records if str(folder) in r.getMessage()]) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners on this system")
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_folder_that_others_may_write_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder = cache / compiler.machine_hash()
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert compiled_by(lambda: works(declared())) == 1
    assert list(cache.rglob("*.o")) == []
    assert compiled_by(lambda: works(declared())) == 0


def test_own_folders_are_private(cache: Path) -> None:
    before = os.umask(0o002)
    try:
        assert works(declared())
    finally:
        os.umask(before)
    path = next(cache.rglob("*.o"))
    assert path.stat().st_mode & 0o022 == path.parent.stat().st_mode & 0o022 == 0
    assert compiled_by(lambda: works(declared())) == 0


def test_helper_with_other_constants_is_refused(cache: Path) -> None:
    """Numba compiles a helper once in a process, so a change of its constants can't be had."""
    scope: dict[str, Any] = {"SCALE": 1.0}
    exec("def scaled(v):\n    return v * SCALE", scope)
    scaled = helper(scope["scaled"])
    try:

        def scale(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
            for i in range(lo, hi):
                y[i] = scaled(x[i])

        x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
        call(declared(scale), x=x, y=y)
        scope["SCALE"] = 2.0
        with pytest.raises(ProgramError, match=r"'scaled' is compiled already with other values"):
            call(declared(scale), x=x, y=y)
    finally:
        HELPERS.remove(scaled)


def test_what_changes_while_it_is_compiled_is_not_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was edited while a process started: the code in memory is another by then."""
    truth = compiler.machine_hash()
    answers = ["0" * 32]
    monkeypatch.setattr(compiler, "machine_hash", lambda: answers.pop() if answers else truth)
    assert compiled_by(lambda: works(declared())) == 1
    assert list(cache.rglob("*.o")) == []


# ---------------------------------------------------------------- processes

COMPILE = """
import sys
import numpy as np
import fastnn.ops
from fastnn.kernels.declare import KERNELS
from fastnn.runtime import sources
from fastnn.runtime.cpu import compiler
from fastnn.testing.kernels import call
x, y = np.arange(-4, 4, dtype="f4").reshape(2, 4), np.empty((2, 4), "f4")
call(KERNELS["relu_forward"], x=x, y=y)
assert (y == np.maximum(x, 0)).all()
compiler.loop_address()
print(compiler.compiled_count, "numba" in sys.modules)
"""


def child(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "FASTNN_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMPILE], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.split()


def test_processes_share_the_cache(cache: Path) -> None:
    """Two that start together compile what they do not find yet; one that comes later neither
    compiles nor imports Numba."""
    first, second = child(cache), child(cache)
    counts = [int(result(process)[0]) for process in (first, second)]
    assert sum(counts) >= 2
    assert all(0 <= count <= 2 for count in counts)
    assert result(child(cache)) == ["0", "False"]
    assert names(cache) == ["*.o", "*.o", "sources/*.json"]


# ---------------------------------------------------------------- nothing is compiled twice


@pytest.mark.parametrize("name", MODELS)
def test_no_compilation_after_the_first_step(name: str) -> None:
    x, y = MODELS[name][1](40)
    trainer = fresh(name, metrics=["accuracy"], workers=2)
    trainer.fit(x, y, batch_size=8, verbose=False)
    trainer.evaluate(x, y)
    trainer.predict(x)

    def more() -> None:
        trainer.fit(x, y, batch_size=8, verbose=False)
        trainer.fit(x, y, batch_size=13, verbose=False)  # new sizes, and a last batch of 1
        trainer.fit(x[:39], y[:39], batch_size=13, verbose=False, validation=0.5)
        trainer.evaluate(x, y, batch_size=7)
        trainer.predict(x, batch_size=9)

    if name == "regularised":  # batch norm wants two samples
        x, y = x[:38], y[:38]
    assert compiled_by(more) == 0


def test_no_compilation_for_a_new_model_of_known_ops() -> None:
    def train(hidden: int, classes: int, features: int) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(20, features)).astype(np.float32)
        model = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.LayerNorm(hidden), nn.Linear(hidden, classes)
        )
        trainer = fnn.Trainer(model, "cross_entropy", OPTIMIZERS["adam"]())
        trainer.fit(x, rng.integers(0, classes, 20), batch_size=6, verbose=False)

    train(5, 3, 4)
    assert compiled_by(lambda: train(130, 11, 33)) == 0
    assert compiled_by(lambda: train(800, 3, 700)) == 0  # large: other kernels of matrix products
    assert compiled_by(lambda: train(1, 2, 1)) == 0


def test_warnings_stay_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(declared())
