"""Functions on symbolic values, for the `forward` of modules.

Operands may also be parameters, NumPy arrays (constants) and numbers. Shapes are checked here, when
the model is traced, with errors that name the layer.
"""

import sys

import fastnn.ops.loss
import fastnn.ops.metric
import fastnn.ops.strided  # noqa: F401  (ops without a function here, and what gradients are made of)
from fastnn.graph.methods import provide
from fastnn.ops.activation import (
    absolute,
    elu,
    erf,
    exp,
    gelu,
    leaky_relu,
    log,
    maxout,
    prelu,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
    sqrt,
    square,
    tanh,
)
from fastnn.ops.arithmetic import (
    add,
    affine,
    clip,
    detach,
    divide,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    maximum,
    minimum,
    multiply,
    negate,
    not_equal,
    power,
    subtract,
    where,
)
from fastnn.ops.derivative import gradient
from fastnn.ops.linear import embedding, linear
from fastnn.ops.matmul import (
    matmul,
)
from fastnn.ops.norm import (
    batch_norm,
    dropout,
    layer_norm,
    rms_norm,
)
from fastnn.ops.operands import (
    as_value,
    graph_of,
)
from fastnn.ops.projection import projected_lstm
from fastnn.ops.recurrent import gru, leaky, lstm, rnn, swap_time
from fastnn.ops.reduce import (
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    prod,
    softmax,
    sum,
    sum_features,
    total,
)
from fastnn.ops.sequence import load_state, loop, store_state, zeros_state
from fastnn.ops.shape import (
    columns,
    concatenate,
    expand,
    flatten,
    flip,
    gather,
    pad,
    permute,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    take,
    transpose,
    unsqueeze,
)
from fastnn.ops.shape import (
    getitem as getitem,
)

__all__ = [
    "absolute",
    "add",
    "affine",
    "as_value",
    "batch_norm",
    "clip",
    "columns",
    "concatenate",
    "cumsum",
    "detach",
    "divide",
    "dropout",
    "elu",
    "embedding",
    "equal",
    "erf",
    "exp",
    "expand",
    "flatten",
    "flip",
    "gather",
    "gelu",
    "gradient",
    "graph_of",
    "greater",
    "greater_equal",
    "gru",
    "layer_norm",
    "leaky",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "load_state",
    "log",
    "log_softmax",
    "logsumexp",
    "loop",
    "lstm",
    "matmul",
    "max",
    "maximum",
    "maxout",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negate",
    "not_equal",
    "pad",
    "permute",
    "power",
    "prelu",
    "prod",
    "projected_lstm",
    "relu",
    "reshape",
    "rms_norm",
    "rnn",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "store_state",
    "subtract",
    "sum",
    "sum_features",
    "swap_time",
    "swapaxes",
    "take",
    "tanh",
    "total",
    "transpose",
    "unsqueeze",
    "where",
    "zeros_state",
]

provide(sys.modules[__name__])  # they are what a value's operators and methods do
