"""Compiling ahead in worker processes, and the care of the cache folder."""

import io
import json
import os
import time

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.kernels.declare import KERNELS, kernel
from fastnn.runtime.cpu import ahead, compiler

SMALL = [("advance", "float32", ""), ("check_finite", "float32", ""), ("accumulate", "float32", "")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and nothing loaded."""
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setattr(ahead, "MOST_WORKERS", 2)  # elsewhere in tests side by side it is 1
    ahead.load_all()
    return tmp_path


def test_workers_compile_what_is_missing(cache, monkeypatch):
    started = []
    start = ahead._start_worker
    monkeypatch.setattr(ahead, "_start_worker", lambda *p: started.append(start(*p)) or started[-1])
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    before = compiler.compiled_count
    ahead.ensure(SMALL)
    assert len(started) == 2
    assert ahead.missing(SMALL) == []
    assert compiler.compiled_count == before + len(SMALL)
    for name, dtype, _ in SMALL:  # loaded, not compiled again
        assert compiler.address(KERNELS[name], dtype) > 0
    assert compiler.compiled_count == before + len(SMALL)
    assert ahead.cache_size()[0] == len(SMALL)


def test_each_is_compiled_once(cache, monkeypatch):
    """A kernel that a program has is among the alternatives of others, too; and a process that asks
    for what another has made meanwhile takes it."""
    asked = []
    monkeypatch.setattr(ahead, "compile_all", lambda wanted, **_: asked.extend(wanted))
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    ahead.ensure([*SMALL, *SMALL])
    assert asked == SMALL
    path = str(ahead.path_of(SMALL[0]))
    before = compiler.compiled_count
    assert ahead._compile(SMALL[0], path) > 0
    written = os.stat(path).st_mtime_ns
    assert ahead._compile(SMALL[0], path) == 0
    assert compiler.compiled_count == before + 1
    assert os.stat(path).st_mtime_ns == written


def test_few_kernels_or_one_core_start_no_process(cache, monkeypatch):
    def refuse():
        raise AssertionError("no worker process was expected")

    monkeypatch.setattr(ahead, "_start_worker", refuse)
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    ahead.ensure(SMALL[:2])
    monkeypatch.setattr(ahead, "available_cores", lambda: 1)
    ahead.ensure(SMALL)


@pytest.mark.parametrize("program", ["no-such-program", "/bin/false"])
def test_workers_that_die_are_no_harm(cache, monkeypatch, program):
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    monkeypatch.setattr(ahead.sys, "executable", program)
    ahead.ensure(SMALL)
    assert ahead.missing(SMALL) == SMALL
    assert compiler.address(KERNELS["advance"], "float32") > 0


def test_interruption_ends_the_workers(cache, monkeypatch):
    started = []
    start = ahead._start_worker
    monkeypatch.setattr(ahead, "_start_worker", lambda *p: started.append(start(*p)) or started[-1])

    def interrupt(variant, seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ahead.compile_all(SMALL, 2, interrupt)
    assert len(started) == 2
    assert all(worker.poll() is not None for worker in started)


def test_a_worker_compiles_nothing_but_the_same_code(cache):
    path = str(ahead.path_of(SMALL[0]))
    lines = [
        [*SMALL[0], path.replace(".o", "0.o")],  # another version of the kernel
        ["nobodys_kernel", "float32", "", path],
    ]
    answers = io.StringIO()
    ahead.serve(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), answers)
    assert answers.getvalue() == "null\nnull\n"
    assert ahead.cache_size() == (0, 0)


def test_users_kernels_are_left_to_their_process(monkeypatch):
    monkeypatch.setattr("fastnn.kernels.declare.KERNELS", dict(KERNELS))

    def halve(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            y[i] = x[i] * 0.5

    monkeypatch.setitem(KERNELS, "halve", kernel(halve))
    assert not ahead._is_ours(("halve", "float32", ""))
    assert ahead._is_ours(SMALL[0])


def test_all_kernels_of_optimisers_are_known():
    ahead.load_all()
    for optimizer in (
        optim.SGD(), optim.SGD(momentum=0.9), optim.Adagrad(), optim.RMSprop(),
        optim.RMSprop(momentum=0.9), optim.RMSprop(centered=True), optim.Adadelta(), optim.AdamW(),
    ):  # fmt: skip
        names = {f"{optimizer.kernel_name}_{part}" for part in ("prepare", "update")}
        assert names <= set(KERNELS)


def test_common_variants_cover_a_training_program():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))
    trainer = fnn.Trainer(model, "cross_entropy", metrics=["accuracy"])
    x, y = np.ones((6, 5), np.float32), np.zeros(6, np.int64)
    trainer.fit(x, y, batch_size=3, verbose=False)
    program = next(iter(trainer._built.values())).program
    needed = ahead.variants(program, {**trainer.session.memory, "data/x0": x, "data/y0": y})
    assert len(needed) > 15
    assert set(needed) <= set(ahead.common_variants())


# -------------------------------------------------------------------- the cache


def old_folder(cache, name, file="relu-float32-0.o", days=40.0):
    folder = cache / name
    folder.mkdir()
    (folder / file).write_bytes(b"code")
    then = time.time() - days * 86400
    os.utime(folder, (then, then))
    return folder


def test_eviction_takes_only_old_folders_of_its_own(cache):
    old = old_folder(cache, "a" * 32)
    kept = [
        old_folder(cache, "b" * 32, days=29),
        old_folder(cache, "photos"),
        old_folder(cache, "c" * 32, file="thesis.tex"),
        old_folder(cache, compiler.machine_hash()),
    ]
    outside = old_folder(cache / compiler.machine_hash(), "d" * 32)
    (cache / ("e" * 32)).symlink_to(outside)
    assert ahead.evict() == [old]
    assert not old.exists()
    assert all(folder.is_dir() for folder in [*kept, outside])


def test_no_cache_folder_is_fine(cache, monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE", str(cache / "none"))
    assert ahead.evict() == []
    assert ahead.cache_size() == (0, 0)


def test_use_renews_the_folder(cache):
    folder = old_folder(cache, compiler.machine_hash())
    fresh = cache / "fresh"
    fresh.touch()
    ahead._mark_used()
    assert folder.stat().st_mtime >= fresh.stat().st_mtime - 2  # coarse clocks of file systems
