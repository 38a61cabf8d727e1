"""Which kernels compute a convolution on CUDA, by its sizes and by what follows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.kernels.convolution.cuda_choice import (
    SHAPES,
    Product,
    choose,
    forward_product,
    input_product,
    weight_product,
)
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.matmul.cuda import TILES
from fastnn.runtime.cuda import compiler
from fastnn.testing.null import null_device


def kernels(
    *layers: Any, channels: int = 64, side: int = 28, batch: int = 32, **options: Any
) -> list[Any]:
    """A training step's calls of convolutions, and of what might be part of them."""
    limits = options.pop("limits", (132, 232_448))
    model = nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Flatten())
    x = np.zeros((batch, channels, side, side), np.float32)
    with null_device("cuda", limits) as null:
        step = fnn.compile(model, "cross_entropy", "sgd", **options)
        step(x, np.zeros(batch, np.int64))
    wanted = ("convolution", "sum_rows", "relu", "tanh")
    largest = max((program.calls() for program in null.programs), key=len)
    return [call for call in largest if call.kernel.startswith(wanted)]


def operand(call: Any, name: str) -> Any:
    names = list(CUDA_KERNELS[call.kernel].params)
    return call.operands[names.index(name)]


def test_activations_and_the_gradient_of_a_bias_are_part_of_the_tile() -> None:
    """Also where each layer hands on its output with the channels first."""
    calls = kernels(
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.Tanh(),
        channels=32,
    )  # fmt: skip
    assert [call.kernel for call in calls] == [
        *["convolution_forward_tile"] * 2, "tanh_backward",
        "convolution_backward_input_tile", *["convolution_backward_weight_tile"] * 2,
    ]  # fmt: skip
    assert [operand(call, "activation") for call in calls[:2]] == [1, 0]
    assert operand(calls[3], "activation") == 1
    assert operand(calls[3], "y").dims == (32, 28, 28, 64)
    for call in calls[4:]:
        assert operand(call, "dbias").segment == "grads"
        count = operand(call, "parts").dims[0]
        assert count > 1
        assert operand(call, "bias_parts").dims == (count, 64)


@pytest.mark.parametrize(
    ("precision", "suffix"),
    [("highest", ""), ("high", "_tf32x3"), ("medium", "_tf32"), ("bf16", "_tf32")],
)
def test_tensor_cores_where_the_precision_allows_them(precision: str, suffix: str) -> None:
    calls = kernels(nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), precision=precision)
    found = {call.kernel for call in calls}
    names = ("forward", "backward_input", "backward_weight")
    assert found == {f"convolution_{name}_tile{suffix}" for name in names}


def test_float64_has_one_shape() -> None:
    calls = kernels(nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), dtype="float64")
    assert len({call.kernel for call in calls}) == 3
    assert all(call.kernel.endswith("_tile") for call in calls)


def test_small_convolutions_stay_one_element_a_thread() -> None:
    calls = kernels(
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 6, 3), channels=4, side=8, batch=4
    )
    found = {call.kernel for call in calls if call.kernel.startswith("convolution")}
    assert not any("_tile" in name for name in found)
    assert len(found) == 3


def test_a_device_with_little_shared_memory() -> None:
    calls = kernels(nn.Conv2d(64, 64, 3), nn.ReLU(), limits=(132, 32 << 10))
    assert not any("_tile" in call.kernel for call in calls)


def test_sizes() -> None:
    """Of a product: rows, columns, depth, and how many there are."""
    w, y, x = (4, 3, 5, 14), (2, 6, 7, 14), (2, 12, 9, 10)
    assert forward_product(y, w, 2) == (84, 7, 60, 2)
    assert input_product(x, w, 2, (2, 1)) == (2 * 6 * 9, 5, 6 * 7, 4)
    assert weight_product(y, w, 2) == (60, 7, 84, 2)


def test_the_choice_is_what_the_estimates_say() -> None:
    large = Product(25_088, 64, 288, 1)
    assert choose(large) == ("", 1)
    assert choose(large, precision="medium") == ("_tf32", 1)
    assert choose(large, 8, "medium") == ("", 1)
    assert choose(large._replace(rows=8)) is None  # a block alone
    assert choose(Product(25_088, 2, 18, 32)) is None  # groups of two channels
    long = Product(288, 64, 25_088, 1)
    assert choose(long) is None  # five blocks alone
    assert choose(long, splits=True).parts > 8
    assert choose(long._replace(depth=200), splits=True) in (None, ("", 1))
    # a word counts the blocks of each tile
    assert choose(Product(64 * (TILES + 1), 64, 1 << 16, 1), splits=True).parts == 1


def test_a_grid_takes_all_tiles() -> None:
    """Its second and third dimensions end at 65,535 blocks."""
    for count in (1, 40_000, 70_000):
        found = choose(Product(512, 64, 1 << 14, count), splits=True)
        assert found is None or count * found.parts <= 65_535
    assert choose(Product(512, 64, 1 << 14, 70_000)) is None
    sizes = dict.fromkeys("NHWCPQIJKG", 64) | {"D": 576, "B": 0, "S": 8, "groups": 1}
    sizes |= {"stride_h": 1, "stride_w": 2}
    blocks = {"forward": 4096, "backward_input": 4096, "backward_weight": 72}
    for name, least in blocks.items():
        for suffix, shape in SHAPES.items():
            kernel = CUDA_KERNELS[f"convolution_{name}_tile{suffix}"]
            launch = compiler.launch_of(kernel, sizes, "float32")
            assert launch.threads[0] == shape.threads
            assert launch.shared == 4 * shape.memory <= 96 << 10  # two blocks a multiprocessor
            assert np.prod(launch.grid) * shape.rows * shape.columns >= least * 64 * 64
            if not suffix:
                assert np.prod(launch.grid) == least
