"""What every module is first of all: a part of a tree, which holds modules and parameters.

A tree has names for all that is in it, and says what of it is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from fastnn.errors import OptionError, ShapeError
from fastnn.nn import structure
from fastnn.nn.parameter import Parameter

if TYPE_CHECKING:
    from fastnn.nn.module import Module


class Tree(structure.Part):
    """Base of `Module`: modules and parameters in attributes, by name."""

    def __setattr__(self, name: str, value: Any) -> None:
        current = self.__dict__.get(name)
        if isinstance(current, Parameter) and not isinstance(value, structure.Part):
            if value is None:
                raise ShapeError(f"parameter {name!r} cannot be removed; expected an array")
            current.value = value
            return
        for own, part in structure.inside(name, value):
            structure.adopt(self, part)
            if isinstance(part, Parameter) and not part.name:
                part._name = own
        object.__setattr__(self, name, value)
        structure.touch(self)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        structure.touch(self)

    def attributes(self) -> Iterable[tuple[str, Any]]:
        """Names and values among which parameters and sub-modules are looked for."""
        return self.__dict__.items()

    def children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their names; those in lists, tuples and dicts count at any depth,
        with their indices and keys ("blocks.0", "heads.left.1")."""
        for name, part in structure.held(self):
            if isinstance(part, Tree):
                yield name, cast("Module", part)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names; each module once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, cast("Module", self)
        for name, child in self.children():
            structure.adopt(self, child)
            yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def named_arrays(self) -> dict[str, Parameter]:
        """All parameters and buffers by dotted name; a shared one under its first name."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in structure.held(module):
                if not isinstance(value, Parameter) or id(value) in seen:
                    continue
                structure.adopt(module, value)
                seen.add(id(value))
                full = f"{prefix}.{name}" if prefix else name
                if full in found:
                    raise OptionError(
                        f"{type(self).__name__}: two parameters are called {full!r}; use other "
                        "attribute names or keys"
                    )
                value._name = full
                found[full] = value
        return found

    def _in_pytorch(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Of parameters that PyTorch calls otherwise: name and shape there."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for prefix, part in self.named_modules():
            if (named := getattr(part, "_named_in_pytorch", None)) is not None:
                at = f"{prefix}." if prefix else ""
                found |= {at + own: (at + name, shape) for own, (name, shape) in named().items()}
        return found

    def _other_names(self) -> dict[str, str]:
        """Further names of shared parameters, each with the name that counts."""
        first = {id(p): name for name, p in self.named_arrays().items()}
        found: dict[str, str] = {}

        def walk(module: Tree, prefix: str, above: tuple[int, ...]) -> None:
            if id(module) in above:
                return
            for name, part in structure.held(module):
                full = f"{prefix}.{name}" if prefix else name
                if isinstance(part, Tree):
                    walk(part, full, (*above, id(module)))
                elif first[id(part)] != full:
                    found[full] = first[id(part)]

        walk(self, "", ())
        return found

    def named_parameters(self) -> dict[str, Parameter]:
        """The trained parameters by dotted name: neither buffers nor frozen ones.

        A dict, where PyTorch gives pairs: loop over its ``items()``.
        """
        return {n: p for n, p in self.named_arrays().items() if p.trainable}

    def parameters(self) -> list[Parameter]:
        """The trained parameters."""
        return list(self.named_parameters().values())

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(p.size for p in self.parameters())

    # ---------------------------------------------------------------- what is trained

    def freeze(self, *chosen: str | Module | Parameter) -> Self:
        """Keep parameters as they are: training no longer changes them, and neither do weight decay
        or momentum. This may be done at any time, between two calls of `fit` or in a callback.

        Running statistics of `BatchNorm` are buffers and follow the data all the same, as in
        PyTorch.

        Args:
            chosen: name patterns ("body.*", "*.bias"), names of modules ("body"), modules or
                parameters of this model; all parameters if none are given.

        Returns:
            The model.

        Raises:
            OptionError: one of them matches no parameter of this model.

        >>> from fastnn import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).freeze("0.*")
        >>> list(model.named_parameters())
        ['1.weight', '1.bias']
        """
        self._set_trainable(chosen, False)
        return self

    def unfreeze(self, *chosen: str | Module | Parameter) -> Self:
        """Train parameters again that `freeze` has frozen; it takes the same arguments. The
        optimiser continues with the state it had for them."""
        self._set_trainable(chosen, True)
        return self

    def _set_trainable(self, chosen: Sequence[Any], trainable: bool) -> None:
        for parameter in structure.select(self, chosen or None, "freeze").values():
            parameter.trainable = trainable

    @property
    def trainable(self) -> bool:
        """Whether training moves any of its parameters; setting it freezes or unfreezes all."""
        return any(p.trainable for p in self.named_arrays().values())

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        own = [p for p in self.named_arrays().values() if not p.buffer]
        if not own:
            raise OptionError(
                f"{type(self).__name__}.trainable: it has no parameters yet; set it after the "
                "layers are made, or call an attribute of your own something else"
            )
        for parameter in own:
            parameter.trainable = trainable

    requires_grad = trainable

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """PyTorch's name for freezing (False) and unfreezing (True) all parameters."""
        self.trainable = requires_grad
        return self
