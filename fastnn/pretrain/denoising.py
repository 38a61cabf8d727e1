"""Denoising autoencoders, and stacks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.method import apply
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.pretrain.contrastive import check_data
from fastnn.pretrain.stack import Stack, layer_sizes
from fastnn.pretrain.units import UNITS
from fastnn.train.unlabelled import Reconstructing

NOISES = ("mask", "salt_pepper", "gaussian")


class DenoisingAutoencoder(Reconstructing):
    """Learns features from which damaged data can be restored (Vincent et al. 2010)::

        h = sigmoid(W x' + c)         of the damaged x'
        z = Wᵀ h + b                  compared with the undamaged x

    The loss of a sample is the cross entropy of x and sigmoid(z), summed over units (Bernoulli
    units), or half the squared distance of x and z (Gaussian ones). As a layer it gives h of
    undamaged data.

    Args:
        visible: V, the number of visible units.
        hidden: H, the number of hidden units.
        corruption: p, the strength of the damage (see `noise`).
        noise: "mask" (each unit is set to 0 with probability p), "salt_pepper" (with probability p
            to 0 or to 1, half and half), or "gaussian" (normal noise of standard deviation p is
            added).
        units: "bernoulli", for data within 0..1, or "gaussian".
        tied: whether the decoder's weights are Wᵀ; otherwise they are separate parameters.

    Attributes:
        weight: W, shape (H, V).
        hidden_bias, visible_bias: c and b, shapes (H,) and (V,).
        decoder: the decoder's weights, shape (V, H), or None if they are tied.

    Raises OptionError for sizes below 1, a `corruption` out of range, unknown names, and salt and
    pepper on data that are not within 0..1; ShapeError for another last dimension.

    >>> import numpy as np
    >>> from fastnn.pretrain import DenoisingAutoencoder
    >>> x = np.tile(np.eye(4, dtype=np.float32), (32, 1))
    >>> layer = DenoisingAutoencoder(4, 8, corruption=0.1)
    >>> history = layer.fit(x, epochs=50, batch_size=32, lr=0.05, verbose=False)
    >>> bool((layer.reconstruct(x).argmax(axis=1) == x.argmax(axis=1)).all())
    True
    """

    def __init__(
        self,
        visible: int,
        hidden: int,
        corruption: float = 0.3,
        noise: str = "mask",
        units: str = "bernoulli",
        tied: bool = True,
    ):
        name = "DenoisingAutoencoder"
        check_whole(name, 1, visible=visible, hidden=hidden)
        check_numbers(name, corruption=corruption)
        check_flags(name, tied=tied)
        for option, given, known in (("noise", noise, NOISES), ("units", units, UNITS)):
            if given not in known:
                raise OptionError(f"{name}: expected {option} to be one of {known}, got {given!r}")
        if not 0 <= corruption < (1 if noise != "gaussian" else np.inf):
            allowed = "in [0, 1)" if noise != "gaussian" else ">= 0"
            raise OptionError(f"{name}: expected corruption {allowed}, got {corruption}")
        if noise == "salt_pepper" and units == "gaussian":
            raise OptionError(
                f"{name}: expected units within 0..1 for salt and pepper, got {units!r}"
            )
        self.visible, self.hidden = int(visible), int(hidden)
        self.corruption, self.noise, self.units = float(corruption), noise, units
        self.weight = Parameter((self.hidden, self.visible), init.glorot_uniform, transposed=True)
        self.hidden_bias = Parameter((self.hidden,), 0.0)
        self.visible_bias = Parameter((self.visible,), 0.0)
        self.decoder = None
        if not tied:
            shape = (self.visible, self.hidden)
            self.decoder = Parameter(shape, init.glorot_uniform, transposed=True)

    # ---------------------------------------------------------------- of symbolic values

    def forward(self, v: Value) -> Value:
        if v.ndim < 2 or v.shape[-1] != self.visible:
            raise ShapeError(
                f"{where(v.graph.scope)}{self!r}: expected input of shape (batch, ..., "
                f"{self.visible}), got {v.shape}; change visible or flatten the input"
            )
        return ops.sigmoid(ops.linear(v, self.weight, self.hidden_bias))

    def damaged(self, v: Value) -> Value:
        """The data v with noise."""
        p = self.corruption
        if not p:
            return v
        if self.noise == "mask":
            return ops.dropout(v, p, 1.0)
        if self.noise == "gaussian":
            return ops.add(v, ops.normal_like(v, 0.0, p))
        u = ops.uniform_like(v)
        return ops.where(ops.less(u, p), ops.less(u, 0.5 * p), v)

    def visible_input(self, h: Value) -> Value:
        """What visible units get from hidden ones."""
        if self.decoder is None:
            return ops.add(ops.matmul(h, self.weight), self.visible_bias)
        return ops.linear(h, self.decoder, self.visible_bias)

    def visible_mean(self, h: Value) -> Value:
        """Visible units from hidden ones."""
        z = self.visible_input(h)
        return ops.sigmoid(z) if self.units == "bernoulli" else z

    def _reconstruction(self, v: Value) -> Value:
        return self.visible_mean(self.forward(v))

    # ---------------------------------------------------------------- of arrays

    def transform(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Hidden units, shape (samples, H), for undamaged data of shape (samples, V)."""
        found: np.ndarray = self.predict(x, batch_size=batch_size)
        return found

    def reconstruct(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """The reconstruction of data, damaged or not, shape (samples, V)."""
        found: np.ndarray = apply(self, "_reconstruction", x, batch_size=batch_size)
        return found

    # ---------------------------------------------------------------- training

    def _trained(self) -> Module:
        return Denoising(self)

    def _check_data(self, x: Any, name: str) -> None:
        if self.units == "bernoulli":
            check_data(x, name)

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.visible,)

    def extra(self) -> str:
        return f"{self.visible}, {self.hidden}, {self.noise} {self.corruption:g}"


class Denoising(Module):
    """What is trained: the loss of each sample.

    Args:
        layer: the autoencoder.
    """

    def __init__(self, layer: DenoisingAutoencoder):
        self.layer = layer

    def forward(self, v: Value) -> dict[str, Value]:
        layer = self.layer
        z = layer.visible_input(layer(layer.damaged(v) if v.graph.training else v))
        if layer.units == "bernoulli":
            nats, mean = ops.subtract(ops.softplus(z), ops.multiply(v, z)), ops.sigmoid(z)
        else:
            nats, mean = ops.affine(ops.square(ops.subtract(v, z)), 0.5, 0.0), z
        apart = ops.subtract(ops.detach(v), ops.detach(mean))
        return {"loss": ops.sum(nats, axis=-1), "error": ops.mean(ops.square(apart), axis=-1)}


class StackedDenoisingAutoencoder(Stack):
    """Denoising autoencoders, each trained on the hidden units of the one below (Vincent et al.
    2010).

    As a layer it gives the highest hidden units.

    Args:
        sizes: of the layers from the data upward, [V, H1, H2, ...].
        corruption: strength of the damage: one number, or one for each layer.
        noise: as for `DenoisingAutoencoder`.
        units: kind of the visible units; those of the higher layers are Bernoulli.
        tied: as for `DenoisingAutoencoder`.

    Attributes:
        layers: the autoencoders, lowest first.

    Raises OptionError as `DenoisingAutoencoder`, and for another number of corruptions than of
    layers.

    >>> import numpy as np
    >>> from fastnn.pretrain import StackedDenoisingAutoencoder
    >>> stack = StackedDenoisingAutoencoder([4, 8, 3], corruption=[0.1, 0.2])
    >>> histories = stack.fit(np.tile(np.eye(4), (8, 1)), epochs=2, verbose=False)
    >>> [type(layer).__name__ for layer in stack.to_mlp(2).layers]
    ['Linear', 'Sigmoid', 'Linear', 'Sigmoid', 'Linear']
    """

    def __init__(
        self,
        sizes: Sequence[int],
        corruption: float | Sequence[float] = 0.3,
        noise: str = "mask",
        units: str = "bernoulli",
        tied: bool = True,
    ):
        name = "StackedDenoisingAutoencoder"
        self.sizes = layer_sizes(name, sizes)
        count = len(self.sizes) - 1
        each: list[Any] = [corruption] * count
        if isinstance(corruption, (list, tuple)):
            each = list(corruption)
        if len(each) != count:
            raise OptionError(
                f"{name}: expected corruption for each of {count} layers, got {len(each)}"
            )
        kinds = [units] + ["bernoulli"] * (count - 1)
        super().__init__(
            DenoisingAutoencoder(visible, hidden, p, noise, kind, tied)
            for visible, hidden, p, kind in zip(
                self.sizes[:-1], self.sizes[1:], each, kinds, strict=True
            )
        )
