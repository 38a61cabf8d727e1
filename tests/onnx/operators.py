"""ONNX's operators on numbers, normalisation, products, losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import nn, ops
from fastnn.graph.value import Value
from tests.onnx.cases import Case, Function, op, plain

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
