"""The work of a kernel's call, by formulas: multiply-adds, other operations, functions, bytes.

What is counted is what the computation needs, not what the kernel does: a product of matrices has
N C K multiply-adds whatever its tiles; an array counts its bytes once however often it is read (in
a cache or not), twice where it is written, as its lines are read first; scratch memory counts
nothing, and taps of a convolution that lie outside of the image are left out. An addition, a
multiplication, a comparison or a multiply-add by itself is one operation. The functions (`exp`,
quotients, random numbers, ...) are those of `benchmarks.ports`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastnn.kernels import types
from fastnn.kernels.declare import Array, kernel_of


@dataclass
class Work:
    """What a call has to do: counts of numbers, not of vectors. `bytes` are moved, `room` is what
    all arrays take (one that is read and written is moved twice)."""

    macs: float = 0.0
    operations: float = 0.0
    functions: Mapping[str, float] = field(default_factory=dict)
    bytes: float = 0.0
    room: float = 0.0


class Sizes:
    """A call's sizes: of dimension letters and integers by name (`s.N`), of arrays (`s["x"]`)."""

    def __init__(self, call: Any, dtype: str):
        self.arrays: dict[str, tuple[int, ...]] = {}
        self.moved = self.room = 0.0
        for (name, parameter), operand in zip(
            kernel_of(call.kernel).params.items(), call.operands, strict=True
        ):
            if not isinstance(parameter, Array):
                if isinstance(operand, int):
                    setattr(self, name, operand)
                continue
            dims = getattr(operand, "dims", None)
            for letter, size in zip(
                parameter.dims, dims or (0,) * len(parameter.dims), strict=True
            ):
                setattr(self, letter, size)
            if dims is None:
                continue
            self.arrays[name] = dims
            times = {"in": 1, "out": 2, "part": 2, "inout": 2}.get(parameter.mode, 0)
            size = math.prod(dims) * types.item_size(parameter.dtype, dtype)
            self.moved, self.room = self.moved + times * size, self.room + min(times, 1) * size

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self.arrays[name]

    def __getattr__(self, name: str) -> Any:  # for readers of types: the letters are set above
        raise AttributeError(f"no size is called {name!r}")


FORMULAS: dict[str, Callable[[Sizes], Work]] = {}


def formula(*names: str) -> Callable[[Callable[[Sizes], Work]], Callable[[Sizes], Work]]:
    def enter(function: Callable[[Sizes], Work]) -> Callable[[Sizes], Work]:
        FORMULAS.update(dict.fromkeys(names, function))
        return function

    return enter


def work_of(call: Any, dtype: str = "float32") -> Work | None:
    """A planned call's work; None where there is no formula for its kernel."""
    counted = FORMULAS.get(call.kernel)
    if call.kernel.endswith("_update"):
        counted = _update
    if counted is None:
        return None
    sizes = Sizes(call, dtype)
    sizes.kernel = call.kernel
    found = counted(sizes)
    found.bytes, found.room = found.bytes or sizes.moved, found.bytes or sizes.room
    return found


# ---------------------------------------------------------------- products


@formula(
    "linear_forward", "linear_forward_columns", "linear_forward_blocked", "linear_forward_sparse"
)
def _linear(s: Sizes) -> Work:
    return Work(s.N * math.prod(s["w"]))


@formula("linear_backward_input_unpacked", "linear_backward_input_turned",
         "linear_backward_input_blocked")  # fmt: skip
def _linear_input(s: Sizes) -> Work:
    return Work(s.N * math.prod(s["w"]))


@formula("linear_backward_input")
def _linear_input_packed(s: Sizes) -> Work:
    return Work(math.prod(s["dy"]) * s["dx"][1])


@formula("linear_backward_weight")
def _linear_weight(s: Sizes) -> Work:
    return Work(s["x"][0] * math.prod(s["dw"]))


# ---------------------------------------------------------------- recurrent layers


def _forward(s: Sizes, gates: int, operations: int, **functions: int) -> Work:
    units = math.prod(s["y"])
    inputs, hidden = s["x"][2], s["y"][2]
    return Work(
        gates * units * (inputs + hidden), operations * units,
        {name: count * units for name, count in functions.items()},
    )  # fmt: skip


@formula("rnn_forward")
def _rnn(s: Sizes) -> Work:
    return _forward(s, 1, 1, tanh=1)


@formula("lstm_forward")
def _lstm(s: Sizes) -> Work:
    return _forward(s, 4, 7, sigmoid=3, tanh=2)


@formula("gru_forward")
def _gru(s: Sizes) -> Work:
    return _forward(s, 3, 8, sigmoid=2, tanh=1)


@formula("rnn_backward")
def _rnn_back(s: Sizes) -> Work:
    units = math.prod(s["y"])
    return Work(units * s["y"][2], 4 * units)


@formula("lstm_backward")
def _lstm_back(s: Sizes) -> Work:
    B, H = s["dh0"]
    units = B * H * s.steps
    return Work(4 * units * H, 25 * units, {"tanh": units})


@formula("gru_backward")
def _gru_back(s: Sizes) -> Work:
    units = math.prod(s["y"])
    return Work(3 * units * s["y"][2], 20 * units)


@formula("sequence_backward_weight")
def _sequence_weight(s: Sizes) -> Work:
    B, rows = s["x"][0], s["dw"][0]
    steps = s.steps - (s.shift if "before" not in s.arrays else 0)
    moved = 4 * B * s.steps * (rows + s.columns) + 8 * rows * s.columns
    return Work(B * steps * rows * s.columns, bytes=moved)


@formula("sequence_backward_input")
def _sequence_input(s: Sizes) -> Work:
    return Work(math.prod(s["dx"]) * s.gates)


# ---------------------------------------------------------------- convolutions and pooling


def inside(outputs: int, extent: int, taps: int, stride: int, dilation: int, before: int) -> int:
    """How many pairs of a tap and an output meet an input, along one axis."""
    return sum(
        0 <= p * stride - before + i * dilation < extent
        for i in range(taps)
        for p in range(outputs)
    )


def _taps(s: Sizes, x: tuple[int, ...], y: tuple[int, ...], taps: tuple[int, int]) -> int:
    return inside(y[1], x[1], taps[0], s.stride_h, s.dilation_h, s.top) * inside(
        y[2], x[2], taps[1], s.stride_w, s.dilation_w, s.left
    )


@formula("convolution_forward", "depthwise_forward")
def _convolution(s: Sizes) -> Work:
    I, J, G, _ = s["w"]
    y = s["y"]
    return Work(y[0] * y[3] * G * _taps(s, s["x"], y, (I, J)))


@formula("convolution_backward_input", "depthwise_backward_input")
def _convolution_input(s: Sizes) -> Work:
    I, J, G, _ = s["w"]
    dy = s["dy"]
    return Work(dy[0] * dy[3] * G * _taps(s, s["dx"], dy, (I, J)))


@formula("convolution_backward_weight")
def _convolution_weight(s: Sizes) -> Work:
    x, dy, rows = s["x"], s["dy"], s["dw"][0]
    G = x[3] // s.groups
    taps = rows // (G * s.kernel_w), s.kernel_w
    return Work(dy[0] * dy[3] * G * _taps(s, x, dy, taps))


@formula("depthwise_backward_weight")
def _depthwise_weight(s: Sizes) -> Work:
    x, dy = s["x"], s["dy"]
    return Work(dy[0] * dy[3] * _taps(s, x, dy, (s["dw"][0] // s.kernel_w, s.kernel_w)))


@formula("winograd_forward")
def _winograd(s: Sizes) -> Work:
    """Of the algorithm: 16 multiply-adds for four outputs, and the transforms of inputs and
    outputs."""
    N, P, Q, K = s["y"]
    tiles, C = N * P * Q // 4, s["x"][3]
    return Work(16 * tiles * C * K, tiles * (32 * C + 24 * K))


@formula("winograd_backward_weight")
def _winograd_weight(s: Sizes) -> Work:
    N, P, Q, K = s["dy"]
    tiles, C = N * P * Q // 4, s["x"][3]
    return Work(16 * tiles * C * K, tiles * (32 * C + 24 * K))


@formula("max_pool_forward", "avg_pool_forward")
def _pool(s: Sizes) -> Work:
    return Work(operations=math.prod(s["y"]) * s.kernel_h * s.kernel_w)


@formula("max_pool_backward")
def _max_pool_back(s: Sizes) -> Work:
    return Work(operations=2 * math.prod(s["y"]) * s.kernel_h * s.kernel_w)


@formula("avg_pool_backward")
def _avg_pool_back(s: Sizes) -> Work:
    return Work(operations=math.prod(s["dy"]) * s.kernel_h * s.kernel_w)


# ---------------------------------------------------------------- attention, sequences


@formula("self_attention_forward")
def _attention(s: Sizes) -> Work:
    B, T, Y = s["y"]
    pairs = B * T * (T + 1) / 2 if s.causal else B * T * T
    return Work(2 * pairs * Y, 3 * pairs * s.heads, {"exp": pairs * s.heads})


@formula("self_attention_backward")
def _attention_back(s: Sizes) -> Work:
    B, T, Y = s["y"]
    pairs = B * T * (T + 1) / 2 if s.causal else B * T * T
    return Work(5 * pairs * Y, 4 * pairs * s.heads, {"exp": pairs * s.heads})


@formula("ctc_forward")
def _ctc(s: Sizes) -> Work:
    """Of a frame: the softmax of all classes, in which those of labels are, and of 2 L + 1 states
    `alpha` (a sum of three, a product) and `beta`, and their products."""
    B, T, C = s["x"]
    L = s["target"][1]
    states = B * T * (2 * L + 1)
    return Work(operations=3 * B * T * C + 8 * states, functions={"exp": B * T * C})


@formula("ctc_backward")
def _ctc_back(s: Sizes) -> Work:
    B, T, C = s["x"]
    return Work(operations=3 * B * T * C, functions={"exp": B * T * C})


@formula("crf_forward")
def _crf(s: Sizes) -> Work:
    """`alpha`, `beta` and the shares of pairs of tags; exp of all scores."""
    B, T, C = s["x"]
    return Work(3 * B * T * C * C, 4 * B * T * C, {"exp": B * T * C})


@formula("crf_backward", "crf_backward_input", "crf_backward_transitions")
def _crf_back(s: Sizes) -> Work:
    """What was counted forward, times the gradient of the loss."""
    counted = s["share"] if "share" in s.arrays else s["pair"]
    return Work(operations=math.prod(counted))


@formula("embedding_forward")
def _embedding(s: Sizes) -> Work:
    return Work(bytes=12 * math.prod(s["y"]) + 8 * s["ids"][0])


@formula("embedding_backward", "gather_rows", "gather_ids", "pack_panels",
         "pack_panels_transposed", "transpose_weights")  # fmt: skip
def _moves(s: Sizes) -> Work:
    return Work()


# ---------------------------------------------------------------- passes


def _each(name: str, array: str, operations: int, **functions: float) -> None:
    """A formula of so many operations and functions for each number of an array."""

    def count(s: Sizes) -> Work:
        n = math.prod(s[array])
        return Work(0.0, operations * n, {f: times * n for f, times in functions.items()})

    FORMULAS[name] = count


_each("relu_forward", "x", 1)
_each("relu_backward", "dy", 1)
_each("tanh_forward", "x", 0, tanh=1)
_each("tanh_backward", "dy", 2)
_each("sigmoid_forward", "x", 0, sigmoid=1)
_each("sigmoid_backward", "dy", 3)
_each("dropout", "x", 2, random=1)
_each("layer_norm_forward", "x", 7)
_each("layer_norm_backward_input", "x", 12)
_each("layer_norm_backward_gain", "x", 4)
_each("batch_norm_forward", "x", 7)
_each("batch_norm_backward", "x", 10)
_each("softmax_forward", "x", 4, exp=1)
_each("softmax_backward", "dy", 3)
_each("cross_entropy_forward", "x", 4, exp=1)
_each("cross_entropy_backward", "dx", 1)
_each("sum_rows", "x", 1)
#: of updates, by their optimisers' names: operations, quotients and roots of a parameter
UPDATES: dict[str, tuple[int, int, int]] = {
    "sgd": (4, 0, 0), "adagrad": (4, 1, 1),
    "rmsprop": (6, 1, 1), "adadelta": (9, 1, 2), "adam": (9, 1, 1), "adamw": (10, 1, 1),
    "adamax": (8, 1, 0), "nadam": (11, 1, 1), "radam": (11, 1, 1), "lion": (8, 0, 0),
}  # fmt: skip


def _update(s: Sizes) -> Work:
    """Of an optimiser: by its name, or the longest beginning of it that is known."""
    known = [name for name in UPDATES if s.kernel.startswith(name)]
    operations, quotients, roots = UPDATES[max(known, key=len)] if known else (0, 0, 0)
    n = math.prod(s["p"])
    both = min(quotients, roots)
    counts = {"root and quotient": both, "quotient": quotients - both, "root": roots - both}
    return Work(0.0, operations * n, {name: count * n for name, count in counts.items()})
