"""Recurrent layers over whole sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Value
from fastnn.nn import init
from fastnn.nn.linear import _at_least_one
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter

Initial = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


class Recurrent(Module):
    """What `RNN`, `LSTM` and `GRU` share: layers, directions, states.

    Args:
        input_size: features I of a step.
        hidden_size: units H.
        num_layers: layers, each on the outputs of the one before.
        bias: whether there are biases.
        batch_first: inputs and outputs are (batch, steps, features); False: (steps, batch,
            features), through a copy.
        dropout: probability of zero in the outputs between layers, in training.
        bidirectional: a second set of weights runs from the end of each sequence to its start.
        merge: the two directions' outputs are joined ("concat") or added ("sum").
        bptt: truncated backpropagation: gradients through time stop at steps that are multiples of
            it; None: never.
        stateful: a batch size. The final states of a batch are the initial ones of the next, kept
            in buffers `state_h_l0` (and `state_c_l0`) until `reset_state`; batches have this size.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: PyTorch's names, shapes and order of
            gates, for layer 0; `_l1` and so on for further layers, with `_reverse` for the second
            direction.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        merge: str = "concat",
        bptt: int | None = None,
        stateful: int | None = None,
    ):
        name = type(self).__name__
        _at_least_one(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        _at_least_one(name, **{k: v for k, v in (("bptt", bptt), ("stateful", stateful)) if v})
        if merge not in ("concat", "sum"):
            raise OptionError(f"{name}: expected merge 'concat' or 'sum', got {merge!r}")
        if not 0 <= dropout <= 1:
            raise OptionError(f"{name}: expected dropout in [0, 1], got {dropout}")
        if stateful and bidirectional:
            raise OptionError(f"{name}: a bidirectional layer has no state to carry; stateful=None")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout = batch_first, float(dropout)
        self.bidirectional, self.merge, self.bptt, self.stateful = (
            bidirectional, merge, bptt, stateful
        )  # fmt: skip
        for layer, suffix in self._suffixes():
            size = input_size if layer == 0 else self.output_size
            self._make(size, suffix, bias)
            if stateful:
                for state, units in self._state_sizes().items():
                    buffer = Parameter((stateful, units), 0.0, trainable=False)
                    setattr(self, f"state_{state}{suffix}", buffer)

    @property
    def output_size(self) -> int:
        """Features of an output step."""
        joined = self.bidirectional and self.merge == "concat"
        return self._features() * (2 if joined else 1)

    def _features(self) -> int:
        """Features of one direction's output step."""
        return self.hidden_size

    def _state_sizes(self) -> dict[str, int]:
        """Names of a cell's states and their units."""
        return {"h": self.hidden_size}

    def _suffixes(self) -> list[tuple[int, str]]:
        """Layer and parameter suffix of each cell, in the order of PyTorch's states."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [(k, f"_l{k}{d}") for k in range(self.num_layers) for d in directions]

    def _make(self, size: int, suffix: str, bias: bool) -> None:
        """Parameters of one cell, with PyTorch's initial values."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        fill = init.get("uniform", low=-bound, high=bound)
        width = self.gates * self.hidden_size
        weight = Parameter((width, size), fill, transposed=True)
        setattr(self, f"weight_ih{suffix}", weight)
        weight = Parameter((width, self.hidden_size), fill, transposed=True)
        setattr(self, f"weight_hh{suffix}", weight)
        self._bias(suffix, fill if bias else None)

    def _bias(self, suffix: str, fill: Initial | None) -> None:
        for name in ("bias_ih", "bias_hh"):
            bias = None if fill is None else Parameter((self.gates * self.hidden_size,), fill)
            object.__setattr__(self, f"{name}{suffix}", bias)

    def _weights(self, suffix: str) -> dict[str, Any]:
        """A cell's parameters by the names that the ops have for them."""
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
        return {key: getattr(self, name + suffix) for key, name in names.items()}

    def _cell(self, x: Value, suffix: str, state: Any, lengths: Any, **options: Any) -> Any:
        """Outputs and final states of one layer in one direction."""
        raise NotImplementedError

    def forward(self, x: Value, state: Any = None, lengths: Any = None) -> tuple[Value, list[Any]]:
        """Run over sequences.

        Args:
            x: shape (batch, steps, input_size), or (steps, batch, input_size) without
                `batch_first`.
            state: initial states, a list with one entry for each layer and direction (layer 0,
                layer 0 reverse, layer 1, ...): a value of shape (batch, hidden_size), for an LSTM a
                pair (h, c); zeros if None.
            lengths: number of valid steps of each sequence, integers (batch,); all if None.

        Returns:
            Outputs of all steps, zero past the end, and a list of final states like `state`
            (PyTorch stacks them to one array).
        """
        suffixes = self._suffixes()
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, steps, "
                f"{self.input_size}), got {x.shape}; change input_size or reshape the input"
            )
        if state is not None and len(state) != len(suffixes):
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected a list of {len(suffixes)} states, one "
                f"for each layer and direction, got {len(state)}"
            )
        if not self.batch_first:
            x = ops.swap_time(x)
        given = self._load_states(x) if self.stateful and state is None else state
        finals: list[Any] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and x.graph.training:
                x = ops.dropout(x, self.dropout)
            outputs = []
            for place, (k, suffix) in enumerate(suffixes):
                if k == layer:
                    first = None if given is None else given[place]
                    reverse = suffix.endswith("_reverse")
                    y, *last = self._cell(
                        x, suffix, first, lengths, reverse=reverse, bptt=self.bptt or 0
                    )
                    outputs.append(y)
                    finals.append(last[0] if len(last) == 1 else tuple(last))
            x = outputs[0]
            if len(outputs) == 2:
                x = ops.concatenate(*outputs) if self.merge == "concat" else ops.add(*outputs)
        if self.stateful:
            self._store_states(x, finals)
        return x if self.batch_first else ops.swap_time(x), finals

    # ---------------------------------------------------------------- state from batch to batch

    def _buffers(self) -> list[list[Parameter]]:
        return [
            [getattr(self, f"state_{s}{suffix}") for s in self._state_sizes()]
            for _, suffix in self._suffixes()
        ]

    def _load_states(self, x: Value) -> list[Any]:
        if x.shape[0] != self.stateful:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected batches of {self.stateful} sequences, "
                f"got {x.shape[0]}; set batch_size to it and drop_last=True"
            )
        loaded = [[ops.load_state(x, b) for b in buffers] for buffers in self._buffers()]
        return [states[0] if len(states) == 1 else tuple(states) for states in loaded]

    def _store_states(self, x: Value, finals: list[Any]) -> None:
        for buffers, final in zip(self._buffers(), finals, strict=True):
            values = final if isinstance(final, tuple) else (final,)
            for buffer, value in zip(buffers, values, strict=True):
                ops.store_state(value, buffer)

    def reset_state(self) -> None:
        """Begin new sequences: set the carried states to zero."""
        if not self.stateful:
            raise OptionError(f"{self!r} carries no state; make it with stateful=batch_size")
        for buffers in self._buffers():
            for buffer in buffers:
                buffer.value = np.zeros(buffer.shape)

    def extra(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.num_layers > 1:
            text += f", num_layers={self.num_layers}"
        return text + (", bidirectional=True" if self.bidirectional else "")


class RNN(Recurrent):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` over sequences (Elman 1990).

    Args:
        nonlinearity: "tanh", "relu" or "sigmoid".
        identity_init: W_hh begins as the identity times this number and biases as zeros; with
            "relu" and 1.0 the IRNN of Le, Jaitly & Hinton (2015). None: PyTorch's start.
        input_size, hidden_size and further options: see `Recurrent`.

    >>> from fastnn import nn
    >>> nn.RNN(40, 128, nonlinearity="relu", identity_init=1.0).weight_hh_l0.shape
    (128, 128)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *,
        identity_init: float | None = None,
        **options: Any,
    ):
        if nonlinearity not in ("tanh", "relu", "sigmoid"):
            raise OptionError(
                f"RNN: expected nonlinearity 'tanh', 'relu' or 'sigmoid', got {nonlinearity!r}"
            )
        self.nonlinearity, self.identity_init = nonlinearity, identity_init
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _make(self, size: int, suffix: str, bias: bool) -> None:
        super()._make(size, suffix, bias)
        scale = self.identity_init
        if scale is not None:
            small = init.get("normal", std=0.001)
            identity: Initial = lambda shape, rng: np.eye(shape[0]) * scale  # noqa: E731
            getattr(self, f"weight_ih{suffix}").init = small
            getattr(self, f"weight_hh{suffix}").init = identity
            self._bias(suffix, init.get("zeros") if bias else None)

    def _cell(self, x: Value, suffix: str, state: Any, lengths: Any, **options: Any) -> Any:
        return ops.rnn(
            x, **self._weights(suffix), h0=state, lengths=lengths, activation=self.nonlinearity,
            **options,
        )  # fmt: skip


class LSTM(Recurrent):
    """The LSTM over sequences (Hochreiter & Schmidhuber 1997), as in PyTorch.

    Args:
        peepholes: the gates see the cell (Gers et al. 2002): a parameter `weight_peephole_l0` of
            shape (3H,), the weights p_i, p_f, p_o.
        forget_bias: the forget gate's bias begins as this number (1.0 helps long memories:
            Jozefowicz et al. 2015); None: PyTorch's start.
        input_size, hidden_size and further options: see `Recurrent`.

    >>> from fastnn import nn
    >>> nn.LSTM(40, 128, num_layers=2, bidirectional=True).weight_ih_l1_reverse.shape
    (512, 256)
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        peepholes: bool = False,
        forget_bias: float | None = None,
        **options: Any,
    ):
        self.peepholes, self.forget_bias = peepholes, forget_bias
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _make(self, size: int, suffix: str, bias: bool) -> None:
        super()._make(size, suffix, bias)
        if self.peepholes:
            bound = 1.0 / math.sqrt(self.hidden_size)
            fill = init.get("uniform", low=-bound, high=bound)
            setattr(self, f"weight_peephole{suffix}", Parameter((3 * self.hidden_size,), fill))
        if self.forget_bias is not None and bias:
            for name, number in (("bias_ih", self.forget_bias), ("bias_hh", 0.0)):
                parameter = getattr(self, name + suffix)
                parameter.init = self._with_forget_bias(parameter.init, number)

    def _state_sizes(self) -> dict[str, int]:
        return {"h": self.hidden_size, "c": self.hidden_size}

    def _with_forget_bias(self, fill: Initial, number: float) -> Initial:
        def initial(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
            values = np.array(fill(shape, rng))
            values[self.hidden_size : 2 * self.hidden_size] = number
            return values

        return initial

    def _cell(self, x: Value, suffix: str, state: Any, lengths: Any, **options: Any) -> Any:
        h0, c0 = (None, None) if state is None else state
        peephole = getattr(self, f"weight_peephole{suffix}") if self.peepholes else None
        return ops.lstm(
            x, **self._weights(suffix), h0=h0, c0=c0, lengths=lengths, peephole=peephole, **options
        )


class GRU(Recurrent):
    """The GRU over sequences (Cho et al. 2014), as in PyTorch.

    Args:
        reset: the reset gate is applied "after" the product with W_hh (PyTorch) or "before" it (as
            in the paper).
        input_size, hidden_size and further options: see `Recurrent`.
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset: str = "after",
        **options: Any,
    ):
        if reset not in ("after", "before"):
            raise OptionError(f"GRU: expected reset 'after' or 'before', got {reset!r}")
        self.reset = reset
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _cell(self, x: Value, suffix: str, state: Any, lengths: Any, **options: Any) -> Any:
        return ops.gru(
            x, **self._weights(suffix), h0=state, lengths=lengths, reset=self.reset, **options
        )
