"""A weight's gradient and its update are split alike, whatever rank each kernel sees it at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.graph.graph import Graph
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS
from fastnn.ops.declare import apply_effect
from fastnn.plan.instruction import instructions_of
from fastnn.plan.lower import Lowering
from fastnn.plan.program import PlannedCall, PlannedGroup, Program
from fastnn.plan.schedule import conflict
from fastnn.testing.null import null_device

RNG = np.random.default_rng(3)
BATCH = 32


def blocks_forward(
    x: "in rows f[N,C]", w: "in whole f[K,A,B]", y: "out rows f[N,K]", lo: "begin", hi: "end"
):
    """y[n,k] is the sum of x[n] times the k-th block of w (C = A B)."""
    for i in range(lo, hi):
        for k in range(w.shape[0]):
            total = 0.0
            for j in range(x.shape[1]):
                total += x[i, j] * w[k, j // w.shape[2], j % w.shape[2]]
            y[i, k] = total


def blocks_backward(
    w: "in whole f[K,A,B]", dy: "in rows f[N,K]", dx: "out rows f[N,C]", lo: "begin", hi: "end"
):
    for i in range(lo, hi):
        for j in range(dx.shape[1]):
            total = 0.0
            for k in range(w.shape[0]):
                total += dy[i, k] * w[k, j // w.shape[2], j % w.shape[2]]
            dx[i, j] = total


def blocks_backward_weight(
    x: "in whole f[N,C]", dy: "in whole f[N,K]", dw: "out rows f[K,A,B]", lo: "begin", hi: "end"
):
    for k in range(lo, hi):
        for j in range(x.shape[1]):
            total = 0.0
            for i in range(x.shape[0]):
                total += x[i, j] * dy[i, k]
            dw[k, j // dw.shape[2], j % dw.shape[2]] = total


def shifted_forward(
    x: "in rows f[N,C]", w: "in whole f[C]", y: "out rows f[N,C]", lo: "begin", hi: "end"
):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] + w[j]


def shifted_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(dy.shape[1]):
            dx[i, j] = dy[i, j]


def shifted_backward_weight(dy: "in cols f[N,C]", dw: "out cols f[C]", lo: "begin", hi: "end"):
    for j in range(lo, hi):
        total = 0.0
        for i in range(dy.shape[0]):
            total += dy[i, j]
        dw[j] = total


def columns_forward(
    x: "in cols f[N,C]", w: "in rows f[C]", y: "out cols f[C]", lo: "begin", hi: "end"
):
    """y[c] is w[c] times the sum of x[:,c]."""
    for j in range(lo, hi):
        total = 0.0
        for i in range(x.shape[0]):
            total += x[i, j]
        y[j] = w[j] * total


def columns_backward(x: "in whole f[N,C]", dy: "in whole f[C]", dw: "out whole f[C]"):
    """The gradient of w, by one worker."""
    for j in range(x.shape[1]):
        total = 0.0
        for i in range(x.shape[0]):
            total += x[i, j]
        dw[j] = dy[j] * total


@pytest.fixture(scope="module")
def own_ops() -> Iterator[tuple[Any, ...]]:
    mine = (
        (blocks_forward, blocks_backward, blocks_backward_weight),
        (shifted_forward, shifted_backward, shifted_backward_weight),
        (columns_forward, columns_backward),
    )
    made = tuple(
        fnn.define_op(
            kernels[0].__name__.removesuffix("_forward"),
            fnn.kernel(kernels[0]), [fnn.kernel(kernel) for kernel in kernels[1:]],
        )
        for kernels in mine
    )  # fmt: skip
    yield made
    for kernels in mine:
        for kernel in kernels:
            KERNELS.pop(kernel.__name__)
        OPS.pop(kernels[0].__name__.removesuffix("_forward"))


class Scaled(nn.Module):
    """Its gradient is a sum over rows of a vector."""

    def __init__(self, shape: tuple[int, ...]):
        self.weight = nn.Parameter(shape, 0.5)

    def forward(self, x: Any) -> Any:
        return x * ops.reshape(self.weight, 24)


class Twice(nn.Module):
    """The sum of two gradients, of which one is seen as a vector and one as a matrix."""

    def __init__(self) -> None:
        self.weight = nn.Parameter((2, 12, 24), 0.01)

    def forward(self, x: Any) -> Any:
        return x @ ops.reshape(self.weight, 24, 24) + ops.reshape(self.weight, 24, 24)[0]


class Own(nn.Module):
    """Its weight's gradient is the sum of three."""

    def __init__(self, op: Any, shape: tuple[int, ...], seen: tuple[int, ...]):
        self.op, self.weight, self.seen = op, nn.Parameter(shape, 0.1), seen

    def forward(self, x: Any) -> Any:
        w = ops.reshape(self.weight, *self.seen)
        return self.op(x, w) * self.op(x * x, w) * self.op(-x, w)


def program_of(model: nn.Module, outputs: int) -> Program:
    x, y = np.zeros((2 * BATCH, 24)), np.zeros((2 * BATCH, outputs))
    with null_device() as null:
        trainer = fnn.Trainer(model, "mse", optim.Adam())
        trainer.fit(x, y, batch_size=BATCH, verbose=False)
    return null.programs[0]


def groups_of(program: Program, *kernels: str) -> list[PlannedGroup]:
    groups = [group for phase in program.leaves() for group in phase.groups]
    return [group for group in groups if set(kernels) & set(names(group))]


def names(group: PlannedGroup) -> list[str]:
    return [call.kernel for call in group.calls if isinstance(call, PlannedCall)]


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (1, 24), (24, 1), (2, 2, 2, 3)])
def test_a_vectors_gradient(shape: tuple[int, ...]) -> None:
    program = program_of(Scaled(shape), 24)
    [group] = groups_of(program, "adam_update")
    assert names(group) == ["sum_rows", "adam_update"]
    assert group.items == 24
    assert len(program.phases) == 2


@pytest.mark.parametrize(
    ("shape", "seen", "items"),
    [
        ((5, 4, 3, 2), (5, 4, 6), 5),
        ((5, 24), (5, 4, 6), 5),
        ((120,), (5, 4, 6), 5),
        ((2, 5, 2, 6), (10, 2, 6), 10),
    ],
)
def test_a_convolutions_weight(own_ops: Any, shape: Any, seen: Any, items: int) -> None:
    """Of rank 4, where the gradient's kernel sees rank 3, and what adds up two gradients two. (They
    wait for users' kernels, which may raise exceptions.)"""
    program = program_of(Own(own_ops[0], shape, seen), seen[0])
    groups = groups_of(program, "add_forward", "adam_update")
    assert {group.items for group in groups} == {items}


def test_a_vectors_columns_are_its_rows(own_ops: Any) -> None:
    graph = Graph(8, training=True)
    dw = graph.value((24,))
    apply_effect(graph, "shifted_backward_weight", dy=graph.input("x", (24,)), dw=dw)
    apply_effect(graph, "affine", x=dw, y=graph.value((24,)), scale=2.0, shift=0.0)
    gradient, scaled = instructions_of(Lowering(graph).calls, 8)
    assert conflict(gradient, scaled) == "aligned"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_on_any_number_of_workers(own_ops: Any, dtype: str) -> None:
    x = RNG.normal(size=(BATCH, 24)).astype(dtype)
    for make, outputs in (
        (lambda: Scaled((4, 6)), 24),
        (Twice, 24),
        (lambda: Own(own_ops[0], (5, 4, 3, 2), (5, 4, 6)), 5),
        (lambda: Own(own_ops[1], (2, 12), (24,)), 24),
    ):
        y = RNG.normal(size=(BATCH, outputs)).astype(dtype)
        found = []
        for workers in (1, 2, 3, 4):
            step = fnn.compile(
                make(), "mse", optim.SGD(lr=0.5), dtype=dtype, workers=workers, device="cpu"
            )
            wanted = step.model.state_dict()["weight"] - 0.5 * step.gradients(x, y)["weight"]
            step(x, y)
            first = step.model.state_dict()["weight"].copy()
            np.testing.assert_allclose(first, wanted, rtol=0, atol=1e-6)
            assert np.abs(first - make().state_dict()["weight"]).max() > 1e-4
            step(x, y)
            found.append(step.model.state_dict()["weight"].tobytes())
        assert len(set(found)) == 1


def test_what_one_worker_has_written_is_split_by_rows(own_ops: Any) -> None:
    class Columns(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter((24,), 0.1)

        def forward(self, x: Any) -> Any:
            return x * own_ops[2](x.graph.constant(np.ones((3, 24))), self.weight)

    [group] = groups_of(program_of(Columns(), 24), "adam_update")
    assert group.items == 24


@pytest.mark.parametrize("columns", [3, 8, 16])
def test_columns_are_no_samples(own_ops: Any, columns: int) -> None:
    """Whatever their number: even that of the samples, or a multiple of it."""
    graph = Graph(8, training=True)
    with graph.inside_scope("test"):
        x, w = graph.input("x", (columns,)), graph.constant(np.zeros(columns))
        assert own_ops[1](x, w).batched
        assert own_ops[0](x, graph.constant(np.zeros((5, 1, columns)))).batched
        assert not own_ops[2](x, w).batched
        assert not ops.sum(x, axis=0).batched


def test_what_reads_a_concatenation_has_its_gradient_taken_from_the_cache() -> None:
    """The guard looks at what the gradient is a sum of products of, not at the gradient."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            self.first, self.last = nn.Linear(24, 16), nn.Linear(40, 5)

        def forward(self, x: Any) -> Any:
            return self.last(ops.concatenate(x, ops.tanh(self.first(x))))

    for group in groups_of(program_of(Joined(), 5), "linear_backward_weight"):
        assert names(group) == ["linear_backward_weight", "adam_update"]


@pytest.mark.parametrize("features", [64, 80, 256])
def test_columns_are_cut_into_whole_strips_however_long_they_are(features: int) -> None:
    """Of a long batch a few columns alone would fill the cache; but then each pass over them would
    read a few bytes of every line of memory, and the next pass the same lines again."""
    model = nn.Sequential(
        nn.Conv1d(1, features, 1), nn.BatchNorm1d(features), nn.GlobalAvgPool1d()
    )  # fmt: skip
    x, y = np.zeros((4, 1, 20000)), np.zeros((4, features))
    with null_device() as null:
        fnn.Trainer(model, "mse", optim.Adam()).fit(x, y, batch_size=4, verbose=False)
    found = groups_of(null.programs[0], "batch_norm_forward", "batch_norm_backward", "sum_rows")
    assert len(found) >= 3
    for group in found:
        assert group.items == features
        assert group.block >= 64
