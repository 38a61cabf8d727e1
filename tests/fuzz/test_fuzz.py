"""The quick part of the fuzzers; `tests/fuzz/*.py` run as programs do as many as wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import checkpoints, formats


@pytest.mark.parametrize("name", formats.FORMATS)
def test_files(name: str, tmp_path: Path) -> None:
    if name == "flac":
        pytest.importorskip("soundfile")
    watcher = formats.run(name, 150, 1, tmp_path)
    assert not watcher.faults, watcher.faults[:3]
    assert watcher.refused > 0 or name in ("text", "words")


@pytest.mark.filterwarnings("ignore:.*the run goes on:UserWarning")
def test_checkpoints(tmp_path: Path) -> None:
    watcher = checkpoints.run(400, 1, tmp_path)
    assert not watcher.faults, watcher.faults[:3]
    assert watcher.refused > 300
