"""Convolutional and generative nets: a whole step with Adam, side by side with PyTorch and JAX.

    python -m benchmarks.convolution --threads 1 [--only lenet-32,dcgan] [--processor-time]

For each net: the first steps' losses, equal to within rounding (of nets that draw random numbers,
to within what the draws change); then time, sides alternating: PyTorch eager, eager with channels
last, by `torch.compile`, and JAX, one program; the share of the multiply-add peak; and the memory
that training adds to a process, by its largest resident size, for fastnn and eager PyTorch.
"generation" is WaveNet's, 4,000 samples one after the other (`benchmarks.wavenet`).

`python -m benchmarks.run --only convolution` does all of it on one and on two threads, each tied to
as many cores, so that JAX has no more threads than the others.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import conv_generative, conv_nets, conv_sides, harness, wavenet
from benchmarks.conv_sides import Sides, Step
from benchmarks.limits import fma_peak


class Workload(NamedTuple):
    """A row of the table.

    Args:
        sides: for a number of threads, the makers of the sides.
        work: multiply-adds of a step.
        close: how close losses are, relatively.
        whole: makers of the sides whose memory is measured, if others.
    """

    sides: Callable[[int], Sides]
    work: int
    close: float = 1e-3
    whole: Callable[[int], Sides] | None = None


def _classifier(layers: list[Any], shape: tuple[int, ...], classes: int, batch: int) -> Workload:
    return Workload(
        lambda threads: conv_sides.classifier(layers, shape, classes, batch, threads),
        batch * conv_nets.step_work(layers, shape),
    )


def _convolution(c: int, k: int, side: int, batch: int) -> Workload:
    return Workload(
        lambda threads: conv_sides.convolution((c, k, side), batch, threads),
        3 * batch * side * side * 9 * c * k,
        whole=lambda threads: conv_sides.whole_convolution((c, k, side), batch, threads),
    )


def _wavenet(channels: int, skip: int, layers: int, samples: int, batch: int) -> Workload:
    return Workload(
        lambda threads: conv_generative.wavenet(channels, skip, layers, samples, batch, threads),
        batch * samples * conv_generative.wavenet_work(channels, skip, layers),
    )


def _generation(channels: int, skip: int, layers: int, samples: int) -> Workload:
    return Workload(
        lambda threads: wavenet.drawing(channels, skip, layers, samples, threads),
        samples * conv_generative.wavenet_work(channels, skip, layers) // 3,
    )


def _vae(inputs: int, hidden: int, latent: int, batch: int) -> Workload:
    work = sum(
        3 * sum(conv_nets.work(part, (part[0][1],)))
        for part in conv_generative.vae_layers(inputs, hidden, latent)
    )
    return Workload(
        lambda threads: conv_generative.vae(inputs, hidden, latent, batch, threads),
        batch * (work - inputs * hidden), 0.02,
    )  # fmt: skip


def _dcgan(channels: tuple[int, int], latent: int, batch: int) -> Workload:
    return Workload(
        lambda threads: conv_generative.dcgan(channels, latent, batch, threads),
        batch * conv_generative.gan_work(channels, latent), 0.05,
    )  # fmt: skip


WORKLOADS = {
    "lenet-32": _classifier(conv_nets.LENET, (1, 28, 28), 10, 32),
    "lenet-128": _classifier(conv_nets.LENET, (1, 28, 28), 10, 128),
    "3x3-32-64": _convolution(32, 64, 28, 32),
    "3x3-64-128": _convolution(64, 128, 14, 32),
    "keyword": _classifier(conv_nets.keyword(), (1, 49, 10), 12, 32),
    "raw-audio": _classifier(conv_nets.raw_audio(), (1, 1, 8000), 10, 32),
    "wavenet": _wavenet(32, 64, 10, 4000, 4),
    "generation": _generation(32, 64, 10, 4000),
    "vae": _vae(784, 400, 20, 128),
    "dcgan": _dcgan((64, 128), 100, 64),
}


def compare(steps: dict[str, Step], close: float, count: int = 2) -> None:
    """Raise AssertionError unless all sides have the same losses."""
    losses = {name: [step() for _ in range(count)] for name, step in steps.items()}
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses["fastnn"], rtol=close, err_msg=name)


def _turns(step: Step) -> harness.Side:
    def many(count: int) -> None:
        for _ in range(count):
            step()

    return many


def resident(word: str) -> int:
    """Bytes of this process by /proc: "VmRSS" now, "VmHWM" at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(word):
            return int(line.split()[1]) * 1024
    return 0


def memory_of(workload: Workload, side: str) -> int:
    """Bytes that a side's net, its optimiser and three steps add to this process."""
    sides = (workload.whole or workload.sides)(1)
    for library in ("eager", side):  # PyTorch draws the weights of both
        conv_sides.warm(library)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest size from here on
    step = sides[side]()
    for _ in range(3):
        step()
    return resident("VmHWM") - before


def _memory(name: str, side: str) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    command = [sys.executable, "-m", "benchmarks.convolution", "--memory", f"{name},{side}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(found.stdout)


def measure(
    name: str, threads: int, turns: int, budget: float, without: set[str], clock: Any
) -> dict[str, Any]:
    workload = WORKLOADS[name]
    makers = {n: m for n, m in workload.sides(threads).items() if n not in without}
    steps = {side: make() for side, make in makers.items()}
    compare(steps, workload.close)
    times = harness.alternate(
        {n: _turns(s) for n, s in steps.items()}, turns, budget, clock=clock
    )  # fmt: skip
    mine = times["fastnn"]["minimum"]
    best = min((t["minimum"], n) for n, t in times.items() if n != "fastnn")
    return {
        "workload": name, "threads": threads, "seconds": times, "best": best[1],
        "ratio": best[0] / mine, "gflops": 2 * workload.work / mine / 1e9,
        "memory": {side: _memory(name, side) for side in ("fastnn", "eager")},
    }  # fmt: skip


def table(rows: list[dict[str, Any]], peak: float) -> str:
    shown = []
    for row in rows:
        times = {n: f"{1e3 * t['minimum']:.2f}" for n, t in row["seconds"].items()}
        memory = [m and f"{m / 2**20:.0f}" for m in row["memory"].values()]
        shown.append({
            "net": row["workload"], "fastnn ms": times.pop("fastnn"),
            **{n: times.get(n, "-") for n in ("eager", "channels last", "compiled", "JAX")},
            "x best": f"{row['ratio']:.2f}", "GFLOP/s": f"{row['gflops']:.0f}",
            "of peak": f"{row['gflops'] / peak / row['threads']:.0%}",
            "MiB, PyTorch's": " / ".join(str(m) for m in memory),
        })  # fmt: skip
    return harness.table(shown, list(shown[0]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for each side")
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--without", default="", help="sides, as compiled,JAX")
    parser.add_argument("--processor-time", action="store_true", help="where other work is done")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        name, side = options.memory.split(",")
        print(memory_of(WORKLOADS[name], side))
        return
    clock = time.process_time if options.processor_time else time.perf_counter
    rows = []
    for name in options.only.split(","):
        rows.append(measure(name, options.threads, options.turns, options.budget,
                            set(options.without.split(",")), clock))  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    peak = fma_peak()
    print(table(rows, peak))
    if set(options.only.split(",")) == set(WORKLOADS):
        command = "python -m benchmarks.convolution " + " ".join(arguments or sys.argv[1:])
        harness.write(f"convolution-{options.threads}", command, rows, peak=peak)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
