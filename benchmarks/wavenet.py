"""Samples that a WaveNet draws in a second, side by side with PyTorch.

    python -m benchmarks.wavenet [--layers 10 --channels 32 --count 1 --samples 2000]

PyTorch's side is eager and keeps each layer's past inputs in a ring (Paine et al. 2016), as fastnn
does, so a sample costs it one step of each layer, too. Both take the likeliest samples first, from
equal parameters, which have to be equal; then each draws, on one thread, sides alternating. The
figures are processor time, by the fastest repetition.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.conv_sides import Sides, Step
from fastnn.generative import WaveNet


class Rings:
    """PyTorch's side: a net's parameters, and one step of it."""

    def __init__(self, net: WaveNet):
        import torch

        state = {k: torch.from_numpy(np.array(v)) for k, v in net.state_dict().items()}
        self.channels, self.layers, self.levels = net.channels, net.layers, net.levels
        self.dilations = [2 ** (layer % net.cycle) for layer in range(net.layers)]
        self.table = state["input.weight"]
        gates = [state[f"gates.{k}.weight"] for k in range(net.layers)]
        self.past = [gate[:, :, 0].T.contiguous() for gate in gates]
        self.now = [gate[:, :, 1].T.contiguous() for gate in gates]
        self.bias = [state[f"gates.{k}.bias"] for k in range(net.layers)]
        self.inner = [
            (state[f"residuals.{k}.weight"].T.contiguous(), state[f"residuals.{k}.bias"])
            for k in range(net.layers - 1)
        ]
        self.ends = [
            (state[f"{name}.weight"].T.contiguous(), state[f"{name}.bias"])
            for name in ("skip", "hidden", "last")
        ]

    def sample(self, samples: int, count: int, likeliest: bool = False) -> np.ndarray:
        """Levels, shape (count, samples)."""
        import torch

        c = self.channels
        rings = [torch.zeros(d, count, c) for d in self.dilations]
        units = torch.empty(count, self.layers * c)
        h = torch.zeros(count, c)
        found = torch.empty(count, samples, dtype=torch.int64)
        with torch.inference_mode():
            for t in range(samples):
                for k, dilation in enumerate(self.dilations):
                    ring = rings[k][t % dilation]
                    z = torch.addmm(torch.addmm(self.bias[k], ring, self.past[k]), h, self.now[k])
                    ring.copy_(h)
                    u = torch.tanh(z[:, :c]) * torch.sigmoid(z[:, c:])
                    units[:, k * c : (k + 1) * c] = u
                    if k < self.layers - 1:
                        weight, bias = self.inner[k]
                        h = h + torch.addmm(bias, u, weight)
                out = units
                for weight, bias in self.ends[:2]:
                    out = torch.relu(torch.addmm(bias, out, weight))
                logits = torch.addmm(self.ends[2][1], out, self.ends[2][0])
                if likeliest:
                    level = logits.argmax(1)
                else:
                    level = torch.multinomial(torch.softmax(logits, 1), 1)[:, 0]
                found[:, t] = level
                h = self.table[level]
        return found.numpy()


def net_of(channels: int, skip: int, layers: int) -> WaveNet:
    """An untrained net, with such large weights that its likeliest samples differ."""
    net = WaveNet(256, channels, skip, layers)
    net.load_state_dict({name: 3.0 * np.array(v) for name, v in net.state_dict().items()})
    return net


def drawing(channels: int, skip: int, layers: int, samples: int, threads: int) -> Sides:
    """The sides of `benchmarks.convolution`: a step draws so many samples of one sequence. What it
    returns tells the likeliest samples apart, which are the same for both."""
    net = net_of(channels, skip, layers)

    def step_of(likeliest: np.ndarray, draw: Callable[[], Any]) -> Step:
        found = float(likeliest[0] @ np.arange(1.0, likeliest.size + 1))

        def step() -> float:
            draw()
            return found

        return step

    def with_fastnn() -> Step:
        return step_of(net.sample(200, temperature=0.0), lambda: net.sample(samples))

    def with_torch() -> Step:
        import torch

        torch.set_num_threads(threads)
        rings = Rings(net)
        return step_of(rings.sample(200, 1, likeliest=True), lambda: rings.sample(samples, 1))

    return {"fastnn": with_fastnn, "eager": with_torch}


def fastest(run: Any) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main(arguments: list[str] | None = None) -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("layers", 10), ("channels", 32), ("skip", 64), ("count", 1),
                        ("samples", 2000), ("repeats", 5)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    net = net_of(a.channels, a.skip, a.layers)
    theirs = Rings(net)
    same = net.sample(200, a.count, temperature=0.0) == theirs.sample(200, a.count, likeliest=True)
    assert same.all(), "the likeliest samples differ"
    ours, peers = [], []
    net.sample(a.samples, a.count)
    for seed in range(a.repeats):
        peers.append(fastest(lambda: theirs.sample(a.samples, a.count)))
        ours.append(fastest(lambda seed=seed: net.sample(10 * a.samples, a.count, seed=seed)) / 10)
    total = a.samples * a.count
    print(f"layers {a.layers}, channels {a.channels}, sequences {a.count}: fastnn "
          f"{total / min(ours):,.0f} samples/s, PyTorch {total / min(peers):,.0f}, "
          f"ratio {min(peers) / min(ours):.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
