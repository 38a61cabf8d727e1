"""Which products with a transposed matrix turn their rows, and that trainings keep their bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.graph.graph import Graph
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.cpu import target, tile
from fastnn.kernels.matmul.cpu import packed_shape
from fastnn.kernels.matmul.cpu_blocked import own_columns
from fastnn.kernels.matmul.cpu_columns import pays_by_columns
from fastnn.kernels.matmul.cpu_turned import pays
from fastnn.ops.declare import apply_effect
from fastnn.plan import products, turned
from fastnn.plan.lower import Lowering
from tests.plan.models import training_program

PACK, PRODUCT, TURNED, BLOCKED, TURNED_COLUMNS, BLOCKED_COLUMNS = (
    "pack_panels_transposed", "linear_backward_input", "linear_backward_input_turned",
    "linear_backward_input_blocked", "linear_backward_input_turned_columns",
    "linear_backward_input_blocked_columns",
)  # fmt: skip
C, K = 20, 9


def on(monkeypatch: pytest.MonkeyPatch, vector_bits: int, registers: int) -> Iterator[None]:
    host = dataclasses.replace(target.host(), vector_bits=vector_bits, registers=registers)
    tile.shapes.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(target, "host", lambda: host)
        yield
    tile.shapes.cache_clear()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU with 16 vector registers of 256 bits, whatever this one has."""
    yield from on(monkeypatch, 256, 16)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU with 32 vector registers of 512 bits."""
    yield from on(monkeypatch, 512, 32)


def product(graph: Graph, packed: Value, rows: int, c: int = C, k: int = K) -> None:
    dy, dx = graph.value((rows, k)), graph.value((rows, c))
    apply_effect(graph, PRODUCT, dy=dy, w_packed=packed, dx=dx)


def kernels(
    rows: int, products_made: int = 1, write: str = "", c: int = C, k: int = K
) -> list[str]:
    """Of products with one packed matrix; `write`: which of the two is written to in between."""
    graph = Graph(batch=rows, dtype="float32")
    w, packed = graph.value((c, k)), graph.value(packed_shape(k, c, 4))
    apply_effect(graph, PACK, w=w, packed=packed)
    if write:
        place = {"w": w, "packed": packed}[write]
        apply_effect(graph, "fill", memory=place, word=0)
    for _ in range(products_made):
        product(graph, packed, rows, c, k)
    return [call.kernel for call in products.chosen(Lowering(graph, device="cpu"))]


@pytest.mark.usefixtures("narrow")
def test_few_rows_that_read_it_once() -> None:
    for rows in (8, 31, 128):
        assert kernels(rows) == [TURNED]
    for rows in (7, 129):
        assert kernels(rows) == [PACK, PRODUCT]
    assert kernels(32, 2) == [PACK, PRODUCT, PRODUCT]


@pytest.mark.usefixtures("narrow")
def test_not_where_packing_is_cheaper() -> None:
    """Turning moves rows x (C + K) numbers, packing C x K in whole panels; remainders cost."""
    for rows, c, k in ((64, 16, 4), (64, 32, 16), (128, 128, 10), (26, 128, 10)):
        assert not pays(rows, c, k, 4)
    for rows, c, k in ((64, 12, 12), (16, 16, 4), (20, 128, 10), (32, 784, 128), (100, 512, 512)):
        assert pays(rows, c, k, 4)
    assert not pays(64, 16, 16, 8)


@pytest.mark.usefixtures("narrow")
def test_not_over_time_where_each_length_would_have_a_plan_of_its_own() -> None:
    graph = Graph(batch=4, dtype="float32")
    packed = graph.value(packed_shape(K, C, 4))
    apply_effect(graph, PACK, w=graph.value((C, K)), packed=packed)
    dy, dx = graph.value((4, 8, K)), graph.value((4, 8, C))
    apply_effect(graph, PRODUCT, dy=dy, w_packed=packed, dx=dx)
    found = products.chosen(Lowering(graph, device="cpu"))
    assert [call.kernel for call in found] == [PACK, PRODUCT]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("write", ["w", "packed"])
def test_not_where_the_matrix_has_changed(write: str) -> None:
    assert kernels(32, write=write) == [PACK, "fill", PRODUCT]


@pytest.mark.usefixtures("narrow")
def test_not_in_a_loop_which_packs_once_for_all_steps() -> None:
    graph = Graph(batch=32, dtype="float32")
    packed = graph.value(packed_shape(K, C, 4))
    apply_effect(graph, PACK, w=graph.value((C, K)), packed=packed)
    product(graph, packed, 32)
    lowered = Lowering(graph, device="cpu")
    packing, step = lowered.calls
    step = dataclasses.replace(step, repeats=(Repeat(3),))
    assert turned.turned(lowered, [packing, step]) == [packing, step]


@pytest.mark.usefixtures("wide")
def test_by_wider_vectors_each_worker_packs_for_itself() -> None:
    for rows in (5, 17, 33, 128):
        assert kernels(rows) == [BLOCKED], rows
    for rows in (4, 129):
        assert kernels(rows) == [PACK, PRODUCT], rows
    assert kernels(17, 2) == [PACK, PRODUCT, PRODUCT]
    assert kernels(17, write="w") == [PACK, "fill", PRODUCT]


@pytest.mark.usefixtures("wide")
def test_by_wider_vectors_rows_that_fill_tiles_are_turned() -> None:
    for rows in (16, 32, 48):
        assert all(pays(rows, c, k, 4) for c, k in ((256, 256), (784, 128), (512, 512)))
    for rows in (17, 24, 40, 64, 128):
        assert not any(pays(rows, c, k, 4) for c, k in ((256, 256), (784, 128), (512, 512)))
    assert not pays(8, 256, 256, 4)
    assert pays(8, 1024, 1024, 4)  # it would come from L3 to be packed


@pytest.mark.usefixtures("wide")
def test_by_wider_vectors_few_rows_of_a_large_weight_are_split_by_columns() -> None:
    """Half of 16 rows do not fill a vector, half of 24 fill two as the 24 do; 32 lose nothing."""
    assert kernels(16, c=512, k=512) == [TURNED_COLUMNS]
    assert kernels(48, c=512, k=512) == [TURNED_COLUMNS]
    for rows in (5, 8, 20, 24):
        assert kernels(rows, c=512, k=512) == [BLOCKED_COLUMNS], rows
    assert kernels(32, c=512, k=512) == [TURNED]
    assert kernels(64, c=512, k=512) == [BLOCKED]
    assert kernels(4, c=512, k=512) == [PACK, PRODUCT]  # lowering has another kernel for so few
    assert kernels(16, 2, c=512, k=512) == [PACK, PRODUCT, PRODUCT]
    assert kernels(16, write="w", c=512, k=512) == [PACK, "fill", PRODUCT]


@pytest.mark.usefixtures("narrow")
def test_few_rows_of_a_large_weight_are_split_by_columns() -> None:
    for rows in (8, 20):
        assert kernels(rows, c=512, k=512) == [TURNED_COLUMNS], rows
    assert kernels(5, c=512, k=512) == [BLOCKED_COLUMNS]
    assert kernels(64, c=512, k=512) == [TURNED]


@pytest.mark.parametrize("bits", ["wide", "narrow"])
def test_columns_are_to_save_more_than_their_barriers(
    bits: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(bits)
    assert pays_by_columns(8, 384, 256, 4)
    assert pays_by_columns(8, 384, 256, 8)
    # too small a weight, or too little saved
    for rows, c, k in ((8, 256, 256), (16, 128, 128), (8, 128, 10), (64, 512, 512)):
        assert not pays_by_columns(rows, c, k, 4), (rows, c, k)


def test_a_share_of_columns_is_updated_right_after_its_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient to the input is split by rows of the weight, as its own and the update are."""
    monkeypatch.setattr(turned, "pays_by_columns", lambda *_: True)
    monkeypatch.setattr(turned, "columns_turned", lambda *_: True)
    net = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 40))
    program = training_program(net, (8,), 16, optim.Adam())[1]
    groups = [[c.kernel for c in g.calls] for p in program.phases for g in p.groups]
    (group,) = (g for g in groups if TURNED_COLUMNS in g)
    assert group == [TURNED_COLUMNS, "linear_backward_weight", "adam_update"]


def test_half_of_very_few_rows_have_room_for_a_panel() -> None:
    deep = min(512, 256)
    for rows in (5, 6, 7, 8, 40):
        room = (rows // 2) * own_columns(rows, 256, 256, 4)
        assert room >= tile.panel_width(4) * deep, rows


class Tied(nn.Module):
    """Products with a transposed matrix on the way there (its embedding's) and back."""

    def __init__(self) -> None:
        self.embed, self.hidden = nn.Embedding(11, 21), nn.Linear(21, 21)

    def forward(self, x: Any) -> Any:
        return ops.linear(ops.tanh(self.hidden(self.embed(x))), self.embed.weight)


def trained(workers: int, precision: str = "highest") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 11, (2, 70))
    trainer = fnn.Trainer(Tied(), "cross_entropy", optim.Adam(), workers=workers,
                          precision=precision)  # fmt: skip
    trainer.fit(x, y, epochs=2, batch_size=26, verbose=False)
    return trainer.get_parameters()


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_trainings_keep_their_bits(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def choose(by_columns: bool, pays: bool, blocks_pay: bool) -> None:
        monkeypatch.setattr(turned, "pays_by_columns", lambda *_: by_columns)
        monkeypatch.setattr(turned, "columns_turned", lambda *_: pays)
        monkeypatch.setattr(turned, "pays", lambda rows, *_: asked.append(rows) or pays)
        monkeypatch.setattr(turned, "blocks_pay", lambda rows: blocks_pay)

    several = []
    for ways in ((False, True, False), (False, False, True), (True, True, False),
                 (True, False, True)):  # fmt: skip
        choose(*ways)
        several += [
            trained(workers, precision) for workers in ((1, 2, 3, 8) if ways[0] else (1, 3))
        ]
    assert set(asked) == {26, 18}
    choose(False, False, False)
    for name, array in trained(1, precision).items():
        assert all(np.array_equal(array, other[name]) for other in several), name
