"""What the models of the golden programs don't come to: kernels with operands, and a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import nn, ops
from fastnn.data.ngram import NGram
from fastnn.kernels import control_block
from fastnn.kernels.attention.shared import backward_scratch, forward_scratch
from fastnn.kernels.declare import Array, CudaKernel, Kernel
from fastnn.kernels.matmul.cpu_unit import gradient_scratch, product_scratch, unit_shape
from fastnn.kernels.recurrent.cpu_unit import GRADIENT_WORDS, input_scratch
from fastnn.kernels.rnn.shared import ACTIVATIONS
from fastnn.kernels.update.shared import MADE, SAVING, SHARED
from fastnn.kernels.wavenet.shared import room
from fastnn.optim import forms  # noqa: F401  (declares the kernels of updates)
from tests.golden.models import Calls, compiled, fit, ids, numbers


def words(*shape: int) -> np.ndarray:
    """Small numbers of 16 bits: in bfloat16 and in float16."""
    return (numbers(*shape).astype(np.float32).view(np.uint32) >> 18).astype(np.uint16)


def control(cursor: int = 4) -> np.ndarray:
    found = np.zeros(control_block.LENGTH, np.int64)
    found[control_block.CURSOR] = cursor
    return found


#: operands of kernels that no model below has on the CPU
DIRECT: dict[str, dict[str, Any]] = {
    "accumulate_by": dict(value=numbers(1), count=numbers(1), total=np.ones(2)),
    "batch_norm_inference_backward": dict(
        gain=numbers(5),
        running_var=np.abs(numbers(5)),
        dy=numbers(3, 5),
        dx=numbers(3, 5),
        eps=1e-5,
    ),
    "fill": dict(memory=ids(5), word=3),
    "round_bf16": dict(x=numbers(9, 5), y=numbers(9, 5)),
    "round_fp16": dict(x=numbers(9, 5), y=numbers(9, 5)),
    "normal": dict(y=numbers(9, 5), control=control(), mean=0.5, std=2.0, stream=1),
    "dropout_at": dict(
        x=numbers(9, 5), rate=np.abs(numbers(1)) % 1, y=numbers(9, 5), control=control(), stream=1
    ),
    "mixing_share": dict(share=numbers(1), control=control(), alpha=0.3, stream=1),
    "uniform": dict(y=numbers(9, 5), control=control(), low=-1.0, high=2.0, stream=1),
    "scatter_rows": dict(x=numbers(3, 5), control=control(), y=numbers(9, 5)),
    "scatter_ids": dict(x=ids(3, 5), control=control(), y=ids(9, 5)),
    "integers_to_floats": dict(x=ids(3, 5), y=numbers(3, 5)),
    "accumulate_gradient": dict(
        total=numbers(3, 5),
        g=numbers(3, 5),
        control=control(0),
        guard=np.zeros(8, np.int64),
        every=2,
    ),
    "shrink": dict(
        p=numbers(3, 5),
        hyper=np.abs(numbers(5)),
        control=control(0),
        schedule=np.full((9, 2), 0.5),
        group=1,
        l1=0.3,
    ),
    "limit_rows": dict(
        p=numbers(3, 5), squares=np.array([0.1, 4.0, 9.0]), hyper=np.abs(numbers(5)), limit=1.5
    ),
    "column_factors": dict(p=numbers(3, 5), factors=np.ones(5), limit=0.5),
    "limit_columns": dict(p=numbers(3, 5), factors=np.arange(5.0), hyper=np.abs(numbers(5))),
    "add_noise": dict(
        g=numbers(3, 5),
        noise=numbers(3, 5),
        y=numbers(3, 5),
        scale=numbers(1),
        control=control(4),
        eta=0.3,
        every=2,
    ),
    "loss_scale": dict(
        control=control(), guard=np.zeros(8, np.int64), scale=numbers(1), inverse=numbers(1)
    ),
    "unscale": dict(
        x=numbers(9, 5), inverse=numbers(1), y=numbers(9, 5), guard=np.zeros(8, np.int64)
    ),
    "skip_overflow": dict(guard=np.ones(8, np.int64), hyper=numbers(9)),
    "adapt_scale": dict(control=control(), guard=np.ones(8, np.int64)),
    "shift_parameter": dict(
        p=numbers(3, 5), shift=numbers(3, 5), g=numbers(3, 5), y=numbers(3, 5), control=control()
    ),
    "square_columns": dict(
        g=numbers(5, 37),
        hyper=np.array([0.0, 1.0, np.inf, 1.0]),
        own=np.array([0.1]),
        scale=numbers(1),
        y=numbers(37),
    ),
    "update_factors": dict(
        sums=np.ones(3),
        cols=np.abs(numbers(4)),
        hyper=np.abs(numbers(9)),
        row=np.abs(numbers(3)),
        col=np.abs(numbers(4)),
        scaled=numbers(3),
        roots=numbers(4),
    ),
    "wavenet_sample": dict(  # 2 sequences of 3 + 4 samples, 3 layers of 5 channels
        given=np.array([[-1, 1, 0], [-1, 2, 2]]),
        table=numbers(3, 5),
        gate=numbers(30, 10),
        gate_bias=numbers(3, 10),
        each=numbers(2, 30),
        frames=numbers(2, 2, 30),
        residual=numbers(10, 5),
        residual_bias=numbers(2, 5),
        skip=numbers(15, 4),
        skip_bias=numbers(4),
        hidden=numbers(4, 4),
        hidden_bias=numbers(4),
        last=numbers(4, 3),
        last_bias=numbers(3),
        y=ids(2, 4),
        room=numbers(2, room(3, 2, 2, 5, 4, 3)),
        control=control(),
        temperature=0.7,
        cycle=2,
        levels=3,
        mixtures=0,
        hop=3,
        stream=1,
    ),
    "swap_leading_ids": dict(x=ids(3, 4, 5), y=ids(4, 3, 5)),
    "mask_length": dict(mask=np.eye(3, 4, dtype=np.float32), y=ids(3)),
    "clear_ended": dict(running=np.float32([1, 0, 0, 2]), y=numbers(4, 5)),
    "clear_idle": dict(running=np.eye(3, 2, dtype=np.float32), y=numbers(3, 5)),
}
#: three samples with two heads of 2 numbers: queries, keys and values
_ATTENTION = dict(
    q=numbers(3, 4, 4), k=numbers(3, 5, 4), v=numbers(3, 5, 6), key_lengths=np.array([5, 0, 3]),
    query_lengths=np.array([4, 2, 3]), y=numbers(3, 4, 6), lse=np.abs(numbers(3, 8)) + 1.0,
    control=control(), heads=2, apart=0, causal=1, first=1, scale=0.5, keep=0.7, stream=2,
)  # fmt: skip
DIRECT |= {
    "attention_forward": {
        **_ATTENTION, "scratch": np.zeros((3, forward_scratch(5, 2, 4)), np.float32)
    },
    "attention_backward": {
        **_ATTENTION, "dy": numbers(3, 4, 6), "dq": numbers(3, 4, 4), "dk": numbers(3, 5, 4),
        "dv": numbers(3, 5, 6), "scratch": np.zeros((3, backward_scratch(5, 2, 3, 4)), np.float32),
    },
}  # fmt: skip
_SELF = dict(
    x=numbers(3, 4, 12), lengths=np.array([4, 0, 3]), y=numbers(3, 4, 4),
    lse=np.abs(numbers(3, 8)) + 1.0, control=control(), heads=2, causal=1, scale=0.5, keep=0.7,
    stream=2,
)  # fmt: skip
DIRECT |= {
    "self_attention_forward": {
        **_SELF, "scratch": np.zeros((3, forward_scratch(4, 2, 4)), np.float32)
    },
    "self_attention_backward": {
        **_SELF, "dy": numbers(3, 4, 4), "dx": numbers(3, 4, 12),
        "scratch": np.zeros((3, backward_scratch(4, 2, 2, 4)), np.float32),
    },
}  # fmt: skip
#: two samples with two hypotheses, three symbols
DIRECT |= {
    "transducer_select": dict(
        logits=-np.abs(numbers(2, 6)), lengths=np.array([3, 1]), score=-np.abs(numbers(2, 2)),
        frame=np.float32([[0, 1], [0, 0]]), count=np.float32([[1, 0], [1, 2]]),
        history=np.float32([[1, -1, -1, -1], [2, -1, 1, 2]]),
        old_score=np.full((2, 2), -1e30, np.float32),
        old_count=numbers(2, 2), old_history=numbers(2, 4), parent=ids(2, 2), symbol=ids(2, 2),
        new_score=numbers(2, 2), new_frame=numbers(2, 2), new_count=numbers(2, 2),
        new_history=numbers(2, 4), done_score=numbers(2, 2), done_count=numbers(2, 2),
        done_history=numbers(2, 4), best=np.zeros((2, 2)), which=ids(2, 2), mates=ids(2, 2),
        blank=0,
    ),
    "transducer_frames": dict(
        x=numbers(2, 3, 2), frame=np.float32([[0, 2], [1, 1]]), y=numbers(2, 2, 2)
    ),
    "beam_select": dict(
        logits=-np.abs(numbers(2, 6)), score=-np.abs(numbers(2, 2)), count=np.float32([[1, 2]] * 2),
        ended=np.float32([[0, 1], [0, 0]]), norms=np.ones(5, np.float32),
        live=np.float32([[1], [0]]), parent=ids(2, 2), symbol=ids(2, 2), new_score=numbers(2, 2),
        new_count=numbers(2, 2), new_ended=numbers(2, 2), best=numbers(2, 2), which=ids(2, 2),
        stop=1,
    ),
    "beam_reorder": dict(x=numbers(2, 6), parent=ids(2, 2, below=2), y=numbers(2, 6)),
    "to_ids": dict(x=np.ones((2, 3), np.float32), y=ids(2, 3)),
}  # fmt: skip
DIRECT["add_scaled"] = dict(x=numbers(9, 5), count=numbers(1), y=numbers(9, 5), factor=-0.5)
#: the same, of kernels that only the CPU has
DIRECT_CPU: dict[str, dict[str, Any]] = {}


#: rows, inputs and outputs of a product
N, C, K = 9, 21, 19
_FORWARD = dict(x=numbers(N, C), w=numbers(C, K), bias=numbers(K), y=numbers(N, K))
_INPUT = dict(dy=numbers(N, K), w=numbers(C, K), dx=numbers(N, C))
_WEIGHT = dict(x=numbers(N, C), dy=numbers(N, K), dw=numbers(C, K))
#: the arrays with rows, in a product of few of them
_FEW, _FEW_BACK = (
    dict(x=numbers(3, C), y=numbers(3, K)), dict(dy=numbers(3, K), dx=numbers(3, C)),
)  # fmt: skip
_FEW_WEIGHT = dict(x=numbers(3, C), dy=numbers(3, K))
_UNIT = {"parts": 2}
DIRECT_CPU |= {
    "linear_forward_unit": {
        **_FORWARD, **_UNIT, "scratch": np.zeros((N, product_scratch(C, 2)), np.float32)
    },
    "linear_backward_input_unit": {
        **_INPUT, **_UNIT, "scratch": np.zeros((N, product_scratch(K, 2)), np.float32)
    },
    "pack_unit": {
        **_UNIT, "w": numbers(N, K), "packed": np.zeros(unit_shape(N, K, 2), np.float32)
    },
    "pack_unit_transposed": {
        **_UNIT, "w": numbers(K, N), "packed": np.zeros(unit_shape(N, K, 2), np.float32)
    },
    "linear_backward_weight_unit": {
        **_UNIT, "x": numbers(N, C), "dw": numbers(C, K),
        "dy_packed": np.zeros(unit_shape(N, K, 2), np.float32),
        "scratch": np.zeros((C, gradient_scratch(N, 2)), np.float32),
    },
}  # fmt: skip
#: two sequences of 5 steps, of which one has 3
_SEQUENCES = {**_UNIT, "lengths": np.array([3, 5]), "dz": numbers(2, 5 * 48)}
DIRECT_CPU |= {
    "sequence_backward_input_unit": {
        **_SEQUENCES, "dx": numbers(2, 5, 7), "step": 48, "gates": 40,
        "w_transposed": np.zeros(unit_shape(40, 7, 2), np.float32),
        "scratch": np.zeros((2, input_scratch(40, 2)), np.float32),
    },
    "sequence_backward_weight_unit": {
        **_SEQUENCES, "x": numbers(2, 5 * 7), "before": numbers(2, 7), "dw": numbers(7, 40),
        "scratch": np.zeros((7, GRADIENT_WORDS * 2), np.float32), "x_step": 7, "x_first": 0,
        "dz_step": 48, "dz_first": 0, "column": 20, "columns": 20, "shift": 1, "reverse": 0,
        "steps": 5,
    },
}  # fmt: skip
#: the same, of kernels that only CUDA has; the activation that takes the simulator least time
RELU = ACTIVATIONS["relu"]
DIRECT_CUDA: dict[str, dict[str, Any]] = {
    f"{product}{size}": operands
    for product, operands in (
        ("linear_forward", _FORWARD), ("linear_backward_input_unpacked", _INPUT),
        ("linear_backward_weight", _WEIGHT),
        ("linear_forward_activated", {**_FORWARD, "activation": RELU}),
        ("linear_backward_input_activated", {**_INPUT, "y": numbers(N, C), "activation": 2}),
        ("linear_backward_weight_bias", {**_WEIGHT, "dbias": numbers(K)}),
    )
    for size in ("", "_tiny", "_middle", "_large", "_tf32", "_tf32x3")
} | {
    f"{product}_few": operands
    for product, operands in (
        ("linear_forward", {**_FORWARD, **_FEW}),
        ("linear_forward_activated", {**_FORWARD, **_FEW, "activation": 0}),
        ("linear_backward_input_unpacked", {**_INPUT, **_FEW_BACK}),
        (
            "linear_backward_input_activated",
            {**_INPUT, **_FEW_BACK, "y": numbers(3, C), "activation": 2},
        ),
        ("linear_backward_weight", {**_WEIGHT, **_FEW_WEIGHT}),
        ("linear_backward_weight_bias", {**_WEIGHT, **_FEW_WEIGHT, "dbias": numbers(K)}),
    )
} | {
    f"{product}_{kind}{shape}": operands
    for product, operands in (
        ("linear_forward", dict(x=words(N, C), w=words(C, K), bias=numbers(K), y=numbers(N, K),
                                y_half=words(N, K), activation=RELU)),
        ("linear_backward_input", dict(dy=words(N, K), w=words(C, K), y=words(N, C),
                                       dx=numbers(N, C), dx_half=words(N, C), activation=2)),
        ("linear_backward_weight", dict(x=words(N, C), dy=words(N, K), dw=numbers(C, K),
                                        dbias=numbers(K))),
    )
    for kind in ("bf16", "fp16")
    for shape in ("", "_middle", "_tiny")
} | {
    f"{product}_{kind}_parts": {**operands, "counts": np.zeros(9, np.int64)}
    for product, operands in (
        ("linear_forward", dict(x=words(N, C), w=words(C, K), bias=numbers(K), y=numbers(N, K),
                                y_half=words(N, K), parts=numbers(2, N, K), activation=RELU)),
        ("linear_backward_input", dict(dy=words(N, K), w=words(C, K), y=words(N, C),
                                       dx=numbers(N, C), dx_half=words(N, C),
                                       parts=numbers(2, N, C), activation=2)),
        ("linear_backward_weight", dict(x=words(N, C), dy=words(N, K), dw=numbers(C, K),
                                        dbias=numbers(K), parts=numbers(2, C, K),
                                        bias_parts=numbers(2, K))),
    )
    for kind in ("bf16", "fp16")
} | {
    f"{name}_{kind}": operands
    for name, operands in (
        ("to", dict(x=numbers(9, 5), y=words(9, 5))),
        ("matmul_forward", dict(a=words(2, 3, 5), b=words(2, 5, 4), y=numbers(2, 3, 4),
                                y_half=words(2, 3, 4))),
        ("matmul_backward_b", dict(a=words(2, 3, 5), dy=words(2, 3, 4), db=numbers(2, 5, 4))),
        ("gather_rows", dict(source=numbers(9, 5), order=np.arange(9)[::-1].copy(),
                             control=control(4), y=numbers(3, 5), y_half=words(3, 5))),
        ("cross_entropy_backward", dict(dlogits=numbers(3, 5), dloss=numbers(3), dx=numbers(3, 5),
                                        dx_half=words(3, 5))),
        ("cross_entropy_scaled", dict(x=numbers(3, 5), target=ids(3), weight=None,
                                      dloss=numbers(3), loss=numbers(3), dx=numbers(3, 5),
                                      dx_half=words(3, 5), smoothing=0.1, ignore_index=1)),
    )
    for kind in ("bf16", "fp16")
} | {
    "unscale_checked": dict(x=numbers(9, 5), inverse=numbers(1), y=numbers(9, 5),
                            guard=np.zeros(8, np.int64), limit=1e30),
    "mean_backward_few": dict(dy=numbers(1), dx=numbers(9)),
    "linear_forward_parts": dict(
        **_FORWARD, parts=numbers(2, N, K), counts=np.zeros(9, np.int64), activation=RELU
    ),
    "linear_backward_input_parts": dict(
        **_INPUT, y=numbers(N, C), parts=numbers(2, N, C), counts=np.zeros(9, np.int64),
        activation=2,
    ),
    "linear_backward_weight_parts": dict(
        **_WEIGHT, parts=numbers(2, C, K), counts=np.zeros(9, np.int64)
    ),
    "linear_backward_weight_bias_parts": dict(
        **_WEIGHT, dbias=numbers(K), parts=numbers(2, C, K), bias_parts=numbers(2, K),
        counts=np.zeros(9, np.int64),
    ),
    "keep": dict(x=numbers(5), control=control(), saved=numbers(5)),
    "safeguard": dict(
        control=control(), schedule=np.ones((1, 1)), guard=np.zeros(8, np.int64), x=numbers(5),
        saved=numbers(5), slot1=numbers(5), saved1=numbers(5), slot2=None, saved2=None,
        slot3=None, saved3=None, always=1,
    ),
    "cross_entropy_backward": dict(dlogits=numbers(3, 5), dloss=numbers(3), dx=numbers(3, 5)),
    "cross_entropy_forward": dict(
        x=numbers(3, 5), target=ids(3), weight=None, loss=numbers(3), dlogits=numbers(3, 5),
        smoothing=0.1, ignore_index=1,
    ),
    "embedding_backward_occurring": dict(
        ids=ids(6), dy=numbers(6, 5), dtable=np.zeros((9, 5), np.float32), padding_index=1
    ),
    "relu_forward": dict(x=numbers(3, 5), y=numbers(3, 5)),
    "relu_backward": dict(y=numbers(3, 5), dy=numbers(3, 5), dx=numbers(3, 5)),
}  # fmt: skip


def by_turns() -> None:
    """Recurrent nets on a GPU whose blocks have too little memory for their weights."""
    for net in (nn.RNN(3, 6), nn.LSTM(3, 6), nn.GRU(3, 6), nn.GRU(3, 6, reset="before")):
        x, n, y = numbers(4, 5, 3), np.array([5, 2, 3, 5]), numbers(4, 5, 6)
        compiled(Calls(lambda m, x, n: m.net(x, lengths=n)[0], net=net))((x, n), y)


def more() -> None:
    """What the models of the golden programs leave out."""

    def compared(m: Any, x: Any, i: Any) -> Any:
        a, b = m.a(x), m.b(x)
        masks = [a <= b, ops.equal(a, b), ops.not_equal(a, b), a > b, a >= b]
        y = sum(masks, ops.power(ops.square(a) + 1.0, b))
        return y + ops.equal(i, 1) + ops.sum(ops.flip(ops.transpose(b), 0)) * m.c.bias[0]

    layers = dict(a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(1, 1))
    compiled(Calls(compared, **layers))((numbers(8, 3), ids(8, 1)), numbers(8, 4))
    probabilities = np.abs(numbers(8, 4))
    fit(
        nn.Linear(3, 4), numbers(8, 3), probabilities, "cross_entropy",
        metrics=["categorical_accuracy"],
    ).evaluate(numbers(8, 3), probabilities)  # fmt: skip
    gates = Calls(
        lambda m, x: ops.glu(ops.gtu(ops.sin(m.a(x)) + ops.cos(m.a(x)))), a=nn.Linear(3, 16)
    )
    compiled(gates)(numbers(8, 3), numbers(8, 4))
    read = Calls(lambda m, x, n: (m.a(x), n), a=nn.Linear(3, 4))
    labels, lengths = 1 + ids(4, 2, below=3), np.array([5, 3, 4, 5])
    fit(read, (numbers(4, 5, 3), lengths), (labels, np.array([2, 1, 2, 0])), nn.CTCLoss())
    write = Calls(lambda m, x: ops.reshape(m.a(x), -1, 5, 3, 4), a=nn.Linear(3, 4))
    fit(write, numbers(4, 15, 3), labels, lambda x, y: ops.mean(ops.transducer_loss(x, y)))
    tagger = Calls(lambda m, x: m.a(x), a=nn.Linear(3, 4), crf=nn.CRF(4))
    fit(tagger, numbers(4, 5, 3), ids(4, 5, below=3), nn.CRFLoss(tagger.crf))
    tagger.crf.predict(numbers(4, 5, 4), lengths)
    model = NGram.train([["a", "b"], ["b"]], 2)
    for decoder in (
        nn.CTCDecoder(["", "a", "b", " "], 0),
        nn.CTCDecoder(["", "a", "b", " "], 3, words=["a", "b", "ab"], model=model, best=2),
    ):
        decoder.predict(numbers(4, 5, 4), lengths)
    align = Calls(lambda m, x, y, n: ops.ctc_align(x, y, n))
    align.predict(numbers(4, 5, 4), labels[:, :1], lengths)


#: the kernels of updates element by element, whose optimisers need not all be met in models
UPDATES = [
    name for name in MADE if MADE.get(name.replace("_prepare", "_update"), ("",))[0] == "update"
]


def update_operands(kernel: Kernel | CudaKernel) -> dict[str, Any]:
    """Operands of an update or of what prepares it, by the kinds of its parameters."""
    update = kernel.name.removesuffix(SAVING).replace("_prepare", "_update")
    size = SHARED + MADE[update][1][3]  # of what is prepared
    given: dict[str, Any] = {"control": control(0), "scale": None, "guard": np.zeros(8, np.int64)}
    for name, parameter in kernel.params.items():
        if name in given:
            continue
        if not isinstance(parameter, Array):
            given[name] = 0 if parameter.kind == "int" else 0.5
        elif parameter.dtype == "r":
            given[name] = np.ones((1, 1))
        else:
            given[name] = np.abs(numbers(*((size,) if parameter.dims == ("H",) else (2, 5))))
    return {name: given[name] for name in kernel.params}
