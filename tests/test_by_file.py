"""The scheduler of the test suite: a process that ends in a test fails that test, and no other."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.by_file import ByFile

CONFTEST = """
import pytest
from tests.by_file import ByFile

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log, ("test_1.py",))
"""
TESTS = """
import os, signal
import pytest

@pytest.mark.parametrize("k", range(5))
def test_it(k):
    if f"{os.path.basename(__file__)[5]}{k}" in os.environ["ENDS"].split():
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ends", ["00", "04", "12", "14", "30 32", "34", "00 14 23 34"])
def test_a_process_that_ends_hangs_no_run(tmp_path, ends):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for k in range(4):
        (tmp_path / f"test_{k}.py").write_text(TESTS)
    root = Path(__file__).resolve().parents[1]
    env = os.environ | {
        "ENDS": ends,
        "PYTHONPATH": str(root),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    env.pop("PYTEST_ADDOPTS", None)
    for name in [name for name in env if name.startswith("PYTEST_XDIST")]:
        del env[name]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "no:cacheprovider"]
    command += ["-n", "2", "--no-loadscope-reorder", "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    failed = len(ends.split())
    assert f"{failed} failed, {20 - failed} passed" in run.stdout, run.stdout + run.stderr
    assert run.returncode == 1


class _Process:
    """One process of pytest-xdist, which keeps what it is told."""

    def __init__(self):
        self.gateway = SimpleNamespace(id="gw")
        self.shutting_down = False
        self.told = []

    def send_runtest_some(self, indices):
        self.told += indices

    def shutdown(self):
        self.shutting_down = True


def test_a_process_is_given_tests_once_it_has_reported_its_own():
    """Two processes that end are replaced, and one of the new ones reports before the other."""
    tests = [f"test_{file}.py::test_it[{k}]" for file in range(6) for k in range(4)]
    options = SimpleNamespace(
        getvalue=lambda name: ["2*popen"], option=SimpleNamespace(loadscopereorder=False)
    )
    scheduler = ByFile(options, None)
    first = [_Process(), _Process()]
    for process in first:
        scheduler.add_node(process)
        scheduler.add_node_collection(process, tests)
    scheduler.schedule()
    failed = [scheduler.remove_node(process) for process in first]
    early, late = _Process(), _Process()
    scheduler.add_node(early)
    scheduler.add_node(late)
    scheduler.add_node_collection(early, tests)
    scheduler.schedule()
    assert early.told
    assert not late.told
    scheduler.add_node_collection(late, tests)
    scheduler.schedule()
    assert late.told
    run = []
    while waiting := [p for p in (early, late) if p.told]:
        for process in waiting:
            run.append(process.told.pop(0))
            scheduler.mark_test_complete(process, run[-1])
    assert early.shutting_down
    assert late.shutting_down
    assert sorted(tests[k] for k in run) == sorted(set(tests) - set(failed))
