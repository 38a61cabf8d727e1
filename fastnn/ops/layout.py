"""What convolutions and pooling share: where the channels are, sizes and padding.

Inside channels are last, (N, T, C) and (N, H, W, C): a window's row is then one run of memory, and
the bias, activations and pooling that follow work on whole vectors of channels. A value whose
channels come first is transposed, and the result transposed back. Between layers the two cancel:
the graph remembers of a value that was transposed what it is the transpose of (`Graph.last`), looks
through functions of single elements, and what nobody reads is not computed (`plan/unread.py`).
"""

from __future__ import annotations

from typing import Any

from fastnn.errors import OptionError, ShapeError
from fastnn.graph.tangent import by_element
from fastnn.graph.value import Value
from fastnn.ops.shape import transpose

Shape = tuple[int, ...]


# ---------------------------------------------------------------- channels


def check_channels(label: str, channels: Any) -> None:
    """Raise OptionError for another option than "first" and "last"."""
    if channels not in ("first", "last"):
        raise OptionError(f"{label}: expected channels 'first' or 'last', got {channels!r}")


def to_last(x: Value, rank: int, channels: str, label: str) -> Value:
    """x with its channels last; ShapeError if it has not `rank` axes beside batch and channels."""
    check_channels(label, channels)
    if x.ndim != rank + 2:
        axes = "T" if rank == 1 else "H, W"
        shape = f"(N, C, {axes})" if channels == "first" else f"(N, {axes}, C)"
        raise ShapeError(
            f"{label}: expected an input of {rank + 2} dimensions, {shape}, got shape {x.shape}; "
            "reshape it (a single channel is an axis of size 1), or use the layer for "
            f"{3 - rank} dimension{'s'[: 2 - rank]}"
        )
    return _last(x) if channels == "first" else x


def _last(x: Value) -> Value:
    """The transpose of x; where x is one, or was made element by element of one, without a copy."""
    found = _known(x)
    if found is None:
        found = x.graph.last[x] = transpose(x, (0, *range(2, x.ndim), 1))
    return found


def _known(x: Value) -> Value | None:
    """x with its channels last, where that takes no copy: it is the transpose of such a value, or
    made element by element of such ones (and is made of them anew)."""
    node, last = x.node, x.graph.last
    if x in last:
        return last[x]
    if node is None or node.of is not None or node.op.tangent is not by_element:
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
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in found)
    if len(found) != rank or not whole:
        raise OptionError(
            f"{label}: expected {name} to be an integer from {least} on"
            + (f" or {rank} of them" if rank > 1 else "")
            + f", got {given!r}"
        )
    return found


def sizes(
    label: str, extents: Shape, kernel: Shape, stride: Shape, padding: Any, dilation: Shape,
    causal: bool = False, ceil_mode: bool = False,
) -> tuple[Shape, Shape, Shape]:  # fmt: skip
    """For each axis zeros before its first place, zeros on both sides, and how many windows."""
    rank, before, around, out = len(extents), [], [], []
    words = ("same", "valid", "causal") if causal else ("same", "valid")
    if isinstance(padding, str) and padding not in words:
        raise OptionError(
            f"{label}: expected padding to be a number or one of {', '.join(map(repr, words))}, "
            f"got {padding!r}"
        )
    numbers = None if isinstance(padding, str) else each(label, "padding", padding, rank, 0)
    for axis, (n, k, s, d) in enumerate(zip(extents, kernel, stride, dilation, strict=True)):
        span = d * (k - 1) + 1
        if numbers is not None:
            both, first = 2 * numbers[axis], numbers[axis]
        elif padding == "same":
            both, first = span - 1, (span - 1) // 2
        else:
            both = first = span - 1 if padding == "causal" else 0
        if span > n + both:
            at = f" at dilation {d}" if d > 1 else ""
            raise ShapeError(
                f"{label}: a kernel of {k}{at} covers {span} places, more than the {n + both} of "
                f"input {extents} with padding; use padding='same', a smaller kernel or longer "
                "input"
            )
        before.append(first)
        around.append(both)
        count = (n + both - span) // s + 1
        if ceil_mode and (n + both - span) % s and count * s < n + first:
            count += 1  # a window over the end, which has a place of the input or its padding
        out.append(count)
    return tuple(before), tuple(around), tuple(out)
