"""Which losses add up over batches: a look at how a single number was made of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastnn.graph.alike import alike, same_op
from fastnn.graph.value import Value
from fastnn.plan.samples import Samples

#: how a number of a batch is added to a total: weighted by the number of samples; as it is;
#: weighted by a sum of weights that the step computes; a number that is the same for each batch
SAMPLES, SUM, WEIGHTS, CONSTANT = "samples", "sum", "weights", "constant"


def reduction_of(
    value: Value, samples: Samples | None = None, resized: Value | None = None
) -> tuple[str, Value | None] | None:
    """How the values of batches become that of all samples; None where they don't.

    Means over rows are weighted by the number of samples, sums added, weighted means weighted by
    their denominators; so are what is made of them by factors, and sums of means. With `samples`,
    the rows must also be made of their own sample each.

    With `resized`, the same number in the graph of another batch size, factors are compared: a sum
    that is divided by the batch's size is a mean of the samples, a mean times that size a sum.
    Where a number follows the size in another way, or among the rows, batches don't add up.

    Returns:
        One of the words above, with the denominator for WEIGHTS.
    """
    if samples is not None and not samples.depends(value):
        return CONSTANT, None
    node = value.node
    if node is None:
        if resized is not None and not alike(value, resized):
            return None
        return (CONSTANT, None) if value.segment in ("constant", "params", "buffers") else None
    other = None if resized is None else resized.node
    if resized is not None and (other is None or not same_op(other, node)):
        return None
    name, inputs = node.op.name, node.inputs
    resized_inputs: Mapping[str, Value | None] = {} if other is None else other.inputs
    rows = inputs.get("x")
    if samples is None and name in ("mean", "total", "weighted_mean") and not _of_data(value):
        return (CONSTANT, None) if resized is None or alike(value, resized) else None
    if name in ("mean", "total", "weighted_mean"):
        assert rows is not None
        if samples is not None and (samples.mixed(rows) or value.shape != ()):
            return None
        if resized is not None and not alike(value, resized):
            return None
        if name == "weighted_mean":
            return WEIGHTS, node.outputs["denominator"]
        return (SAMPLES if name == "mean" else SUM), None
    if name in ("affine", "negate", "reshape"):
        assert rows is not None
        found = reduction_of(rows, samples, resized_inputs.get("x"))
        if found is not None and resized is not None and other is not None:
            found = _rescaled(
                found, node.attrs, other.attrs, value.graph.batch / resized.graph.batch
            )
        if found is not None and found[0] == SUM and node.attrs.get("shift", 0.0):
            return None
        return found
    if name in ("add", "subtract", "multiply", "divide"):
        a, b = inputs["a"], inputs["b"]
        assert a is not None and b is not None
        first = reduction_of(a, samples, resized_inputs.get("a"))
        return _both(name, first, reduction_of(b, samples, resized_inputs.get("b")))
    return None


def _of_data(value: Value) -> bool:
    """Whether a number is made of the batch's data: not of parameters and constants alone."""
    seen, left = set(), [value]
    while left:
        root = left.pop().root
        if root in seen:
            continue
        seen.add(root)
        if root.node is not None:
            left += [v for v in root.node.inputs.values() if v is not None]
        elif root.segment not in ("constant", "params", "buffers"):
            return True
    return False


def _rescaled(
    found: tuple[str, Value | None],
    attrs: Mapping[str, Any],
    others: Mapping[str, Any],
    sizes: float,
) -> tuple[str, Value | None] | None:
    """What `found` becomes by a factor and a summand, beside those in the graph of another
    batch size; `sizes` is the batch's size by that one."""
    if attrs.get("shift", 0.0) != others.get("shift", 0.0):
        return None
    factor, other = attrs.get("scale", 1.0), others.get("scale", 1.0)
    if factor == other:
        return found
    if found[0] == SUM and math.isclose(factor * sizes, other):
        return SAMPLES, None
    return (SUM, None) if found[0] == SAMPLES and math.isclose(factor, other * sizes) else None


def _both(
    name: str, a: tuple[str, Value | None] | None, b: tuple[str, Value | None] | None
) -> tuple[str, Value | None] | None:
    """How a number made of two others adds up."""
    if a is None or b is None:
        return None
    kinds = a[0], b[0]
    if name in ("multiply", "divide"):
        if b[0] == CONSTANT:
            return a
        return b if a[0] == CONSTANT and name == "multiply" else None
    if kinds == (SAMPLES, SAMPLES) or kinds == (SUM, SUM):
        return a
    if kinds == (CONSTANT, CONSTANT):
        return a
    if CONSTANT in kinds and SUM not in kinds:
        return b if a[0] == CONSTANT else a
    return a if kinds == (WEIGHTS, WEIGHTS) and a[1] is b[1] else None
