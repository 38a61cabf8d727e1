"""Structures of values: what a `forward` returns when it has several outputs.

A structure is a value, or a tuple (a named one, too), list or dict of structures. A dict's values
are in the order of its keys as they were put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of a structure with its path: names and numbers joined by dots.

    >>> list(leaves((1, {"a": 2, "b": [3]})))
    [('0', 1), ('1.a', 2), ('1.b.0', 3)]
    """
    for name, part in branches(tree):
        yield from leaves(part, f"{path}.{name}" if path else name)
    if not is_branch(tree):
        yield path, tree


def is_branch(tree: Any) -> bool:
    """Whether this is a tuple, list or dict, and no leaf."""
    return isinstance(tree, (tuple, list, Mapping))


def branches(tree: Any) -> list[tuple[str, Any]]:
    """The direct parts of a structure with their names; none of a leaf."""
    if isinstance(tree, Mapping):
        return [(str(name), part) for name, part in tree.items()]
    if isinstance(tree, (tuple, list)):
        fields = getattr(tree, "_fields", range(len(tree)))
        return [(str(name), part) for name, part in zip(fields, tree, strict=True)]
    return []


def rebuild(tree: Any, contents: Sequence[Any]) -> Any:
    """The same structure with these leaves, in order.

    >>> rebuild((1, {"a": 2}), "xy")
    ('x', {'a': 'y'})
    """
    return _map(tree, iter(contents).__next__)


def _map(tree: Any, leaf: Callable[[], Any]) -> Any:
    kind = type(tree)
    if tree is None:  # a leaf, like most: a program's structure is kept without its values
        return leaf()
    if kind is tuple:
        return tuple([_map(part, leaf) for part in tree])
    if kind is list:
        return [_map(part, leaf) for part in tree]
    if isinstance(tree, Mapping):
        return {name: _map(part, leaf) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [_map(part, leaf) for part in tree]
        if hasattr(tree, "_fields"):
            return kind(*parts)
        return tuple(parts) if isinstance(tree, tuple) else parts
    return leaf()
