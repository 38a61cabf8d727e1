"""Small recurrent nets on a GPU, their losses beside the CPU's: what fails here fails first.

    python -m benchmarks.gpu_smoke [--device cuda] [--steps 20]

Each net is trained from the same parameters on both; sums have another order on a GPU, so losses
agree to `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import fastnn as fnn
from benchmarks.gpu_models import Recurrent
from fastnn import nn, optim

TOLERANCE = 2e-4
KINDS = ("RNN", "LSTM", "GRU", "peephole LSTM", "LSTM with lengths", "bidirectional GRU")


def net(kind: str, hidden: int) -> nn.Module:
    options = {"peepholes": True} if "peephole" in kind else {}
    if "bidirectional" in kind:
        options["bidirectional"] = True
    model = Recurrent(kind.split()[kind.startswith(("peep", "bi"))], 12, hidden, 5, **options)
    if "bidirectional" in kind:
        model.out = nn.Linear(2 * hidden, 5)
    return model


def losses(kind: str, device: str, hidden: int, steps: int, batch: int, length: int) -> list[float]:
    """The loss of each epoch; an epoch is three batches."""
    rng = np.random.default_rng(0)
    rows = 3 * batch
    x = rng.standard_normal((rows, length, 12)).astype(np.float32)
    y = (x[..., :5].cumsum(1)).argmax(-1)
    inputs = (x, rng.integers(1, length + 1, rows)) if "lengths" in kind else x
    trainer = fnn.Trainer(
        net(kind, hidden), "cross_entropy", optim.Adam(3e-3), device=device, seed=1
    )
    epochs = max(1, steps // 3)
    history = trainer.fit(inputs, y, epochs=epochs, batch_size=batch, verbose=False)
    return [float(v) for v in history["loss"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--hidden", default="24,256", help="one net for each size")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--only", default="", help="kinds whose name has this in it")
    options = parser.parse_args()
    wrong = 0
    for kind in KINDS:
        if options.only not in kind:
            continue
        for hidden in map(int, options.hidden.split(",")):
            start, size = time.perf_counter(), (options.steps, options.batch, options.length)
            try:
                mine = losses(kind, options.device, hidden, *size)
                theirs = losses(kind, "cpu", hidden, *size)
            except Exception as error:  # the other nets are worth a look
                print(f"{kind} H{hidden}: FAILED: {type(error).__name__}: {error}", flush=True)
                wrong += 1
                continue
            far = float(np.abs(np.subtract(mine, theirs)).max())  # NaN if one is
            wrong += not far <= TOLERANCE
            print(
                f"{kind} H{hidden}: loss {mine[-1]:.6f}, CPU {theirs[-1]:.6f}, largest difference "
                f"{far:.1e}{'' if far <= TOLERANCE else ' WRONG'}; "
                f"{time.perf_counter() - start:.1f} s",
                flush=True,
            )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
