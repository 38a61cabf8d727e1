"""Training steps of multi-layer perceptrons, side by side with the peers.

    python -m benchmarks.mlp --threads 1

Run with one thread tied to one core (``make bench`` does so): JAX takes its threads from there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness, limits, peers
from fastnn import nn, optim
from fastnn.engine.arrays import NO_ARRAYS, as_arrays
from fastnn.kernels import control_block
from fastnn.train.feeds import ArrayFeed

SAMPLES = 2048  # of the data set
#: name, layer sizes, batch, optimiser
WORKLOADS: list[tuple[str, tuple[int, ...], int, str]] = [
    ("4-32-16-4", (4, 32, 16, 4), 64, "adam"),
    ("784-128-10", (784, 128, 10), 1, "adam"),
    ("784-128-10", (784, 128, 10), 32, "adam"),
    ("784-128-10", (784, 128, 10), 128, "adam"),
    ("784-2048-2048-2048-10", (784, 2048, 2048, 2048, 10), 256, "sgd"),
]


def ours(
    sizes: Sequence[int],
    batch: int,
    workers: int | str,
    optimizer: str,
    samples: int = SAMPLES,
    precision: str = "highest",
) -> tuple[peers.Steps, Any]:
    """fastnn: steps of the compiled loop, the gather of the mini-batch included; "auto" runs on as
    many workers as prove quickest meanwhile."""
    layers: list[nn.Module] = []
    for k in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[k], sizes[k + 1]))
        if k < len(sizes) - 2:
            layers.append(nn.ReLU())
    model = nn.Sequential(*layers)
    rule = optim.Adam(lr=1e-3) if optimizer == "adam" else optim.SGD(lr=1e-2, momentum=0.9)
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), rule, workers=workers, precision=precision)
    x, y = data(sizes, samples)
    feed = ArrayFeed(
        trainer, (as_arrays(x, "x", "x"), as_arrays(y, "y", "y"), NO_ARRAYS), batch, True, True
    )
    session, runs = trainer.session, dict[int, Any]()
    feed.rates[:] = trainer.rates(feed.steps)

    def steps(count: int) -> None:
        while count > 0:
            now = min(count, feed.steps)
            session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
            if now not in runs:
                runs[now] = session.runtime.describe([(feed.full, now)])
            runs[now].execute()
            count -= now

    return steps, trainer


def check(sizes: Sequence[int], batch: int, optimizer: str, workers: int) -> dict[str, float]:
    """Ten steps from equal parameters, beside each peer: the largest relative difference."""
    count = min(10, SAMPLES // batch)
    steps, trainer = ours(sizes, batch, workers, optimizer)
    start = {name: np.array(value) for name, value in trainer.model.state_dict().items()}
    steps(count)
    mine = trainer.model.state_dict()
    found = {}
    for peer, trained in (("torch", _torch), ("jax", _jax), ("jax loop", _jax_loop)):
        try:
            theirs = trained(sizes, batch, optimizer, start, count)
        except ImportError:
            continue
        apart = [
            np.abs(mine[name] - value).max() / (np.abs(value).max() or 1.0)
            for name, value in theirs.items()
        ]
        found[peer] = float(np.max(apart))
    return found


def data(sizes: Sequence[int], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples and classes, drawn anew from the same seed."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, sizes[0])).astype(np.float32)
    return x, rng.integers(0, sizes[-1], samples)


State = dict[str, np.ndarray]


def _torch(sizes: Sequence[int], batch: int, optimizer: str, start: State, count: int) -> State:
    """PyTorch's parameters after so many steps."""
    import torch

    _, model = peers.torch_mlp(sizes, batch, 1, optimizer)
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in start.items()})
    update: Any
    if optimizer == "adam":
        update = torch.optim.Adam(model.parameters(), lr=1e-3)
    else:
        update = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    x, y = data(sizes, SAMPLES)
    for k in range(count):
        rows = slice(k * batch, (k + 1) * batch)
        update.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])
        )
        loss.backward()
        update.step()
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _jax(
    sizes: Sequence[int], batch: int, optimizer: str, start: State, count: int, looped: int = 0
) -> State:
    """JAX's parameters after so many steps, as PyTorch's layers hold them."""
    import jax.numpy as jnp

    steps, holder = peers.jax_mlp(sizes, batch, optimizer, looped)
    _, *averages, number = holder["state"]
    holder["state"] = ([jnp.asarray(v.T) for v in start.values()], *averages, number)
    x, y = map(jnp.asarray, data(sizes, SAMPLES))
    if looped:
        holder.update(x=x, y=y, order=jnp.arange(SAMPLES))
        steps(count)
    else:
        for k in range(count):
            rows = slice(k * batch, (k + 1) * batch)
            holder.update(x=x[rows], y=y[rows])
            steps(1)
    return {name: np.array(v).T for name, v in zip(start, holder["state"][0], strict=True)}


def _jax_loop(sizes: Sequence[int], batch: int, optimizer: str, start: State, count: int) -> State:
    return _jax(sizes, batch, optimizer, start, count, SAMPLES)


def flops(sizes: Sequence[int], batch: int) -> float:
    """Operations of the matrix products of a step (no gradient to the data)."""
    total = 0
    for k, (c, o) in enumerate(itertools.pairwise(sizes)):
        total += 2 * batch * c * o * (2 if k == 0 else 3)
    return float(total)


def measure(threads: int, turns: int, names: set[str]) -> list[dict[str, Any]]:
    peak = limits.fma_peak() * threads
    rows = []
    for name, sizes, batch, optimizer in WORKLOADS:
        if names and name not in names:
            continue
        sides: dict[str, Any] = {}
        # every side may use so many threads; ours takes as many of them as it thinks worth while
        workers = 1 if threads == 1 else "auto"
        sides["fastnn"], trainer = ours(sizes, batch, workers, optimizer)
        difference = check(sizes, batch, optimizer, threads)
        apart = {peer: d for peer, d in difference.items() if not d < 2e-3}
        assert not apart, f"{name}, batch {batch}: differs, {apart}"
        try:
            sides["torch"], _ = peers.torch_mlp(sizes, batch, threads, optimizer)
            compiled, _ = peers.torch_mlp(sizes, batch, threads, optimizer, compiled=True)
            compiled(2)
            sides["torch.compile"] = compiled
        except ImportError:
            pass
        except Exception as error:  # it needs a C++ compiler, among other things
            print(f"torch.compile does not work here: {error}", file=sys.stderr)
        for peer in ("jax", "sklearn"):
            try:
                if peer == "jax":
                    sides["jax"], _ = peers.jax_mlp(sizes, batch, optimizer)
                    sides["jax loop"], _ = peers.jax_mlp(sizes, batch, optimizer, SAMPLES)
                elif optimizer == "adam":
                    sides["sklearn"], _ = peers.sklearn_mlp(sizes, batch)
            except ImportError:
                continue
        # scikit-learn's BLAS threads go on spinning after their work and slow everybody else down:
        # it is measured on its own, afterwards
        alone = {k: sides.pop(k) for k in list(sides) if k == "sklearn"}
        times = harness.alternate(sides, turns, budget=4.0, trip=harness.trip_of(threads))
        times |= harness.alternate(alone, 5, budget=1.0, trip=harness.trip_of(threads))
        mine = times["fastnn"]["median"]
        others = {k: t["median"] for k, t in times.items() if k != "fastnn"}
        best = min(others, key=lambda k: others[k]) if others else None
        row = {
            "workload": name, "batch": batch, "optimizer": optimizer, "threads": threads,
            "workers": workers_of(trainer),
            "seconds": times, "difference": difference, "best_peer": best,
            "ratio": others[best] / mine if best else None,
            "ratio_torch": others["torch"] / mine if "torch" in others else None,
            "share_of_peak": flops(sizes, batch) / mine / 1e9 / peak,
        }  # fmt: skip
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
    return rows


def workers_of(trainer: Any) -> int:
    """How many workers a trainer's step runs on."""
    built = next(iter(trainer._built.values()))
    return int(trainer.session.runtime.team(built.program).workers)


def line(row: dict[str, Any]) -> str:
    times = ", ".join(
        f"{k} {harness.microseconds(v['median'])} us" for k, v in row["seconds"].items()
    )
    ratio = f"{row['ratio']:.2f} x {row['best_peer']}" if row["ratio"] else "no peer"
    return (
        f"{row['workload']:>22} B{row['batch']:<4} {row['threads']} thread(s), ours "
        f"{row['workers']}: {times}; {ratio}; "
        f"{row['share_of_peak']:.0%} of the peak"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    rows = measure(options.threads, options.turns, set(options.only))
    command = f"python -m benchmarks.mlp --threads {options.threads}"
    if options.only:
        return
    path = harness.write(
        f"mlp-{options.threads}", command, rows, fma_peak_gflops=limits.fma_peak(),
        bandwidth_gbytes=limits.bandwidth(options.threads),
    )  # fmt: skip
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
