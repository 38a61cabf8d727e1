"""Training steps of a convolutional net on raw samples, side by side with PyTorch.

    python -m benchmarks.raw_audio --threads 1 [--channels 64,64,128,256] [--processor-time]

Four convolutions (80 taps at stride 4, then three of 3), each with batch normalisation, ReLU and
the maxima of four; the average over time, a linear layer, cross-entropy, Adam. From equal
parameters the losses of five steps are compared first. PyTorch's side is eager, once as images of
one line with channels last, once with `Conv1d`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness
from fastnn import nn, ops, optim

CLASSES, TAPS, STRIDE = 10, 80, 4
Channels = tuple[int, ...]


class Net(nn.Module):
    """fastnn's side; its parameters are called as those of `torch_net`."""

    def __init__(self, channels: Channels):
        layers = [nn.Conv1d(1, channels[0], TAPS, STRIDE)]
        layers += [nn.Conv1d(a, b, 3) for a, b in itertools.pairwise(channels)]
        self.convolutions = nn.ModuleList(layers)
        self.norms = nn.ModuleList([nn.BatchNorm1d(c) for c in channels])
        self.pool, self.average = nn.MaxPool1d(4), nn.GlobalAvgPool1d()
        self.out = nn.Linear(channels[-1], CLASSES)

    def forward(self, x: Any) -> Any:
        x = ops.reshape(x, x.shape[0], 1, -1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.pool(ops.relu(norm(convolution(x))))
        return self.out(self.average(x))


def torch_net(channels: Channels, lines: bool) -> Any:
    """PyTorch's side: on lines of images, channels last, or on sequences."""
    import torch

    def layer(a: int, b: int, taps: int, stride: int = 1) -> Any:
        if lines:
            return torch.nn.Conv2d(a, b, (1, taps), (1, stride))
        return torch.nn.Conv1d(a, b, taps, stride)

    pool: Callable[..., Any] = torch.nn.functional.max_pool1d
    if lines:

        def pool(x: Any, size: int) -> Any:
            return torch.nn.functional.max_pool2d(x, (1, size))

    class Theirs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            layers = [layer(1, channels[0], TAPS, STRIDE)]
            layers += [layer(a, b, 3) for a, b in itertools.pairwise(channels)]
            self.convolutions = torch.nn.ModuleList(layers)
            norm = torch.nn.BatchNorm2d if lines else torch.nn.BatchNorm1d
            self.norms = torch.nn.ModuleList([norm(c) for c in channels])
            self.out = torch.nn.Linear(channels[-1], CLASSES)

        def forward(self, x: Any) -> Any:
            x = x[:, None, None] if lines else x[:, None]
            if lines:
                x = x.contiguous(memory_format=torch.channels_last)
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                x = pool(torch.relu(norm(convolution(x))), 4)
            return self.out(x.flatten(2).mean(2))

    made = Theirs()
    return made.to(memory_format=torch.channels_last) if lines else made


def sides(
    channels: Channels, batch: int, samples: int, threads: int
) -> dict[str, Callable[[], float]]:
    """Functions that make a training step and return its loss, all from equal parameters."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, samples)).astype(np.float32)
    y = rng.integers(0, CLASSES, batch)
    plain, lined = torch_net(channels, False), torch_net(channels, True)
    state = {name: value.detach().clone() for name, value in plain.state_dict().items()}
    lined.load_state_dict(
        {n: v[:, :, None] if v.ndim == 3 else v for n, v in state.items()}
    )  # fmt: skip
    ours = Net(channels)
    ours.load_state_dict({n: v.numpy() for n, v in state.items() if "num_batches" not in n})
    step = fnn.compile(ours, "cross_entropy", optim.Adam(lr=1e-3), workers=threads)

    def stepping(net: Any) -> Callable[[], float]:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        inputs, targets = torch.tensor(x), torch.tensor(y)

        def one() -> float:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return one

    return {
        "fastnn": lambda: float(step(x, y)), "PyTorch, channels last": stepping(lined),
        "PyTorch, Conv1d": stepping(plain),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", default="64,64,128,256")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for each side")
    parser.add_argument("--processor-time", action="store_true", help="where other work is done")
    options = parser.parse_args(arguments)
    channels = tuple(int(c) for c in options.channels.split(","))
    steps = sides(channels, options.batch, options.samples, options.threads)
    losses = {name: [step() for _ in range(5)] for name, step in steps.items()}
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses["fastnn"], rtol=1e-3, err_msg=name)

    def turns(step: Callable[[], float]) -> harness.Side:
        def many(count: int) -> None:
            for _ in range(count):
                step()

        return many

    clock = time.process_time if options.processor_time else time.perf_counter
    times = harness.alternate(
        {name: turns(step) for name, step in steps.items()}, options.turns, options.budget,
        clock=clock,
    )  # fmt: skip
    for name, found in times.items():
        print(f"{name:<24} {1e3 * found['median']:8.2f} ms, at least {1e3 * found['minimum']:8.2f}")
    if arguments is None:
        mine = times["fastnn"]["median"]
        rows = [{"row": name, **t, "ratio": t["median"] / mine} for name, t in times.items()]
        command = f"python -m benchmarks.raw_audio --threads {options.threads}"
        harness.write(f"raw_audio-{options.threads}", command, rows)
    return times


if __name__ == "__main__":
    main()
