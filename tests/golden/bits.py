"""Ten steps of real training, hashed: losses, parameters, buffers and the optimiser's slots.

They are the same on every CPU with fused multiply-adds, whatever the width of its vectors.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "bits.json"
ROOT = Path(__file__).resolve().parents[2]
#: a width of vectors that is compared with the CPU's own
NARROW = 256
Bits = dict[str, str]


def target() -> str:
    """What hashes are kept under."""
    from fastnn.kernels.cpu import target

    host = target.host()
    return "fused multiply-adds" if host.has_fma else host.name


def widths() -> list[int | None]:
    """The CPU's own width of vectors (None), and `NARROW` where that is narrower."""
    from fastnn.kernels.cpu import target

    return [None, NARROW] if target.host().vector_bits > NARROW else [None]


def train(workers: int, bits: int | None = None, names: list[str] | None = None) -> Bits:
    """The hashes, by name, of a process of its own with so many workers."""
    environment = dict(os.environ)
    environment.pop("FASTNN_VECTOR_BITS", None)
    if bits is not None:
        environment["FASTNN_VECTOR_BITS"] = str(bits)
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.bits", str(workers), *(names or [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"training failed:\n{done.stderr[-10_000:]}")
    found: Bits = json.loads(done.stdout)
    return found


def kept() -> dict[str, Bits]:
    """By target, the hashes that are kept."""
    found: dict[str, Bits] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return found


def write(under: str, found: Bits) -> None:
    everything = {**kept(), under: found}
    FILE.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- the trainings


def _trainings() -> dict[str, Callable[[int], str]]:
    import numpy as np

    from fastnn import nn, ops, optim
    from tests.golden.models import Calls, elman, ids, numbers
    from tests.train.models import MODELS, OPTIMIZERS

    steps, x = numbers(50, 6, 3), numbers(50, 6)
    lengths = 1 + ids(50, below=6)

    def of(name: str, optimizer: str, **options: Any) -> Any:
        make, data = MODELS[name]
        return lambda w: _run(make(), *data(50), "cross_entropy", OPTIMIZERS[optimizer](), w,
                              **options)  # fmt: skip

    def recurrent(make: Callable[[], nn.Module]) -> Any:
        def run(workers: int) -> str:
            layer = Calls(
                lambda m, x, n: m.head(m.net(x, lengths=n)[0]), net=make(), head=nn.Linear(8, 4)
            )
            return _run(layer, (steps, lengths), ids(50, 6), "cross_entropy", optim.Adam(), workers)

        return run

    def attention(m: Any, x: Any) -> Any:
        weights = ops.softmax(ops.matmul(m.q(x), ops.transpose(m.k(x))))
        return ops.mean(ops.matmul(weights, m.v(x)), axis=1)

    def plain(make: Callable[[], nn.Module], x: Any, y: Any, loss: Any) -> Any:
        return lambda w: _run(make(), x, y, loss, optim.Adam(clip_global_norm=0.5), w)

    return {
        "mlp, sgd": of("mlp", "sgd"),
        "mlp, float64": of("mlp", "adam", dtype="float64"),
        "regularised, momentum": of("regularised", "momentum"),
        "regularised, rmsprop": of("regularised", "rmsprop centered momentum"),
        "tagger, adamw": of("tagger", "adamw"),
        "tagger, adagrad": of("tagger", "adagrad"),
        "wide, adadelta": of("wide", "adadelta"),
        "lstm": recurrent(lambda: nn.LSTM(3, 8, 2, dropout=0.1)),
        "lstm, peepholes": recurrent(lambda: nn.LSTM(3, 8, peepholes=True)),
        "gru": recurrent(lambda: nn.GRU(3, 4, bidirectional=True)),
        "gru, reset before": recurrent(lambda: nn.GRU(3, 8, reset="before")),
        "rnn": recurrent(lambda: nn.RNN(3, 8)),
        "loop": plain(
            lambda: Calls(elman, a=nn.Linear(3, 6), b=nn.Linear(6, 6)), steps, numbers(50, 6, 6),
            "huber",
        ),
        "attention": plain(
            lambda: Calls(
                attention, q=nn.Linear(3, 4), k=nn.Linear(3, 4), v=nn.Linear(3, 4)
            ), steps, numbers(50, 4), "mse",
        ),
        "binary": plain(
            lambda: nn.Sequential(nn.Linear(6, 9), nn.SiLU(), nn.RMSNorm(9), nn.Linear(9, 2)), x,
            (numbers(50, 2) > 0).astype(np.float32), "bce_with_logits",
        ),
    }  # fmt: skip


def _run(
    model: Any, x: Any, y: Any, loss: Any, optimizer: Any, workers: int, **options: Any
) -> str:
    """The hash after two epochs of five steps."""
    import fastnn as fnn
    from tests.train.models import state

    trainer = fnn.Trainer(model, loss, optimizer, seed=5, workers=workers, device="cpu", **options)
    history = trainer.fit(x, y, epochs=2, batch_size=10, verbose=False)
    assert trainer.step == 10
    digest = hashlib.blake2b(digest_size=12)
    for number in history["loss"]:
        digest.update(float(number).hex().encode())
    for name, contents in sorted(state(trainer).items()):
        digest.update(name.encode() + contents)
    return digest.hexdigest()


if __name__ == "__main__":
    from fastnn.runtime.cpu import ahead

    ahead.alternatives = lambda wanted: []  # kernels for other sizes, which nothing here runs
    ahead.MOST_WORKERS = 1  # beside other tests; helpers that kernels share are compiled once
    runs = _trainings()
    wanted = sys.argv[2:] or list(runs)
    sys.stdout.write(json.dumps({name: runs[name](int(sys.argv[1])) for name in wanted}))
