"""Operands of kernels that no model of the golden programs comes to, on either device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.kernels import control_block
from fastnn.kernels.attention.cpu_blocks import backward_scratch, forward_scratch
from fastnn.kernels.wavenet.shared import room
from tests.golden.models import ids, numbers


def control(cursor: int = 4) -> np.ndarray:
    found = np.zeros(control_block.LENGTH, np.int64)
    found[control_block.CURSOR] = cursor
    return found


#: of three sequences with up to five steps
LENGTHS = np.array([5, 0, 3])
#: operands of kernels that no model of `rest.py` has on the CPU
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
    "matmul_transposed_forward": dict(a=numbers(3, 2, 5), b=numbers(3, 7, 5), y=numbers(3, 2, 7)),
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
        hyper=np.array([0.0, 1.0, np.inf, 1.0], np.float32),
        own=np.array([0.1], np.float32),
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
    "avg_pool_lengths_forward": dict(x=numbers(3, 5, 9), lengths=LENGTHS, y=numbers(3, 2, 9)),
    "avg_pool_lengths_backward": dict(lengths=LENGTHS, dy=numbers(3, 2, 9), dx=numbers(3, 5, 9)),
    "max_pool_places": dict(
        x=numbers(2, 3, 4, 9),
        best=numbers(2, 2, 3, 9),
        y=ids(2, 2, 3, 9),
        kernel_h=2,
        kernel_w=2,
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        top=0,
        left=0,
    ),
    "stretch_forward": dict(
        x=numbers(3, 5, 9), lengths=LENGTHS, y=numbers(3, 8, 9), scale=1.7, mode=1
    ),
    "stretch_backward": dict(
        lengths=LENGTHS, dy=numbers(3, 8, 9), dx=numbers(3, 5, 9), scale=1.7, mode=1
    ),
    "count_places": dict(lengths=LENGTHS, y=ids(3), scale=1.5, shift=-2),
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
        **_ATTENTION, "scratch": np.zeros((3, forward_scratch(5, 2, 3, 4)), np.float32)
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
        **_SELF, "scratch": np.zeros((3, forward_scratch(4, 2, 2, 4)), np.float32)
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
    "beam_reorder": dict(
        x=numbers(2, 6), parent=ids(2, 2, below=2), running=None, y=numbers(2, 6)
    ),
    "beam_reorder_in_place": dict(
        x=numbers(2, 6), parent=ids(2, 2, below=2), running=numbers(2), room=numbers(2, 6)
    ),
    "put_row_in_place": dict(
        x=numbers(3, 12), row=numbers(3, 4), at=ids(3, 2, below=4), running=numbers(3)
    ),
    "put_row_forward": dict(
        x=numbers(3, 12), row=numbers(3, 4), at=ids(3, 2, below=4), running=None, y=numbers(3, 12)
    ),
    "put_row_backward_row": dict(
        at=ids(3, 2, below=4), running=numbers(3), dy=numbers(3, 12), drow=numbers(3, 4)
    ),
    "to_ids": dict(x=np.ones((2, 3), np.float32), y=ids(2, 3)),
}  # fmt: skip
DIRECT["add_scaled"] = dict(x=numbers(9, 5), count=numbers(1), y=numbers(9, 5), factor=-0.5)
