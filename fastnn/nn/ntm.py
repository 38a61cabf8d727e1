"""A net with a memory that it reads and writes."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.cells import LSTMCell
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.public import publish

#: what the memory holds in the beginning (Collier and Beel 2018)
START = 1e-6
#: keeps norms and weightings away from 0
SMALL = 1e-12


class NTM(Module):
    """A Neural Turing Machine (Graves, Wayne and Danihelka 2014, arXiv:1410.5401)::

        h = controller(x_t, what was read in the step before)
        w = softmax(strength cosine(key, memory))              (by content)
        w = gate w + (1 - gate) w of the step before
        w = w shifted around the memory by the weighting `shift`
        w = w^sharpness / sum(w^sharpness)
        read = w memory                                        (of each reading head)
        memory = memory (1 - w erase) + w add                  (of each writing head)
        y_t = output(h, read)

    Heads get key, strength, gate, shift and sharpness from h by a linear layer. All reading heads
    see the memory of the step before; then the writing heads write, one after the other. The memory
    begins with 1e-6 everywhere, and each head at the first place.

    Args:
        input_size, output_size: features of inputs and outputs.
        slots: places of the memory.
        width: numbers of a place.
        hidden_size: units of the controller.
        controller: "lstm", or "feedforward": one layer of tanh.
        read_heads, write_heads: how many there are of each, from 1 on.
        shift: places that a head can move by in a step, in both directions.

    Attributes:
        controller, heads, output: the layers it is made of.

    Inputs: (batch, steps, input_size), and the numbers of steps, integers (batch,), or none;
    outputs: (batch, steps, output_size), and the heads' weightings (batch, steps, read_heads +
    write_heads, slots), reading heads first.

    Raises OptionError for sizes that are none and unknown controllers, ShapeError for inputs that
    do not fit.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> y, w = nn.NTM(3, 2, slots=8, width=4, hidden_size=5).predict(np.ones((1, 6, 3), np.float32))
    >>> y.shape, w.shape
    ((1, 6, 2), (1, 6, 2, 8))
    """

    def __init__(
        self, input_size: int, output_size: int, *, slots: int = 128, width: int = 20,
        hidden_size: int = 100, controller: str = "lstm", read_heads: int = 1, write_heads: int = 1,
        shift: int = 1,
    ):  # fmt: skip
        check_whole(
            "NTM", 1, input_size=input_size, output_size=output_size, slots=slots, width=width,
            hidden_size=hidden_size, read_heads=read_heads, write_heads=write_heads,
        )  # fmt: skip
        check_whole("NTM", 0, shift=shift)
        if controller not in ("lstm", "feedforward"):
            raise OptionError(
                f"NTM: expected controller 'lstm' or 'feedforward', got {controller!r}"
            )
        if slots <= 2 * shift:
            raise OptionError(
                f"NTM: expected more slots than {2 * shift}, what shift={shift} spans, got {slots}"
            )
        self.input_size, self.slots, self.width = input_size, slots, width
        self.hidden_size, self.read_heads, self.write_heads = hidden_size, read_heads, write_heads
        self.shift = shift
        self._address = width + 3 + 2 * shift + 1
        seen = input_size + read_heads * width
        self.recurrent = controller == "lstm"
        self.controller: Module = (
            LSTMCell(seen, hidden_size) if self.recurrent else Linear(seen, hidden_size)
        )
        total = (read_heads + write_heads) * self._address + write_heads * 2 * width
        self.heads = Linear(hidden_size, total)
        self.output = Linear(hidden_size + read_heads * width, output_size)

    def forward(self, x: Value, lengths: Value | None = None) -> tuple[Value, Value]:
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ShapeError(
                f"{where(x.graph.scope)}NTM: expected input of shape (batch, steps, "
                f"{self.input_size}), got {x.shape}; change input_size or reshape the input"
            )
        (outputs, weightings), _ = ops.loop(self._step, x, self._start(x), lengths)
        count = self.read_heads + self.write_heads
        return outputs, ops.reshape(weightings, *x.shape[:2], count, self.slots)

    def _start(self, x: Value) -> tuple[Value, ...]:
        """Memory, weightings, what was read, and the controller's state."""
        graph, batch, count = x.graph, x.shape[0], self.read_heads + self.write_heads

        def full(size: int, number: float) -> Value:
            return graph.full((batch, size), number, x.batched)

        one = ops.concatenate(full(1, 1.0), full(self.slots - 1, 0.0))
        places = ops.concatenate(*[one] * count) if count > 1 else one
        memory = full(self.slots * self.width, START)
        hidden = [full(self.hidden_size, 0.0)] * (2 if self.recurrent else 0)
        return memory, places, full(self.read_heads * self.width, 0.0), *hidden

    def _step(self, x: Value, state: Any) -> Any:
        flat, places, read, *hidden = state
        seen = ops.concatenate(x, read)
        if self.recurrent:
            hidden = list(self.controller(seen, tuple(hidden)))
            h = hidden[0]
        else:
            h = ops.tanh(self.controller(seen))
        given = self.heads(h)
        memory = ops.reshape(flat, -1, self.width, self.slots)
        count, W, N = self.read_heads + self.write_heads, self.width, self.slots
        end = count * self._address
        address = ops.reshape(ops.columns(given, 0, end), -1, count, self._address)
        w = self._weightings(address, memory, ops.reshape(places, -1, count, N))
        places = ops.reshape(w, -1, count * N)
        reading = ops.reshape(ops.columns(places, 0, self.read_heads * N), -1, self.read_heads, N)
        read = memory @ ops.transpose(reading, 0, 2, 1)  # (batch, width, reading heads)
        read = ops.reshape(ops.transpose(read, 0, 2, 1), -1, self.read_heads * W)
        for k in range(self.write_heads):
            begin = end + 2 * k * W
            erase = ops.sigmoid(ops.columns(given, begin, begin + W))
            add = ops.tanh(ops.columns(given, begin + W, begin + 2 * W))
            begin = (self.read_heads + k) * N
            at = ops.reshape(ops.columns(places, begin, begin + N), -1, 1, N)
            erase, add = (ops.reshape(v, -1, W, 1) for v in (erase, add))
            memory = memory + memory * (-erase @ at) + add @ at
        flat = ops.reshape(memory, -1, N * W)
        y = self.output(ops.concatenate(h, read))
        return (y, places), (flat, places, read, *hidden)

    def _weightings(self, given: Value, memory: Value, before: Value) -> Value:
        """The weightings of all heads over the slots, (batch, heads, slots)."""
        W = self.width
        key = ops.tanh(_last(given, 0, W))
        strength = ops.softplus(_last(given, W, W + 1))
        gate = ops.sigmoid(_last(given, W + 1, W + 2))
        sharpness = ops.softplus(_last(given, W + 2, W + 3)) + 1.0
        shift = ops.softmax(_last(given, W + 3, W + 4 + 2 * self.shift))
        ones = memory.graph.full((memory.shape[0], 1, W), 1.0, memory.batched)
        lengths = ops.sqrt(ones @ ops.square(memory) + SMALL)
        # a product repeats them for every head, so that their gradient is one, too, and no copy
        every = memory.graph.full((memory.shape[0], given.shape[1], 1), 1.0, memory.batched)
        lengths = every @ lengths
        size = ops.sqrt(ops.sum(ops.square(key), 2, keepdims=True) + SMALL)
        w = ops.softmax((strength / size * key) @ memory / lengths)
        w = gate * (w - before) + before
        twice = ops.concatenate(w, w, axis=2)  # moved around the memory, w is a part of it
        moved = _last(shift, self.shift, self.shift + 1) * w
        for k in [*range(self.shift), *range(self.shift + 1, 2 * self.shift + 1)]:
            begin = (self.shift - k) % self.slots
            part = _last(twice, begin, begin + self.slots)
            moved = moved + _last(shift, k, k + 1) * part
        sharp = ops.exp(sharpness * ops.log(moved + SMALL))
        return sharp / ops.sum(sharp, 2, keepdims=True)

    def extra(self) -> str:
        return f"{self.slots} slots of {self.width}"


def _last(v: Value, start: int, end: int) -> Value:
    """A slice of the last axis."""
    return v[:, :, start:end]


publish(globals(), type)
