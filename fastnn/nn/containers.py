"""Modules that hold modules: one after the other, in a list, in a dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.nn import structure
from fastnn.nn.module import Module
from fastnn.ops.layout import check_channels
from fastnn.public import publish


def _layer(value: Any, where: str) -> Module:
    if not isinstance(value, Module):
        remedy = "a function of your own goes into the forward of a subclass of nn.Module"
        if isinstance(value, type):
            remedy = "write nn.ReLU(), with parentheses"
        elif isinstance(value, (list, tuple)):
            remedy = "write a star before a list of layers: nn.Sequential(*layers)"
        raise OptionError(
            f"{where}: expected layers, got {getattr(value, '__name__', type(value).__name__)}; "
            f"{remedy}"
        )
    return value


class Sequential(Module):
    """Applies layers one after another.

    A recurrent layer (`LSTM`, `GRU`, `RNN`) passes on its outputs for all steps, (batch, steps,
    features), and drops its final states. Write a module of your own if you need them.

    Args:
        layers: the layers, in order.
        channels: where the channels of sequences and images are in the model's inputs and outputs,
            "first" or "last", as of `Module.to`.

    Raises OptionError for anything but modules, as for ``nn.ReLU`` without its parentheses, and for
    unknown `channels`.

    >>> from fastnn import nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU()).parameter_count
    15
    >>> import numpy as np
    >>> nn.Sequential(nn.LSTM(4, 8), nn.Linear(8, 2)).predict(np.zeros((1, 5, 4))).shape
    (1, 5, 2)
    """

    def __init__(self, *layers: Module, channels: str = "first"):
        check_channels("Sequential", channels)
        for index, layer in enumerate(layers):
            setattr(self, str(index), _layer(layer, f"Sequential, place {index}"))
        if channels == "last":
            self._layout = channels

    @property
    def layers(self) -> list[Module]:
        """The layers, in order."""
        return [child for _, child in self.children()]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer.handed_on(layer(x))
        return x

    def append(self, layer: Module) -> Sequential:
        """Add a layer at the end.

        Raises OptionError for anything else.
        """
        setattr(self, str(len(self.layers)), _layer(layer, "Sequential.append"))
        return self

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __setitem__(self, index: int, layer: Module) -> None:
        name = [name for name, _ in self.children()][index]
        setattr(self, name, _layer(layer, "Sequential"))


class Identity(Module):
    """Returns its input unchanged: a placeholder for a layer to be put in later.

    >>> nn.Identity().predict(np.ones((1, 3), np.float32))
    array([[1., 1., 1.]], dtype=float32)
    """

    def forward(self, x: Value) -> Value:
        return x


class ModuleList(Module):
    """A list of modules, for use in your own `forward`. (Plain lists work as well.) `layers` are
    those that it begins with.

    Raises OptionError for anything but modules.

    >>> from fastnn import nn
    >>> class Deep(nn.Module):
    ...     def __init__(self, size, depth):
    ...         self.blocks = nn.ModuleList(nn.Linear(size, size) for _ in range(depth))
    ...     def forward(self, x):
    ...         for block in self.blocks:
    ...             x = block(x)
    ...         return x
    >>> list(Deep(4, 2).named_parameters())
    ['blocks.0.weight', 'blocks.0.bias', 'blocks.1.weight', 'blocks.1.bias']
    """

    def __init__(self, layers: Iterable[Module] = ()):
        if not isinstance(layers, Iterable):
            raise OptionError(f"ModuleList: expected layers in a list, got {layers!r}")
        self._layers: list[Module] = []
        self.extend(layers)

    def attributes(self) -> Iterable[tuple[str, Any]]:
        own = ((k, v) for k, v in self.__dict__.items() if k != "_layers")
        return [*((str(k), layer) for k, layer in enumerate(self._layers)), *own]

    def _changed_to(self, layers: list[Module]) -> None:
        for layer in layers:
            structure.adopt(self, _layer(layer, "ModuleList"))
        self._layers = layers

    def append(self, layer: Module) -> ModuleList:
        """Add a module (`layer`) at the end.

        Raises OptionError for anything else.
        """
        self._changed_to([*self._layers, layer])
        return self

    def extend(self, layers: Iterable[Module]) -> ModuleList:
        """Add modules (`layers`) at the end.

        Raises OptionError for anything else.
        """
        self._changed_to([*self._layers, *layers])
        return self

    def insert(self, index: int, layer: Module) -> None:
        """Put a module (`layer`) before the one at `index`.

        Raises OptionError for anything else.
        """
        layers = list(self._layers)
        layers.insert(index, layer)
        self._changed_to(layers)

    def pop(self, index: int = -1) -> Module:
        """Remove the module at `index`, and return it."""
        layer = self._layers[index]
        del self[index]
        return layer

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers)

    def __contains__(self, layer: object) -> bool:
        return any(layer is mine for mine in self._layers)

    def __getitem__(self, index: Any) -> Any:
        found = self._layers[index]
        return ModuleList(found) if isinstance(index, slice) else found

    def __setitem__(self, index: int, layer: Module) -> None:
        layers = list(self._layers)
        layers[index] = layer
        self._changed_to(layers)

    def __delitem__(self, index: Any) -> None:
        layers = list(self._layers)
        del layers[index]
        self._changed_to(layers)


class ModuleDict(Module):
    """A dict of named modules, for use in your own `forward`. (Plain dicts work as well.) `layers`
    are those that it begins with: a mapping, or pairs of name and module.

    Raises OptionError for anything but modules, and for names with a dot.

    >>> from fastnn import nn
    >>> heads = nn.ModuleDict({"tags": nn.Linear(8, 5), "words": nn.Linear(8, 9)})
    >>> list(heads), heads["tags"].out_features
    (['tags', 'words'], 5)
    """

    def __init__(self, layers: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        self._layers: dict[str, Module] = {}
        self.update(layers)

    def attributes(self) -> Iterable[tuple[str, Any]]:
        own = ((k, v) for k, v in self.__dict__.items() if k != "_layers")
        return [*self._layers.items(), *own]

    def _changed_to(self, layers: dict[str, Module]) -> None:
        for name, layer in layers.items():
            if not isinstance(name, str) or not name or "." in name:
                raise OptionError(f"ModuleDict: expected names without a dot, got {name!r}")
            structure.adopt(self, _layer(layer, "ModuleDict"))
        self._layers = layers

    def update(self, layers: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules: `layers` as in the beginning.

        Raises OptionError for anything but modules by name.
        """
        try:
            found = dict(layers)
        except (TypeError, ValueError):
            raise OptionError(
                f"ModuleDict: expected layers by name, in a dict or in pairs, got {layers!r}"
            ) from None
        self._changed_to({**self._layers, **found})

    def pop(self, name: str) -> Module:
        """Take the module of this `name` out, and return it."""
        layer = self._layers[name]
        del self[name]
        return layer

    def keys(self) -> Iterable[str]:
        """The modules' names."""
        return self._layers.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._layers.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Pairs of name and module."""
        return self._layers.items()

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __getitem__(self, name: str) -> Module:
        return self._layers[name]

    def __setitem__(self, name: str, layer: Module) -> None:
        self.update({name: layer})

    def __delitem__(self, name: str) -> None:
        self._changed_to({k: v for k, v in self._layers.items() if k != name})


publish(globals(), type)
