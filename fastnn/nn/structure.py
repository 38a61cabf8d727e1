"""What a module is made of: the modules and parameters in its attributes, and whether they change.

Modules and parameters count in attributes and in lists, tuples and dicts of these at any depth.
They know, by weak references, the modules that hold them, so that the memory of a part is made
for the whole.
"""

from __future__ import annotations

import fnmatch
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError
from fastnn.graph import leaf
from fastnn.graph.tracing import traced
from fastnn.weak import there

if TYPE_CHECKING:
    from fastnn.nn.parameter import Parameter
    from fastnn.nn.tree import Tree

#: attributes that belong to a module's object and not to its contents
OWN = frozenset({"_store", "_predictor", "_methods", "_owners", "_changed", "_watch"})
#: containers in which things have no name that stays
NAMELESS = (set, frozenset)


class Part:
    """Base of what a module can be made of: modules and parameters."""

    __slots__ = ()


class Leaf(Part, leaf.Leaf):
    """Base of parameters."""

    __slots__ = ("_owners",)
    _owners: list[weakref.ref[Any]]


class Changes:
    """Counts changes of attributes of any module or parameter."""

    count = 0


changes = Changes()


def note_change() -> int:
    """Count a change; what `forward` does while it is traced counts as none."""
    if traced() is None:
        changes.count += 1
    return changes.count


def touch(module: Tree) -> None:
    """Note that an attribute of a module has changed."""
    if traced() is None:
        module.__dict__["_changed"] = note_change()


# -------------------------------------------------------------------- what is held


def held(module: Tree) -> Iterator[tuple[str, Any]]:
    """The modules and parameters that a module holds itself, with their names."""
    for name, value in module.attributes():
        if name not in OWN:
            yield from inside(name, value)


def inside(name: str, value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Modules and parameters in a value: itself, or what lists, tuples and dicts hold."""
    if isinstance(value, Part):
        yield name, value
    elif isinstance(value, (list, tuple, Mapping, *NAMELESS)):
        if any(value is container for container in above):
            return
        above = (*above, value)
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            if type(item) not in PLAIN:
                for found in inside(f"{name}.{key}", item, above):
                    if isinstance(value, NAMELESS):
                        raise OptionError(
                            f"{name!r} is a {type(value).__name__}, whose order changes from run "
                            "to run; keep layers and parameters in a list, tuple or dict"
                        )
                    yield found


#: what can hold no module
PLAIN = (int, float, str, bool, bytes, type(None))


# -------------------------------------------------------------------- who holds it


def adopt(owner: Tree, part: Any) -> None:
    """Note that `owner` holds a module or parameter."""
    owners: list[weakref.ref[Any]]
    owners = part._owners if isinstance(part, Leaf) else part.__dict__.setdefault("_owners", [])
    if not any(ref() is owner for ref in owners):
        owners[:] = [ref for ref in owners if ref() is not None]
        owners.append(weakref.ref(owner))


def _owners(part: Any) -> list[Tree]:
    """The modules that hold it (those that did and no longer do are left out)."""
    refs = part._owners if isinstance(part, Leaf) else part.__dict__.get("_owners", ())
    alive = [module for ref in refs if (module := ref()) is not None]
    return [m for m in alive if any(item is part for _, item in held(m))]


def owner(parameter: Parameter) -> Any:
    """A module that holds the parameter, if one does."""
    return next(iter(_owners(parameter)), None)


def roots(module: Tree) -> list[Tree]:
    """The outermost modules that hold it, itself if none does."""
    found: list[Tree] = []
    seen = {id(module)}
    queue = [module]
    while queue:
        current = queue.pop(0)
        above = _owners(current)
        if not above:
            found.append(current)
        for one in above:
            if id(one) not in seen:
                seen.add(id(one))
                queue.append(one)
    return found or [module]


# -------------------------------------------------------------------- names


def select(model: Tree, chosen: Any, what: str) -> dict[str, Parameter]:
    """The parameters, frozen ones included, that patterns, modules or parameters mean, by name.

    Args:
        chosen: None (all), a name pattern ("encoder.*"), a module's name, a module or parameter of
            the model, or a list of these. A shared parameter has all its names.
        what: the option's name, for error messages.
    """
    known = {name: p for name, p in model.named_arrays().items() if not p.buffer}
    if chosen is None:
        return known
    names = {**{name: name for name in known}, **model._other_names()}
    names = {name: first for name, first in names.items() if first in known}
    wanted: set[str] = set()
    for item in chosen if isinstance(chosen, (list, tuple, set)) else [chosen]:
        if isinstance(item, str):
            matches = {
                first
                for name, first in names.items()
                if fnmatch.fnmatchcase(name, item) or name.startswith(item + ".")
            }
        elif isinstance(item, Part):
            own = {id(p) for p in ([item] if isinstance(item, Leaf) else _arrays_of(item))}
            matches = {name for name, p in known.items() if id(p) in own}
        else:
            raise OptionError(
                f"{what}: expected name patterns, modules or parameters of the model, got "
                f"{type(item).__name__}"
            )
        if not matches:
            raise OptionError(
                f"{what}: {item!r} matches none of the model's trained parameters; expected some "
                f"of {sorted(known)}"
            )
        wanted |= matches
    return {name: p for name, p in known.items() if name in wanted}


def _arrays_of(module: Any) -> list[Leaf]:
    """A module's parameters, found without giving them new names."""
    return [
        part for _, one in module.named_modules() for _, part in held(one) if isinstance(part, Leaf)
    ]


def fitting_names(
    others: Mapping[str, str], arrays: Mapping[str, Any], prefix: str
) -> dict[str, Any]:
    """What of these arrays is meant, by the names that count.

    Args:
        others: further names of shared parameters, with the names that count.
        arrays: as they came, perhaps from PyTorch.
        prefix: of the names that are meant.
    """
    found: dict[str, Any] = {}
    for given, array in arrays.items():
        name = given[len(prefix) :]
        if not given.startswith(prefix) or name.split(".")[-1] == "num_batches_tracked":
            continue
        counts = others.get(name, name)
        if counts in found and not np.array_equal(
            numbers(found[counts], given), numbers(array, given)
        ):
            raise DataError(
                f"the arrays don't fit the model: {given!r} is the same parameter as {counts!r}, "
                "but they differ; leave one of them out"
            )
        found[counts] = array
    if prefix and not found:
        raise DataError(
            f"no name begins with {prefix!r}; expected a prefix of some of {sorted(arrays)[:8]}"
        )
    return found


# -------------------------------------------------------------------- changes


class Watch:
    """Notices when something that programs are made from has changed: attributes of the module or
    of a part of it, its parts, what is trained. (It keeps the parts, but not the module, which may
    keep it.)

    Attributes:
        seen: what `changes` showed when it was last looked at: if it still does, and there are no
            `containers` in attributes (which may change behind its back), nothing has changed.
    """

    def __init__(self, module: Tree):
        self._module = weakref.ref(module)
        self._note(*self._look())

    def changed(self) -> bool:
        """Whether it is not as it was when this was made or last told to `accept`."""
        if self.seen == changes.count and all(map(_same, self.containers)):
            return False
        state, parts, containers = self._look()
        if state != self._state:
            return True
        self._note(state, parts, containers)
        return False

    def accept(self) -> None:
        """Take it as it is now."""
        self._note(*self._look())

    def _note(self, state: Any, parts: Any, containers: Any) -> None:
        self.seen = changes.count
        self._state, self._parts, self.containers = state, parts, containers

    def _look(self) -> tuple[Any, Any, Any]:
        """What tells a change, the objects (kept, so that their ids are), and the containers."""
        root = there(self._module, "what watches a module")
        parts = list(root.named_modules())
        state: list[Any] = [(name, id(m), m.__dict__.get("_changed", 0)) for name, m in parts]
        arrays = root.named_arrays()
        state += [(name, id(p), p.trainable, id(p.store)) for name, p in arrays.items()]
        containers: list[Any] = []
        for _, module in parts:
            for name, value in vars(module).items():
                if name not in OWN:
                    containers += _containers(value)
        return state, ([part for part in parts if part[1] is not root], arrays), containers


def _containers(value: Any, depth: int = 0) -> Iterator[tuple[Any, int, tuple[int, ...]]]:
    """The lists and dicts in a value that may get or lose a part, with what they hold now."""
    if not isinstance(value, (list, tuple, Mapping)) or depth > 16:
        return
    items = list(value.values() if isinstance(value, Mapping) else value)
    nested = [found for item in items if type(item) not in PLAIN
              for found in _containers(item, depth + 1)]  # fmt: skip
    if not isinstance(value, tuple):
        holds = bool(nested) or any(isinstance(i, Part) for i in items)
        yield value, len(items), tuple(map(id, items)) if holds else ()
    yield from nested


def _same(noted: tuple[Any, int, tuple[int, ...]]) -> bool:
    container, count, ids = noted
    if len(container) != count:
        return False
    items = container.values() if isinstance(container, Mapping) else container
    return not ids or all(id(item) == known for item, known in zip(items, ids, strict=True))
