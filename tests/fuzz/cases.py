"""Random models, each written once and run twice: by fastnn and by PyTorch.

A case is drawn from a seed: sizes, float type, inputs, what the model is made of, loss. `Ours` and
`Theirs` give the model's program the same functions; every decision is made by a generator that
begins anew for each run, so both run the same model, and PyTorch takes fastnn's parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fastnn as fnn
from fastnn import nn, ops

F = torch.nn.functional
SIZES = (1, 1, 2, 3, 5, 8, 16, 17, 33)
UNARY = ("tanh", "sigmoid", "relu", "gelu", "softmax", "elu", "silu", "softplus", "square")
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Ours:
    """The functions that programs are written with, by fastnn."""

    def __init__(self, model: nn.Module):
        self.model = model

    def layer(self, name: str, make: Callable[[], nn.Module]) -> Any:
        if not hasattr(self.model, name):
            setattr(self.model, name, make())
        return getattr(self.model, name)

    def linear(self, name: str, x: Any, size: int) -> Any:
        return self.layer(name, lambda: nn.Linear(x.shape[-1], size))(x)

    def norm(self, name: str, x: Any) -> Any:
        return self.layer(name, lambda: nn.LayerNorm(x.shape[-1]))(x)

    def embedding(self, name: str, ids: Any, count: int, size: int) -> Any:
        return self.layer(name, lambda: nn.Embedding(count, size))(ids)

    def unary(self, kind: str, x: Any) -> Any:
        return getattr(ops, kind)(x)

    def concatenate(self, *parts: Any) -> Any:
        return ops.concatenate(*parts)

    def columns(self, x: Any, begin: int, end: int) -> Any:
        return ops.columns(x, begin, end)

    def cell(self, name: str, kind: str, x: Any, state: Any, size: int) -> Any:
        return self.layer(name, lambda: CELLS[kind](x.shape[-1], size))(x, state)

    def recurrent(self, name: str, kind: str, x: Any, size: int, both: bool, lengths: Any) -> Any:
        def make() -> nn.Module:
            return LAYERS[kind](x.shape[-1], size, bidirectional=both)

        return self.layer(name, make)(x, lengths=lengths)[0]

    def zeros(self, x: Any, size: int) -> Any:
        return ops.zeros_state(x, size)

    def loop(self, step: Callable[..., Any], x: Any, state: Any, lengths: Any) -> Any:
        return ops.loop(step, x, state, lengths=lengths)


class Theirs:
    """The same functions by PyTorch, with fastnn's parameters."""

    def __init__(self, parameters: dict[str, Any]):
        self.parameters = parameters

    def linear(self, name: str, x: Any, size: int) -> Any:
        return F.linear(x, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"])

    def norm(self, name: str, x: Any) -> Any:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return F.layer_norm(x, (x.shape[-1],), weight, bias)

    def embedding(self, name: str, ids: Any, count: int, size: int) -> Any:
        return F.embedding(ids, self.parameters[f"{name}.weight"])

    def unary(self, kind: str, x: Any) -> Any:
        if kind == "softmax":
            return torch.softmax(x, -1)
        return getattr(F if kind in ("elu", "gelu", "silu", "softplus") else torch, kind)(x)

    def concatenate(self, *parts: Any) -> Any:
        return torch.cat(parts, -1)

    def columns(self, x: Any, begin: int, end: int) -> Any:
        return x[..., begin:end]

    def cell(self, name: str, kind: str, x: Any, state: Any, size: int) -> Any:
        weights = [
            self.parameters[f"{name}.{part}"]
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        if kind == "lstm":
            return torch.lstm_cell(x, state, *weights)
        return (torch.gru_cell if kind == "gru" else torch.rnn_tanh_cell)(x, state, *weights)

    def recurrent(self, name: str, kind: str, x: Any, size: int, both: bool, lengths: Any) -> Any:
        layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](
            x.shape[-1], size, bidirectional=both, batch_first=True, dtype=x.dtype
        )
        own = {n: self.parameters[f"{name}.{n}"] for n, _ in layer.named_parameters()}
        steps = x.shape[1]
        if lengths is None:
            return torch.func.functional_call(layer, own, (x,))[0]
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        y = torch.func.functional_call(layer, own, (packed,))[0]
        return torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=steps)[0]

    def zeros(self, x: Any, size: int) -> Any:
        return torch.zeros(x.shape[0], size, dtype=self.parameters["head.weight"].dtype)

    def loop(self, step: Callable[..., Any], x: Any, state: Any, lengths: Any) -> Any:
        rows: list[Any] = []
        for t in range(x.shape[1]):
            y, new = step(x[:, t], state)
            if lengths is not None:
                there = (t < lengths)[:, None]
                y = torch.where(there, y, 0.0)
                pairs = zip(state, new, strict=True) if isinstance(new, tuple) else [(state, new)]
                kept = tuple(torch.where(there, b, a) for a, b in pairs)
                new = kept if isinstance(new, tuple) else kept[0]
            rows.append(y)
            state = new
        return torch.stack(rows, 1), state


class Case:
    """A model with its data, all drawn from a seed."""

    def __init__(self, seed: int):
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.dtype = str(rng.choice(["float32", "float64"]))
        self.kind = str(rng.choice(["flat", "layer", "cell", "body", "body"]))
        self.batch, self.steps, self.features, self.outside, self.classes = (
            int(n) for n in (rng.choice(SIZES), rng.choice((1, 2, 3, 5, 9)), rng.choice(SIZES),
                             rng.choice(SIZES[:-1]), rng.choice((2, 3, 5, 17)))
        )  # fmt: skip
        self.sequence = self.kind != "flat"
        self.ids = bool(rng.integers(2))
        lead = (self.batch, self.steps) if self.sequence else (self.batch,)
        if self.ids:
            x = rng.integers(0, 7, lead)
        else:
            x = rng.normal(size=(*lead, self.features)).astype(self.dtype)
        self.arrays = [x, rng.normal(size=(self.batch, self.outside)).astype(self.dtype)]
        self.lengths = self.sequence and bool(rng.integers(2))
        if self.lengths:
            self.arrays.append(rng.integers(1, self.steps + 1, self.batch))
        self.last = self.sequence and bool(rng.integers(2))
        self.loss = str(rng.choice(["class", "class", "mse", "l1", "huber"]))
        rows = lead[:1] if self.last or not self.sequence else lead
        if self.loss == "class":
            self.y = rng.integers(0, self.classes, rows)
            self.weight = rng.uniform(0.1, 2, self.classes) if rng.integers(2) else None
            self.smoothing = float(rng.choice([0.0, 0.1]))
            self.ignored = bool(rng.integers(2))
            if self.ignored:
                self.y[rng.random(rows) < 0.3] = 0
        else:
            self.y = rng.normal(size=(*rows, self.classes)).astype(self.dtype)
        self.reduction = str(rng.choice(["mean", "sum"]))
        self.draws = int(rng.integers(1 << 31))

    # ---------------------------------------------------------------- the model

    def program(self, by: Any, x: Any, c: Any, lengths: Any = None) -> Any:
        """The outputs, by fastnn's or PyTorch's functions."""
        rng = np.random.default_rng(self.draws)
        if self.ids:
            x = by.embedding("embedding", x, 7, self.features)
        if self.kind == "flat":
            y = self.network(by, rng, [x, c], "net", int(rng.integers(2, 9)))
        else:
            y = self.over_time(by, rng, x, c, lengths)
        return by.linear("head", y, self.classes)

    def network(self, by: Any, rng: Any, values: list[Any], name: str, count: int) -> Any:
        """A few functions of the values so far, one after the other; the last one's result."""
        for k in range(count):
            kind = str(rng.choice(
                ["linear", "unary", "unary", "norm", "add", "multiply", "concatenate", "columns"]
            ))  # fmt: skip
            a, b = (values[int(rng.integers(len(values)))] for _ in range(2))
            size, function = int(rng.choice(SIZES)), str(rng.choice(UNARY))
            if kind in ("add", "multiply") and a.shape[-1] != b.shape[-1]:
                b = by.linear(f"{name}{k}_fit", b, a.shape[-1])
            if kind == "linear":
                y = by.linear(f"{name}{k}", a, size)
            elif kind == "unary":
                y = by.unary(function, a)
            elif kind == "norm" and a.shape[-1] > 2:
                y = by.norm(f"{name}{k}", a)
            elif kind == "add":
                y = a + b
            elif kind == "multiply":
                y = by.unary("tanh", a) * b
            elif kind == "columns":
                begin = size % a.shape[-1]
                y = by.columns(a, begin, begin + 1 + (a.shape[-1] - begin - 1) // 2)
            else:
                y = by.concatenate(a, b)
            values.append(y)
        return values[-1]

    def over_time(self, by: Any, rng: Any, x: Any, c: Any, lengths: Any) -> Any:
        size, kind = int(rng.choice(SIZES)), str(rng.choice(list(CELLS)))
        if self.kind == "layer":
            y = by.recurrent("layer", kind, x, size, bool(rng.integers(2)), lengths)
            last = y[:, 0] if isinstance(by, Theirs) else ops.reshape(
                ops.columns(ops.reshape(y, y.shape[0], y.shape[1] * y.shape[2]), 0, y.shape[2]),
                y.shape[0], y.shape[2],
            )  # fmt: skip
            return last if self.last else y
        zeros = by.zeros(x, size)
        outside = by.linear("begin", c, size) if rng.integers(2) else zeros
        if self.kind == "cell":

            def step(x_t: Any, state: Any) -> Any:
                state = by.cell("cell", kind, x_t, state, size)
                return (state[0] if kind == "lstm" else state), state

            state = (outside, zeros) if kind == "lstm" else outside
        else:
            draws, count = int(rng.integers(1 << 31)), int(rng.integers(1, 8))
            two = bool(rng.integers(2))

            def step(x_t: Any, state: Any) -> Any:
                inner = np.random.default_rng(draws)
                states = list(state) if two else [state]
                values = [x_t, *states, c]
                y = self.network(by, inner, values, "body", count)
                new = []
                for k, old in enumerate(states):
                    way, source = inner.integers(4), values[int(inner.integers(len(values)))]
                    if way == 0:
                        new.append(old)  # carried on as it is
                    elif way == 1 and source.shape[-1] == size:
                        new.append(source)  # whatever it is: of a step, from outside, a state
                    else:
                        new.append(by.unary("tanh", by.linear(f"new{k}", source, size)))
                return y, (tuple(new) if two else new[0])

            state = (outside, zeros) if two else outside
        y, final = by.loop(step, x, state, lengths)
        return (final[0] if isinstance(final, tuple) else final) if self.last else y

    # ---------------------------------------------------------------- the two sides

    def ours(self) -> tuple[np.ndarray, float, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Outputs, loss, gradients and parameters of fastnn."""
        case = self

        class Model(nn.Module):
            def forward(self, x, c, lengths=None):  # type: ignore[no-untyped-def]
                return case.program(Ours(self), x, c, lengths)

        model = Model()
        self.make(model)
        model.store(self.dtype, self.seed)
        loss = self.our_loss()
        step = fnn.compile(model, loss, "sgd", dtype=self.dtype, device="cpu", workers=2)
        inputs = tuple(self.arrays)
        gradients = step.gradients(inputs, self.y)
        value = float(step.evaluate(inputs, self.y))
        parameters = {n: np.array(p.value) for n, p in model.named_parameters().items()}
        return model.predict(*inputs), value, gradients, parameters

    def make(self, model: nn.Module) -> None:
        """Trace once, so that the model has its layers."""
        from fastnn.graph.graph import Graph
        from fastnn.graph.trace import trace

        graph = Graph(self.batch, dtype=self.dtype)
        inputs = [
            graph.input(f"x{k}", a.shape[1:], "i" if a.dtype.kind == "i" else "f")
            for k, a in enumerate(self.arrays)
        ]
        trace(model, graph, *inputs)

    def our_loss(self) -> nn.Module:
        if self.loss == "class":
            return nn.CrossEntropyLoss(
                None if self.weight is None else self.weight.tolist(), 0 if self.ignored else None,
                self.smoothing, self.reduction,
            )  # fmt: skip
        kinds = {"mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss}
        return kinds[self.loss](reduction=self.reduction)

    def their_loss(self, output: Any) -> Any:
        if self.loss == "class":
            weight = None if self.weight is None else torch.tensor(self.weight, dtype=output.dtype)
            return F.cross_entropy(
                output.reshape(-1, self.classes), torch.tensor(self.y).reshape(-1), weight,
                ignore_index=0 if self.ignored else -100, label_smoothing=self.smoothing,
                reduction=self.reduction,
            )  # fmt: skip
        function = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}[self.loss]
        return function(output, torch.tensor(self.y, dtype=output.dtype), reduction=self.reduction)

    def theirs(self, parameters: dict[str, np.ndarray], dtype: Any) -> Any:
        """Outputs, loss and gradients of PyTorch."""
        tensors = {
            n: torch.tensor(p, dtype=dtype, requires_grad=True) for n, p in parameters.items()
        }
        inputs = [
            torch.tensor(a, dtype=None if a.dtype.kind == "i" else dtype) for a in self.arrays
        ]
        output = self.program(Theirs(tensors), *inputs)
        loss = self.their_loss(output)
        found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
        gradients = {
            n: None if g is None else g.numpy() for n, g in zip(tensors, found, strict=True)
        }
        return output.detach().numpy(), float(loss.detach()), gradients

    def check(self) -> None:
        """Raise AssertionError where the two disagree."""
        if self.loss == "class" and self.ignored and not self.y.any():
            self.y.reshape(-1)[0] = 1  # a mean over no rows is another matter
        output, loss, gradients, parameters = self.ours()
        want, want_loss, wanted = self.theirs(parameters, torch.float64)
        kind = np.dtype(self.dtype).type
        # PyTorch's own rounding says how much a case makes of it
        alike, alike_loss, rounded = self.theirs(parameters, getattr(torch, self.dtype))
        if not np.isfinite(alike).all():  # too large for this type, and for ours as well
            assert not np.isfinite(output).all(), f"{self}: finite outputs"
            return
        close(output, want, alike, f"{self}: outputs")
        close(kind(loss), np.float64(want_loss), np.float64(alike_loss), f"{self}: loss")
        for name, gradient in wanted.items():
            if name in gradients:
                gradient = np.zeros(gradients[name].shape) if gradient is None else gradient
                own = gradient if rounded[name] is None else rounded[name]
                close(gradients[name], gradient, own, f"{self}: d{name}")
            else:
                assert gradient is None or not gradient.any(), f"{self}: no d{name}"

    def __str__(self) -> str:
        return (
            f"seed {self.seed} ({self.kind}, {self.dtype}, batch {self.batch}, steps {self.steps},"
            f" {'ids' if self.ids else self.features}, {self.loss})"
        )


def close(got: Any, want: Any, alike: Any, what: str) -> None:
    """Equal up to rounding, by the size of the largest number and by what `alike` lost."""
    assert np.shape(got) == np.shape(want), f"{what}: {np.shape(got)} and {np.shape(want)}"
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    room = 1e-5 if np.asarray(alike).dtype == np.float32 or got.dtype == np.float32 else 1e-10
    room += 30 * np.abs(np.asarray(alike, np.float64) - want).max(initial=0) / scale
    error = np.abs(np.asarray(got, np.float64) - want).max(initial=0) / scale
    assert error <= room, f"{what}: {error:.2g} apart, {room:.2g} allowed"  # NaN fails, too
