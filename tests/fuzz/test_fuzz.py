"""The quick part of the fuzzers; `tests/fuzz/*.py` run as programs do as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import checkpoints, formats

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kills() -> None:
    """In a process of its own, whose threads are few: it forks."""
    command = [sys.executable, "-m", "tests.fuzz.kills", "--count", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
