"""Recurrent layers over whole sequences: RNN, LSTM, GRU."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, check_flags, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.parameter import Parameter
from fastnn.nn.recurrent_base import Initial, Recurrent, Weights
from fastnn.public import publish


class RNN(Recurrent):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` over sequences (Elman 1990).

    Args:
        nonlinearity: "tanh", "relu" or "sigmoid".
        identity_init: initialise W_hh as the identity times this number, and the biases as zeros;
            with "relu" and 1.0 this is the IRNN of Le, Jaitly & Hinton (2015). None is PyTorch's
            initialisation.
        input_size, hidden_size and further options: see `Recurrent`.

    Raises OptionError for an unknown `nonlinearity`; the rest as `Recurrent`.

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
        if identity_init is not None:
            check_numbers("RNN", identity_init=identity_init)
        self.nonlinearity, self.identity_init = nonlinearity, identity_init
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _make(self, size: int, suffix: str, bias: bool) -> None:
        super()._make(size, suffix, bias)
        scale = self.identity_init
        if scale is not None:
            small = init.get("normal", std=0.001)
            identity = init.get("identity", gain=scale)
            getattr(self, f"weight_ih{suffix}").init = small
            getattr(self, f"weight_hh{suffix}").init = identity
            self._bias(suffix, init.get("zeros") if bias else None)

    def _cell(
        self, x: Value, suffix: str, weights: Weights, state: Any, lengths: Any, **options: Any
    ) -> Any:
        return ops.rnn(
            x, **weights, h0=state, lengths=lengths, activation=self.nonlinearity,
            **options,
        )  # fmt: skip


def _with_forget_bias(
    shape: tuple[int, ...], rng: np.random.Generator, *, fill: Initial, number: float
) -> np.ndarray:
    """Biases as `fill` gives them, those of the forget gate equal to a number."""
    values = np.array(fill(shape, rng))
    values[shape[0] // 4 : shape[0] // 2] = number
    return values


class LSTM(Recurrent):
    """The LSTM over sequences (Hochreiter & Schmidhuber 1997), as in PyTorch.

    Args:
        peepholes: whether the gates also see the cell state (Gers et al. 2002), through a parameter
            `weight_peephole_l0` of shape (3H,) that holds the weights p_i, p_f and p_o.
        proj_size: P < H, the features of the outputs and of the state h: h = W_hr (o tanh(c)), with
            a parameter `weight_hr_l0` of shape (P, H) (Sak et al. 2014). 0 means no projection.
        forget_bias: initial value of the forget gate's bias (1.0 helps the layer remember for
            longer: Jozefowicz et al. 2015); None is PyTorch's initialisation.
        input_size, hidden_size and further options: see `Recurrent`.

    Raises OptionError for a `proj_size` that is not below `hidden_size`; the rest as `Recurrent`.

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
        proj_size: int = 0,
        **options: Any,
    ):
        check_whole("LSTM", 1, hidden_size=hidden_size)
        check_flags("LSTM", peepholes=peepholes)
        check_numbers("LSTM", proj_size=proj_size)
        if forget_bias is not None:
            check_numbers("LSTM", forget_bias=forget_bias)
        if not 0 <= proj_size < hidden_size:
            raise OptionError(
                f"LSTM: expected proj_size from 0 to below hidden_size={hidden_size}, got "
                f"{proj_size}"
            )
        self.peepholes, self.forget_bias, self.proj_size = peepholes, forget_bias, int(proj_size)
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _make(self, size: int, suffix: str, bias: bool) -> None:
        super()._make(size, suffix, bias)
        bound = 1.0 / math.sqrt(self.hidden_size)
        fill = init.get("uniform", low=-bound, high=bound)
        if self.proj_size:
            shapes = {"hh": (4 * self.hidden_size, self.proj_size),
                      "hr": (self.proj_size, self.hidden_size)}  # fmt: skip
            for name, shape in shapes.items():
                setattr(self, f"weight_{name}{suffix}", Parameter(shape, fill, transposed=True))
        if self.peepholes:
            setattr(self, f"weight_peephole{suffix}", Parameter((3 * self.hidden_size,), fill))
        if self.forget_bias is not None and bias:
            for name, number in (("bias_ih", self.forget_bias), ("bias_hh", 0.0)):
                parameter = getattr(self, name + suffix)
                parameter.init = functools.partial(
                    _with_forget_bias, fill=parameter.init, number=number
                )

    def _state_sizes(self) -> dict[str, int]:
        return {"h": self._features(), "c": self.hidden_size}

    def _features(self) -> int:
        return self.proj_size or self.hidden_size

    def _cell(
        self, x: Value, suffix: str, weights: Weights, state: Any, lengths: Any, **options: Any
    ) -> Any:
        h0, c0 = (None, None) if state is None else state
        options["peephole"] = getattr(self, f"weight_peephole{suffix}") if self.peepholes else None
        given = {**weights, "h0": h0, "c0": c0, "lengths": lengths}
        if self.proj_size:
            w_hr = getattr(self, f"weight_hr{suffix}")
            return ops.projected_lstm(x, w_hr=w_hr, **given, **options)
        return ops.lstm(x, **given, **options)


class GRU(Recurrent):
    """The GRU over sequences (Cho et al. 2014), as in PyTorch.

    Args:
        reset: whether the reset gate is applied "after" the product with W_hh (as in PyTorch) or
            "before" it (as in the paper).
        input_size, hidden_size and further options: see `Recurrent`.

    Raises OptionError for another `reset`; the rest as `Recurrent`.

    >>> nn.GRU(8, 16).predict(np.ones((4, 10, 8), np.float32))[0].shape
    (4, 10, 16)
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

    def _cell(
        self, x: Value, suffix: str, weights: Weights, state: Any, lengths: Any, **options: Any
    ) -> Any:
        return ops.gru(x, **weights, h0=state, lengths=lengths, reset=self.reset, **options)


publish(globals(), type)
