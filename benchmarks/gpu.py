"""Whole training steps and single kernels on a GPU, beside PyTorch: first checked, then timed.

    python -m benchmarks.gpu [--only LSTM] [--turns 20]
    python -m benchmarks.gpu --ways quick       (without torch.compile, which takes long)
    python -m benchmarks.gpu --ways compiled    (torch.compile alone, put with the rows there are)
    python -m benchmarks.gpu --device cpu --small    (tries the program out; times mean nothing)

Gradients are compared with PyTorch's before anything is timed. Times are taken with events on the
device, sides in turn, everything warmed up; TF32 is off on both sides unless --tf32 says otherwise.
The host's time is what the process takes of its CPUs to send a step, without waiting for it. Each
row has a verdict: how many times faster than the best of PyTorch's ways, and whether all goals are
met. Results are written after every row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import gpu_models, harness
from fastnn import nn, optim
from fastnn.engine.arrays import as_arrays
from fastnn.engine.update import Objective, add_updates
from fastnn.kernels import control_block
from fastnn.nn.parameter import Parameter
from fastnn.train.build import StepBuilder

Run = Callable[[int], None]
#: steps that one learning-rate table and data order serve
MOST = 4000
#: largest relative difference of a gradient, by the largest gradient of the array
AGREE = 2e-4


class Timer:
    """Seconds of so many steps, by events on the device (a clock on the CPU)."""

    def __init__(self, device: str):
        self.cuda = device != "cpu"
        if self.cuda:
            import torch

            self.torch = torch

    def __call__(self, side: Side, steps: int) -> float:
        if not self.cuda:
            start = time.perf_counter()
            side.run(steps)
            return (time.perf_counter() - start) / steps
        begin, end = side.events()
        side.record(begin)
        side.run(steps)
        side.record(end)
        return side.between(begin, end) / steps


#: the ways that `--ways compiled` takes
COMPILED = ("reduce-overhead", "compile")


class Side:
    """Something that is timed on PyTorch's stream."""

    def __init__(self, step: Callable[[], None]):
        self.step = step

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def events(self) -> tuple[Any, Any]:
        import torch

        torch.cuda.synchronize()
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def record(self, event: Any) -> None:
        event.record()

    def between(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


class Ours(Side):
    """A bound program of fastnn's, on its own stream."""

    def __init__(self, session: Any, bound: Any):
        self.session, self.bound = session, bound

    def run(self, steps: int) -> None:
        """Send so many steps; the clock begins anew."""
        session = self.session
        session.control[[control_block.CURSOR, control_block.RUN_STEP, control_block.STOP]] = 0
        if session.device == "cpu":
            session.run([(self.bound, steps)], lambda: None)
            return
        session.runtime.device_control.forget()
        session.runtime.acquire([self.bound])
        for _ in range(steps):
            self.bound.launch()

    def events(self) -> tuple[Any, Any]:
        gpu = self.session.runtime.gpu
        gpu.sync()
        options = gpu.core.EventOptions(timing_enabled=True)
        return tuple(gpu.stream.device.create_event(options) for _ in range(2))  # type: ignore[return-value]

    def record(self, event: Any) -> None:
        self.session.runtime.gpu.stream.record(event)

    def between(self, begin: Any, end: Any) -> float:
        end.sync()
        return float(end - begin) / 1e3


def timed(sides: dict[str, Side], timer: Timer, turns: int, budget: float) -> dict[str, Any]:
    """Median and minimum seconds of a step; sides take turns."""
    steps = {}
    for name, side in sides.items():
        side.run(5)
        once = min(timer(side, 3) for _ in range(3))
        steps[name] = max(3, min(MOST - 8, int(budget / turns / max(once, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            times[name].append(timer(side, steps[name]))
    return {
        n: {"median": statistics.median(t), "minimum": min(t), "host": host(sides[n], timer)}
        for n, t in times.items()
    }


def host(side: Side, timer: Timer, steps: int = 20) -> float:
    """Seconds of this process's CPUs to send a step: the least of three turns."""
    found = []
    for _ in range(3):
        if timer.cuda:
            side.events()  # waits until there is nothing to do
        start = time.process_time()
        side.run(steps)
        found.append((time.process_time() - start) / steps)
    return min(found)


# -------------------------------------------------------------------- training steps


def ours(case: Any, device: str, model: nn.Module, tf32: bool) -> Ours:
    """The whole training step: gather, forward, backward, Adam."""
    loss = nn.CrossEntropyLoss(ignore_index=-100 if len(case.x) > 1 else None)
    trainer = fnn.Trainer(model, loss, optim.Adam(lr=1e-4), device=device, tf32=tf32)
    x = as_arrays(case.x if len(case.x) > 1 else case.x[0], "x", "inputs")
    y = as_arrays(case.y, "y", "targets")
    session = trainer.session
    for name, source in {**x.sources(), **y.sources()}.items():
        session.set(name, source)
    session.set("order", np.tile(np.arange(len(x)), MOST))
    session.set("schedule", np.full((MOST, 1), 1e-4))
    built = trainer.built(x.specs, y.specs, len(x), "gather")
    return Ours(session, session.bind(built.program))


def disagreement(case: Any, device: str, model: nn.Module, peer: Any, tf32: bool) -> float:
    """The largest relative difference of a gradient from PyTorch's."""
    loss = nn.CrossEntropyLoss(ignore_index=-100 if len(case.x) > 1 else None)
    step = fnn.compile(model, loss, "sgd", device=device, tf32=tf32)
    mine = step.gradients(case.x if len(case.x) > 1 else case.x[0], case.y)
    theirs = peer.gradients()
    assert set(mine) == set(theirs), set(mine) ^ set(theirs)
    return max(
        float(np.abs(mine[n] - g).max() / max(np.abs(g).max(), 1e-30)) for n, g in theirs.items()
    )


def training_step(case: Any, options: Any, timer: Timer) -> dict[str, Any]:
    from benchmarks import gpu_torch

    model = case.model()
    model.store("float32", 0)
    parameters = model.state_dict()
    worst = disagreement(
        case, options.device, model, gpu_torch.Peer(case, parameters, options.device), options.tf32
    )
    assert worst < (AGREE if not options.tf32 else 2e-2), f"{case.name}: gradients differ: {worst}"
    sides: dict[str, Side] = {"fastnn": ours(case, options.device, model, options.tf32)}
    failed = {}
    for way in chosen(case.ways, options):
        try:
            step = gpu_torch.Peer(case, parameters, options.device).step(way)
            step()
            sides[way] = Side(step)
        except Exception as error:  # a way that this PyTorch can't go is said, not hidden
            failed[way] = f"{type(error).__name__}: {error}".splitlines()[0]
    return finish(case.name, sides, case.goal, options, timer, difference=worst, failed=failed)


def finish(
    name: str, sides: dict[str, Side], goal: dict[str, float], options: Any, timer: Timer,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    times = timed(sides, timer, options.turns, options.budget)
    mine = times["fastnn"]["median"]
    ratios = {n: t["median"] / mine for n, t in times.items() if n != "fastnn"}
    row = {"name": name, "seconds": times, "ratios": ratios, "goal": goal, **more}
    judge(row)
    print(line(row), file=sys.stderr, flush=True)
    return row


def chosen(ways: Sequence[str], options: Any) -> list[str]:
    """Those of a row's ways that are taken now."""
    if options.ways == "all":
        return list(ways)
    return [way for way in ways if (way in COMPILED) == (options.ways == "compiled")]


def judge(row: dict[str, Any]) -> None:
    """The verdict: against the best way there is, and against each goal. (A copy of memory is a
    yardstick, and no peer.)"""
    peers = {n: r for n, r in row["ratios"].items() if n != "copy"}
    row["best"] = min(peers, key=lambda n: peers[n]) if peers else None
    row["times_best"] = peers[row["best"]] if peers else None
    missing = [n for n in row["goal"] if n not in peers]
    short = [n for n, goal in row["goal"].items() if n in peers and peers[n] < goal]
    row["verdict"] = "short" if short else "open" if missing or not peers else "met"


def joined(row: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A row and what another turn has found of the same: ratios were taken against fastnn in the
    same turn, each."""
    found = {**row, "ratios": {**row["ratios"], **more["ratios"]}}
    found["seconds"] = {**more["seconds"], **row["seconds"]}
    found["failed"] = {**row.get("failed", {}), **more.get("failed", {})}
    judge(found)
    return found


def line(row: dict[str, Any]) -> str:
    times = ", ".join(f"{n} {t['median'] * 1e6:,.1f}" for n, t in row["seconds"].items())
    goals = ", ".join(
        f"{row['ratios'][n]:.2f} x {n} (goal {g})" if n in row["ratios"] else f"no {n}"
        for n, g in row["goal"].items()
    )
    failed = "".join(f"; {n} failed: {e}" for n, e in row.get("failed", {}).items())
    host = ", ".join(f"{n} {t['host'] * 1e6:,.1f}" for n, t in row["seconds"].items())
    best = f"{row['times_best']:.2f} x the best, {row['best']}" if row["best"] else "no peer"
    verdict = f"{best}: {row['verdict']}{failed}"
    return f"{row['name']}: median us {times}; host us {host}; {goals}; {verdict}"


# -------------------------------------------------------------------- single kernels


def program(
    device: str, fill: Callable[[StepBuilder], None], size: int = 1, tf32: bool = False
) -> Ours:
    """A program of the calls that `fill` adds."""
    from fastnn.engine.session import Session

    class Flat(nn.Module):
        def __init__(self) -> None:
            self.w = Parameter((size,))

    model = Flat()
    store = model.store()
    session = Session(store, ("exp_avg", "exp_avg_sq"), 1, "auto", device)
    session.set("schedule", np.full((MOST, 1), 1e-4))
    builder = StepBuilder(model, store, 1, True, "direct", session.runtime.kind, tf32)
    fill(builder)
    return Ours(session, session.bind(builder.finish().program))


def sgemm(n: int, options: Any, timer: Timer) -> dict[str, Any]:
    """y = x w, all of n by n."""
    import torch

    from fastnn import ops

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n, n)).astype(np.float32)

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        x = graph.value((n, n), segment="input", name="x")
        w = graph.value((n, n), segment="input", name="w")
        builder.places.update({"x": x, "w": w, "y": ops.linear(x, w)})

    side = program(options.device, fill, tf32=options.tf32)
    side.bound.write("x", a)
    side.bound.write("w", b)
    side.run(1)
    x, w = (torch.from_numpy(v).to(options.device) for v in (a, b))
    want = (x @ w).cpu().numpy()
    worst = float(np.abs(side.bound.view("y") - want).max() / np.abs(want).max())
    assert worst < (1e-5 if not options.tf32 else 1e-2), f"sgemm {n}: {worst}"
    sides = {"fastnn": side, "cuBLAS": Side(lambda: torch.matmul(x, w))}
    row = finish(f"sgemm {n}", sides, {"cuBLAS": 0.7}, options, timer, difference=worst)
    row["tflops"] = 2 * n**3 / row["seconds"]["fastnn"]["median"] / 1e12
    return row


def adam(count: int, options: Any, timer: Timer) -> dict[str, Any]:
    """One update of so many parameters, beside `fused=True` and beside a copy."""
    import torch

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        (parameter,) = builder.store.parameters.values()
        leaf = graph.leaf(parameter, (count,), "params", offset=0, name="w")
        gradient = graph.value((count,), segment="input", name="dw")
        update = optim.Adam(lr=1e-4)
        objective = Objective(leaf, {"w": parameter}, update)
        add_updates(builder.lowered, builder.store, objective, {"w": leaf}, {"w": gradient}, False)

    side = program(options.device, fill, count)
    weight = torch.zeros(count, device=options.device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    update = torch.optim.Adam([weight], lr=1e-4, fused=True)
    source, target = torch.zeros((2, count), device=options.device)
    sides = {
        "fastnn": side, "fused=True": Side(update.step), "copy": Side(lambda: target.copy_(source)),
    }  # fmt: skip
    row = finish(f"Adam {count:,}", sides, {"fused=True": 1.0}, options, timer)
    seconds = row["seconds"]
    row["bandwidth"] = 28.0 * count / seconds["fastnn"]["median"]
    row["of_copy"] = row["bandwidth"] / (8.0 * count / seconds["copy"]["median"])
    return row


def cross_entropy(classes: int, options: Any, timer: Timer) -> dict[str, Any]:
    """Softmax, cross-entropy and the gradient to the scores."""
    import torch
    from torch.nn import functional

    from fastnn.graph.gradient import differentiate

    rows = 4096
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((rows, classes)).astype(np.float32)
    targets = rng.integers(0, classes, rows)

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        x = graph.value((rows, classes), segment="input", name="x")
        y = graph.value((rows,), "i", segment="input", name="y")
        loss = builder.loss(nn.CrossEntropyLoss(), (x,), (y,))
        (dx,) = differentiate(graph, loss, [x])
        assert dx is not None
        builder.places.update({"x": x, "y": y, "dx": dx})

    side = program(options.device, fill)
    side.bound.write("x", scores)
    side.bound.write("y", targets)
    side.run(1)
    x = torch.from_numpy(scores).to(options.device).requires_grad_()
    y = torch.from_numpy(targets).to(options.device)

    def both() -> None:
        x.grad = None
        functional.cross_entropy(x, y).backward()

    both()
    want = x.grad.cpu().numpy()
    worst = float(np.abs(side.bound.view("dx") - want).max() / np.abs(want).max())
    assert worst < 1e-5, f"cross-entropy {classes}: {worst}"
    sides: dict[str, Side] = {"fastnn": side}
    if "eager" in chosen(("eager", "compile"), options):
        sides["eager"] = Side(both)
    if "compile" in chosen(("eager", "compile"), options):
        compiled = torch.compile(both) if options.device != "cpu" else both
        compiled()
        sides["compile"] = Side(compiled)
    name = f"softmax + cross-entropy, {rows} rows, V={classes}"
    return finish(name, sides, {"eager": 1.5}, options, timer, difference=worst)


# -------------------------------------------------------------------- all of it


def device_facts(options: Any) -> dict[str, Any]:
    import torch

    found = {"device": options.device, "torch": torch.__version__, "tf32": options.tf32}
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
    parser.add_argument("--tf32", action="store_true", help="TF32 on both sides")
    parser.add_argument("--ways", choices=("all", "quick", "compiled"), default="all")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    import torch

    if options.device != "cpu" and not fnn.cuda.is_available():
        sys.exit(f"CUDA cannot be used here: {fnn.cuda.reason()}")
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.backends.cudnn.allow_tf32 = options.tf32
    timer = Timer(options.device)
    jobs: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (case.name, lambda case=case: training_step(case, options, timer))  # type: ignore[misc]
        for case in gpu_models.cases(options.small)
    ]
    sizes = (64, 96) if options.small else (1024, 2048, 4096, 8192)
    counts = (1000,) if options.small else (10_000_000, 100_000_000)
    classes = (32,) if options.small else (32, 256, 1000, 10_000)
    if options.ways != "compiled":  # nothing of these is compiled
        jobs += [(f"sgemm {n}", lambda n=n: sgemm(n, options, timer)) for n in sizes]  # type: ignore[misc]
        jobs += [(f"Adam {n:,}", lambda n=n: adam(n, options, timer)) for n in counts]  # type: ignore[misc]
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
        self.name = "gpu-small" if options.small else "gpu-tf32" if options.tf32 else "gpu"
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
