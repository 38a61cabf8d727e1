"""Loss scaling on CUDA: the factor first, with what follows from it; gradients looked at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastnn.graph.graph import Graph
from fastnn.graph.value import Repeat
from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.plan.call import Call
from fastnn.plan.scaled import FEW, scaled

topics.load("cuda")
GRAPH = Graph(batch=8)
SIZES: dict[str, tuple[tuple[int, ...], str]] = {
    "scale": ((1,), "f"), "inverse": ((1,), "f"), "other": ((1,), "f"), "dx": ((8,), "f"),
    "many": ((FEW + 1,), "f"), "ids": ((8, 1), "i"), "more_ids": ((FEW + 1, 1), "i"),
    "g": ((8, 4), "f"), "d": ((8, 4), "f"), "x": ((8, 4), "f"), "loss": ((1,), "f"),
}  # fmt: skip
VALUES = {name: GRAPH.value(shape, letter) for name, (shape, letter) in SIZES.items()}
VALUES["part"] = GRAPH.view(VALUES["d"], (4, 4))


def call(kernel: str, **names: Any) -> Call:
    """A call of values by name; what is not named is absent, and of no account here."""
    given = {p: VALUES.get(value, value) for p, value in names.items()}
    operands = {p: given.get(p) for p in CUDA_KERNELS[kernel].params}
    return Call(kernel, operands, "")


def kernels(*calls: Call) -> list[str]:
    return [found.kernel for found in scaled(calls)]


def looped(one: Call) -> Call:
    return replace(one, repeats=(Repeat(3),))


LOSS = call("mean", x="dx", y="loss")
FACTOR = call("loss_scale", scale="scale", inverse="inverse")
SEED = call("mean_backward", dy="scale", dx="dx")
DIVIDE = call("unscale", x="g", inverse="inverse", y="d")
LOOK = call("check_size", x="d", limit=7.0)
OTHER = call("relu_forward", x="x", y="d")


def test_the_factor_and_what_follows_from_it_alone_come_first() -> None:
    assert kernels(LOSS, FACTOR, SEED) == ["loss_scale", "mean_backward_few", "mean"]
    of_the_loss = call("mean_backward", dy="other", dx="dx")
    assert kernels(LOSS, FACTOR, of_the_loss) == ["loss_scale", "mean", "mean_backward"]
    assert kernels(LOSS, FACTOR, looped(SEED)) == ["loss_scale", "mean", "mean_backward"]
    for_many = call("mean_backward", dy="scale", dx="many")
    assert kernels(LOSS, FACTOR, for_many) == ["loss_scale", "mean_backward", "mean"]


def test_the_factors_block_gathers_the_first_ids_if_they_are_few() -> None:
    few = call("gather_ids", source="x", y="ids")
    many = call("gather_ids", source="x", y="more_ids")
    assert kernels(few, few, FACTOR) == ["loss_scale", "gather_ids_few", "gather_ids"]
    assert kernels(many, few, FACTOR) == ["loss_scale", "gather_ids", "gather_ids"]
    assert kernels(few, LOSS) == ["gather_ids", "mean"]  # without a factor all stays as it is


def test_a_gradient_is_looked_at_where_it_is_divided() -> None:
    _, found = scaled([FACTOR, DIVIDE, LOOK])
    assert found.kernel == "unscale_checked"
    assert found.operands["limit"] == 7.0
    assert found.operands["x"] is VALUES["g"]
    assert found.operands["y"] is VALUES["d"]


def test_what_is_no_more_that_gradient_is_looked_at_by_itself() -> None:
    for calls in (
        [DIVIDE, OTHER, LOOK],
        [DIVIDE, call("check_size", x="part", limit=7.0)],
        [DIVIDE, looped(LOOK)],
        [OTHER, LOOK],
    ):
        names = [found.kernel for found in calls]
        assert kernels(FACTOR, *calls) == ["loss_scale", *names]
