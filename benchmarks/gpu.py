"""Whole training steps and single kernels on a GPU, beside PyTorch: first checked, then timed.

    python -m benchmarks.gpu [--only LSTM] [--turns 20]
    python -m benchmarks.gpu --ways quick       (without torch.compile, which takes long)
    python -m benchmarks.gpu --ways compiled    (torch.compile alone, put with the rows there are)
    python -m benchmarks.gpu --precision bf16   (beside PyTorch's autocast; likewise fp16)
    python -m benchmarks.gpu --device cpu --small    (tries the program out; times mean nothing)

Gradients are compared with PyTorch's before anything is timed. Times are taken with events on the
device, sides in turn, everything warmed up. Products are those of float32 on both sides unless
--precision says otherwise: "medium" is TF32 on both, "bf16" and "fp16" stand beside autocast, and
"high", which PyTorch does not have, beside float32.
The host's time is what the process takes of its CPUs to send a step, without waiting for it. Each
row has a verdict: how many times faster than the best of PyTorch's ways, and whether all goals are
met. Results are written after every row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import gpu_models, harness
from benchmarks.gpu_kernels import Convolution, adam, convolution, cross_entropy, ctc, sgemm
from benchmarks.gpu_timing import AGREE, MOST, Ours, Side, Timer, apart, chosen, finish, joined
from fastnn import nn, optim
from fastnn.engine.arrays import as_arrays

PRECISIONS = ("highest", "high", "medium", "bf16", "fp16")
#: sizes of the rows of single kernels: elements, classes; "paths": sequences and steps of CTC
SIZES: dict[str, tuple[int, ...]] = {
    "sgemm": (1024, 2048, 4096, 8192), "Adam": (10_000_000, 100_000_000),
    "softmax": (32, 256, 1000, 10_000), "CTC": (29, 5000), "paths": (16, 400),
}  # fmt: skip
#: those that try the program out
SMALL = {"sgemm": (64, 96), "Adam": (1000,), "softmax": (32,), "CTC": (5,), "paths": (2, 16)}
#: 3x3 in the middle of a net, with a stride, a first layer of 3 channels, and one of few outputs
CONVOLUTIONS = (
    Convolution(32, 64, 28),
    Convolution(64, 128, 14),
    Convolution(256, 256, 28),
    Convolution(64, 128, 28, 4, 2),
    Convolution(3, 64, 112, 7, 2),
    Convolution(1, 16, 28, 5, 1, 128),
)
SMALL_CONVOLUTIONS = (Convolution(3, 4, 6), Convolution(2, 3, 7, 3, 2))
#: by how much more gradients may differ where both sides round
LOOSER = {"medium": 40, "bf16": 400, "fp16": 100}

# -------------------------------------------------------------------- training steps


def ours(case: Any, device: str, model: nn.Module, precision: str) -> Ours:
    """The whole training step: gather, forward, backward, Adam."""
    loss = nn.CrossEntropyLoss(ignore_index=-100 if len(case.x) > 1 else None)
    trainer = fnn.Trainer(model, loss, optim.Adam(lr=1e-4), device=device, precision=precision)
    x = as_arrays(case.x if len(case.x) > 1 else case.x[0], "x", "inputs")
    y = as_arrays(case.y, "y", "targets")
    session = trainer.session
    for name, source in {**x.sources(), **y.sources()}.items():
        session.set(name, source)
    session.set("order", np.tile(np.arange(len(x)), MOST))
    session.set("schedule", np.full((MOST, 1), 1e-4))
    built = trainer.built(x.specs, y.specs, len(x), "gather")
    return Ours(session, session.bind(built.program))


def disagreement(case: Any, device: str, model: nn.Module, peer: Any, precision: str) -> float:
    """The largest relative difference of a gradient from PyTorch's."""
    loss = nn.CrossEntropyLoss(ignore_index=-100 if len(case.x) > 1 else None)
    step = fnn.compile(model, loss, "sgd", device=device, precision=precision)
    mine = step.gradients(case.x if len(case.x) > 1 else case.x[0], case.y)
    theirs = peer.gradients()
    assert set(mine) == set(theirs), set(mine) ^ set(theirs)
    return float(np.max([apart(mine[n], g) for n, g in theirs.items()]))  # NaN if one is


def training_step(case: Any, options: Any, timer: Timer) -> dict[str, Any]:
    from benchmarks import gpu_torch

    model = case.model()
    model.store("float32", 0)
    parameters = model.state_dict()
    precision = options.precision

    def peer() -> Any:
        return gpu_torch.Peer(case, parameters, options.device, precision)

    worst = disagreement(case, options.device, model, peer(), precision)
    limit = AGREE * LOOSER.get(precision, 1)
    assert worst < limit, f"{case.name}: gradients differ: {worst}"
    sides: dict[str, Side] = {"fastnn": ours(case, options.device, model, precision)}
    failed = {}
    for way in chosen(case.ways, options):
        try:
            step = peer().step(way)
            step()
            sides[way] = Side(step)
        except Exception as error:  # a way that this PyTorch can't go is said, not hidden
            failed[way] = f"{type(error).__name__}: {error}".splitlines()[0]
    return finish(case.name, sides, case.goal, options, timer, difference=worst, failed=failed)


# -------------------------------------------------------------------- all of it


def device_facts(options: Any) -> dict[str, Any]:
    import torch

    found = {"device": options.device, "torch": torch.__version__, "precision": options.precision}
    if options.device != "cpu":
        found["name"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["memory"] = fnn.cuda.memory()[1]
        from fastnn.runtime import _cuda

        found["compiler"] = dict(_cuda.compiler_version())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes to try the program out")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--budget", type=float, default=0.6, help="seconds for each side")
    parser.add_argument("--precision", choices=PRECISIONS, default="highest")
    parser.add_argument("--ways", choices=("all", "quick", "compiled"), default="all")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    import torch

    if options.device != "cpu" and not fnn.cuda.is_available():
        sys.exit(f"CUDA cannot be used here: {fnn.cuda.reason()}")
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} cannot use CUDA here: install a build that can")
    torch.backends.cuda.matmul.allow_tf32 = options.precision == "medium"
    torch.backends.cudnn.allow_tf32 = options.precision == "medium"
    timer = Timer(options.device)
    jobs: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (case.name, lambda case=case: training_step(case, options, timer))  # type: ignore[misc]
        for case in gpu_models.cases(options.small)
    ]
    sizes, counts, classes, symbols, paths = (SMALL if options.small else SIZES).values()
    if options.ways != "compiled":  # nothing of these is compiled
        jobs += [(f"sgemm {n}", lambda n=n: sgemm(n, options, timer)) for n in sizes]  # type: ignore[misc]
        jobs += [(f"Adam {n:,}", lambda n=n: adam(n, options, timer)) for n in counts]  # type: ignore[misc]
        cases = SMALL_CONVOLUTIONS if options.small else CONVOLUTIONS
        jobs += [(c.name, lambda c=c: convolution(c, options, timer)) for c in cases]  # type: ignore[misc]
        jobs += [(f"CTC {v}", lambda v=v: ctc(*paths, v, options, timer)) for v in symbols]  # type: ignore[misc]
    else:
        compiled = {c.name for c in gpu_models.cases(options.small) if chosen(c.ways, options)}
        jobs = [(name, job) for name, job in jobs if name in compiled]
    jobs += [
        (f"softmax V={v}", lambda v=v: cross_entropy(v, options, timer))  # type: ignore[misc]
        for v in classes
    ]
    results = Results(options)
    for name, job in jobs:
        if options.only not in name:
            continue
        try:
            results.add(job())
        except Exception as error:  # the other rows are worth having
            results.fail(name, error)
    print(results.table())
    sys.exit(1 if results.failed else 0)


class Results:
    """The rows so far, in a file that is written after each."""

    def __init__(self, options: Any):
        self.options, self.rows, self.failed = options, {}, []  # type: ignore[var-annotated]
        self.name = "gpu-small" if options.small else "gpu"
        if options.precision != "highest":
            self.name += f"-{options.precision}"
        self.facts = device_facts(options)
        before = options.results / f"{self.name}.json"
        if options.ways == "compiled" and before.exists():
            content = json.loads(before.read_text())
            self.rows = {row["name"]: row for row in content["rows"]}
            self.failed = content["failed"]

    def add(self, row: dict[str, Any]) -> None:
        known = self.rows.get(row["name"])
        self.rows[row["name"]] = joined(known, row) if known else row
        self.write()

    def fail(self, name: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        self.failed.append({"name": name, "error": text, "ways": self.options.ways})
        print(f"{name}: FAILED: {text}", file=sys.stderr, flush=True)
        self.write()

    def write(self) -> None:
        harness.write(
            self.name, "python -m benchmarks.gpu", list(self.rows.values()),
            folder=self.options.results, device=self.facts, failed=self.failed,
        )  # fmt: skip

    def table(self) -> str:
        """The verdicts."""
        lines = []
        for row in self.rows.values():
            best = f"{row['times_best']:.2f} x {row['best']}" if row["best"] else "no peer"
            host = row["seconds"]["fastnn"]["host"] * 1e6
            lines.append(f"{row['verdict']:5} {row['name']}: {best}; host {host:.1f} us a step")
        return "\n".join([*lines, *(f"FAILED {f['name']}: {f['error']}" for f in self.failed)])


if __name__ == "__main__":
    main()
