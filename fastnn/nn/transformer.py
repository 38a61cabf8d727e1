"""The Transformer: encoder and decoder layers, and stacks of them."""

from __future__ import annotations

import copy
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, check_flags, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.nn.attention import MultiHeadAttention, Pair
from fastnn.nn.containers import ModuleList
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.nn.positions import Place
from fastnn.nn.regularization import Dropout, LayerNorm
from fastnn.ops.lengths import checked_lengths, within
from fastnn.public import publish

ACTIVATIONS = {"relu": ops.relu, "gelu": ops.gelu, "silu": ops.silu}


class _Layer(Module):
    """What both kinds of layers have: self attention, two linear layers, what is around them."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str = "relu", layer_norm_eps: float = 1e-5, norm_first: bool = False,
        bias: bool = True, rotary: bool = False,
    ):  # fmt: skip
        name = type(self).__name__
        check_whole(name, 1, d_model=d_model, nhead=nhead, dim_feedforward=dim_feedforward)
        check_numbers(name, dropout=dropout, layer_norm_eps=layer_norm_eps)
        check_flags(name, norm_first=norm_first, bias=bias, rotary=rotary)
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise OptionError(
                f"{name}: expected activation to be one of {', '.join(ACTIVATIONS)}, got "
                f"{activation!r}"
            )
        self.activation, self.norm_first = activation, bool(norm_first)
        self.self_attn = MultiHeadAttention(d_model, nhead, dropout, bias, rotary=rotary)
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.norm1, self.norm2 = (LayerNorm(d_model, layer_norm_eps, bias=bias) for _ in range(2))
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def _fed(self, x: Value) -> Value:
        """The two linear layers."""
        return self.linear2(self.dropout(ACTIVATIONS[self.activation](self.linear1(x))))

    def _around(self, x: Value, norm: Module, part: Any) -> Value:
        """x and what `part` makes of it, normalised before or after."""
        if self.norm_first:
            return ops.add(x, part(norm(x)))
        y: Value = norm(ops.add(x, part(x)))
        return y

    def extra(self) -> str:
        return f"{self.self_attn.embed_dim}, {self.self_attn.num_heads}"


class TransformerEncoderLayer(_Layer):
    """Self attention and two linear layers, each with a way around it and layer normalisation
    (Vaswani et al. 2017; `norm_first`: Xiong et al. 2020, "On layer normalization in the
    transformer architecture").

    Parameters have PyTorch's names, shapes and initial values; batches come first.

    Args:
        d_model: E, the size of a step.
        nhead: heads of the attention; they divide E.
        dim_feedforward: units between the two linear layers.
        dropout: after attention (and of its weights), between the linear layers and after them.
        activation: "relu", "gelu" or "silu".
        layer_norm_eps: as of `LayerNorm`.
        norm_first: whether normalisation stands before attention and linear layers instead of
            after the sum.
        bias: whether linear layers, attention and normalisation have biases.
        rotary: whether attention turns queries and keys by their places (`RotaryPositions`).

    Shapes: input (batch, steps, E), `lengths` (batch,) or None; output (batch, steps, E). Steps
    past the end of a sequence reach no other step.

    Raises OptionError for sizes below 1, a `dropout` outside [0, 1) and an unknown activation;
    ShapeError for another number of features.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.TransformerEncoderLayer(8, 2, 16).predict(np.ones((3, 5, 8), np.float32)).shape
    (3, 5, 8)
    """

    def forward(self, x: Value, lengths: Value | None = None, causal: bool = False) -> Value:
        def attend(y: Value) -> Value:
            found: Value = self.dropout1(self.self_attn(y, key_lengths=lengths, causal=causal))
            return found

        x = self._around(x, self.norm1, attend)
        return self._around(x, self.norm2, lambda y: self.dropout2(self._fed(y)))

    def step(self, x: Value, cache: Pair, place: Place) -> tuple[Value, Pair]:
        """One step, shape (batch, E), of a causal layer; `cache` and `place`: see
        `MultiHeadAttention.step`."""
        found: list[Pair] = []

        def attend(y: Value) -> Value:
            one, after = self.self_attn.step(y, cache, place)
            found.append(after)
            return self.dropout1(one)

        x = self._around(x, self.norm1, attend)
        return self._around(x, self.norm2, lambda y: self.dropout2(self._fed(y))), found[0]


class TransformerDecoderLayer(_Layer):
    """Causal self attention, attention to an encoder's output (`memory`), and two linear layers.

    Args and parameters: as of `TransformerEncoderLayer`; `multihead_attn` looks at the memory.

    Shapes: input (batch, steps, E), memory (batch, positions, E), `lengths` and `memory_lengths`
    (batch,) or None; output (batch, steps, E).

    >>> import numpy as np
    >>> from fastnn import nn
    >>> layer = nn.TransformerDecoderLayer(8, 2, 16)
    >>> layer.predict(np.ones((3, 5, 8), np.float32), np.ones((3, 7, 8), np.float32)).shape
    (3, 5, 8)
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str = "relu", layer_norm_eps: float = 1e-5, norm_first: bool = False,
        bias: bool = True, rotary: bool = False,
    ):  # fmt: skip
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, norm_first, bias,
            rotary,
        )  # fmt: skip
        self.multihead_attn = MultiHeadAttention(d_model, nhead, dropout, bias)
        self.norm3, self.dropout3 = LayerNorm(d_model, layer_norm_eps, bias=bias), Dropout(dropout)

    def forward(
        self, x: Value, memory: Value, lengths: Value | None = None,
        memory_lengths: Value | None = None, causal: bool = True,
    ) -> Value:  # fmt: skip
        def attend(y: Value) -> Value:
            return self.dropout1(self.self_attn(y, key_lengths=lengths, causal=causal))

        def look(y: Value) -> Value:
            return self.dropout2(
                self.multihead_attn(y, memory, key_lengths=memory_lengths, query_lengths=lengths)
            )

        x = self._around(self._around(x, self.norm1, attend), self.norm2, look)
        return self._around(x, self.norm3, lambda y: self.dropout3(self._fed(y)))

    def step(
        self, x: Value, cache: Pair, place: Place, memory: Pair,
        memory_lengths: Value | None = None,
    ) -> tuple[Value, Pair]:  # fmt: skip
        """One step, shape (batch, E); `cache` and `place`: see `MultiHeadAttention.step`. `memory`
        is what ``multihead_attn.keys_and_values`` makes of the encoder's output."""
        found: list[Pair] = []

        def attend(y: Value) -> Value:
            one, after = self.self_attn.step(y, cache, place)
            found.append(after)
            return self.dropout1(one)

        def look(y: Value) -> Value:
            q = self.multihead_attn.project(ops.reshape(y, (y.shape[0], 1, y.shape[1])))
            seen = self.multihead_attn.attend(q, memory, memory_lengths)
            return self.dropout2(ops.reshape(seen, y.shape))

        x = self._around(self._around(x, self.norm1, attend), self.norm2, look)
        return self._around(x, self.norm3, lambda y: self.dropout3(self._fed(y))), found[0]


class _Stack(Module):
    """A number of copies of a layer, and a last normalisation."""

    kind: type[_Layer]

    def __init__(self, layer: Any, num_layers: int, norm: Module | None = None):
        name = type(self).__name__
        check_whole(name, 1, num_layers=num_layers)
        if not isinstance(layer, self.kind):
            raise OptionError(
                f"{name}: expected a layer, nn.{self.kind.__name__}(...), got "
                f"{type(layer).__name__}"
            )
        self.layers: Any = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm

    def _last(self, x: Value) -> Value:
        return x if self.norm is None else self.norm(x)

    def cache(self, x: Value, steps: int) -> list[Pair]:
        """Each layer's keys and values of no step yet, for each sample of x."""
        return [layer.self_attn.cache(x, steps) for layer in self.layers]


class TransformerEncoder(_Stack):
    """A stack of encoder layers.

    Args:
        layer: a `TransformerEncoderLayer`, which is copied.
        num_layers: how many layers there are.
        norm: what follows the last one, a `LayerNorm` after layers with `norm_first`, or None.

    Shapes: as of `TransformerEncoderLayer`. What lies past the end of a sequence counts as 0.

    Raises OptionError for a layer of another kind and `num_layers` below 1; ShapeError for lengths
    that do not fit the input.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)
    >>> encoder.predict(np.ones((3, 5, 8), np.float32)).shape
    (3, 5, 8)
    """

    kind = TransformerEncoderLayer

    def forward(self, x: Value, lengths: Value | None = None, causal: bool = False) -> Value:
        if lengths is not None and x.ndim == 3:
            batch, steps, _ = x.shape
            lengths = checked_lengths(x.graph, lengths, batch, steps, type(self).__name__)
            x = within(x, lengths)
        for layer in self.layers:
            x = layer(x, lengths, causal=causal)
        return self._last(x)

    def step(self, x: Value, cache: list[Pair], place: Place) -> tuple[Value, list[Pair]]:
        """One step of causal layers, shape (batch, E), and the caches with it; `cache` and `place`
        as of `MultiHeadAttention.step`, a cache for each layer."""
        after = []
        for layer, pair in zip(self.layers, cache, strict=True):
            x, pair = layer.step(x, pair, place)
            after.append(pair)
        return self._last(x), after


class TransformerDecoder(_Stack):
    """A stack of decoder layers.

    Args: as of `TransformerEncoder`, with a `TransformerDecoderLayer`.

    Shapes: as of `TransformerDecoderLayer`.

    Raises OptionError for a layer of another kind and `num_layers` below 1; ShapeError for lengths
    that do not fit the input.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2)
    >>> decoder.predict(np.ones((3, 5, 8), np.float32), np.ones((3, 7, 8), np.float32)).shape
    (3, 5, 8)
    """

    kind = TransformerDecoderLayer

    def forward(
        self, x: Value, memory: Value, lengths: Value | None = None,
        memory_lengths: Value | None = None, causal: bool = True,
    ) -> Value:  # fmt: skip
        if lengths is not None and x.ndim == 3:
            batch, steps, _ = x.shape
            lengths = checked_lengths(x.graph, lengths, batch, steps, type(self).__name__)
            x = within(x, lengths)
        for layer in self.layers:
            x = layer(x, memory, lengths, memory_lengths, causal=causal)
        return self._last(x)

    def project_memory(self, memory: Value) -> list[Pair]:
        """What each layer looks at of an encoder's output, for `step`."""
        return [layer.multihead_attn.keys_and_values(memory) for layer in self.layers]

    def step(
        self, x: Value, cache: list[Pair], place: Place, memory: list[Pair],
        memory_lengths: Value | None = None,
    ) -> tuple[Value, list[Pair]]:  # fmt: skip
        """One step, shape (batch, E), and the caches with it; arguments as of a layer's `step`, of
        `cache` and `memory` one for each layer, `place` and `memory_lengths` for all."""
        after = []
        for layer, pair, seen in zip(self.layers, cache, memory, strict=True):
            x, pair = layer.step(x, pair, place, seen, memory_lengths)
            after.append(pair)
        return self._last(x), after


class Transformer(Module):
    """An encoder and a decoder (Vaswani et al. 2017), with PyTorch's names.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, norm_first, bias: as
            of `TransformerEncoderLayer`.
        num_encoder_layers, num_decoder_layers: how many layers there are.

    Attributes:
        encoder, decoder: a `TransformerEncoder` and a `TransformerDecoder`, each with a last
            normalisation.

    Shapes: source (batch, positions, E), target (batch, steps, E), `lengths` of the source and
    `target_lengths` (batch,) or None; output (batch, steps, E). Embeddings, positions and the
    output layer are the user's.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> model = nn.Transformer(8, 2, 1, 1, 16)
    >>> model.predict(np.ones((3, 7, 8), np.float32), np.ones((3, 5, 8), np.float32)).shape
    (3, 5, 8)
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
        num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str = "relu", layer_norm_eps: float = 1e-5, norm_first: bool = False,
        bias: bool = True,
    ):  # fmt: skip
        options = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, norm_first,
                   bias)  # fmt: skip
        self.encoder = TransformerEncoder(
            TransformerEncoderLayer(*options), num_encoder_layers,
            LayerNorm(d_model, layer_norm_eps, bias=bias),
        )  # fmt: skip
        self.decoder = TransformerDecoder(
            TransformerDecoderLayer(*options), num_decoder_layers,
            LayerNorm(d_model, layer_norm_eps, bias=bias),
        )  # fmt: skip

    def forward(
        self, source: Value, target: Value, lengths: Value | None = None,
        target_lengths: Value | None = None,
    ) -> Value:  # fmt: skip
        memory = self.encoder(source, lengths)
        y: Value = self.decoder(target, memory, target_lengths, lengths)
        return y


publish(globals(), type)
