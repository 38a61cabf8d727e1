"""A folder of the cache that this user may not look into: a private one takes its place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, kernel
from fastnn.runtime import cache
from fastnn.runtime.cpu import compiler as cpu
from fastnn.runtime.cuda import ahead, compiler

pytestmark = pytest.mark.skipif(
    not hasattr(os, "getuid"), reason="files have no owners on this system"
)
NAME = "cuda-0123"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder that is asked for, and the one of the user's that comes next."""
    monkeypatch.setattr(cache, "_folders", {})
    monkeypatch.setattr(cache, "_noted", set())
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "cache", tmp_path / "home" / "fastnn"


def test_a_folder_that_cannot_be_looked_into(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Root may look into all, so the system's answer is set."""
    first, second = (place / NAME for place in places)
    first.mkdir(parents=True, mode=0o700)
    assert cache.folder(NAME) == first
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, how: path != first and may(path, how))
    assert cache.folder(NAME) == second
    assert "may not look into it" in caplog.text
    second.mkdir(parents=True, mode=0o700)
    assert cache.folder(NAME) == second


def test_a_folder_within_one_that_cannot_be_looked_into(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = os.lstat

    def lstat(path: Any, **options: Any) -> Any:
        if Path(path).parent == places[0]:
            raise PermissionError
        return state(path, **options)

    monkeypatch.setattr(os, "lstat", lstat)
    assert cache.folder(NAME) == places[1] / NAME


def test_whether_a_cuda_kernel_is_kept_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the system refuses to say whether a file is there, it is not."""

    class Refused(type(tmp_path)):  # type: ignore[misc]
        def stat(self, **options: Any) -> os.stat_result:
            raise PermissionError

    monkeypatch.setattr(compiler, "code_path", lambda *variant: Refused(tmp_path / "no"))
    kernel: Any = None  # whichever
    assert not ahead._is_there((kernel, "float32", "", (9, 0)))


@pytest.mark.parametrize("letter", ["k", "é"])
def test_a_kernels_name_may_be_longer_than_a_files(
    places: tuple[Path, Path], letter: str, recwarn: pytest.WarningsRecorder
) -> None:
    """Its entry is named by the beginning, and by the hash of what it is made of."""

    def doubled(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            y[i] = 2.0 * x[i]

    name = 300 * letter
    long = kernel(doubled, name=name)
    try:
        before = cpu.compiled_count
        assert cpu.address(long, "float32")
        assert cpu.compiled_count == before + 1
        assert cpu.is_there(cpu.object_path(long, "float32", ""))
    finally:
        del KERNELS[name]
    assert not recwarn.list  # that the cache cannot be written
    topics.load("cuda")
    other = replace(CUDA_KERNELS["tanh_forward"], name=name)
    path = compiler.code_path(other, "float32", "", (9, 0))
    assert not path.exists()  # on Linux an error for a name that is too long
    assert path.name.startswith(50 * letter)


def test_a_kernels_file_that_cannot_be_looked_at_is_made_anew(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.load("cuda")
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setattr(compiler, "code_path", lambda *_: Path("/" + 300 * "x"))
    monkeypatch.setattr(compiler.files, "_warned", True)  # nor can it be written
    monkeypatch.setattr(
        compiler, "compile_ptxs", lambda kernel, dtype, data, ccs: [str(cc) for cc in ccs]
    )
    monkeypatch.setattr(compiler, "assemble", lambda text, cc: compiler.Code(text.encode(), ""))
    found = compiler.codes(CUDA_KERNELS["tanh_forward"], "float32", "", [(8, 0), (9, 0)])
    assert [code.cubin for code in found] == [b"(8, 0)", b"(9, 0)"]
