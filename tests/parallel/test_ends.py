"""Processes that die, differ or are interrupted, at whatever moment: the others end with an error
that says so, and none is left waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fastnn import parallel
from fastnn.errors import ProcessError
from fastnn.parallel import meeting
from tests.parallel import works


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (works.dies_waiting, r"process 1 of 2 failed: ended without a word \(killed\?\)"),
        (works.dies_before_its_child, r"process 1 of 2 failed: ended without a word \(killed\?\)"),
        (works.hears_nothing, "process 1 of 2 failed: ValueError: no data here"),
        (works.has_another_seed, "the same parameters, .* got others in process 1"),
        (works.changes_its_rate_alone, "the same parameters, .* got others in process 1"),
        (works.interrupted, "process [01] of 2 failed: .*process 1 has ended while others"),
    ],
)
def test_all_end(monkeypatch: pytest.MonkeyPatch, work: Any, text: str) -> None:
    monkeypatch.setattr(meeting, "GRACE", 0.5)
    with pytest.raises(ProcessError, match=text):
        parallel.run(work, processes=2)


def test_a_resumed_training_ends_in_the_bits_of_one_that_was_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTNN_TEST_FOLDER", str(tmp_path))
    first, second = parallel.run(works.resumes, processes=2)
    assert first == second


def test_a_checkpoint_that_one_process_alone_goes_on_from_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTNN_TEST_FOLDER", str(tmp_path))
    with pytest.raises(ProcessError, match="load the same checkpoint in each"):
        parallel.run(works.resumes_alone, processes=2)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_processes_end_with_the_one_that_has_started_them(method: str, tmp_path: Path) -> None:
    script = (
        "from fastnn import parallel\nfrom tests.parallel import works\n"
        "if __name__ == '__main__':\n"
        f"    parallel.run(works.loses_its_parent, processes=3, method={method!r})\n"
    )
    environment = {**os.environ, "FASTNN_TEST_FOLDER": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    files = [tmp_path / f"done{rank}" for rank in range(3)]
    while not all(file.exists() for file in files):
        time.sleep(0.05)
    for file in files:
        assert "the process that has called parallel.run has ended" in file.read_text()


PROGRAM = """
import os, time
from fastnn import parallel
from tests.parallel import works

if __name__ == "__main__":
    parallel.run(works.interrupted, processes=2)
else:
    open(f"here{os.getpid()}", "w").close()
    time.sleep(0.3)
"""


def test_ctrl_c_while_processes_start_gives_one_message(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()}, start_new_session=True,
    )  # fmt: skip
    while not list(tmp_path.glob("here*")):
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it
    text, _ = run.communicate()  # which ends when nobody has the pipe any more
    assert run.returncode == -signal.SIGINT, text
    assert text.count("Traceback") == text.count("KeyboardInterrupt") == 1, text
