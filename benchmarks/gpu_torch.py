"""PyTorch's side of the GPU benchmark, in the ways its users have.

"eager" is the plain step (recurrent layers by cuDNN), with fused Adam; "reduce-overhead" is
`torch.compile` of forward, loss and backward with CUDA graphs; "graph" is the whole step, the
update included, captured by hand as one CUDA graph; "packed" is eager with a PackedSequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional


class _Recurrent(torch.nn.Module):
    def __init__(self, kind: str, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.layer = getattr(torch.nn, kind)(inputs, hidden, batch_first=True)
        self.out = torch.nn.Linear(hidden, classes)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        if lengths is None:
            return self.out(self.layer(x)[0])
        tools = torch.nn.utils.rnn
        given = tools.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = tools.pad_packed_sequence(
            self.layer(given)[0], batch_first=True, total_length=x.shape[1]
        )
        return self.out(y)


def recurrent_model(kind: str, inputs: int, hidden: int, classes: int) -> Any:
    return _Recurrent(kind, inputs, hidden, classes)


class _Attending(torch.nn.Module):
    def __init__(self, size: int, heads: int, classes: int):
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, batch_first=True)
        self.out = torch.nn.Linear(size, classes)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x))


def attending_model(size: int, heads: int, classes: int) -> Any:
    return _Attending(size, heads, classes)


class _PeepholeLayer(torch.nn.Module):
    """An LSTM whose gates see the cell, as a loop over the steps: cuDNN has none."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.weight_ih_l0 = torch.nn.Parameter(torch.empty(4 * hidden, inputs))
        self.weight_hh_l0 = torch.nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias_ih_l0 = torch.nn.Parameter(torch.empty(4 * hidden))
        self.bias_hh_l0 = torch.nn.Parameter(torch.empty(4 * hidden))
        self.weight_peephole_l0 = torch.nn.Parameter(torch.empty(3 * hidden))

    def forward(self, x: Any) -> Any:
        zx = functional.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        h = c = x.new_zeros(x.shape[0], self.hidden)
        peep_i, peep_f, peep_o = self.weight_peephole_l0.chunk(3)
        found = []
        for t in range(x.shape[1]):
            i, f, g, o = (zx[:, t] + h @ self.weight_hh_l0.t()).chunk(4, 1)
            before = c
            c = torch.sigmoid(f + peep_f * before) * before
            c = c + torch.sigmoid(i + peep_i * before) * torch.tanh(g)
            h = torch.sigmoid(o + peep_o * c) * torch.tanh(c)
            found.append(h)
        return torch.stack(found, 1)


class _Peephole(torch.nn.Module):
    def __init__(self, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.layer = _PeepholeLayer(inputs, hidden)
        self.out = torch.nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x))


def peephole_model(inputs: int, hidden: int, classes: int) -> Any:
    return _Peephole(inputs, hidden, classes)


class Peer:
    """A case's model on a device, with fastnn's parameters.

    Args:
        case: of `benchmarks.gpu_models`.
        parameters: arrays by name.
        device: PyTorch's name of the device.
        precision: fastnn's name of it; "bf16" and "fp16" are autocast's, fp16 with a scale of the
            loss (none in a captured graph, where steps can't be skipped).
    """

    def __init__(
        self, case: Any, parameters: dict[str, np.ndarray], device: str, precision: str = "highest"
    ):
        self.case, self.device = case, device
        self.half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.model = case.peer()
        self.model.load_state_dict({k: torch.from_numpy(v) for k, v in parameters.items()})
        self.model.to(device)
        self.x = [torch.from_numpy(a).to(device) for a in case.x[:1]]
        self.lengths = torch.from_numpy(case.x[1]) if len(case.x) > 1 else None
        self.y = torch.from_numpy(case.y).to(device)

    def loss(self, packed: bool = False) -> Any:
        kind, half = self.device.split(":")[0], self.half
        # no copies of weights are kept, as a captured graph has to make its own in each replay
        with torch.autocast(kind, half, enabled=half is not None, cache_enabled=False):
            scores = self.model(*self.x, self.lengths) if packed else self.model(*self.x)
            return functional.cross_entropy(scores.flatten(0, -2), self.y.flatten())

    def gradients(self) -> dict[str, np.ndarray]:
        """Gradients by the parameter's name. Steps past a sequence's length have no loss, and so
        no gradient: the padded batch has the same ones as the packed."""
        self.model.zero_grad()
        self.loss().backward()
        return {k: p.grad.cpu().numpy() for k, p in self.model.named_parameters()}

    def step(self, way: str) -> Callable[[], None]:
        """A function that does one training step with Adam."""
        cuda = self.device.startswith("cuda")
        update = torch.optim.Adam(
            self.model.parameters(), lr=1e-4, fused=True, capturable=cuda and way == "graph"
        )
        loss: Any = self.loss
        if way == "reduce-overhead":
            # without a device this is a rehearsal: traced alike, but no C++ is compiled
            options: Any = {"mode": "reduce-overhead"} if cuda else {"backend": "aot_eager"}
            loss = torch.compile(self.loss, **options)
        scaled = self.half is torch.float16 and way != "graph"
        scaler = torch.amp.GradScaler(self.device.split(":")[0], enabled=scaled)

        def run() -> None:
            if way == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            update.zero_grad(set_to_none=way != "graph")
            scaler.scale(self.loss(True) if way == "packed" else loss()).backward()
            scaler.step(update)
            scaler.update()

        if way != "graph" or not cuda:
            return run
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay
