"""All tests run with poisoned memory: what a step reads without having written it is NaN.

Several processes share them (`pytest -n auto`), file by file.
"""

import compileall
import functools
import gc
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

os.environ.setdefault("FASTNN_POISON", "1")
# what is tested is what the sources say, not what was compiled when the package was installed
os.environ.setdefault("FASTNN_SHIPPED", "0")
# One thread for the libraries that tests compare with (NumPy, PyTorch, scikit-learn). Several
# processes test side by side, and threads of libgomp and OpenBLAS wait for each other in loops: a
# small GRU of PyTorch took 25 s of processor time with two threads on a busy machine, 5 with one.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# a shell that runs the tests in its background has them ignore Ctrl-C, which some of them send
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: files that take long: they come first, the longest of all at the head, so that no process is left
#: with one at the end
LONG = (
    "runtime/test_cuda_simulator.py",
    "kernels/test_cuda_compile.py",
    "runtime/test_checked.py",
    "test_gpu_session.py",
    "train/sizes/test_lengths.py",
    "stub/test_limits.py",
    "stub/test_session.py",
    "examples/test_examples.py",
    "cli/test_cli.py",
    "stub/test_nccl.py",
    "fuzz/test_random_models.py",
    "train/test_resume.py",
    "runtime/test_run.py",
    "kernels/test_widths.py",
    "train/test_interrupted.py",
    "parallel/test_mpi.py",
    "train/test_kept.py",
    "train/sizes/test_in_turn.py",
    "runtime/test_resized.py",
)
#: files whose tests need nothing of each other, and may go to different processes
APART = ("test_cuda_simulator.py",)


def pytest_configure(config):
    """Byte code of the library, once: many tests start processes, and where the environment has
    Python write none (PYTHONDONTWRITEBYTECODE) each of them would make it anew."""
    inner = "PYTEST_XDIST_WORKER" in os.environ  # in a process of xdist's, or one that it started
    if not inner and "NUMBA_ENABLE_CUDASIM" not in os.environ:
        root = Path(__file__).resolve().parents[1]
        for folder in ("fastnn", "kernels"):
            compileall.compile_dir(root / folder, quiet=2)
    if inner:
        # Processes test side by side: one compiles for each of them. Two would both make the
        # helpers that the kernels share, and take the core that the other tests run on.
        from fastnn.runtime.cpu import ahead

        ahead.MOST_WORKERS = 1


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _place(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """The tests and the modules that they need are no garbage: Python's collector does not look at
    them, now or later. It would go through a million objects again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@functools.cache
def _place(path):
    found = [k for k, name in enumerate(LONG) if path == Path(__file__).parent / name]
    return found[0] if found else len(LONG)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from tests.by_file import ByFile

    return ByFile(config, log, APART)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem):
    """Says at once in which test a process ended; the summary comes only when all have run."""
    print(f"\nthe process ended that ran {crashitem}", file=sys.__stderr__, flush=True)
