"""What single calls from Python cost, with pytest-benchmark.

pytest benchmarks --benchmark-only
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.kernels import control_block


def data(samples: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, features)).astype(np.float32)
    return x, rng.integers(0, classes, samples)


def mlp(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for k in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[k], sizes[k + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("sizes", "batch"), [((4, 32, 16, 4), 64), ((784, 128, 10), 32)])
def test_step(benchmark: Any, sizes: tuple[int, ...], batch: int, workers: int) -> None:
    """One training step by `fastnn.compile`."""
    x, y = data(batch, sizes[0], sizes[-1])
    step = fnn.compile(mlp(*sizes), "cross_entropy", optim.Adam(lr=1e-3), workers=workers)
    first = step(x, y)
    benchmark(step, x, y)
    assert step(x, y) < first


@pytest.mark.parametrize("batch", [1, 32])
def test_overhead_of_a_step(benchmark: Any, batch: int) -> None:
    """What a call of a step takes over the kernels' own time; the goal is at most 10 microseconds.

    The kernels' time is what a step takes in a run of many. Noise only adds, so both are taken many
    times in turn, and the medians compared (see "extra info" in the results).
    """
    x, y = data(batch, 64, 10)
    step = fnn.compile(mlp(64, 32, 10), "cross_entropy", optim.SGD(lr=1e-6), workers=1)
    step(x, y)
    ready = next(iter(step._ready.values()))
    many = 100
    team = step.session.team(ready.bound.program)
    description = team.describe([(ready.bound, many)], step._control)
    run_many = team.prepare(description)
    single, alone = [], []
    for _ in range(100):
        step._control[control_block.RUN_STEP] = 0
        start = time.perf_counter()
        run_many()
        alone.append((time.perf_counter() - start) / many)
        step(x, y)
        for _ in range(25):
            start = time.perf_counter()
            step(x, y)
            single.append(time.perf_counter() - start)
    benchmark(step, x, y)
    overhead = 1e6 * float(np.median(single) - np.median(alone))
    benchmark.extra_info["microseconds over the kernels"] = round(overhead, 2)
    print(f"batch {batch}: {overhead:.1f} us over the kernels")


def test_epoch(benchmark: Any) -> None:
    """An epoch of `Trainer.fit` over 2,048 samples, 64 steps."""
    x, y = data(2048, 64, 10)
    trainer = fnn.Trainer(mlp(64, 128, 10), "cross_entropy", "adam")
    trainer.fit(x, y, batch_size=32, verbose=False)
    benchmark(trainer.fit, x, y, batch_size=32, verbose=False, check_data=False)
    assert trainer.epoch > 1


def test_predict(benchmark: Any) -> None:
    """A prediction for one sample, from Python."""
    x, _ = data(1, 64, 10)
    model = mlp(64, 128, 10)
    assert benchmark(model.predict, x).shape == (1, 10)


def test_build(benchmark: Any) -> None:
    """Tracing, differentiating and planning the training step of an MLP."""
    x, y = data(64, 64, 10)

    def build() -> fnn.Trainer:
        trainer = fnn.Trainer(mlp(64, 128, 128, 10), "cross_entropy", "adam")
        trainer.fit(x, y, epochs=0, batch_size=32, verbose=False)
        return trainer

    assert benchmark(build).step == 0
