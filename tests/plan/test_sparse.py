"""Which products leave zeros out, and that trainings keep their bits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.graph.graph import Graph
from fastnn.kernels.cpu import tile_unit
from fastnn.kernels.declare import kernel_of
from fastnn.kernels.matmul.cpu import choose_linear
from fastnn.ops.declare import apply_effect
from fastnn.plan import products
from fastnn.plan.lower import Lowering
from fastnn.plan.sparse import ROWS
from fastnn.pretrain import RBM
from fastnn.testing.null import null_device

FORWARD, WEIGHT = "linear_forward_sparse", "linear_backward_weight_sparse"
BLOCKED = "linear_forward_blocked_sparse"
INPUT, TURNED = "linear_backward_input_sparse", "linear_backward_weight_turned_sparse"


def kernels(n: int, c: int, k: int, source: str, dtype: str = "float32") -> list[str]:
    """Of the products with an input, with what a comparison gives, or with something else."""
    graph = Graph(batch=n, dtype=dtype)
    x = graph.input("x", (c,)) if source == "input" else graph.value((n, c))
    if source == "less":
        apply_effect(graph, "less", a=graph.value((n, c)), b=graph.value((n, c)), y=x)
    whole = graph.view(x, (n, c))
    w, y = graph.value((c, k)), graph.value((n, k))
    apply_effect(graph, "linear_forward", x=whole, w=w, bias=None, y=y)
    apply_effect(graph, "linear_backward_weight", x=whole, dy=y, dw=w)
    return [call.kernel for call in products.chosen(Lowering(graph, device="cpu"))][-2:]


def test_data_and_comparisons_are_looked_at() -> None:
    for source in ("input", "less"):
        assert kernels(64, 256, 128, source) == [FORWARD, WEIGHT]
        assert kernels(64, 256, 128, source, "float64") == [FORWARD, WEIGHT]
    for sizes in ((63, 256, 128), (64, 255, 128), (64, 256, 15)):
        assert kernels(*sizes, "input") == ["linear_forward", "linear_backward_weight"]
    assert kernels(64, 512, 1024, "input") == ["copy_strided", BLOCKED]  # of the transposed x
    assert kernels(64, 512, 512, "less")[-1] == BLOCKED
    assert kernels(64, 256, 128, "else") == ["linear_forward", "linear_backward_weight"]


def around(activation: type[nn.Module], rate: float) -> set[str]:
    """The products without zeros of a net with this activation behind the second of three layers,
    and dropout behind that."""
    return leaving_out(nn.Linear(20, 128), nn.Tanh(), nn.Linear(128, 256), activation(),
                       nn.Dropout(rate), nn.Linear(256, 128))  # fmt: skip


def leaving_out(*layers: nn.Module) -> set[str]:
    """The products of these layers' training, from 20 inputs to 128, that leave zeros out."""
    with null_device("cpu") as null:
        step = fnn.compile(nn.Sequential(*layers), "mse", optim.SGD())
        step(np.zeros((200, 20), np.float32), np.zeros((200, 128), np.float32))
    found = [call.kernel for call in null.programs[-1].calls()]
    return {name for name in found if name.endswith("_sparse")}


def test_what_a_relu_leaves_is_looked_at() -> None:
    """Its outputs are a left factor twice, the gradient to its inputs a left and a right one."""
    for rate in (0.0, 0.3):
        assert around(nn.ReLU, rate) == {FORWARD, WEIGHT, INPUT, TURNED}
    assert around(nn.Tanh, 0.0) == around(nn.Tanh, 0.3) == set()


def test_large_layers_behind_a_relu() -> None:
    found = leaving_out(nn.Linear(20, 512), nn.Tanh(), nn.Linear(512, 1024), nn.ReLU(),
                        nn.Linear(1024, 256), nn.Tanh(), nn.Linear(256, 128))  # fmt: skip
    assert {"linear_backward_input_blocked_sparse", BLOCKED} <= found


def trained(kind: str, workers: int, precision: str = "highest") -> dict[str, Any]:
    """Parameters after two epochs on samples of which most pixels are 0."""
    rng = np.random.default_rng(0)
    x = (rng.random((200, 300)) * (rng.random((200, 300)) < 0.2)).astype(np.float32)
    if kind == "machine":
        trainer = RBM(300, 130).trainer(workers=workers)
        trainer.fit(x, epochs=2, batch_size=70, verbose=False)
    else:
        units = 1024 if kind == "wide" else 130
        net = nn.Sequential(nn.Linear(300, units), nn.ReLU(), nn.Linear(units, 5))
        trainer = fnn.Trainer(
            net, "cross_entropy", optim.Adam(), workers=workers, precision=precision
        )
        trainer.fit(x, rng.integers(0, 5, 200), epochs=2, batch_size=70, verbose=False)
    return trainer.get_parameters()


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("classifier", "highest"), ("machine", "highest"), ("wide", "highest"),
     ("classifier", "bf16"), ("wide", "bf16")],
)  # fmt: skip
def test_trainings_keep_their_bits(
    kind: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding to bfloat16 keeps zeros, and hides them from nobody."""
    monkeypatch.setattr(tile_unit, "most_parts", lambda: 0)
    found, seen = products.sparse, set()

    def noted(*given: Any) -> Any:
        call = found(*given)
        seen.add(call and call.kernel)
        return call

    monkeypatch.setattr(products, "sparse", noted)
    several = [trained(kind, workers, precision) for workers in (1, 3)]
    assert ({BLOCKED} if kind == "wide" else {FORWARD, WEIGHT}) <= seen
    monkeypatch.setattr(products, "sparse", lambda *given: None)
    for name, array in trained(kind, 1, precision).items():
        assert all(np.array_equal(array, parameters[name]) for parameters in several), name


def test_products_by_columns_have_too_few_rows_to_leave_zeros_out() -> None:
    """So splitting a product by columns costs none of the products that leave zeros out."""
    sizes = (256, 512, 784, 1024, 2048, 4096)
    for itemsize in (4, 8):
        for rows in (1, 2, 7, 8, 27, 32, 63, 64, 65, 128, 256):
            for inputs, columns in itertools.product(sizes, sizes):
                found = choose_linear(rows, inputs, columns, itemsize, workers=2).forward
                assert kernel_of(found).traits.sparse_as or rows < ROWS
