"""The kernels of matrix products on CUDA, by size."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.graph.graph import Graph
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.matmul.cuda import PARTS, SHAPES, choose_product
from fastnn.plan.instruction import instructions_of
from fastnn.plan.products import chosen


def graph_with(n: int, c: int, k: int, **more: object) -> Graph:
    graph = Graph(batch=n, device="cuda", **more)  # type: ignore[arg-type]
    x, w, y = graph.value((n, c)), graph.value((c, k)), graph.value((n, k))
    graph.call("linear_forward", x=x, w=w, bias=None, y=y)
    graph.call("linear_backward_input_unpacked", dy=y, w=w, dx=x)
    graph.call("linear_backward_weight", x=x, dy=y, dw=w)
    return graph


@pytest.mark.parametrize(
    ("n", "c", "k"), [(1, 1, 1), (8, 784, 10), (128, 784, 128), (2048, 2048, 2048), (1, 9000, 3)]
)
def test_every_choice_is_a_kernel(n: int, c: int, k: int) -> None:
    graph = graph_with(n, c, k)
    for instruction in instructions_of(graph):  # checks the shapes of all operands
        assert instruction.kernel.name in CUDA_KERNELS


def test_large_products_take_large_tiles() -> None:
    calls = chosen(graph_with(2048, 2048, 2048))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["large"] * 3
    calls = chosen(graph_with(2048, 2048, 2048, tf32=True))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["tf32"] * 3
    calls = chosen(graph_with(2048, 2048, 2048, dtype="float64", tf32=True))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["middle"] * 3


def test_long_sums_are_split() -> None:
    graph = graph_with(50_000, 40, 30)
    calls = chosen(graph)
    parts, total = calls[-2:]
    assert (parts.kernel, total.kernel) == ("linear_backward_weight_parts", "sum_parts")
    assert parts.operands["parts"].shape[1:] == (40, 30)
    assert total.operands["y"] is graph.calls[-1].operands["dw"]


def test_the_bias_is_added_once() -> None:
    graph = graph_with(2, 9000, 16)
    graph.calls[0].operands["bias"] = bias = graph.value((16,))
    parts, total = chosen(graph)[:2]
    assert parts.kernel == "linear_forward_parts"
    assert "bias" not in parts.operands
    assert total.operands["bias"] is bias


def test_names() -> None:
    for product in PARTS:
        for suffix in SHAPES:
            assert product + suffix in CUDA_KERNELS
        assert choose_product(product, 1, 1, 1).suffix in SHAPES


def test_on_the_cpu_nothing_changes() -> None:
    graph = graph_with(64, 16, 8)
    graph.device = "cpu"
    before = list(graph.calls)
    instructions_of(graph)
    assert graph.calls == before
    assert np.dtype(graph.dtype) == np.float32
