"""ONNX's convolutions, poolings and recurrent nets."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import ops
from tests.onnx.cases import Case, Function, op


def _windows(c: Case, x: Any, kernel: Any) -> tuple[Any, Any, Any, Any]:
    """Strides, dilations, and padding before and after each axis."""
    rank = x.ndim - 2
    strides, dilations = (c.get(n, [1] * rank) for n in ("strides", "dilations"))
    pads, auto = c.get("pads", [0] * 2 * rank), c.get("auto_pad", "NOTSET")
    before, after = list(pads[:rank]), list(pads[rank:])
    if auto.startswith("SAME"):
        for d, (n, k, s, gap) in enumerate(
            zip(x.shape[2:], kernel, strides, dilations, strict=True)
        ):
            both = max((-(-n // s) - 1) * s + (k - 1) * gap + 1 - n, 0)
            before[d] = both // 2 if auto == "SAME_UPPER" else both - both // 2
            after[d] = both - before[d]
    return tuple(strides), tuple(dilations), before, after


def _padded(x: Any, before: Any, after: Any, value: float) -> Any:
    if not any(before) and not any(after):
        return x
    width = [(0, 0), (0, 0), *zip(before, after, strict=True)]
    return ops.pad(x, width, value=value)


def _by_rank(name: str, x: Any) -> Function:
    function: Function = getattr(ops, f"{name}{x.ndim - 2}d")
    return function


@op("Conv")
def _conv(c: Case, x: Any, w: Any, bias: Any = None) -> Any:
    strides, dilations, before, after = _windows(c, x, w.shape[2:])
    x = _padded(x, before, after, 0.0)
    w = x.graph.constant(w)
    return _by_rank("conv", x)(x, w, bias, strides, 0, dilations, c.get("group", 1))


@op("ConvTranspose")
def _conv_transpose(c: Case, x: Any, w: Any, bias: Any = None) -> Any:
    rank, kernel = x.ndim - 2, w.shape[2:]
    strides, dilations = (tuple(c.get(n, [1] * rank)) for n in ("strides", "dilations"))
    more, pads = c.get("output_padding", [0] * rank), c.get("pads", [0] * 2 * rank)
    whole = [
        (n - 1) * s + (k - 1) * d + 1 + m
        for n, s, k, d, m in zip(x.shape[2:], strides, kernel, dilations, more, strict=True)
    ]
    before = list(pads[:rank])
    sizes = [n - a - b for n, a, b in zip(whole, before, pads[rank:], strict=True)]
    auto = c.get("auto_pad", "NOTSET")
    if c.get("output_shape") is not None or auto.startswith("SAME"):
        same = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        sizes = list(c.get("output_shape", same))
        both = [n - size for n, size in zip(whole, sizes, strict=True)]
        before = [b // 2 if auto == "SAME_UPPER" else b - b // 2 for b in both]
    full = _by_rank("conv_transpose", x)(
        x, x.graph.constant(w), None, strides, 0, 0, c.get("group", 1), dilations
    )
    end = [max(n - m, b + s) for n, m, b, s in zip(whole, more, before, sizes, strict=True)]
    after = [e - n for e, n in zip(end, full.shape[2:], strict=True)]
    full = _padded(full, [0] * rank, after, 0.0)
    y = full[(slice(None), slice(None), *(slice(b, b + s) for b, s in zip(before, sizes)))]  # noqa: B905
    return y if bias is None else y + np.reshape(bias, (-1, *(1,) * rank))


def _ceil(c: Case) -> bool:
    return bool(c.get("ceil_mode", 0))


@op("MaxPool")
def _max_pool(c: Case, x: Any) -> Any:
    kernel = tuple(c.get("kernel_shape"))
    strides, dilations, before, after = _windows(c, x, kernel)
    pool, options = _by_rank("max_pool", x), (kernel, strides)
    if len(c.outputs) > 1:
        assert before == after
        return pool(x, *options, tuple(before), dilations, _ceil(c), return_indices=True)
    x = _padded(x, before, after, -np.inf)
    return pool(x, *options, 0, dilations, _ceil(c))


def places_in_tensor(c: Case, places: np.ndarray) -> np.ndarray:
    """Places within each channel's image, row by row, as ONNX's: of the whole tensor, column by
    column where it says so."""
    *_, rows, columns = c.inputs[0].shape
    images = np.arange(np.prod(places.shape[:2])).reshape(*places.shape[:2], 1, 1)
    if c.get("storage_order", 0):
        places = places % columns * rows + places // columns
    return images * rows * columns + places


@op("AveragePool", "LpPool")
def _mean_pool(c: Case, x: Any) -> Any:
    kernel = tuple(c.get("kernel_shape"))
    strides, dilations, before, after = _windows(c, x, kernel)
    if max(dilations) > 1:
        return _mean_of_gaps(c, x, kernel, strides, dilations)
    if c.op == "LpPool":
        x = _padded(x, before, after, 0.0)
        return _by_rank("lp_pool", x)(abs(x), float(c.get("p", 2)), kernel, strides, _ceil(c))
    fits = all(2 * p <= k for p, k in zip(before, kernel, strict=True))
    if before == after and fits and c.op == "AveragePool":
        counted = bool(c.get("count_include_pad", 0))
        pool = _by_rank("avg_pool", x)
        return pool(x, kernel, strides, tuple(before), _ceil(c), counted)
    inside = ops.affine(x, 0.0, 1.0)
    around = 1.0 if c.get("count_include_pad", 0) else 0.0
    both = [_padded(x, before, after, 0.0), _padded(inside, before, after, around)]
    size = float(np.prod(kernel))
    pooled = [_by_rank("avg_pool", v)(v, kernel, strides, 0, _ceil(c)) * size for v in both]
    return pooled[0] / pooled[1]


def _mean_of_gaps(c: Case, x: Any, kernel: Any, strides: Any, dilations: Any) -> Any:
    """Windows with gaps are summed up by a depthwise convolution with ones."""
    assert not any(c.get("pads", [0]))
    assert c.get("auto_pad", "NOTSET") == "NOTSET"
    channels = x.shape[1]
    ones = x.graph.constant(np.ones((channels, 1, *kernel)))
    power = float(c.get("p", 2)) if c.op == "LpPool" else 1.0
    terms = ops.power(abs(x), power) if c.op == "LpPool" else x
    total = _by_rank("conv", x)(terms, ones, None, strides, 0, dilations, channels)
    return ops.power(total, 1.0 / power) if c.op == "LpPool" else total / float(np.prod(kernel))


@op("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(c: Case, x: Any) -> Any:
    pool = ops.global_avg_pool if c.op == "GlobalAveragePool" else ops.global_max_pool
    return ops.reshape(pool(x), *x.shape[:2], *(1,) * (x.ndim - 2))


#: fastnn's order of ONNX's gates
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def _gates(c: Case, w: Any, transposed: bool = False) -> Any:
    """Rows of a weight or bias (gates, ...) in fastnn's order of gates."""
    blocks = np.split(w, len(GATES[c.op]))
    return np.concatenate([blocks[k] for k in GATES[c.op]])


def _state(s: Any, d: int, batch_first: bool) -> Any:
    """The initial states of one direction."""
    if s is None:
        return None
    return s[:, d] if batch_first else s[d]


@op("RNN", "LSTM", "GRU")
def _recurrent(
    c: Case, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None,
    c0: Any = None, p: Any = None,
) -> Any:  # fmt: skip
    batch_first = bool(c.get("layout", 0))
    x = x if batch_first else ops.transpose(x, 1, 0, 2)
    graph, batch = x.graph, x.shape[0]
    ids = None if lengths is None else graph.constant(lengths, "i")
    outputs, finals = [], []
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    for d, reverse in enumerate(backwards[c.get("direction", "forward")]):
        weights: dict[str, Any] = {"w_ih": _gates(c, w[d]).T, "w_hh": _gates(c, r[d]).T}
        if b is not None:
            half = b.shape[1] // 2
            weights |= {"b_ih": _gates(c, b[d, :half]), "b_hh": _gates(c, b[d, half:])}
        options = {"lengths": ids, "reverse": reverse, "h0": _state(h0, d, batch_first)}
        if c.op == "LSTM":
            if p is not None:  # ONNX: i, o, f; fastnn: i, f, o
                hidden = r.shape[2]
                parts = np.split(p[d], 3)
                options["peephole"] = np.concatenate([parts[0], parts[2], parts[1]])
                assert options["peephole"].size == 3 * hidden
            y, *last = ops.lstm(x, **weights, c0=_state(c0, d, batch_first), **options)
        elif c.op == "GRU":
            reset = "after" if c.get("linear_before_reset", 0) else "before"
            y, *last = ops.gru(x, **weights, reset=reset, **options)
        else:
            y, *last = ops.rnn(x, **weights, **options)
        outputs.append(y)
        finals.append(last)
    axis = 2 if batch_first else 1
    y = ops.stack([o if batch_first else ops.transpose(o, 1, 0, 2) for o in outputs], axis=axis)
    ends = [ops.stack(list(s), axis=1 if batch_first else 0) for s in zip(*finals, strict=True)]
    assert batch == outputs[0].shape[0]
    return (y, *ends)
