"""ONNX's node tests of the ops that fastnn has: which there are, and how fastnn says them.

`OPS` has a function of (case, inputs) for each of ONNX's operators; inputs are symbolic values and
arrays. `REASONS` says for which cases fastnn has no words, and why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import nn, ops
from fastnn.graph.value import Value


@dataclass
class Case:
    """One of ONNX's node tests: a single node, its inputs by position, and what must come out."""

    name: str
    op: str
    attributes: dict[str, Any]
    inputs: list[Any]
    outputs: dict[int, np.ndarray]  # by position
    rtol: float
    atol: float

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def cases() -> list[Case]:
    """All cases of a single node whose operator is in `OPS` (expanded functions are left out)."""
    from onnx import helper
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what NumPy says while ONNX computes its results
        state = np.random.get_state()  # noqa: NPY002  (ONNX's generator)
        found = collect_testcases(None)
        np.random.set_state(state)  # noqa: NPY002
    made = []
    for case in found:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPS or "_expanded" in case.name:
            continue
        inputs, outputs = case.data_sets[0]
        given, wanted = iter(inputs), iter(outputs)
        made.append(
            Case(
                case.name.removeprefix("test_"),
                nodes[0].op_type,
                {a.name: helper.get_attribute_value(a) for a in nodes[0].attribute},
                [next(given) if name else None for name in nodes[0].input],
                {k: next(wanted) for k, name in enumerate(nodes[0].output) if name},
                max(case.rtol, 1e-5),
                max(case.atol, 1e-6),
            )
        )
    return made


# ---------------------------------------------------------------- what fastnn has no words for

#: reason -> whether it is a case's
REASONS: dict[str, Callable[[Case], bool]] = {
    "sequences, optional values, text": lambda c: any(
        isinstance(x, list) or _kind(x) in "OSUT" for x in c.inputs
    ),
    "arithmetic with integers or booleans": lambda c: (
        _kind(_first(c)) == "b" or (_kind(_first(c)) in "iu" and c.op not in COMPARISONS)
    ),
    "convolution and pooling of three dimensions": lambda c: (
        c.op in WINDOWS and _first(c).ndim == 5
    ),
    "places of maxima": lambda c: c.op == "MaxPool" and len(c.outputs) > 1,
    "averages of windows with gaps": lambda c: (
        c.op in ("AveragePool", "LpPool") and max(c.get("dilations", [1])) > 1
    ),
    "16-bit floats": lambda c: _first(c).dtype.itemsize < 4 and _kind(_first(c)) not in "iu",
    "arrays without elements": lambda c: any(
        getattr(x, "size", 1) == 0 for x in [_first(c), *c.outputs.values()]
    ),
    "random numbers of another generator": lambda c: (
        c.op == "Dropout" and len(c.inputs) > 2 and bool(c.inputs[2]) and _rate(c) > 0
    ),
}
#: operators with windows
WINDOWS = (
    "AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "LpPool",
    "MaxPool",
)  # fmt: skip
#: what fastnn does with integers, too
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def reason(case: Case) -> str | None:
    """Why fastnn can't express a case, or None."""
    return next((text for text, applies in REASONS.items() if applies(case)), None)


def _first(c: Case) -> np.ndarray:
    arrays = [x for x in c.inputs if isinstance(x, np.ndarray)]
    return arrays[1 if c.op == "Where" else 0] if arrays else np.zeros(1)


def _kind(x: Any) -> str:
    """NumPy's letter for the kind of an input's elements."""
    return str(getattr(getattr(x, "dtype", None), "kind", "f"))


def _rate(c: Case) -> float:
    return float(c.inputs[1]) if len(c.inputs) > 1 and c.inputs[1] is not None else 0.5


# ---------------------------------------------------------------- operators

Function = Callable[..., Any]
OPS: dict[str, Function] = {}


def op(*names: str) -> Callable[[Function], Function]:
    def enter(function: Function) -> Function:
        OPS.update(dict.fromkeys(names, function))
        return function

    return enter


def plain(name: str, function: Function) -> None:
    """An operator that is a function of its inputs."""
    OPS[name] = lambda c, *inputs: function(*inputs)


for _name, _function in {
    "Abs": abs, "Add": ops.add, "Sub": ops.subtract, "Mul": ops.multiply, "Div": ops.divide,
    "Neg": ops.negate, "Pow": ops.power, "Sqrt": ops.sqrt, "Exp": ops.exp, "Log": ops.log,
    "Erf": ops.erf, "Reciprocal": lambda x: 1.0 / x, "Equal": ops.equal, "Greater": ops.greater,
    "GreaterOrEqual": ops.greater_equal, "Less": ops.less, "LessOrEqual": ops.less_equal,
    "Where": ops.where, "MatMul": ops.matmul, "Relu": ops.relu, "Sigmoid": ops.sigmoid,
    "Tanh": ops.tanh, "Softplus": ops.softplus, "PRelu": lambda x, s: ops.where(x > 0, x, x * s),
    "Identity": lambda x: x * 1.0, "Sin": ops.sin, "Cos": ops.cos, "Clip": ops.clip,
}.items():  # fmt: skip
    plain(_name, _function)


@op("Max", "Min", "Sum", "Mean")
def _several(c: Case, *xs: Any) -> Any:
    function = {"Max": ops.maximum, "Min": ops.minimum}.get(c.op, ops.add)
    total = xs[0]
    for x in xs[1:]:
        total = function(total, x)
    return total / len(xs) if c.op == "Mean" else total * 1.0


@op("LeakyRelu")
def _leaky_relu(c: Case, x: Any) -> Any:
    return ops.leaky_relu(x, c.get("alpha", 0.01))


@op("Elu")
def _elu(c: Case, x: Any) -> Any:
    return ops.elu(x, c.get("alpha", 1.0))


@op("Selu")
def _selu(c: Case, x: Any) -> Any:
    alpha, gamma = c.get("alpha", 1.67326324), c.get("gamma", 1.05070102)
    return ops.elu(x, alpha) * gamma if c.attributes else ops.selu(x)


@op("Gelu")
def _gelu(c: Case, x: Any) -> Any:
    return ops.gelu(x, c.get("approximate", "none"))


@op("Swish")
def _swish(c: Case, x: Any) -> Any:
    return ops.silu(x * c.get("alpha", 1.0)) / c.get("alpha", 1.0)


@op("Softmax", "LogSoftmax")
def _softmax(c: Case, x: Any) -> Any:
    function = ops.softmax if c.op == "Softmax" else ops.log_softmax
    return function(x, c.get("axis", -1))


REDUCE: dict[str, Function] = {
    "ReduceSum": ops.sum, "ReduceMean": ops.mean, "ReduceMax": ops.max, "ReduceMin": ops.min,
    "ReduceProd": ops.prod, "ReduceLogSumExp": ops.logsumexp,
    "ReduceL1": lambda x, *a: ops.sum(abs(x), *a),
    "ReduceL2": lambda x, *a: ops.sqrt(ops.sum(x * x, *a)),
    "ReduceLogSum": lambda x, *a: ops.log(ops.sum(x, *a)),
    "ReduceSumSquare": lambda x, *a: ops.sum(x**2, *a),
}  # fmt: skip


@op(*REDUCE)
def _reduce(c: Case, x: Any, axes: Any = None) -> Any:
    axes = c.get("axes") if axes is None else axes
    chosen: Any = None if axes is None else tuple(int(a) for a in axes)
    if not chosen and c.get("noop_with_empty_axes", 0):
        return x * 1.0
    return REDUCE[c.op](x, chosen or None, bool(c.get("keepdims", 1)))


@op("CumSum")
def _cumsum(c: Case, x: Any, axis: Any) -> Any:
    return ops.cumsum(x, int(axis), bool(c.get("reverse", 0)), bool(c.get("exclusive", 0)))


# ---------------------------------------------------------------- normalisation, products


@op("BatchNormalization")
def _batch_norm(c: Case, x: Any, gain: Any, bias: Any, mean: Any, var: Any) -> Any:
    features_last = (0, *range(2, x.ndim), 1)
    back = (0, x.ndim - 1, *range(1, x.ndim - 1))
    momentum, eps = c.get("momentum", 0.9), c.get("epsilon", 1e-5)
    rows = ops.transpose(x, features_last)
    axes = tuple(range(x.ndim - 1))
    if not c.get("training_mode", 0):
        y = ops.batch_norm(rows, gain, bias, mean, var, eps)
        return ops.transpose(y, back)
    batch_mean = ops.mean(rows, axes)
    batch_var = ops.mean((rows - batch_mean) ** 2, axes)
    y = (rows - batch_mean) / ops.sqrt(batch_var + eps) * gain + bias
    return (ops.transpose(y, back), mean * momentum + batch_mean * (1 - momentum),
            var * momentum + batch_var * (1 - momentum))  # fmt: skip


@op("LayerNormalization")
def _layer_norm(c: Case, x: Any, gain: Any, bias: Any = None) -> Any:
    axis = c.get("axis", -1) % x.ndim
    eps, flat = c.get("epsilon", 1e-5), (*x.shape[:axis], -1)
    y = ops.layer_norm(ops.reshape(x, flat), _vector(gain), _vector(bias), eps)
    axes = tuple(range(axis, x.ndim))
    mean = ops.mean(x, axes, keepdims=True)
    scatter = ops.mean((x - mean) ** 2, axes, keepdims=True)
    return ops.reshape(y, x.shape), mean, 1.0 / ops.sqrt(scatter + eps)


def _vector(x: Any) -> Any:
    return x if x is None or (isinstance(x, np.ndarray) and x.ndim == 1) else x.reshape(-1)


@op("RMSNormalization")
def _rms_norm(c: Case, x: Any, gain: Any) -> Any:
    axis = c.get("axis", -1) % x.ndim
    y = ops.rms_norm(ops.reshape(x, (*x.shape[:axis], -1)), _vector(gain), c.get("epsilon", 1e-5))
    return ops.reshape(y, x.shape)


@op("Gemm")
def _gemm(c: Case, a: Any, b: Any, extra: Any = None) -> Any:
    a = a.T if c.get("transA", 0) else a
    b = b.T if c.get("transB", 0) else b
    y = (a @ b) * c.get("alpha", 1.0)
    return y if extra is None else y + extra * c.get("beta", 1.0)


@op("Dropout")
def _dropout(c: Case, x: Any, *_: Any) -> Any:
    return ops.dropout(x, 0.0, 1.0) if x.graph.training else x * 1.0, np.ones(x.shape)


# ---------------------------------------------------------------- convolution, pooling


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
    x = _padded(x, before, after, -np.inf)
    return _by_rank("max_pool", x)(x, kernel, strides, 0, dilations, _ceil(c))


@op("AveragePool", "LpPool")
def _mean_pool(c: Case, x: Any) -> Any:
    kernel = tuple(c.get("kernel_shape"))
    strides, _, before, after = _windows(c, x, kernel)
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


@op("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(c: Case, x: Any) -> Any:
    pool = ops.global_avg_pool if c.op == "GlobalAveragePool" else ops.global_max_pool
    return ops.reshape(pool(x), *x.shape[:2], *(1,) * (x.ndim - 2))


# ---------------------------------------------------------------- losses


@op("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
def _class_loss(c: Case, x: Any, target: Any, weight: Any = None) -> Any:
    x = ops.transpose(x, (0, *range(2, x.ndim), 1))  # classes last
    log_p = ops.log_softmax(x) if c.op[0] == "S" else x
    ids = target if isinstance(target, Value) else x.graph.constant(target, "i")
    given: Any = {"weight": weight, "ignore_index": c.get("ignore_index")}
    loss = nn.NLLLoss(**given) if c.op[0] == "N" else nn.CrossEntropyLoss(**given)
    rows, how = loss.rows(x, ids), c.get("reduction", "mean")
    if how == "mean":
        ignored = c.get("ignore_index")
        counted = np.ones(target.shape) if ignored is None else (target != ignored) * 1.0
        if weight is not None:
            counted = counted * weight[np.where(target == ignored, 0, target)]
        rows = ops.sum(rows) / float(counted.sum())
    elif how == "sum":
        rows = ops.sum(rows)
    classes_second = (0, x.ndim - 1, *range(1, x.ndim - 1))
    return rows, ops.transpose(log_p, classes_second)


# ---------------------------------------------------------------- recurrent nets

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


# ---------------------------------------------------------------- shapes


@op("Reshape")
def _reshape(c: Case, x: Any, shape: Any) -> Any:
    wanted = tuple(
        x.shape[k] if n == 0 and not c.get("allowzero", 0) else int(n) for k, n in enumerate(shape)
    )
    return ops.reshape(x * 1.0, wanted)


@op("Flatten")
def _flatten(c: Case, x: Any) -> Any:
    axis = c.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return ops.reshape(x * 1.0, int(np.prod(x.shape[:axis])), -1)


@op("Transpose")
def _transpose(c: Case, x: Any) -> Any:
    return ops.transpose(x, c.get("perm", list(range(x.ndim))[::-1])) * 1.0


@op("Concat")
def _concat(c: Case, *xs: Any) -> Any:
    return ops.concatenate(*xs, axis=c.get("axis"))


@op("Split")
def _split(c: Case, x: Any, sizes: Any = None) -> Any:
    axis, count = c.get("axis", 0), c.get("num_outputs", len(c.outputs))
    if sizes is None:
        part = -(-x.shape[axis] // count)
        sizes = [min(part, x.shape[axis] - k * part) for k in range(count)]
    return tuple(ops.split(x * 1.0, [int(n) for n in sizes], axis))


@op("Slice")
def _slice(c: Case, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    key = [slice(None)] * x.ndim
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        key[axis] = slice(int(begin), int(end), int(step))
    return x[tuple(key)] * 1.0


@op("Gather")
def _gather(c: Case, x: Any, indices: Any) -> Any:
    return ops.take(x, indices, c.get("axis", 0))


@op("GatherElements")
def _gather_elements(c: Case, x: Any, indices: Any) -> Any:
    return ops.gather(x, indices, c.get("axis", 0))


@op("Expand")
def _expand(c: Case, x: Any, shape: Any) -> Any:
    return ops.expand(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)))


@op("Squeeze")
def _squeeze(c: Case, x: Any, axes: Any) -> Any:
    return ops.squeeze(x * 1.0, [int(a) for a in axes])


@op("Unsqueeze")
def _unsqueeze(c: Case, x: Any, axes: Any) -> Any:
    return ops.unsqueeze(x * 1.0, [int(a) for a in axes])


@op("Pad")
def _pad(c: Case, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    widths = [(0, 0)] * x.ndim
    axes = range(x.ndim) if axes is None else axes
    half = len(pads) // 2
    for k, axis in enumerate(axes):
        widths[axis] = (int(pads[k]), int(pads[half + k]))
    return ops.pad(x, widths, c.get("mode", "constant"), 0.0 if value is None else float(value))
