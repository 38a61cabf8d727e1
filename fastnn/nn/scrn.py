"""The structurally constrained recurrent net."""

from __future__ import annotations

import math
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, check_flags, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.parameter import Parameter
from fastnn.nn.recurrent_base import Recurrent, Weights
from fastnn.public import publish


class SCRN(Recurrent):
    """A simple recurrent net with slow context units (Mikolov et al. 2014, arXiv:1412.7753).

        s_t = (1 - alpha) B x_t + alpha s_(t-1)
        h_t = sigmoid(A x_t + P s_t + R h_(t-1))

    The output of a step is h_t followed by s_t, so a linear layer on it is the paper's U h + V s.

    Args:
        context_size: number of slow units.
        alpha: share of the old context that each step keeps, in [0, 1].
        input_size, hidden_size and further options: see `Recurrent`; states are pairs (h, s).

    Attributes:
        weight_context_l0: B, shape (context_size, I).
        weight_ih_l0: A and P concatenated, shape (H, I + context_size).
        weight_hh_l0: R, shape (H, H). The paper has no biases; here they are optional.

    Raises OptionError for a `context_size` below 1, an `alpha` outside [0, 1], and zoneout; the
    rest as `Recurrent`.

    >>> from fastnn import nn
    >>> nn.SCRN(50, 100, context_size=40).output_size
    140
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        context_size: int = 40,
        alpha: float = 0.95,
        bias: bool = False,
        **options: Any,
    ):
        check_whole("SCRN", 1, context_size=context_size)
        check_numbers("SCRN", alpha=alpha)
        check_flags("SCRN", bias=bias)
        if not 0 <= alpha <= 1:
            raise OptionError(f"SCRN: expected alpha in [0, 1], got {alpha}")
        if options.get("zoneout"):
            raise OptionError(
                "SCRN: expected no zoneout, as its slow units keep their state by themselves; "
                "leave it out"
            )
        self.context_size, self.alpha = context_size, float(alpha)
        super().__init__(input_size, hidden_size, num_layers, bias, **options)

    def _features(self) -> int:
        return self.hidden_size + self.context_size

    def _state_sizes(self) -> dict[str, int]:
        return {"h": self.hidden_size, "s": self.context_size}

    def _make(self, size: int, suffix: str, bias: bool) -> None:
        super()._make(size + self.context_size, suffix, bias)
        bound = 1.0 / math.sqrt(size)
        weight = Parameter(
            (self.context_size, size), init.get("uniform", low=-bound, high=bound), transposed=True
        )
        setattr(self, f"weight_context{suffix}", weight)

    def _cell(
        self, x: Value, suffix: str, weights: Weights, state: Any, lengths: Any, **options: Any
    ) -> Any:
        h0, s0 = (None, None) if state is None else state
        slow = ops.linear(x, getattr(self, f"weight_context{suffix}"))
        s, s_n = ops.leaky(slow, self.alpha, s0, lengths, **options)
        h, h_n = ops.rnn(
            ops.concatenate(x, s), **weights, h0=h0, lengths=lengths,
            activation="sigmoid", **options,
        )  # fmt: skip
        return ops.concatenate(h, s), h_n, s_n


publish(globals(), type)
