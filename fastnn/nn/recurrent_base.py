"""The base of the layers in `rnn.py`: layers and directions, parameters, states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.engine.model import Stateful
from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.module import Module
from fastnn.nn.noise import one_mask
from fastnn.nn.parameter import Parameter
from fastnn.nn.zoneout import probabilities, zoned
from fastnn.ops.operands import as_value, graph_of
from fastnn.public import publish

Initial = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]
#: a cell's parameters by the names that the ops have for them
Weights = dict[str, Any]


class Recurrent(Module, Stateful):
    """Base of `RNN`, `LSTM` and `GRU`: layers, directions and states.

    Args:
        input_size: I, the features of a step.
        hidden_size: H, the number of units.
        num_layers: number of layers, each fed with the outputs of the one before.
        bias: whether to use biases.
        batch_first: whether inputs and outputs are (batch, steps, features). If False they are
            (steps, batch, features), which costs a copy.
        dropout: dropout probability of the outputs between layers, in training; it needs several
            layers.
        bidirectional: whether a second set of weights runs from the end of each sequence to its
            start.
        merge: whether the two directions' outputs are concatenated ("concat") or added ("sum").
        bptt: truncated backpropagation: gradients through time stop at every step that is a
            multiple of this number; None means never. All steps of a batch stay in memory whatever
            `bptt` is. For long sequences, feed windows of k steps in order to a `stateful` layer
            instead: gradients stop between windows as well, and only one window is in memory.
        weight_drop: probability that a weight of `weight_hh_l0` (and of the other layers) is zero
            in training, with one mask for a mini-batch and the others multiplied by 1 / (1 - p):
            DropConnect on the recurrent weights (Merity, Keskar & Socher 2018, "Regularizing and
            optimizing LSTM language models"; 0.5 there). In [0, 1).
        zoneout: probability that a unit keeps its state for a step in training; in evaluation the
            state is the mean of the old and the new one, with these weights (Krueger et al. 2017,
            "Zoneout: regularizing RNNs by randomly preserving hidden activations"). One number, or
            for an LSTM a pair for (h, c): 0.05 and 0.5 there. The layer then runs as a loop of
            single steps, which is slower, and takes no `bptt`.
        variational: whether `dropout` draws one mask for all steps of a sequence (Gal & Ghahramani
            2016, "A theoretically grounded application of dropout in recurrent neural networks"),
            not one for each step.
        stateful: a batch size, or None. Each batch then starts from the final states of the batch
            before, kept in the buffers `state_h_l0` (and `state_c_l0`) until `reset_state`. All
            batches must have this size.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: PyTorch's names, shapes and order of
            gates, for layer 0; `_l1` and so on for further layers, with `_reverse` for the second
            direction.

    Raises OptionError for sizes below 1, rates outside [0, 1), an unknown `merge`, and options that
    exclude each other; ShapeError for an input or state of another size.
    """

    gates = 1
    _unpacking = (
        "a recurrent layer returns its outputs and a list of final states, one for each layer and "
        "direction: write 'y, states = layer(x)', or for one LSTM layer 'y, [(h, c)] = layer(x)'"
    )

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
        weight_drop: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        variational: bool = False,
    ):
        name = type(self).__name__
        check_whole(name, 1, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_whole(name, 1, **{k: v for k, v in (("bptt", bptt), ("stateful", stateful)) if v})
        check_flags(name, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        check_flags(name, variational=variational)
        if merge not in ("concat", "sum"):
            raise OptionError(f"{name}: expected merge 'concat' or 'sum', got {merge!r}")
        check_numbers(name, dropout=dropout)
        if not 0 <= dropout < 1:
            raise OptionError(f"{name}: expected dropout in [0, 1), got {dropout}")
        if dropout and num_layers == 1:
            raise OptionError(
                f"{name}: dropout acts between layers, and there is one; expected num_layers >= 2, "
                "or dropout=0 and an nn.Dropout after it"
            )
        if merge == "sum" and not bidirectional:
            raise OptionError(
                f"{name}: merge='sum' adds two directions up; expected it with bidirectional=True"
            )
        if stateful and bidirectional:
            raise OptionError(f"{name}: a bidirectional layer has no state to carry; stateful=None")
        check_numbers(name, weight_drop=weight_drop)
        if not 0 <= weight_drop < 1:
            raise OptionError(f"{name}: expected weight_drop in [0, 1), got {weight_drop}")
        if variational and not dropout:
            raise OptionError(
                f"{name}: expected variational True, with dropout above 0, or False; got "
                f"{variational!r} with dropout={dropout}"
            )
        self.weight_drop, self.variational = float(weight_drop), bool(variational)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.zoneout = probabilities(name, zoneout, list(self._state_sizes()))
        if bptt and any(self.zoneout):
            raise OptionError(
                f"{name}: zoneout takes no bptt; feed windows of {bptt} steps to a stateful layer, "
                "or leave one of the two out"
            )
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

    def handed_on(self, result: Any) -> Any:
        """In a `Sequential` the outputs of all steps go on."""
        return result[0]

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

    def _weights(self, suffix: str) -> Weights:
        """A cell's parameters by the names that the ops have for them."""
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
        found = {key: getattr(self, name + suffix) for key, name in names.items()}
        graph = graph_of(found["w_hh"]) if self.weight_drop else None
        if graph is not None and graph.training:
            found["w_hh"] = ops.dropout(as_value(graph, found["w_hh"]), self.weight_drop)
        return found

    def _cell(
        self, x: Value, suffix: str, weights: Weights, state: Any, lengths: Any, **options: Any
    ) -> Any:
        """Outputs and final states of one layer in one direction: what each kind defines."""
        raise OptionError(
            f"{where(x.graph.scope)}{self!r}: expected a kind of recurrent layer, such as nn.RNN, "
            "nn.LSTM or nn.GRU; this is their base class, which has no cell"
        )

    def _layer(self, x: Value, suffix: str, state: Any, lengths: Any, reverse: bool) -> Any:
        """Outputs and final states of one layer in one direction."""
        weights = self._weights(suffix)  # with zoneout, too, before the loop: once for all steps
        if not any(self.zoneout):
            bptt = self.bptt or 0
            return self._cell(x, suffix, weights, state, lengths, reverse=reverse, bptt=bptt)
        sizes = list(self._state_sizes().values())
        given = state if isinstance(state, tuple | list) else [state] * len(sizes)
        initial = [
            x.graph.full((x.shape[0], size), 0.0, x.batched) if v is None else as_value(x.graph, v)
            for v, size in zip(given, sizes, strict=True)
        ]

        def cell(x_t: Value, states: list[Value]) -> list[Value]:
            before = states[0] if len(states) == 1 else tuple(states)
            return list(self._cell(x_t, suffix, weights, before, None, reverse=False, bptt=0)[1:])

        y, finals = zoned(cell, x, initial, self.zoneout, lengths, reverse)
        return y, *finals

    def forward(self, x: Value, state: Any = None, lengths: Any = None) -> tuple[Value, list[Any]]:
        """Run over sequences.

        Args:
            x: shape (batch, steps, input_size); (steps, batch, input_size) if `batch_first` is
                False.
            state: initial states, a list with one entry for each layer and direction (layer 0,
                layer 0 reverse, layer 1, ...): a value of shape (batch, hidden_size), for an LSTM a
                pair (h, c). Or stacked as in PyTorch: one value of shape (layers and directions,
                batch, hidden_size), for an LSTM a pair of them. Zeros if None.
            lengths: number of valid steps of each sequence, integers (batch,) from 0 to `steps`;
                None means that all steps are valid. With lengths, batches with many different
                numbers of steps share a few programs, unless something else in the model depends on
                the number of steps.

        Returns:
            The outputs of all steps, zero past each sequence's end, and a list of final states in
            the form of `state` (PyTorch stacks them into one array): of one LSTM layer
            ``y, [(h, c)] = lstm(x)``.

        Raises:
            ShapeError: the input, a state or the lengths do not fit.
        """
        suffixes = self._suffixes()
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, steps, "
                f"{self.input_size}), got {x.shape}; change input_size or reshape the input"
            )
        if state is not None:
            state = self._by_layer(state, where(x.graph.scope))
        if not self.batch_first:
            x = ops.swap_time(x)
        carries = bool(self.stateful) and not x.graph.stateless
        given = self._load_states(x) if carries and state is None else state
        finals: list[Any] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and x.graph.training:
                x = (one_mask if self.variational else ops.dropout)(x, self.dropout)
            outputs = []
            for place, (k, suffix) in enumerate(suffixes):
                if k == layer:
                    first = None if given is None else given[place]
                    reverse = suffix.endswith("_reverse")
                    y, *last = self._layer(x, suffix, first, lengths, reverse)
                    outputs.append(y)
                    finals.append(last[0] if len(last) == 1 else tuple(last))
            x = outputs[0]
            if len(outputs) == 2:
                x = ops.concatenate(*outputs) if self.merge == "concat" else ops.add(*outputs)
        if carries:
            self._store_states(x, finals)
        return x if self.batch_first else ops.swap_time(x), finals

    def _by_layer(self, state: Any, place: str) -> list[Any]:
        """Initial states as a list by layer and direction, of whatever form they come in."""
        names, count = list(self._state_sizes()), len(self._suffixes())
        paired = isinstance(state, tuple | list)
        stacks = [state] if len(names) == 1 else state if paired else []
        if len(stacks) == len(names) and all(len(getattr(s, "shape", ())) == 3 for s in stacks):
            if any(s.shape[0] != count for s in stacks):
                raise ShapeError(
                    f"{place}{self!r}: expected stacked states of shape ({count}, batch, units), "
                    f"one for each layer and direction, got {[tuple(s.shape) for s in stacks]}"
                )
            stacks = list(zip(*([s[k] for k in range(count)] for s in stacks), strict=True))
            return [entry[0] if len(names) == 1 else entry for entry in stacks]
        one = "(batch, units)" if len(names) == 1 else f"a pair ({', '.join(names)})"
        if not paired or len(state) != count:
            raise ShapeError(
                f"{place}{self!r}: expected a list of {count} states, one for each layer and "
                f"direction, each {one}; got {_form(state)}"
            )
        for entry in state:
            paired = isinstance(entry, tuple | list) and len(entry) == len(names)
            if entry is not None and not (hasattr(entry, "shape") if len(names) == 1 else paired):
                raise ShapeError(
                    f"{place}{self!r}: expected for each layer and direction {one}, got "
                    f"{_form(entry)}"
                )
        return list(state)

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
                f"got {x.shape[0]}; give batches of that size (in fit with drop_last=True)"
            )
        loaded = [[ops.load_state(x, b) for b in buffers] for buffers in self._buffers()]
        return [states[0] if len(states) == 1 else tuple(states) for states in loaded]

    def _store_states(self, x: Value, finals: list[Any]) -> None:
        for buffers, final in zip(self._buffers(), finals, strict=True):
            values = final if isinstance(final, tuple) else (final,)
            for buffer, value in zip(buffers, values, strict=True):
                ops.store_state(value, buffer)

    def reset_state(self) -> None:
        """Start new sequences: set the carried states to zero.

        Raises OptionError for a layer that carries no state.
        """
        if not self.stateful:
            raise OptionError(f"{self!r} carries no state; make it with stateful=batch_size")
        for buffers in self._buffers():
            for buffer in buffers:
                buffer.value = np.zeros(buffer.shape)

    def extra(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.num_layers > 1:
            text += f", num_layers={self.num_layers}"
        if self.weight_drop:
            text += f", weight_drop={self.weight_drop}"
        if any(self.zoneout):
            text += f", zoneout={self.zoneout}"
        return text + (", bidirectional=True" if self.bidirectional else "")


def _form(states: Any) -> str:
    """What states look like, for messages."""
    shape = getattr(states, "shape", None)
    if shape is not None:
        return f"a value of shape {tuple(shape)}"
    return (
        f"a {type(states).__name__} of {len(states)}"
        if isinstance(states, tuple | list)
        else repr(states)
    )


publish(globals(), type)
