"""The layout of a whole module: its inputs and outputs with their channels last.

Inside, everything is in PyTorch's order, so that code, weights and features mean the same. Nothing
is transposed for it: layers find the array with its channels last (`fastnn/ops/layout.py`), which
is the input itself, and what nobody reads is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastnn.errors import OptionError, where
from fastnn.graph.graph import Graph
from fastnn.graph.tree import leaves, rebuild
from fastnn.graph.value import Value
from fastnn.ops.layout import channels_last, from_last


def laid_out(module: Any, graph: Graph, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The result of a module's `forward` for inputs whose channels are last, with its own likewise.

    Floats of three and four axes are taken for sequences and images, in inputs and outputs, and
    integers of outputs that a layer of channels has made: the places of maxima.

    Raises OptionError if a layer inside has its channels last by its own option, and for outputs of
    three axes of which it is not known that the second one is the channels.
    """
    label = f"{where(graph.scope)}{type(module).__name__} with channels='last'"
    for name, layer in _contradictions(module, ""):
        raise OptionError(
            f"{label}: {f'its layer {name!r}' if name else 'it'} ({type(layer).__name__}) has "
            "channels='last' of its own, too, but inside of the model channels come first; leave "
            "one of the two out"
        )
    inputs, options = (_each(given, _first) for given in (inputs, options))

    def last(y: Value) -> Value:
        if y.dtype != "f":
            return y.graph.last.get(y, y)
        found = channels_last(y)
        if found is None:
            raise OptionError(
                f"{label}: expected an output with channels, got one of shape {y.shape} that no "
                "layer of channels (a convolution, a pooling, a normalisation of channels) has "
                "made; give channels='last' to the part of the model that has these layers"
            )
        return found

    outer, graph.laid_out = graph.laid_out, type(module).__name__
    try:
        outputs = module.forward(*inputs, **options)
    finally:
        graph.laid_out = outer
    return _each(outputs, last)


def _first(x: Value) -> Value:
    return from_last(x, "first") if x.dtype == "f" else x


def _contradictions(module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The layers of a module, itself included, that have their channels last by themselves."""
    own = vars(module).get("channels")
    if (isinstance(own, str) and own == "last") or (name and module._layout == "last"):
        yield name, module
    elif not (name and module._own_layout):
        for child, layer in module.children():
            yield from _contradictions(layer, f"{name}.{child}" if name else child)


def _each(values: Any, function: Callable[[Value], Value]) -> Any:
    """A structure in which symbolic values of three and four axes are replaced."""

    def replaced(value: Any) -> Any:
        takes = isinstance(value, Value) and value.ndim in (3, 4)
        return function(value) if takes else value

    return rebuild(values, [replaced(value) for _, value in leaves(values)])
