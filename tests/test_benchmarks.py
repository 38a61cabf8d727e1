"""The benchmarks run, at sizes where times mean nothing, and compute what they should."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    auto_workers,
    conv_nets,
    convolution,
    gpu,
    gpu_kernels,
    gpu_models,
    gpu_timing,
    growth,
    harness,
    kernels,
    latency,
    loop_lengths,
    matmul,
    methods,
    mlp,
    precision,
    profile,
    raw_audio,
    readme,
    recurrent,
    run,
    together,
)
from benchmarks.sequences import machine
from benchmarks.sequences.sides import Sides, compare, measure
from fastnn.kernels.declare import KERNELS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_steps_of_an_mlp(optimizer: str) -> None:
    steps, trainer = mlp.ours((6, 8, 3), 16, 1, optimizer, samples=64)
    before = trainer.model.state_dict()
    steps(3)
    assert all((a != trainer.model.state_dict()[n]).any() for n, a in before.items())
    assert mlp.workers_of(trainer) == 1


def test_what_a_fit_takes_beside_its_steps() -> None:
    found = latency.tiny_fit(2, 2)
    assert found["fit"] == pytest.approx(found["steps"] + found["over"])
    found = latency.feed(100, 32, 2)
    gathers = found["gather_rows"] + found["gather_ids"]
    assert found["share"] == (gathers + found["order"]) / found["fit"]


def test_numbers_of_workers_in_turn() -> None:
    net = auto_workers.perceptron((6, 8, 3), 16, "adam")
    row = auto_workers.measure("small", net, turn=0.001, turns=2)
    assert set(row["seconds"]) == {"1", "2", "auto"}
    assert row["runs_on"] == 1  # so small a net has no other choice
    assert "on 1" in auto_workers.line(row)
    steps, running = auto_workers.recurrence("RNN", (5, 3, 4, 6), True)
    for workers in (2, 1, "auto"):
        steps(workers, 2)
    assert running() == 1
    with auto_workers.competitor(sorted(os.sched_getaffinity(0))[0]):
        pass


def test_training_steps_at_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "with_torch", lambda side: {})
    monkeypatch.setattr(precision.peers, "jax_mlp", lambda *given: (lambda count: None, None))
    monkeypatch.setattr(precision, "MLPS", [((6, 8, 3), 16, "adam")])
    (row,) = precision.measure(2, {"6-8-3"}, budget=0.01)
    assert set(row["ratios"]) == set(precision.LEVELS)


@pytest.mark.peers
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_mlp_is_the_peers(optimizer: str) -> None:
    found = mlp.check((6, 8, 3), 256, optimizer, 1)
    assert set(found) == {"torch", "jax", "jax loop"}
    assert max(found.values()) < 2e-3


def test_methods_beside_what_they_must_match(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = methods.main(["marquardt", "--rounds", "1"])
    assert row["fastnn"] == "9 iterations"
    assert "| Levenberg-Marquardt" in capsys.readouterr().out
    # the least time of one thing, where a call says how many it did
    ticks = itertools.count()
    monkeypatch.setattr(methods.time, "process_time", lambda: next(ticks))
    slow = methods.in_turns({"one": lambda: None, "many": lambda: 1000}, rounds=2)
    assert slow == {"one": 1, "many": 1 / 1000}
    with pytest.raises(SystemExit):
        methods.main(["marquart"])


@pytest.mark.parametrize("name", ["adam", "cross_entropy"])
def test_single_kernels(name: str) -> None:
    sides, moved = kernels.adam(1280, 2) if name == "adam" else kernels.cross_entropy(8, 16, 2)
    sides["fastnn"](2)
    assert moved > 0


def test_adam_alone_takes_steps_of_its_rate() -> None:
    found: dict[str, Any] = {}
    caller = kernels.caller

    def noted(kernel: Any, threads: int, **operands: Any) -> Any:
        found.update(operands)
        return caller(kernel, threads, **operands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "caller", noted)
        sides, _ = kernels.adam(1280, 1)
    before = found["p"].copy()
    sides["fastnn"](1)
    moved = np.abs(found["p"] - before)
    assert 0 < np.median(moved) < 0.1
    assert np.isfinite(found["p"]).all()


def test_data_feed() -> None:
    sides, _ = kernels.feed(1)
    sides["fastnn"](1)
    sides["fastnn training"](1)


@pytest.mark.parametrize("kind", ["forward", "backward_input", "backward_weight"])
@pytest.mark.parametrize("size", [(1, 24, 40), (65, 130, 70)])
def test_products(kind: str, size: tuple[int, int, int]) -> None:
    product = matmul.Product(kind, *size, 1)
    product.check()
    product.sides()["fastnn"](1)


@pytest.mark.parametrize("varying", [False, True])
def test_recurrent_nets(varying: bool) -> None:
    size = (5, 3, 4, 6)
    data = recurrent.Data(size, True, varying)
    steps, model, gradients = recurrent.ours("LSTM", size, data, 1, True)
    steps(2)
    assert set(gradients()) == set(model.state_dict())


def test_profile(capsys: pytest.CaptureFixture[str]) -> None:
    profile.main("mlp", 4, 2)
    assert "the step" in capsys.readouterr().out


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "highest") for name in ("GRU H8 B4 T7", "sgemm", "Adam", "softmax", "3x3")),
        *(("MLP 20-16-10 B8", level) for level in ("bf16", "fp16", "medium")),
        ("sgemm", "bf16"),
    ],
)
def test_gpu_benchmark_on_the_cpu(name: str, precision: str) -> None:
    options = SimpleNamespace(
        device="cpu", precision=precision, turns=1, budget=0.001, ways="quick"
    )
    timer = gpu_timing.Timer("cpu")
    if name == "sgemm":
        row = gpu_kernels.sgemm(16, options, timer)
    elif name == "Adam":
        row = gpu_kernels.adam(1000, options, timer)
    elif name == "3x3":
        row = gpu_kernels.convolution(gpu.SMALL_CONVOLUTIONS[1], options, timer)
    elif name == "softmax":
        row = gpu_kernels.cross_entropy(8, options, timer)
    else:
        case = next(case for case in gpu_models.cases(small=True) if case.name == name)
        row = gpu.training_step(case, options, timer)
    assert not row.get("failed")
    assert "fastnn" in row["seconds"]


def test_single_calls() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks/test_calls.py",
         "--benchmark-disable"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.peers
def test_raw_audio() -> None:
    """It compares the sides' losses before it measures."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    small = ["--channels", "4,4,6,8", "--batch", "3", "--samples", "3000", "--turns", "1"]
    times = raw_audio.main([*small, "--budget", "0.01"])
    assert set(times) == {"fastnn", "PyTorch, channels last", "PyTorch, Conv1d"}


@pytest.mark.peers
def test_sequences() -> None:
    """A small machine with a memory, as PyTorch's and JAX's; a side that differs is an error."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    pytest.importorskip("optax", reason="optax is not installed (pip install jax optax)")
    sizes = {"slots": 8, "width": 4, "hidden": 6, "steps": 3, "batch": 2, "bits": 2}
    sides = machine.copy(1, "highest", **sizes)
    compare(sides)
    assert set(measure(sides, 1, 1, 0.001)) == {"fastnn", "PyTorch", "JAX"}
    asleep = Sides({"fastnn": lambda: time.sleep(0.003)})
    assert measure(asleep, 2, 1, 0.001)["fastnn"] < 1.5
    assert measure(asleep, 2, 1, 0.001, wall=True)["fastnn"] >= 3.0
    with pytest.raises(AssertionError, match="fastnn and other differ"):
        compare(Sides({"fastnn": lambda: 1.0, "other": lambda: 1.1}))


def test_the_work_of_convolutional_nets() -> None:
    """LeNet's 117,600 + 240,000 + 48,000 + 10,080 + 840 multiply-adds; transposed convolutions."""
    assert conv_nets.step_work(conv_nets.LENET, (1, 28, 28)) == 3 * 416520 - 117600
    up = [("reshape", 6, 7, 7), ("convt", 6, 4, 4, {"stride": 2, "padding": 1}), ("linear", 9, 2)]
    assert conv_nets.work(up, (6 * 49,)) == [49 * 16 * 6 * 4, 18]


@pytest.mark.peers
@pytest.mark.parametrize(
    "name", ["classifier", "convolution", "wavenet", "generation", "vae", "dcgan"]
)
def test_steps_of_convolutional_nets(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They compare the sides' losses before they measure."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    small = {
        "classifier": lambda: convolution._classifier(conv_nets.keyword(8), (1, 12, 10), 12, 3),
        "convolution": lambda: convolution._convolution(3, 5, 4, 2),
        "wavenet": lambda: convolution._wavenet(4, 6, 3, 20, 2),
        "generation": lambda: convolution._generation(4, 6, 3, 20),
        "vae": lambda: convolution._vae(20, 8, 3, 64),
        "dcgan": lambda: convolution._dcgan((4, 6), 5, 16),
    }[name]()
    monkeypatch.setitem(convolution.WORKLOADS, name, small)
    monkeypatch.setattr(convolution, "_memory", lambda name, side: 1 << 20)
    row = convolution.measure(name, 1, 1, 0.01, {"compiled", "JAX"}, time.perf_counter)
    assert row["best"] in ("eager", "channels last")
    assert row["gflops"] > 0
    assert "1 / 1" in convolution.table([row], peak=100.0)


def test_steps_of_loops_of_other_lengths() -> None:
    runs = {n: loop_lengths.train(n, 1, 8, 8) for n in (2, 4)}
    assert set(loop_lengths.least(runs, 1)) == {2, 4}
    loop_lengths.forward(2, 1, 8, 4)()
    loop_lengths.planning(2)()


def test_growth_of_a_small_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "torch_memory", lambda kind, size: 1 << 20)
    monkeypatch.setattr(growth, "MLP", {"width": 8, "batch": 4, "layers": 1, "samples": 8})
    rows = [growth.measured("MLP", "width", width, 0.001) for width in (16, 32)]
    assert rows[0]["state"] < rows[1]["state"]
    assert 0 < growth.exponent(rows, "work_per_sample") < 2
    _trainer, lstm = growth.feed_of("LSTM", {"width": 8, "batch": 2, "steps": 3, "samples": 4})
    assert growth.total(lstm) == sum(growth.memory_of(lstm)) + 4 * (3 * growth.INPUTS * 4 + 8)
    growth.picture(rows + [{**row, "kind": "LSTM"} for row in rows], str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.peers
def test_memory_of_a_step_of_pytorch() -> None:
    """All gradients of weights, the batch, and less than as much again for activations."""
    size = {"width": 64, "batch": 8, "layers": 1, "steps": 1, "samples": 8}
    numbers = 64 * 64 + 64 + 64 * growth.CLASSES + growth.CLASSES
    found = growth.torch_memory("MLP", size)
    assert found == growth.torch_memory("MLP", size)  # what an earlier step left is not in it
    assert found is not None
    assert 4 * numbers + 8 * (4 * 64 + 8) < found < 8 * numbers


def test_results_of_another_cpu_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, name in (("one", "a.json"), ("two", "a-two.json"), ("one", "a.json")):
        monkeypatch.setattr(harness, "environment", lambda cpu=cpu: {"cpu": cpu})
        assert harness.write("a", "", [], tmp_path).name == name


def test_a_ratio_has_its_range_over_the_last_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(date: int, **ratios: float | None) -> dict[str, Any]:
        monkeypatch.setattr(harness, "environment", lambda: {"cpu": "one", "date": str(date)})
        rows = [
            {"workload": name, "size": (2, 3), "threads": 1, "seconds": {"a": {}}, "ratio": ratio}
            for name, ratio in ratios.items()
        ]
        return json.loads(harness.write("a", "", rows, tmp_path).read_text())

    found = written(1, net=9.0)
    assert "earlier" not in found
    assert harness.ranged(found, found["rows"][0], "ratio") == "9.00"
    for date, ratio in enumerate((1.5, 2.5, 2.0, 1.75), 2):
        found = written(date, net=ratio, other=None if date < 5 else 7.0)
    found = written(6, net=2.0, other=7.0)  # the first is forgotten
    one, other = found["rows"]
    assert harness.spread(found, one, "ratio") == [1.5, 1.75, 2.0, 2.0, 2.5]
    assert harness.ranged(found, one, "ratio") == "2.00 (1.50–2.50)"
    assert harness.ranged(found, other, "ratio") == "7.00"
    assert harness.ranged(found, {**one, "ratio": None}, "ratio") == "-"
    assert "over 5 runs since 2" in readme.runs(found)
    assert readme.runs({}) == ""
    assert len(json.dumps(found["earlier"])) < 2000


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_steps_of_several_threads_wait_for_each_other(workers: int) -> None:
    """Every step adds to what all threads have written in the one before, in other shares."""
    product = KERNELS["linear_forward"]
    n, count = 13, 200
    rng = np.random.default_rng(0)
    w = kernels.aligned(np.linalg.qr(rng.standard_normal((n, n)))[0].astype(np.float32))
    a, b = (kernels.aligned(np.eye(n, dtype=np.float32)) for _ in range(2))
    none = np.zeros(0, np.float32)
    # a = w @ b reads every row of b, and b = w @ a every row of a
    forth, back = ({"x": w, "w": x, "bias": none, "y": y} for x, y in ((b, a), (a, b)))
    together.steps_of([(product, forth), (product, back)], workers)(count)
    assert np.allclose(b, np.linalg.matrix_power(w.astype(float), 2 * count), atol=1e-4)


def test_shares_are_those_of_the_run_loop() -> None:
    assert together.shares(20, 8, 2) == [0, 8, 20]
    assert together.shares(20, 1, 3) == [0, 6, 13, 20]
    assert together.shares(5, 8, 2) == [0, 0, 5]


def test_quartiles_of_turns() -> None:
    found = harness.summary([4.0, 1.0, 3.0, 2.0, 5.0])
    assert found == {"median": 3.0, "low": 2.0, "high": 4.0, "minimum": 1.0}
    assert harness.summary([2.0])["low"] == 2.0


def test_all_benchmarks_are_told_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks.run` calls each of them with arguments that its parser knows."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(run, "run", lambda name, threads, turns: asked.append((name, threads)))
    monkeypatch.setattr(run, "summary", lambda: "")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(harness, "RESULTS", Path(os.devnull))
    monkeypatch.setattr(Path, "write_text", lambda path, text: len(text))
    monkeypatch.setattr(sys, "argv", ["run", "--runs", "2"])
    run.main()
    assert asked[: len(asked) // 2] == asked[len(asked) // 2 :]
    assert {name for name, _ in asked} == set(run.THREADS)
    for name in run.THREADS:
        module = "sequences.__main__" if name == "sequences" else name
        source = inspect.getsource(importlib.import_module(f"benchmarks.{module}"))
        for added in run.TIMES.get(name, ([],)):
            for option in [*run.arguments(name, 1, 3), *added][::2]:
                assert f'"{option}"' in source, name
