"""One model trained by several processes, each on its share of every batch.

Each process has the same model (the same seed) and data of its own; before each update they
average their gradients in shared memory, so all of them stay the same to the last bit. Between
machines ``comm.Allreduce`` of mpi4py would stand where `Average` stands here.

    python examples/data_parallel.py --processes 2 --epochs 15
"""

from __future__ import annotations

import argparse
import multiprocessing
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits


class Average:
    """What `on_gradients` calls: puts the mean over all processes in each gradient's place.

    Args:
        rank: the number of this process, from 0.
        shared: shared memory of (processes, numbers) floats.
        barrier: where all processes meet.
    """

    def __init__(self, rank: int, shared: Any, barrier: Any, processes: int):
        self.rank, self.barrier = rank, barrier
        self.rows = np.frombuffer(shared, np.float32).reshape(processes, -1)

    def __call__(self, gradients: Mapping[str, np.ndarray]) -> None:
        begin = 0
        for gradient in gradients.values():
            self.rows[self.rank, begin : begin + gradient.size] = gradient.reshape(-1)
            begin += gradient.size
        self.barrier.wait(60)
        mean = self.rows.mean(axis=0)  # in the same order, so with the same bits, in each process
        self.barrier.wait(60)  # nobody writes the next gradients before all have read these
        begin = 0
        for gradient in gradients.values():
            gradient[...] = mean[begin : begin + gradient.size].reshape(gradient.shape)
            begin += gradient.size


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def work(
    rank: int, processes: int, epochs: int, batch: int, shared: Any, barrier: Any, results: Any
) -> None:
    """What one process does."""
    (x, y), (x_test, y_test) = load_digits()
    share = len(x) // processes  # shares of one size: the mean of their gradients is the batch's
    mine = slice(rank, share * processes, processes)
    trainer = fnn.Trainer(
        network(), "cross_entropy", optim.Adam(lr=2e-3), metrics=["accuracy"], workers=1,
        on_gradients=Average(rank, shared, barrier, processes), device="cpu",
    )  # fmt: skip
    try:
        trainer.fit(
            x[mine], y[mine], epochs=epochs, batch_size=batch // processes, drop_last=True,
            verbose=False,
        )  # fmt: skip
    except BaseException:
        barrier.abort()  # the others need not wait
        raise
    checksum = zlib.crc32(b"".join(a.tobytes() for a in trainer.get_parameters().values()))
    results.put((rank, checksum, trainer.evaluate(x_test, y_test)["accuracy"]))


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32, help="samples in a step, in all")
    options = parser.parse_args(arguments)

    context = multiprocessing.get_context("spawn")
    size = sum(p.size for p in network().parameters())
    shared = context.RawArray("f", options.processes * size)
    barrier, results = context.Barrier(options.processes), context.SimpleQueue()
    given = (options.processes, options.epochs, options.batch, shared, barrier, results)
    children = [
        context.Process(target=work, args=(rank, *given)) for rank in range(options.processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise SystemExit("a process has failed")
    found = sorted(results.get() for _ in children)
    same = len({checksum for _, checksum, _ in found}) == 1
    accuracy = float(found[0][2])
    print(
        f"{options.processes} processes, test accuracy {accuracy:.4f}; "
        f"their parameters are {'the same' if same else 'NOT the same'}"
    )
    return accuracy if same else 0.0


if __name__ == "__main__":
    main()
