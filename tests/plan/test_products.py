"""The kernels of matrix products on CUDA, by size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.graph.graph import Graph
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.matmul.cuda import PARTS, SHAPES, TILES, choose_product
from fastnn.ops.declare import apply_effect
from fastnn.plan.instruction import instructions_of
from fastnn.plan.lower import Lowering
from fastnn.plan.products import chosen
from fastnn.testing.null import null_device

#: a table's gradient from the rows that occur
TABLE = ["state_begin", "embedding_backward_occurring"]


def calls_with(n: int, c: int, k: int, dtype: str = "float32", **more: Any) -> Lowering:
    graph = Graph(batch=n, dtype=dtype)
    x, w, y = graph.value((n, c)), graph.value((c, k)), graph.value((n, k))
    apply_effect(graph, "linear_forward", x=x, w=w, bias=None, y=y)
    apply_effect(graph, "linear_backward_input_unpacked", dy=y, w=w, dx=x)
    apply_effect(graph, "linear_backward_weight", x=x, dy=y, dw=w)
    return Lowering(graph, **{"device": "cuda", **more})


@pytest.mark.parametrize(
    ("n", "c", "k"), [(1, 1, 1), (8, 784, 10), (128, 784, 128), (2048, 2048, 2048), (1, 9000, 3)]
)
def test_every_choice_is_a_kernel(n: int, c: int, k: int) -> None:
    lowered = calls_with(n, c, k)
    # checks the shapes of all operands
    for instruction in instructions_of(chosen(lowered), lowered.batch):
        assert instruction.kernel.name in CUDA_KERNELS


def test_large_products_take_large_tiles() -> None:
    calls = chosen(calls_with(2048, 2048, 2048))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["large"] * 3
    calls = chosen(calls_with(2048, 2048, 2048, precision="medium"))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["tf32"] * 3
    calls = chosen(calls_with(2048, 2048, 2048, precision="high"))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["tf32x3"] * 3
    calls = chosen(calls_with(2048, 2048, 2048, dtype="float64", precision="medium"))
    assert [c.kernel.rsplit("_", 1)[1] for c in calls] == ["middle"] * 3


def test_long_sums_are_split() -> None:
    """In one launch; the words in which it counts are its own, and 0 when a step begins."""
    lowered = calls_with(50_000, 40, 30)
    parts = chosen(lowered)[-1]
    assert parts.kernel == "linear_backward_weight_parts"
    assert parts.operands["parts"].shape[1:] == (40, 30)
    assert parts.operands["dw"] is lowered.calls[-1].operands["dw"]
    counts = parts.operands["counts"]
    assert counts.segment == "constant"
    assert not counts.data.any()
    assert chosen(lowered)[-1].operands["counts"] is not counts


def test_more_tiles_than_words_are_not_split() -> None:
    rows, columns = 64 * (TILES // 4 + 1), 64 * 4
    for depth in (1 << 10, 1 << 20):
        choice = choose_product("linear_backward_weight", rows, columns, depth)
        assert choice.parts == 1


def test_the_bias_is_added_once() -> None:
    lowered = calls_with(2, 9000, 16)
    lowered.calls[0].operands["bias"] = bias = lowered.value((16,))
    parts = chosen(lowered)[0]
    assert parts.kernel == "linear_forward_parts"
    assert parts.operands["bias"] is bias
    assert parts.operands["activation"] == -1


def test_names() -> None:
    for product in PARTS:
        for suffix in SHAPES:
            assert product + suffix in CUDA_KERNELS
        assert choose_product(product, 5, 5, 5).suffix in SHAPES


@pytest.mark.parametrize("rows", [1, 4])
def test_few_rows_have_kernels_of_their_own(rows: int) -> None:
    kernels = [call.kernel for call in chosen(calls_with(rows, 1024, 1024))]
    assert [name.rsplit("_", 1)[1] for name in kernels] == ["few"] * 3
    kernels = [call.kernel for call in chosen(calls_with(5, 1024, 1024))]
    assert not any(name.endswith("_few") for name in kernels)


def test_on_the_cpu_nothing_changes() -> None:
    lowered = calls_with(64, 16, 8, device="cpu")
    before = list(lowered.calls)
    assert chosen(lowered) == before
    assert lowered.calls == before
    assert np.dtype(lowered.dtype) == np.float32


@pytest.mark.parametrize(("rows", "kernels"), [(24, ["embedding_backward"]), (25, TABLE)])
def test_a_table_of_more_rows_than_ids(rows: int, kernels: list[str]) -> None:
    with null_device("cuda") as null:
        model = nn.Sequential(nn.Embedding(rows, 5), nn.Linear(5, 2))
        trainer = fnn.Trainer(model, "mse", "sgd")
        y = np.zeros((8, 3, 2), np.float32)
        trainer.fit(np.zeros((8, 3), np.int64), y, epochs=1, batch_size=8, verbose=False)
    found = [call.kernel for call in null.programs[0].calls()]
    assert [k for k in found if k in ("embedding_backward", *TABLE)] == kernels
