"""Single kernels against PyTorch and the machine's limits: Adam, softmax with cross-entropy, feed.

python -m benchmarks.kernels --threads 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness, limits
from fastnn import nn, optim
from fastnn.engine.arrays import NO_ARRAYS, as_arrays
from fastnn.kernels import control_block
from fastnn.kernels.declare import KERNELS, Kernel
from fastnn.runtime.cpu import compiler
from fastnn.runtime.segment import aligned_zeros
from fastnn.testing.kernels import record
from fastnn.train.feeds import ArrayFeed


def caller(kernel: Kernel, threads: int, **operands: Any) -> Callable[[int], None]:
    """Calls of a compiled kernel over all items, split over threads that start once a turn."""
    words, dtype, data_dtype, items = record(kernel, operands)
    function = compiler.CALL(compiler.address(kernel, dtype, data_dtype))
    address = words.ctypes.data

    def share(k: int, count: int, _keep: Any = (words, operands)) -> None:
        for _ in range(count):
            function(address, items * k // threads, items * (k + 1) // threads)

    def steps(count: int) -> None:
        others = [Thread(target=share, args=(k, count)) for k in range(1, threads)]
        for thread in others:
            thread.start()
        share(0, count)
        for thread in others:
            thread.join()

    return steps


def aligned(array: np.ndarray) -> np.ndarray:
    result = aligned_zeros(array.size, array.dtype).reshape(array.shape)
    result[...] = array
    return result


def adam(size: int, threads: int) -> tuple[dict[str, Any], float]:
    """Adam alone; bytes moved: p, m, v read and written, g read."""
    optimizer = optim.Adam()
    kernel = KERNELS[optimizer.kernels()[1]]
    rng = np.random.default_rng(0)
    shape = (size // 128, 128)
    p, g, m, v = (aligned(rng.standard_normal(shape).astype(np.float32)) for _ in range(4))
    np.abs(v, out=v)
    hyper = np.zeros(optimizer.hyper_size, np.float32)
    options = optimizer.group_options(0)
    prepare = caller(
        KERNELS[optimizer.kernels()[0]], 1, control=np.zeros(control_block.LENGTH, np.int64),
        hyper=hyper, schedule=np.full((1, 1), 1e-3), group=0, l2=0.0, decay=0.0,
        limit=np.inf, sign=1.0,
        **dict(zip(optimizer.own, optimizer.own_values(options), strict=True)),
    )  # fmt: skip
    prepare(1)
    sides = {
        "fastnn": caller(
            kernel, threads, p=p, g=g, exp_avg=m, exp_avg_sq=v, hyper=hyper,
            scale=np.zeros(0, np.float32), guard=np.zeros(control_block.GUARD_LENGTH, np.int64),
        )
    }  # fmt: skip
    try:
        import torch

        torch.set_num_threads(threads)
        parameter = torch.nn.Parameter(torch.randn(size))
        parameter.grad = torch.randn(size)
        update = torch.optim.Adam([parameter], lr=1e-3, fused=True)
        sides["torch"] = lambda count: [update.step() for _ in range(count)] and None
    except ImportError:
        pass
    return sides, 28.0 * size


def cross_entropy(rows: int, classes: int, threads: int) -> tuple[dict[str, Any], float]:
    """Loss and gradient to the logits; bytes moved: logits read, gradient written."""
    rng = np.random.default_rng(0)
    x = aligned(rng.standard_normal((rows, classes)).astype(np.float32))
    target = rng.integers(0, classes, rows)
    loss, dlogits = aligned(np.zeros(rows, np.float32)), aligned(np.zeros_like(x))
    import fastnn.ops  # noqa: F401  (declares the kernels)

    sides = {
        "fastnn": caller(
            KERNELS["cross_entropy_forward"], threads, x=x, target=target,
            weight=np.zeros(0, np.float32), loss=loss, dlogits=dlogits, smoothing=0.0,
            ignore_index=-100,
        )
    }  # fmt: skip
    try:
        import torch

        torch.set_num_threads(threads)
        logits = torch.from_numpy(np.array(x)).requires_grad_(True)
        labels = torch.from_numpy(target)

        def steps(count: int) -> None:
            for _ in range(count):
                logits.grad = None
                torch.nn.functional.cross_entropy(logits, labels).backward()

        sides["torch"] = steps
        sides["fastnn"](1)
        steps(1)
        difference = np.abs(dlogits / rows - logits.grad.numpy()).max()
        assert difference < 1e-7, difference
    except ImportError:
        pass
    return sides, 8.0 * rows * classes


def feed(threads: int) -> tuple[dict[str, Any], float]:
    """An epoch over 20,000 x 20 floats, batch 256: shuffling and gathering alone."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 20)).astype(np.float32)
    y = rng.integers(0, 4, 20_000)
    from fastnn.engine.specs import Spec
    from fastnn.runtime.cpu.execute import BoundProgram
    from fastnn.train.build import StepBuilder
    from fastnn.train.slices import permutation

    layers = [nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4)]
    model = nn.Sequential(*layers)
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), "adam", workers=1)
    builder = StepBuilder(model, trainer.store, 256, True, "gather")
    builder.inputs("x", (Spec((20,), "f"),))
    builder.inputs("y", (Spec((), "i"),))
    program = builder.finish().program
    arrays = ArrayFeed(
        trainer, (as_arrays(x, "x", "x"), as_arrays(y, "y", "y"), NO_ARRAYS), 256, True, False
    )
    session = trainer.session
    bound: BoundProgram = session.bind(program)
    team = session.runtime.team(program)

    def epochs(count: int) -> None:
        for k in range(count):
            arrays.order[:] = permutation(0, k, 20_000)
            session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
            team.call(team.describe([(bound, 20_000 // 256)], session.control))

    def training(count: int) -> None:
        """The same epochs of a small net (20-128-64-4, Adam), feed included."""
        for k in range(count):
            arrays.order[:] = permutation(0, k, 20_000)
            session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
            team.call(team.describe([(arrays.full, 20_000 // 256)], session.control))

    arrays.rates[:] = trainer.rates(arrays.steps)
    sides: dict[str, Any] = {"fastnn": epochs, "fastnn training": training}
    try:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        torch.set_num_threads(threads)
        data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        loader = DataLoader(data, batch_size=256, shuffle=True)
        sides["torch"] = lambda count: [None for _ in range(count) for _ in loader] and None
    except ImportError:
        pass
    return sides, 8.0 * x.size


WORKLOADS: dict[str, Callable[[int], tuple[dict[str, Any], float]]] = {
    "Adam, 10 million parameters": lambda threads: adam(10_000_000, threads),
    "softmax + cross-entropy with gradient, 256 x 10,000": lambda threads: cross_entropy(
        256, 10_000, threads
    ),
    "data feed, epoch of 20,000 x 20, batch 256": feed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    bandwidth = limits.bandwidth(options.threads)
    rows = []
    for name, make in WORKLOADS.items():
        if name.startswith("data feed") and options.threads > 1:
            continue
        sides, moved = make(options.threads)
        times = harness.alternate(sides, options.turns)
        mine = times["fastnn"]["median"]
        whole = times.get("fastnn training")
        ratio = times["torch"]["median"] / mine if "torch" in times else None
        rows.append(
            {
                "workload": name, "threads": options.threads, "seconds": times,
                "ratio_torch": ratio, "gbytes_per_second": moved / mine / 1e9,
                "share_of_bandwidth": moved / mine / 1e9 / bandwidth,
                "share_of_training": mine / whole["median"] if whole else None,
            }
        )  # fmt: skip
        print(
            f"{name}: fastnn {harness.microseconds(mine)} us"
            + (f", {ratio:.2f} x torch" if ratio else "")
            + (f", {mine / whole['median']:.1%} of a training epoch" if whole else "")
            + f", {moved / mine / 1e9 / bandwidth:.0%} of the memory bandwidth",
            file=sys.stderr,
        )
    command = f"python -m benchmarks.kernels --threads {options.threads}"
    path = harness.write(f"kernels-{options.threads}", command, rows, bandwidth_gbytes=bandwidth)
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
