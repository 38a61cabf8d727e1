"""Every op and layer: gradients against central differences, with random output gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn.ops  # noqa: F401  (fills the table)
from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.graph.op import OPS
from fastnn.nn.parameter import Parameter
from fastnn.testing import gradcheck

BUILT_IN = set(OPS)
#: ops that give no gradient, because they count, or hand on what has none
WITHOUT_GRADIENT = {
    "accuracy", "beam_reorder", "beam_select", "binary_accuracy", "count_places", "count_windows",
    "crf_decode", "ctc_align", "ctc_beam", "ctc_greedy", "largest", "length_mask", "mask_length",
    "max_pool_places", "normal", "own_copy", "target_weight", "to_ids", "top_k",
    "transducer_frames", "transducer_select", "uniform", "wavenet_sample",
}  # fmt: skip
#: effects, which have no outputs that a gradient could come from
WITHOUT_GRADIENT |= {name for name, row in OPS.items() if not row.outputs}
#: in test_symbolic.py; the recurrent ops, in tests of their own (sequences of different lengths)
CHECKED_ELSEWHERE = {
    "clip", "compare_integers", "detach", "equal", "erf", "expand", "gather", "less",
    "less_equal", "logsumexp_columns", "matmul", "matmul_transposed", "max_columns", "maximum",
    "minimum", "not_equal", "pad", "power", "product_columns", "running_sum", "slice_steps",
    "sum_rows", "transpose", "where", "to_floats", "gru", "leaky", "lstm", "rnn", "swap_time",
    "dropout_at",
}  # fmt: skip
#: in test_convolution.py, which has images
CHECKED_ELSEWHERE |= {"convolution", "convolution_transposed", "convolution_weight"}
CHECKED_ELSEWHERE |= {"avg_pool", "max_pool", "max_pool_pick", "max_pool_spread"}
#: in test_convolution_lengths.py, which has sequences of different lengths
CHECKED_ELSEWHERE |= {"avg_pool_lengths", "stretch"}
CHECKED_ELSEWHERE |= {"attention", "self_attention"}
#: in nn/test_ctc.py, nn/test_transducer.py and nn/test_crf.py, which have labels
CHECKED_ELSEWHERE |= {"ctc", "transducer", "crf"}
#: in plan/test_in_place.py, which has rows to write
CHECKED_ELSEWHERE |= {"put_row"}
#: two and three dimensions; fewer and more samples than a batch is split for
SHAPES = [(9, 17), (5, 3, 9)]


def away(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random numbers at least 0.1 from 0, of either sign."""
    rng = np.random.default_rng([seed, *shape])
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 2.0, shape)


def positive(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.abs(away(shape, seed)) + 0.1


def shares(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Positive numbers whose rows add up to 1."""
    p = positive(shape, seed)
    return p / p.sum(-1, keepdims=True)


def classes(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Class indices for outputs of this shape."""
    return np.random.default_rng(seed).integers(0, shape[-1], shape[:-1])


def weight(array: np.ndarray, trainable: bool = True) -> Parameter:
    return Parameter(array.shape, lambda shape, rng: array, trainable=trainable)


Inputs = Callable[[tuple[int, ...]], tuple[Any, ...]]
#: op -> what applies it (label, function, inputs for a shape of x, training)
CASES: dict[str, list[tuple[str, Callable[..., Any], Inputs, bool]]] = {}


def case(
    op: str, function: Callable[..., Any], inputs: Inputs | None = None, label: str = "",
    training: bool = True,
) -> None:  # fmt: skip
    make = inputs or (lambda s: (away(s),))
    CASES.setdefault(op, []).append((label or op, function, make, training))


for _name in (
    "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh", "softplus", "exp",
    "sin", "cos", "square", "absolute", "softmax", "log_softmax", "negate",
):  # fmt: skip
    case(_name, getattr(ops, _name))
case(
    "slice_into",
    lambda x: x.graph.apply("slice_into", x=x, shape=(*x.shape[:-1], 30), offset=4),
)
case(
    "spread",
    lambda x: x.graph.apply(
        "spread", x=x, shape=(*x.shape[:-1], 40), starts=(0,) * (x.ndim - 1) + (3,),
        steps=(1,) * (x.ndim - 1) + (2,),
    ),
)  # fmt: skip
case("leaky_relu", lambda x: ops.leaky_relu(x, 0.3), label="leaky_relu 0.3")
case("elu", lambda x: ops.elu(x, 0.7), label="elu 0.7")
case("gelu_tanh", lambda x: ops.gelu(x, "tanh"))
case("softplus", lambda x: ops.softplus(x, 2.0, 1.5), label="softplus with threshold")
case("log", ops.log, lambda s: (positive(s),))
case("sqrt", ops.sqrt, lambda s: (positive(s),))
case("affine", lambda x: ops.affine(x, -1.7, 0.3))
case("prelu", ops.prelu, lambda s: (away(s), weight(np.array([0.3]))), "prelu, one slope")
case("prelu", ops.prelu, lambda s: (away(s), weight(away(s[-1:], 1))), "prelu, slopes")
for _name in ("glu", "gtu"):
    case(_name, getattr(ops, _name), lambda s: (away((*s[:-1], 2 * s[-1])),))
case("maxout", lambda x: ops.maxout(x, 3), lambda s: (away((*s[:-1], 3 * s[-1])),))

for _name in ("add", "subtract", "multiply", "divide"):
    _op = getattr(ops, _name)
    _row = f"{'add' if _name in ('add', 'subtract') else 'multiply'}_row"
    _column = _row.replace("row", "column")
    if _name == "divide":  # a true division of expanded operands
        _row = _column = "divide"
    case(_name, _op, lambda s: (away(s), away(s, 1)))
    case(_name, lambda a, f=_op: f(a, a * 0.5 + 3.0), label=f"{_name} of one value twice")
    case(_row, _op, lambda s: (away(s), weight(away(s[-1:], 1))), f"{_name} a row")
    case(_row, _op, lambda s: (away(s), weight(away(s[1:], 1))), f"{_name} trailing dimensions")
    case(_row, _op, lambda s: (away(s), weight(away((1, s[-1]), 1))), f"{_name} a row of rank 2")
    case(_column, _op, lambda s: (away(s), away((*s[:-1], 1), 1)), f"{_name} a column")
case("add_row", lambda a, b: b + a, lambda s: (away(s), weight(away(s[-1:], 1))), "row first")


def matrix(rows: int, columns: int) -> Parameter:
    values = away((rows, columns), 1)
    return Parameter((rows, columns), lambda shape, rng: values, transposed=True)


case("linear", ops.linear, lambda s: (away(s), matrix(6, s[-1])), "linear, no bias")
case("linear_transposed", ops.linear, lambda s: (away(s), weight(away((6, s[-1]), 1))))
case("linear", ops.linear, lambda s: (away(s), matrix(6, s[-1]), weight(away((6,), 2))))
case(
    "linear", lambda x, w: ops.linear(ops.linear(x, w), w),
    lambda s: (away(s), matrix(s[-1], s[-1])), "linear, weight used twice",
)  # fmt: skip
case("embedding", ops.embedding, lambda s: (classes((*s[:-1], 8)), weight(away((8, 5), 1))))
case(
    "embedding", lambda ids, table: ops.embedding(ids, table, 8),
    lambda s: (classes((*s[:-1], 8)), weight(away((9, 5), 1))), "embedding with padding",
)  # fmt: skip

case("reshape", lambda x: ops.reshape(ops.tanh(x), x.shape[0], -1))
case("reshape", lambda x: ops.tanh(ops.flatten(x) * 2.0), label="flatten")
case("slice", lambda x: ops.columns(x, 2, 7))
case("concatenate", lambda a, b: ops.concatenate(a, b, a), lambda s: (away(s), away((*s[:-1], 4))))

case("layer_norm", ops.layer_norm, label="layer_norm without affine")
case(
    "layer_norm", ops.layer_norm,
    lambda s: (away(s), weight(away(s[-1:], 1)), weight(away(s[-1:], 2))),
)  # fmt: skip
case(
    "layer_norm", lambda x, g: ops.layer_norm(x, g, None, 0.1),
    lambda s: (away(s), weight(away(s[-1:], 1))), "layer_norm with gain, eps",
)  # fmt: skip


def _batch_norm_inputs(s: tuple[int, ...]) -> tuple[Any, ...]:
    c = s[-1:]
    return (
        away(s), weight(away(c, 1)), weight(away(c, 2)), weight(away(c, 3), trainable=False),
        weight(positive(c, 4), trainable=False),
    )  # fmt: skip


case("batch_norm", ops.batch_norm, _batch_norm_inputs)
case("batch_norm", lambda *a: ops.batch_norm(*a, eps=0.5), _batch_norm_inputs, "batch_norm, eps")
case("batch_norm_inference", ops.batch_norm, _batch_norm_inputs, training=False)
case("dropout", lambda x: ops.dropout(x, 0.4))
case("dropout", lambda x: ops.dropout(ops.dropout(x, 0.4, 1.0), 0.2), label="dropout twice")

case("mean", ops.mean)
case(
    "mean",
    lambda x: ops.square(ops.mean(ops.tanh(x)) * 50.0 + 7.0),
    label="mean, gradient known late",
)
case("total", ops.total)
case("total", lambda x: ops.square(ops.total(ops.tanh(x))), label="total, gradient known late")
case("sum_columns", ops.sum_features)

CLASS_WEIGHTS = np.linspace(0.2, 1.9, 17)
for _ignored in (-100, 3):
    for _weights in (None, CLASS_WEIGHTS):
        for _reduction in ("mean", "sum"):
            _text = f", ignore {_ignored}, {'weights' if _weights is not None else ''} {_reduction}"
            for _smoothing in (0.0, 0.1):
                case(
                    "cross_entropy",
                    lambda x, t, i=_ignored, w=_weights, r=_reduction, l=_smoothing: (
                        nn.CrossEntropyLoss(None if w is None else w[: x.shape[-1]], i, l, r)(x, t)
                    ),
                    lambda s: (away(s), classes(s)), f"cross_entropy{_text} smoothing {_smoothing}",
                )  # fmt: skip
            case(
                "weighted_mean" if _reduction == "mean" and _weights is not None else "nll",
                lambda x, t, i=_ignored, w=_weights, r=_reduction: ops.square(
                    nn.NLLLoss(None if w is None else w[: x.shape[-1]], i, r)(x, t)
                ),
                lambda s: (away(s), classes(s)), f"nll{_text}",
            )  # fmt: skip
case(
    "cross_entropy", lambda x, t: nn.CrossEntropyLoss()(x, t), lambda s: (away(s), classes(s)),
    "cross_entropy in evaluation", training=False,
)  # fmt: skip
for _weights in (None, CLASS_WEIGHTS):
    for _smoothing in (0.0, 0.1):
        case(
            "cross_entropy_probs",
            lambda x, w=_weights, l=_smoothing: nn.CrossEntropyLoss(
                None if w is None else w[: x.shape[-1]], label_smoothing=l
            )(x, x.graph.constant(shares(x.shape, 1))),
            label=f"cross_entropy_probs, {'weights' if _weights is not None else ''} {_smoothing}",
        )
for _reduction in ("mean", "sum"):
    for _name, _loss in (
        ("mse", nn.MSELoss(_reduction)),
        ("mae", nn.L1Loss(_reduction)),
        ("huber", nn.HuberLoss(1.0, _reduction)),
        ("huber", nn.HuberLoss(0.4, _reduction)),
        ("huber", nn.SmoothL1Loss(0.7, _reduction)),
    ):
        case(_name, _loss, lambda s: (away(s), away(s, 1)), f"{_name} {_reduction}")
    case(
        "bce",
        lambda x, r=_reduction: nn.BCELoss(r)(ops.sigmoid(x), x.graph.constant(shares(x.shape, 1))),
        label=f"bce {_reduction}",
    )
    for _weights in (None, CLASS_WEIGHTS):
        case(
            "bce_with_logits",
            lambda x, w=_weights, r=_reduction: nn.BCEWithLogitsLoss(
                None if w is None else w[: x.shape[-1]], r
            )(x, x.graph.constant(shares(x.shape, 1))),
            label=f"bce_with_logits {_reduction} {'pos_weight' if _weights is not None else ''}",
        )
for _reduction in ("batchmean", "mean", "sum"):
    case(
        "kl_div",
        lambda x, r=_reduction: nn.KLDivLoss(r)(x, x.graph.constant(shares(x.shape, 1))),
        label=f"kl_div {_reduction}",
    )
    case(
        "kl_div_log",
        lambda x, r=_reduction: nn.KLDivLoss(r, True)(
            x, x.graph.constant(np.log(shares(x.shape, 1)))
        ),
        label=f"kl_div_log {_reduction}",
    )


def test_every_op_has_a_case():
    assert set(CASES) - {"concatenate"} == BUILT_IN - WITHOUT_GRADIENT - CHECKED_ELSEWHERE


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("op", "number"), [(op, k) for op, found in CASES.items() for k in range(len(found))],
    ids=[f[0] for found in CASES.values() for f in found],
)  # fmt: skip
def test_op(op, number, shape):
    _, function, inputs, training = CASES[op][number]
    seen = set()

    def traced(*values):
        result = function(*values)
        seen.update(node.op.name for node in result.graph.nodes)
        return result

    assert gradcheck(traced, *inputs(shape), training=training)
    assert op in seen


def test_a_target_without_gradient_is_an_error():
    """Silence would train nothing where the user expects something to be trained."""
    x = away((4, 3))
    with pytest.raises(ShapeError, match="dtarget"):
        gradcheck(lambda x, t: ops.total(x.graph.apply("kl_div", x=x, target=t)), x, shares((4, 3)))


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (4,)])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_of_logits_has_a_gradient_to_its_target(shape, weighted):
    def loss(x, t):
        features = shape[-1:] if len(shape) > 1 else (1,)
        weight = x.graph.constant(positive(features), name="weight") if weighted else None
        each = x.graph.apply("bce_with_logits", x=x, target=t, pos_weight=weight, scale=0.7)
        return ops.total(ops.square(each))  # its gradient differs from row to row

    assert gradcheck(loss, away(shape), positive(shape))


def randomized(module: nn.Module, seed: int = 5) -> nn.Module:
    """The module with random parameters: with gains of 1 and biases of 0 errors could hide."""
    for k, (name, p) in enumerate(module.named_arrays().items()):
        fill = positive if "running" in name else away
        p.value = fill(p.shape, seed + k) * 0.7
    return module


@pytest.mark.parametrize("places", [[(0, 4), (4, 9)], [(5, 7), (1, 3)], [(0, 5), (3, 9), (5, 6)]])
def test_gradients_of_slices_of_a_value_are_joined(places):
    """Parts side by side are one array, with zeros where nothing was cut; overlaps are added."""
    made: set[str] = set()

    def function(x):
        parts = [ops.sum(ops.square(x[:, a:b]) * away((5, b - a), a), 1) for a, b in places]
        total = parts[0] if len(parts) == 1 else sum(parts[1:], parts[0])
        graph = x.graph
        before = len(graph.nodes)
        ops.gradient(ops.sum(total), x)
        made.update(node.op.name for node in graph.nodes[before:])
        del graph.nodes[before:]
        return total

    gradcheck(function, away((5, 9)))
    assert ("concatenate" in made) == (len(places) == 2)
    assert ("slice_into" in made) == (len(places) == 3)


def test_gradients_of_slices_that_others_read_too_stay():
    """A sum hands its gradient on to both: what is joined for one is there for the other."""

    def function(a, b):
        total = ops.sum(ops.square((a + b)[:, :2]), 1)
        return total + ops.sum(ops.square(a[:, 4:]), 1)

    gradcheck(function, away((5, 9)), away((5, 9), 1))
    gradcheck(lambda a, b: function(b, a), away((5, 9)), away((5, 9), 1))
