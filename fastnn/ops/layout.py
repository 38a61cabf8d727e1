"""What convolutions and pooling share: where the channels are, sizes and padding.

Inside channels are last, (N, T, C) and (N, H, W, C): a window's row is then one run of memory, and
the bias, activations and pooling that follow work on whole vectors of channels. A value whose
channels come first is transposed, and the result transposed back. Between layers the two cancel:
the graph remembers of a value that was transposed what it is the transpose of (`Graph.last`), looks
through functions of single elements and `detach`, and what nobody reads is not computed
(`plan/unread.py`).
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, is_whole
from fastnn.graph.op import lookup
from fastnn.graph.tangent import by_element
from fastnn.graph.value import Value
from fastnn.ops.shape import transpose

Shape = tuple[int, ...]


# ---------------------------------------------------------------- channels


def check_channels(label: str, channels: Any) -> None:
    """Raise OptionError for another option than "first" and "last"."""
    if channels not in ("first", "last"):
        raise OptionError(f"{label}: expected channels 'first' or 'last', got {channels!r}")


def as_given(x: Value, channels: str) -> tuple[Shape, str, str]:
    """How messages show an input: its shape and where its channels are, as in what the user has
    given, and how to say where they are otherwise."""
    model = x.graph.laid_out
    if not model or channels == "last":
        return x.shape, channels, "say where the channels are by channels='first' or 'last'"
    shape = (x.shape[0], *x.shape[2:], x.shape[1]) if x.ndim in (3, 4) else x.shape
    return (
        shape,
        "last",
        (
            f"pass inputs whose channels are last, because {model} has channels='last' (without it "
            "they come first)"
        ),
    )


def to_last(x: Value, rank: int, channels: str, label: str) -> Value:
    """x with its channels last; ShapeError if it has not `rank` axes beside batch and channels."""
    check_channels(label, channels)
    check_rank(x, rank, channels, label)
    return _last(x) if channels == "first" else x


def check_rank(x: Value, rank: int, channels: str, label: str) -> None:
    """Raise ShapeError unless x has `rank` axes beside batch and channels."""
    if x.ndim != rank + 2:
        axes = "T" if rank == 1 else "H, W"
        got, channels, _ = as_given(x, channels)
        shape = f"(N, C, {axes})" if channels == "first" else f"(N, {axes}, C)"
        raise ShapeError(
            f"{label}: expected an input of {rank + 2} dimensions, {shape}, got shape {got}; "
            "reshape it (a single channel is an axis of size 1), or use the layer for "
            f"{3 - rank} dimension{'s'[: 2 - rank]}"
        )


def _last(x: Value) -> Value:
    """The transpose of x; where x is one, or was made element by element of one, without a copy."""
    found = _known(x)
    if found is None:
        found = x.graph.last[x] = transpose(x, (0, *range(2, x.ndim), 1))
    return found


def channels_last(x: Value) -> Value | None:
    """x, whose channels come first, with its channels last; None for a value of three axes of which
    it is not known what they are. (Those of four are images.)"""
    return _last(x) if x.ndim == 4 or _has_channels(x) else None


#: ops that change how long axes are, and not what they are
_CUTS = ("slice", "slice_steps", "concatenate", "pad")


def _has_channels(x: Value) -> bool:
    """Whether the second axis of x is known to be channels: a layer of channels made it, or
    something of that shape was made of such a value (but not by a transpose), or by cutting it or
    joining such values, which leaves the axes in their order."""
    seen, queue = {x}, [x]
    while queue:
        value = queue.pop()
        if value in x.graph.last:
            return True
        node = value.node
        if node is not None and node.of is None and node.op is not lookup("transpose"):
            like = {
                v
                for v in node.inputs.values()
                if v is not None
                and (v.shape == value.shape or (node.op.name in _CUTS and v.ndim == x.ndim))
            }
            queue += like - seen
            seen |= like
    return False


def _known(x: Value) -> Value | None:
    """x with its channels last, where that takes no copy: it is the transpose of such a value, or
    made element by element of such ones (and is made of them anew)."""
    node, last = x.node, x.graph.last
    if x in last:
        return last[x]
    if node is None or node.of is not None:
        return None
    if node.op.tangent is not by_element and node.op is not lookup("detach"):
        return None
    inputs: dict[str, Value] = {}
    for name, value in node.inputs.items():
        found = _known(value) if value is not None and value.shape == x.shape else None
        if found is None:
            return None
        inputs[name] = found
    with x.graph.inside_scope(node.scope):
        last[x] = x.graph.apply(node.op.name, **inputs, **node.attrs)
    return last[x]


def from_last(y: Value, channels: str) -> Value:
    """y with its channels where they are wanted."""
    if channels == "last":
        return y
    first = transpose(y, (0, y.ndim - 1, *range(1, y.ndim - 1)))
    y.graph.last[first] = y
    return first


# ---------------------------------------------------------------- sizes


def each(label: str, name: str, given: Any, rank: int, least: int = 1) -> Shape:
    """A number for each axis, of one for all or one for each."""
    found = tuple(given) if isinstance(given, (tuple, list)) else (given,) * rank
    if len(found) != rank or not all(is_whole(n, least) for n in found):
        raise OptionError(
            f"{label}: expected {name} to be an integer from {least} on"
            + (f" or {rank} of them" if rank > 1 else "")
            + f", got {given!r}"
        )
    return tuple(int(n) for n in found)


def shares(label: str, output_size: Any, rank: int, extents: tuple[int, ...]) -> tuple[int, ...]:
    """How many windows share out each axis; None stands for as many as the axis has places.

    Raises:
        OptionError: it is no such number, nor one for each axis.
    """
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    if len(given) == rank:
        given = tuple(n if g is None else g for n, g in zip(extents, given, strict=True))
    return each(label, "output_size", given, rank)


def check_scales(label: str, scale_factor: Any, rank: int) -> tuple[float, ...]:
    """The factor of each axis.

    Raises:
        OptionError: it is no finite number above 0, nor one for each axis.
    """
    given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * rank
    real = all(isinstance(s, Real) and not isinstance(s, bool) for s in given)
    if len(given) != rank or not real or not all(0 < s < np.inf for s in given):
        raise OptionError(
            f"{label}: expected scale_factor to be a number above 0"
            + (f" or {rank} of them" if rank > 1 else "")
            + f", got {scale_factor!r}"
        )
    return tuple(float(s) for s in given)


def check_padding(label: str, padding: Any, rank: int) -> Any:
    """The padding of a convolution: numbers for each axis, or a word.

    Raises:
        OptionError: it is neither.
    """
    words = ("same", "valid", "causal")[: 3 if rank == 1 else 2]
    if isinstance(padding, str):
        if padding in words:
            return padding
        raise OptionError(
            f"{label}: expected padding to be a number or one of {', '.join(map(repr, words))}, "
            f"got {padding!r}"
        )
    return each(label, "padding", padding, rank, 0)


def extents_of(x: Value, label: str) -> Shape:
    """The extents of x, whose channels are last, beside batch and channels.

    Raises:
        ShapeError: one of them is 0, so that windows would have nothing but padding.
    """
    extents = x.shape[1:-1]
    if any(n < 1 for n in extents):
        what = "steps" if len(extents) == 1 else "rows and columns"
        raise ShapeError(
            f"{label}: expected an input with {what}, got {extents} of them; leave out what has "
            "none"
        )
    return extents


def sizes(
    label: str, extents: Shape, kernel: Shape, stride: Shape, padding: Any, dilation: Shape,
    ceil_mode: bool = False, pools: bool = False,
) -> tuple[Shape, Shape, Shape]:  # fmt: skip
    """For each axis zeros before its first place, zeros on both sides, and how many windows;
    `pools`: of a pooling, whose padding is a number."""
    padding = check_padding(label, padding, len(extents))
    before, around, out = [], [], []
    for axis, (n, k, s, d) in enumerate(zip(extents, kernel, stride, dilation, strict=True)):
        span = d * (k - 1) + 1
        if not isinstance(padding, str):
            both, first = 2 * padding[axis], padding[axis]
        elif padding == "same":
            both, first = span - 1, (span - 1) // 2
        else:
            both = first = span - 1 if padding == "causal" else 0
        if span > n + both:
            at = f" at dilation {d}" if d > 1 else ""
            more = "more padding" if pools else "padding='same'"
            raise ShapeError(
                f"{label}: a kernel of {k}{at} covers {span} places, more than the {n + both} of "
                f"input {extents} with padding; use {more}, a smaller kernel or longer input"
            )
        before.append(first)
        around.append(both)
        count = (n + both - span) // s + 1
        if ceil_mode and (n + both - span) % s and count * s < n + first:
            count += 1  # a window over the end, which has a place of the input or its padding
        out.append(count)
    return tuple(before), tuple(around), tuple(out)
