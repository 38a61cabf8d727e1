"""NaN in, NaN out: operands for any kernel that computes rows or sums, found by its declaration."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn.ops  # noqa: F401  (declares the kernels)
from fastnn.kernels import topics
from fastnn.kernels.declare import KERNELS, Array

#: files of kernels whose results depend on every element of what they read
FILES = (
    "broadcast.cpu", "elementwise.cpu", "loss.cpu", "loss.cpu_pairs", "norm.cpu", "norm.cpu_batch",
    "reduce.cpu", "shape.cpu", "softmax.cpu", "step.cpu", "update.cpu_clip",
)  # fmt: skip
#: inputs that a kernel may leave unread or compares only, and why
UNREAD = {
    ("leaky_relu_backward", "x"): "a switch between two factors",
    ("prelu_backward_input", "x"): "likewise",
    ("relu_backward", "y"): "a switch",
    ("maxout_backward", "x"): "compared with the maximum, which is NaN then",
    ("maxout_backward", "y"): "likewise",
    ("maxout_backward", "dy"): "goes to the maximum, which these operands don't have",
    ("kl_div_backward", "x"): "its gradient does not depend on it",
    ("kl_div_log_backward", "x"): "likewise",
    ("prelu_forward", "weight"): "for negative x only",
    ("prelu_backward_input", "weight"): "likewise",
    **{
        (name, key): "a comparison is 0 or 1; with NaN it does not hold"
        for name in ("equal", "less", "less_equal", "not_equal")
        for key in ("a", "b")
    },
    **{
        (f"{name}_backward_{side}", key): "compared only; the larger or smaller is NaN then"
        for name in ("maximum", "minimum")
        for side in ("a", "b")
        for key in ("a", "b")
    },
    ("clip_backward", "x"): "a switch",
    ("power_backward_b", "b"): "the power, which is given, holds it",
    ("where_forward", "mask"): "a switch",
    ("where_forward", "b"): "not chosen by these operands",
    ("where_backward_a", "mask"): "a switch",
    ("where_backward_b", "mask"): "a switch",
    ("where_backward_b", "dy"): "not chosen by these operands",
}
SIZES = {"U": 1, "T": 2, "L": 16, "K": 12, "C": 6, "W": 6, "G": 6, "N": 4, "B": 6, "R": 4, "F": 8}
REALS = {"threshold": 20.0, "eps": 1e-5, "low": 0.1, "high": 0.9}
INTS = {"ignore_index": -100, "pieces": 2, "groups": 2, "count": 3, "ignored": -100}


def kernels() -> list[str]:
    """Names of the kernels of these files that read and write floats."""
    topics.load("cpu")
    found = []
    for name, kernel in KERNELS.items():
        module = kernel.function.__module__ or ""
        floats = [p for p in kernel.arrays.values() if p.dtype in "fr"]
        ours = module.removeprefix("fastnn.kernels.") in FILES
        if ours and any(p.writes for p in floats) and any(p.reads for p in floats):
            found.append(name)
    return sorted(found)


def operands(name: str, dtype: Any) -> dict[str, Any]:
    """Arrays of small numbers between 0.2 and 0.8, integers 0, and numbers that suit."""
    rng = np.random.default_rng(3)
    found: dict[str, Any] = {}
    for key, p in KERNELS[name].params.items():
        if not isinstance(p, Array):
            found[key] = INTS.get(key, 1) if p.kind == "int" else REALS.get(key, 0.5)
            continue
        shape = tuple(SIZES.get(letter, 5) for letter in p.dims)
        if p.dtype == "i":
            found[key] = np.zeros(shape, np.int64)
        else:
            found[key] = rng.uniform(0.2, 0.8, shape).astype(
                np.float64 if p.dtype == "r" else dtype
            )
    return found


def hidden(name: str, dtype: Any, run: Any) -> list[str]:
    """Inputs of a kernel whose NaN no output shows."""
    kernel = KERNELS[name]
    found = []
    for key, p in kernel.arrays.items():
        if not p.reads or p.dtype not in "fr" or (name, key) in UNREAD:
            continue
        given = operands(name, dtype)
        given[key][...] = np.nan
        run(name, given)
        outputs = [given[k] for k, q in kernel.arrays.items() if q.writes and q.dtype in "fr"]
        if not any(np.isnan(a).any() for a in outputs):
            found.append(key)
    return found
