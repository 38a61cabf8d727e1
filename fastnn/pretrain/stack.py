"""Stacks of layers that are trained one after the other, each on the output of the one below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import OptionError, is_whole
from fastnn.graph.value import Value
from fastnn.nn import Linear, ModuleList, Sequential, Sigmoid
from fastnn.nn.module import Module

if TYPE_CHECKING:
    from fastnn.train.history import History


class Stack(Module):
    """Base of stacks.

    Args:
        layers: modules with `weight` (H, V), `hidden_bias`, `transform` and `fit`.

    Attributes:
        layers: the modules, lowest first.
    """

    def __init__(self, layers: Iterable[Module]):
        self.layers: Any = ModuleList(list(layers))

    def forward(self, v: Value) -> Value:
        for layer in self.layers:
            v = layer(v)
        return v

    def transform(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """The output of the highest layer for data of shape (samples, V), in evaluation mode."""
        found: np.ndarray = self.predict(x, batch_size=batch_size)
        return found

    def below(self, x: Any, layer: int) -> Any:
        """The input of layer number `layer` for these data: `x` itself for number 0."""
        for lower in self.layers[: self._number(layer)]:
            x = lower.transform(x)
        return x

    def fit(
        self,
        x: Any,
        *,
        epochs: int | Sequence[int] = 10,
        batch_size: int = 100,
        layers: Iterable[int] | None = None,
        layer_options: Sequence[dict[str, Any]] | None = None,
        verbose: bool = True,
        **options: Any,
    ) -> list[History]:
        """Train one layer after the other, lowest first (Hinton, Osindero & Teh 2006; Bengio et al.
        2007).

        Args:
            x: data of shape (samples, V).
            epochs: passes over the data, for each layer, or one number for each.
            batch_size: samples in a step.
            layers: numbers of the layers to train; None means all. To continue an interrupted run,
                give those that are left.
            layer_options: further options for each layer.
            verbose: whether to show progress.
            options: of the layers' `fit`.

        Returns:
            The histories of the layers that were trained; Ctrl-C ends them all, and the last has
            `stopped` as "interrupted".
        """
        count = len(self.layers)
        each = list(epochs) if isinstance(epochs, Sequence) else [epochs] * count
        more = [{}] * count if layer_options is None else list(layer_options)
        name = type(self).__name__
        for what, given in (("epochs", each), ("layer_options", more)):
            if len(given) != count:
                raise OptionError(
                    f"{name}.fit: expected {what} for each of {count} layers, got {len(given)}"
                )
        chosen = sorted({self._number(k) for k in (range(count) if layers is None else layers)})
        histories = []
        for k, layer in enumerate(self.layers):
            if k in chosen:
                settings = {**options, **more[k]}
                histories.append(
                    layer.fit(x, epochs=each[k], batch_size=batch_size, verbose=verbose, **settings)
                )
                if histories[-1].stopped == "interrupted":
                    break
            if k < max(chosen, default=-1):
                x = layer.transform(x)
        return histories

    def _number(self, layer: Any) -> int:
        if not is_whole(layer, 0) or layer >= len(self.layers):
            raise OptionError(
                f"{type(self).__name__}: expected the number of a layer, 0..{len(self.layers) - 1},"
                f" got {layer!r}"
            )
        return int(layer)

    def to_mlp(
        self, outputs: int | None = None, activation: Callable[[], Module] = Sigmoid
    ) -> Sequential:
        """An ordinary net with copies of the weights, to be trained with labels.

        Args:
            outputs: size of a last, untrained linear layer, such as the number of classes; None
                means no such layer.
            activation: called to make the activation after each layer; the layers were trained with
                a sigmoid.

        Returns:
            ``Linear, activation, Linear, activation, ..., Linear``.
        """
        return to_mlp(
            [(layer.weight, layer.hidden_bias) for layer in self.layers], outputs, activation
        )

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.layers[0].weight.shape[1],)


def to_mlp(
    layers: Sequence[tuple[Any, Any]], outputs: int | None, activation: Callable[[], Module]
) -> Sequential:
    """A net with copies of these weights and biases."""
    if not callable(activation) or isinstance(activation, Module):
        raise OptionError(
            f"to_mlp: expected activation to make a module, such as nn.Sigmoid, got {activation!r}"
        )
    parts: list[Module] = []
    wide = layers[0][0].store is not None and layers[0][0].store.dtype == "float64"
    for weight, bias in layers:
        linear = Linear(weight.shape[1], weight.shape[0])
        linear.weight.value, linear.bias.value = np.array(weight), np.array(bias)  # type: ignore[union-attr]
        parts += [linear, activation()]
    if outputs is not None:
        parts.append(Linear(layers[-1][0].shape[0], outputs))
    net = Sequential(*parts)
    return net.to("float64") if wide else net


def layer_sizes(name: str, given: Any) -> list[int]:
    """Sizes of the layers of a stack, from the data upward."""
    found = list(given) if isinstance(given, (list, tuple)) else []
    if len(found) < 2 or not all(is_whole(n, 1) for n in found):
        raise OptionError(
            f"{name}: expected the sizes of two layers or more, from the data upward, such as "
            f"[784, 500, 500], got {given!r}"
        )
    return [int(n) for n in found]
