"""Terms of sums that are added where they are computed: fewer calls, and the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.kernels.declare import KERNELS
from fastnn.ops.declare import apply_effect
from fastnn.plan import products
from fastnn.plan.call import Call
from fastnn.plan.lower import Lowering
from fastnn.testing.kernels import call


def drawn(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "c", "k"), [(1, 1, 1), (5, 1, 37), (3, 4, 64), (2, 3, 7), (6, 2, 1)])
def test_products_have_the_bits_of_product_and_sum(m: int, c: int, k: int, dtype: Any) -> None:
    a, b, dy = (drawn(2, *s, dtype=dtype) for s in ((m, c), (c, k), (m, k)))
    for first, right, name, shape in (
        ("matmul_forward", {"b": b}, "y", (2, m, k)),
        ("matmul_backward_b", {"dy": dy}, "db", (2, c, k)),
    ):
        given = drawn(*shape, dtype=dtype)
        term, want, got = (np.full(shape, np.nan, dtype) for _ in range(3))
        call(KERNELS[first], a=a, **right, **{name: term})
        call(KERNELS["add_forward"], a=term.reshape(2, -1), b=given.reshape(2, -1),
             y=want.reshape(2, -1))  # fmt: skip
        for p in range(2):  # any part of the items
            call(KERNELS[f"{first}_add"], p, p + 1, a=a, **right, given=given, **{name: got})
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("first", "names"),
    [("multiply_forward", "a b y"), ("multiply_backward_a", "b dy da"),
     ("multiply_backward_b", "a dy db"), ("square_backward", "x dy dx")],
)  # fmt: skip
def test_elements_have_the_bits_of_both_calls(first: str, names: str) -> None:
    left, right, result = names.split()
    one, other, given = (drawn(3, 29 + k)[:, :29].copy() for k in range(3))
    term, want, got = (np.full((3, 29), np.nan, np.float32) for _ in range(3))
    call(KERNELS[first], **{left: one, right: other, result: term})
    call(KERNELS["add_forward"], a=given, b=term, y=want)
    call(KERNELS[f"{first}_add"], **{left: one, right: other, result: got}, given=given)
    assert got.tobytes() == want.tobytes()


# ---------------------------------------------------------------- which are joined


class Sums:
    """Calls whose sum may be one with a term, made by hand."""

    def __init__(self, depth: int = 2) -> None:
        self.graph = graph = Graph(batch=8, dtype="float32")
        self.a, self.b = graph.value((8, 3, depth)), graph.value((8, depth, 5))
        self.term, self.other, self.y = (graph.value((8, 3, 5)) for _ in range(3))

    def product(self) -> None:
        apply_effect(self.graph, "matmul_forward", a=self.a, b=self.b, y=self.term)

    def sum(self, a: Value, b: Value) -> None:
        apply_effect(self.graph, "add_forward", a=a, b=b, y=self.y)

    def first(self) -> None:
        """Something that writes the other term."""
        apply_effect(self.graph, "affine", x=self.y, y=self.other, scale=1.0, shift=0.0)

    def calls(self) -> list[Call]:
        return products.chosen(Lowering(self.graph, device="cpu"), [self.y])


def either_side(s: Sums) -> None:
    s.first()
    s.product()
    s.sum(s.other, s.term)


def the_other_side(s: Sums) -> None:
    s.first()
    s.product()
    s.sum(s.term, s.other)


def other_term_comes_later(s: Sums) -> None:
    s.product()
    s.first()
    s.sum(s.term, s.other)


def read_twice(s: Sums) -> None:
    either_side(s)
    apply_effect(s.graph, "affine", x=s.term, y=s.b, scale=1.0, shift=0.0)


def added_to_itself(s: Sums) -> None:
    s.product()
    s.sum(s.term, s.term)


def factor_written_between(s: Sums) -> None:
    s.product()
    apply_effect(s.graph, "affine", x=s.other, y=s.b, scale=1.0, shift=0.0)
    s.sum(s.term, s.other)


@pytest.mark.parametrize("made", [either_side, the_other_side, other_term_comes_later])
def test_a_term_is_added_where_the_sum_was(made: Callable[[Sums], None]) -> None:
    s = Sums()
    made(s)
    (_, found) = s.calls()
    assert found.kernel == "matmul_forward_add"
    assert found.operands["given"] is s.other
    assert found.operands["y"] is s.y


@pytest.mark.parametrize("made", [factor_written_between, read_twice, added_to_itself])
def test_not_where_something_stands_against_it(made: Callable[[Sums], None]) -> None:
    s = Sums()
    made(s)
    assert "matmul_forward_add" not in {c.kernel for c in s.calls()}


def test_not_where_the_product_is_most_of_the_work() -> None:
    s = Sums(depth=5)
    either_side(s)
    assert "matmul_forward_add" not in {c.kernel for c in s.calls()}


class Copier(nn.Module):
    def __init__(self) -> None:
        self.ntm = nn.NTM(3, 2, slots=9, width=4, hidden_size=5)

    def forward(self, x: Any) -> Any:
        return self.ntm(x)[0]


def trained(workers: int, dtype: str) -> dict[str, Any]:
    trainer = fnn.Trainer(Copier(), "mse", optim.Adam(), workers=workers, dtype=dtype)
    trainer.fit(drawn(7, 5, 3), drawn(7, 5, 2), epochs=2, batch_size=4, verbose=False)
    return trainer.get_parameters()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_trainings_keep_their_bits(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    own = products.with_endings

    def joined(calls: list[Call], *more: Any) -> list[Call]:
        found = own(calls, *more)
        asked.extend(c.kernel for c in found if c.kernel.endswith("_add"))
        return found

    monkeypatch.setattr(products, "with_endings", joined)
    several = [trained(workers, dtype) for workers in (1, 3)]
    assert {"matmul_forward_add", "matmul_backward_b_add", "square_backward_add"} <= set(asked)
    monkeypatch.setattr(products, "with_endings", lambda calls, *_: calls)
    for name, array in trained(1, dtype).items():
        assert all(np.array_equal(array, other[name]) for other in several), name
