"""A folder of the cache that this user may not look into: a private one takes its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastnn.runtime import cache
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
