"""One model trained by several processes, each on its share of every batch.

Each process has the same model (the same seed) and data of its own; before each update they average
their gradients, so all of them stay the same to the last bit.

    python examples/data_parallel.py --processes 2 --epochs 15
    mpirun -n 2 python examples/data_parallel.py --mpi      (pip install mpi4py)
"""

from __future__ import annotations

import argparse
import functools
import zlib

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits
from fastnn.parallel import Group


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def work(group: Group, epochs: int, batch: int) -> tuple[int, float]:
    """What one process does; a checksum of its parameters, and the accuracy on the test data."""
    (x, y), (x_test, y_test) = load_digits()
    mine = group.share(len(x))
    trainer = fnn.Trainer(
        network(), "cross_entropy", optim.Adam(lr=2e-3), metrics=["accuracy"], workers=1,
        on_gradients=group.average, device="cpu",
    )  # fmt: skip
    trainer.fit(
        x[mine], y[mine], epochs=epochs, batch_size=batch // group.size, drop_last=True,
        verbose=False,
    )  # fmt: skip
    checksum = zlib.crc32(b"".join(a.tobytes() for a in trainer.get_parameters().values()))
    return checksum, trainer.evaluate(x_test, y_test)["accuracy"]


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32, help="samples in a step, in all")
    parser.add_argument("--mpi", action="store_true", help="mpirun has started the processes")
    options = parser.parse_args(arguments)

    if options.mpi:
        group = fnn.parallel.mpi()
        checksum, accuracy = work(group, options.epochs, options.batch)
        print(f"process {group.rank}: parameters {checksum:08x}, test accuracy {accuracy:.4f}")
        return accuracy
    call = functools.partial(work, epochs=options.epochs, batch=options.batch)
    found = fnn.parallel.run(call, options.processes)
    same = len({checksum for checksum, _ in found}) == 1
    accuracy = found[0][1]
    print(
        f"{options.processes} processes, test accuracy {accuracy:.4f}; "
        f"their parameters are {'the same' if same else 'NOT the same'}"
    )
    return accuracy if same else 0.0


if __name__ == "__main__":
    main()
