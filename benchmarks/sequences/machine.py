"""A training step of a Neural Turing Machine."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks.sequences import xla
from benchmarks.sequences.sides import Sides
from fastnn import nn
from fastnn.nn.ntm import SMALL, START


class Ntm:
    """PyTorch's side: the parameters of an `nn.NTM` and what it computes from them."""

    def __init__(self, ours: nn.NTM):
        import torch

        self.ours = ours
        self.parameters = {
            k: torch.from_numpy(np.array(v)).requires_grad_() for k, v in ours.state_dict().items()
        }

    def __call__(self, x: Any) -> tuple[Any, Any]:
        """Outputs (batch, steps, outputs) and weightings (batch, steps, heads, slots)."""
        import torch
        from torch.nn import functional as F

        net, p = self.ours, self.parameters
        batch, heads = len(x), net.read_heads + net.write_heads
        memory = x.new_full((batch, net.slots, net.width), START)
        w = x.new_zeros(batch, heads, net.slots)
        w[:, :, 0] = 1.0
        read = x.new_zeros(batch, net.read_heads * net.width)
        h = c = x.new_zeros(batch, net.hidden_size)
        sizes = [net.width, 1, 1, 1, 2 * net.shift + 1]
        outputs, weightings = [], []
        for t in range(x.shape[1]):
            seen = torch.cat([x[:, t], read], 1)
            if net.recurrent:
                z = F.linear(seen, p["controller.weight_ih"], p["controller.bias_ih"])
                z = z + F.linear(h, p["controller.weight_hh"], p["controller.bias_hh"])
                i, f, g, o = z.chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            else:
                h = torch.tanh(F.linear(seen, p["controller.weight"], p["controller.bias"]))
            given = F.linear(h, p["heads.weight"], p["heads.bias"])
            address, written = given.split([heads * sum(sizes), net.write_heads * 2 * net.width], 1)
            key, strength, gate, sharp, shift = address.view(batch, heads, -1).split(sizes, 2)
            key, gate, shift = torch.tanh(key), torch.sigmoid(gate), torch.softmax(shift, 2)
            lengths = (memory.square().sum(2) + SMALL).sqrt()[:, None]
            size = (key.square().sum(2, keepdim=True) + SMALL).sqrt()
            along = torch.bmm(key, memory.transpose(1, 2)) / (lengths * size)
            content = torch.softmax(F.softplus(strength) * along, 2)
            w = gate * content + (1.0 - gate) * w
            w = sum(
                shift[:, :, k : k + 1] * torch.roll(w, k - net.shift, 2)
                for k in range(2 * net.shift + 1)
            )
            w = (w + SMALL) ** (1.0 + F.softplus(sharp))
            w = w / w.sum(2, keepdim=True)
            read = torch.bmm(w[:, : net.read_heads], memory).flatten(1)
            for k, parts in enumerate(written.view(batch, net.write_heads, -1).unbind(1)):
                erase, add = parts.chunk(2, 1)
                at = w[:, net.read_heads + k, :, None]
                memory = memory * (1.0 - at * torch.sigmoid(erase)[:, None])
                memory = memory + at * torch.tanh(add)[:, None]
            h_read = torch.cat([h, read], 1)
            outputs.append(F.linear(h_read, p["output.weight"], p["output.bias"]))
            weightings.append(w)
        return torch.stack(outputs, 1), torch.stack(weightings, 1)


class Outputs(nn.Module):
    """The outputs of a machine without its weightings."""

    def __init__(self, ntm: nn.NTM):
        self.ntm = ntm

    def forward(self, x: Any) -> Any:
        return self.ntm(x)[0]


def copy(threads: int, precision: str, **sizes: int) -> Sides:
    """A step with Adam; PyTorch's side is eager, a loop over the steps that computes all heads at
    once; so does JAX's, compiled."""
    import torch

    given = {"slots": 128, "width": 20, "hidden": 100, "steps": 40, "batch": 16, "bits": 8}
    slots, width, hidden, steps, batch, bits = {**given, **sizes}.values()
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (batch, steps, bits + 1)).astype(np.float32)
    y = random.integers(0, 2, (batch, steps, bits)).astype(np.float32)
    ntm = nn.NTM(bits + 1, bits, slots=slots, width=width, hidden_size=hidden)
    ntm.initialize(0)
    theirs = Ntm(ntm)
    optimizer = torch.optim.Adam(theirs.parameters.values(), lr=1e-3)
    step = fnn.compile(Outputs(ntm), "bce_with_logits", fnn.optim.Adam(lr=1e-3), workers=threads,
                       precision=precision)  # fmt: skip
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)

    def their_step() -> float:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(theirs(tx)[0], ty)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Sides({
        "fastnn": lambda: float(step(x, y)), "PyTorch": their_step,
        "JAX": xla.ntm(ntm, ntm.state_dict(), x, y),
    })  # fmt: skip
