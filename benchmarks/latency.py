"""What a `fit` takes beside its steps: a short one called again and again, and the feed of a long
one.

    python -m benchmarks.latency

Least times, of short pieces in turns, since other work on the machine only adds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn
from fastnn.kernels import control_block
from fastnn.runtime.cpu.orders import CpuOrders
from fastnn.runtime.orders import Orders


def least(piece: Callable[[], Any], times: int, clock: Callable[[], int]) -> float:
    """The least microseconds of a piece."""
    found = []
    for _ in range(times):
        begun = clock()
        piece()
        found.append(clock() - begun)
    return min(found) / 1e3


def trainer_of(*sizes: int, workers: int | str = "auto") -> fnn.Trainer:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    return fnn.Trainer(model, "cross_entropy", "adam", workers=workers)


def data(samples: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, inputs)).astype(np.float32)
    return x, rng.integers(0, 4, samples)


def tiny_fit(turns: int = 40, times: int = 100) -> dict[str, float]:
    """Microseconds of an epoch of four steps of 4-32-16-4 on the same arrays, by `fit` and by the
    compiled loop alone, by wall time."""
    trainer, (x, y) = trainer_of(4, 32, 16, 4), data(256, 4)
    runtime: Any = trainer.session.runtime
    control = trainer.session.control

    def fit() -> None:
        trainer.fit(x, y, batch_size=64, verbose=False)

    def steps() -> None:
        control[[control_block.CURSOR, control_block.RUN_STEP]] = 0
        runtime._described.execute()

    for _ in range(20):
        fit()
    whole, alone = [], []
    for _ in range(turns):
        whole.append(least(fit, times, time.perf_counter_ns))
        trainer.latest.feed.take_up([x, y])
        alone.append(least(steps, times, time.perf_counter_ns))
        trainer.latest.feed.let_go()
        trainer.session.let_go()
    return {"fit": min(whole), "steps": min(alone), "over": min(whole) - min(alone)}


def feed(samples: int = 20_000, batch: int = 256, times: int = 200) -> dict[str, float]:
    """Microseconds of processor time of an epoch of 20-128-64-4 on one worker, and of what feeds
    it: the gathers of its mini-batches, and its order, as it is drawn and by NumPy."""
    trainer, (x, y) = trainer_of(20, 128, 64, 4, workers=1), data(samples, 20)
    runtime: Any = trainer.session.runtime
    control, clock = trainer.session.control, time.thread_time_ns
    found: dict[str, float] = {}

    def look(epoch: int, logs: Any) -> None:
        """While the run has its arrays."""
        bound = next(b for b in runtime._latest if b.program.batch == batch)
        begins = range(0, samples - batch + 1, batch)
        for number, call in enumerate(bound.planned):
            if call.kernel.startswith("gather"):
                function, record, items = bound.alone(number)
                address = record.ctypes.data

                def gather(count: int, function: Any = function, address: int = address) -> None:
                    for begin in begins:
                        control[control_block.CURSOR] = begin
                        function(address, 0, count)

                taken = [
                    least(lambda n=n, gather=gather: gather(n), times, clock) for n in (items, 0)
                ]
                found[call.kernel] = taken[0] - taken[1]
        control[control_block.CURSOR] = samples

    trainer.fit(x, y, batch_size=batch, verbose=False)
    look_once = fnn.callbacks.LambdaCallback(on_epoch_end=look)
    trainer.fit(x, y, batch_size=batch, callbacks=look_once, verbose=False)
    gathers = sum(found.values())
    for name, orders in (("order", CpuOrders(samples)), ("order by NumPy", Orders(samples))):
        epochs = iter(range(times))
        found[name] = least(lambda o=orders, e=epochs: o.draw(1, next(e)), times, clock)
    fit = least(
        lambda: trainer.fit(x, y, batch_size=batch, verbose=False), times, time.process_time_ns
    )
    return {**found, "fit": fit, "share": (gathers + found["order"]) / fit}


def main() -> None:
    tiny = tiny_fit()
    print(
        f"4-32-16-4, an epoch of four steps: {tiny['fit']:.1f} us, the steps alone "
        f"{tiny['steps']:.1f} us, so {tiny['over']:.1f} us over them"
    )
    found = feed()
    print("20-128-64-4, an epoch of 20,000 samples in batches of 256, us of processor time:")
    for name, value in found.items():
        if name != "share":
            print(f"    {name}: {value:,.0f}")
    print(f"    gathers and order are {found['share']:.2%} of it")


if __name__ == "__main__":
    main()
