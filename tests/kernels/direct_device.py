"""Operands of kernels that only one of the devices has."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.kernels.control_block import LENGTH, WORKERS
from fastnn.kernels.convolution.shared import tile_room
from fastnn.kernels.matmul.cpu import packed_shape
from fastnn.kernels.matmul.cpu_blocked import scratch_columns
from fastnn.kernels.matmul.cpu_columns import BLOCK_COLUMNS, columns_scratch
from fastnn.kernels.matmul.cpu_own import own_scratch
from fastnn.kernels.matmul.cpu_sparse import columns_needed, room_needed, words_needed
from fastnn.kernels.matmul.cpu_sparse_gradients import turned_room, turned_words
from fastnn.kernels.matmul.cpu_turned import turned_columns
from fastnn.kernels.matmul.cpu_unit import gradient_scratch, product_scratch, unit_shape
from fastnn.kernels.recurrent.cpu_unit import GRADIENT_WORDS, input_scratch
from fastnn.kernels.rnn.shared import ACTIVATIONS
from tests.golden.models import ids, numbers
from tests.kernels.direct import control


def words(*shape: int) -> np.ndarray:
    """Small numbers of 16 bits: in bfloat16 and in float16."""
    return (numbers(*shape).astype(np.float32).view(np.uint32) >> 18).astype(np.uint16)


#: of kernels that only the CPU has
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
#: a control block that says that two workers run
_TWO = np.array([2 * (k == WORKERS) for k in range(LENGTH)])
DIRECT_CPU |= {
    "linear_forward_taking": {**_FORWARD, "control": _TWO},
    "linear_backward_input": dict(
        dy=_INPUT["dy"], w_packed=numbers(*packed_shape(K, C, 4)), dx=_INPUT["dx"]
    ),
    "linear_backward_input_turned": {**_INPUT, "scratch": numbers(N, turned_columns(K))},
    "linear_backward_input_turned_columns": {
        **_INPUT, "scratch": numbers(C, columns_scratch(N, K))
    },
    "linear_backward_input_blocked_columns": {**_INPUT, "scratch": numbers(C, BLOCK_COLUMNS)},
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
#: rows, inputs and outputs of a product that leaves zeros out, and its left factor
_N, _C, _K = 40, 70, columns_needed(4) + 3
_WHOLE = columns_needed(4)
_ZEROS = np.where(ids(_N, _C, below=4) > 0, 0, numbers(_N, _C)).astype(np.float32)
DIRECT_CPU |= {
    "linear_forward_sparse": dict(
        x=_ZEROS, w=numbers(_C, _K), bias=numbers(_K), y=numbers(_N, _K),
        words=np.zeros((_N, words_needed(_C)), np.int64),
        room=np.zeros((_N, room_needed(4)), np.float32),
    ),
    "linear_forward_blocked": dict(
        x=numbers(_N, _C), w=numbers(_C, _K), bias=numbers(_K), y=numbers(_N, _K),
        scratch=np.zeros((_N, scratch_columns(_N, 4)), np.float32),
    ),
    "linear_forward_blocked_sparse": dict(
        x=_ZEROS, w=numbers(_C, _K), bias=numbers(_K), y=numbers(_N, _K),
        words=np.zeros((_N, words_needed(_C)), np.int64),
        scratch=np.zeros((_N, scratch_columns(_N, 4)), np.float32),
    ),
    "linear_backward_weight_own": dict(
        x=_ZEROS, dy=numbers(_N, _K), dw=numbers(_C, _K), scratch=numbers(_C, own_scratch(_N)),
    ),
    "linear_backward_weight_sparse": dict(
        x=_ZEROS, dy=numbers(_N, _K), dw=numbers(_C, _K),
        words=np.zeros((_C, words_needed(_N)), np.int64),
        room=np.zeros((_C, room_needed(4)), np.float32),
    ),
    "linear_backward_input_sparse": dict(
        dy=_ZEROS, w_packed=numbers(*packed_shape(_C, _WHOLE, 4)), dx=numbers(_N, _WHOLE),
        words=np.zeros((_N, words_needed(_C)), np.int64),
        room=np.zeros((_N, room_needed(4)), np.float32),
    ),
    "linear_backward_input_blocked_sparse": dict(
        dy=_ZEROS, w=numbers(_K, _C), dx=numbers(_N, _K),
        words=np.zeros((_N, words_needed(_C)), np.int64),
        scratch=np.zeros((_N, scratch_columns(_N, 4)), np.float32),
    ),
    "linear_backward_weight_turned_sparse": dict(
        x=numbers(_N, _K), dy=_ZEROS, dw=numbers(_K, _C),
        words=np.zeros((_K, turned_words(_C, _N)), np.int64),
        room=np.zeros((_K, turned_room(_C, 4)), np.float32),
    ),
}  # fmt: skip
DIRECT_CPU |= {
    "matmul_forward_add": dict(
        a=numbers(3, 2, 4), b=numbers(3, 4, 37), given=numbers(3, 2, 37), y=numbers(3, 2, 37)
    ),
    "matmul_backward_b_add": dict(
        a=numbers(3, 2, 5), dy=numbers(3, 2, 37), given=numbers(3, 5, 37), db=numbers(3, 5, 37)
    ),
    **{
        f"{first}_add": {name: numbers(3, 5) for name in (*names.split(), "given")}
        for first, names in (
            ("multiply_forward", "a b y"), ("multiply_backward_a", "b dy da"),
            ("multiply_backward_b", "a dy db"), ("square_backward", "x dy dx"),
        )
    },
}  # fmt: skip
#: images of 4x6 with one tile's padding, for vectors of up to 16 lanes, of which halves are whole
_IMAGE, _MADE = numbers(3, 4, 6, 32), numbers(3, 4, 6, 32)
_ROOM = tile_room(_MADE.shape, 32, 1, 16)
DIRECT_CPU |= {
    "winograd_weights": dict(w=numbers(3, 3, 32, 32), u=numbers(16, 32, 32)),
    "winograd_weights_turned": dict(u=numbers(16, 32, 32), turned=numbers(16, 32, 32)),
    "winograd_weights_gradient": dict(du=numbers(16, 32, 32), dw=numbers(3, 3, 32, 32)),
    "winograd_forward": dict(
        x=_IMAGE, u=numbers(16, 32, 32), bias=numbers(32), y=_MADE,
        room=np.zeros((3, _ROOM), np.float32), top=1, left=1, lines=1,
    ),
    "winograd_backward_weight": dict(
        x=_IMAGE, dy=_MADE, du=numbers(16, 32, 32), top=1, left=1,
        room=np.zeros((16, tile_room(_MADE.shape, 32, 0, 16) // 4 + 1 + 6 * 64), np.float32),
    ),
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
#: a convolution of two images, in two groups, with a stride and zeros around
_CONVOLVED = dict(stride_h=2, stride_w=1, dilation_h=1, dilation_w=2, top=1, left=1, groups=2)
_SMALL, _FOUND, _WINDOWS = (numbers(*shape) for shape in ((2, 4, 5, 4), (2, 2, 5, 6), (3, 2, 2, 6)))
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
    f"convolution_{product}_tile{shape}": {**_CONVOLVED, **operands}
    for product, operands in (
        ("forward", dict(x=_SMALL, w=_WINDOWS, bias=numbers(6), y=_FOUND, activation=RELU)),
        ("backward_input", dict(dy=_FOUND, w=_WINDOWS, y=_SMALL, dx=_SMALL, activation=RELU)),
        ("backward_weight", dict(x=_SMALL, dy=_FOUND, parts=numbers(2, 12, 6),
                                 bias_parts=numbers(2, 6), counts=np.zeros(9, np.int64),
                                 dw=numbers(12, 6), dbias=numbers(6), kernel_w=2)),
    )
    for shape in ("", "_tf32", "_tf32x3")
} | {
    "unscale_checked": dict(x=numbers(9, 5), inverse=numbers(1), y=numbers(9, 5),
                            guard=np.zeros(8, np.int64), limit=1e30),
    "next_step": dict(
        moves=np.array([[1, 7, -3], [4, 5, 2]]), by=2, counter=np.array([3]), words=ids(6)
    ),
    "mean_backward_few": dict(dy=numbers(1), dx=numbers(9)),
    "gather_ids_few": dict(
        source=ids(9, 5), order=np.arange(9)[::-1].copy(), control=control(4), y=ids(3, 5)
    ),
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
