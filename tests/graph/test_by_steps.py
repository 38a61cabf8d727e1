"""Losses over all paths as loops of other ops: values as the kernels', and second gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import ops, testing
from fastnn.graph.op import OPS
from fastnn.ops import by_steps
from fastnn.testing import gradcheck
from tests.graph.test_gradients import BUILT_IN, WITHOUT_GRADIENT, weight
from tests.graph.test_second_gradients import first
from tests.graph.test_tangents import tangents_agree

RNG = np.random.default_rng(0)
X, LATTICE = RNG.normal(size=(3, 5, 4)), RNG.normal(size=(3, 4, 3, 4))
TAGS = np.array([[0, 1, 3, 2, 1], [1, 1, 2, 0, -1], [3, -1, -1, -1, -1]])
LABELS, COUNTS = np.array([[1, 2], [3, 3], [2, -1]]), np.array([2, 2, 1])
SCORES = RNG.normal(size=(4, 4)), RNG.normal(size=4), RNG.normal(size=4)
SCORES[0][2, 3] = -np.inf  # a tag that never comes before another

#: name -> the op, the same by steps, logits, targets, lengths, numbers of labels
LOSSES: dict[str, tuple[Any, Any, Any, Any, Any, Any]] = {
    "crf": (
        lambda x, t, n=None, _=None: ops.crf_loss(x, t, *SCORES, n),
        lambda x, t, n=None, _=None: by_steps.crf(
            x, t, n, *(ops.as_value(x.graph, v) for v in SCORES)
        ),
        X, TAGS, np.array([5, 3, 1]), None,
    ),
    "ctc": (
        lambda x, t, n=None, m=None: ops.ctc_loss(x, t, n, m, blank=0, by_labels=True),
        lambda x, t, n=None, m=None: by_steps.ctc(x, t, n, m, 0, 1),
        X, LABELS, np.array([5, 4, 3]), COUNTS,
    ),
    "transducer": (
        lambda x, t, n=None, m=None: ops.transducer_loss(x, t, n, m, by_labels=True),
        lambda x, t, n=None, m=None: by_steps.transducer(x, t, n, m, 0, 1),
        LATTICE, LABELS, np.array([4, 2, 1]), COUNTS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_the_kernels(name: str) -> None:
    """With and without lengths, whatever lies past the ends."""
    kernel, steps, x, target, lengths, counts = LOSSES[name]
    for given in ((x, target), (x.copy(), np.maximum(target, 1), lengths, counts)):
        if len(given) > 2:
            given = given if counts is not None else given[:3]
            for row, end in zip(given[0], lengths, strict=True):
                row[end:] = np.nan
        np.testing.assert_allclose(
            testing.apply(steps, *given), testing.apply(kernel, *given), rtol=1e-13
        )


def test_what_cannot_be_said_is_infinitely_unlikely() -> None:
    """Equal labels need a blank between: three frames; of an alignment that is cut off no slope."""
    x, target = X[:1, :2], np.array([[3, 3]])
    for zero, wanted in ((False, np.inf), (True, 0.0)):
        loss = testing.apply(
            lambda x, t, z=zero: by_steps.ctc(x, t, None, None, 0, 0, z), x, target
        )
        assert loss == wanted


@pytest.mark.parametrize("name", LOSSES)
def test_second_gradients_and_tangents(name: str) -> None:
    kernel, _, x, target, lengths, counts = LOSSES[name]
    assert gradcheck(first(kernel), x, target)
    assert tangents_agree(kernel, (x, target))
    given = (x, np.maximum(target, 1), lengths, counts)[: 3 if counts is None else 4]
    assert gradcheck(first(kernel), *given)


def test_second_gradients_to_the_scores_of_a_chain() -> None:
    scores = [weight(np.maximum(v, -9.0)) for v in SCORES]
    assert gradcheck(first(lambda x, t, a, b, c: ops.crf_loss(x, t, a, b, c)), X, TAGS, *scores)


def test_every_gradient_can_be_differentiated() -> None:
    """But of comparisons and of what lets no gradient pass."""
    ways = ("gradient", "derivative", "adjoint", "expression", "linear")
    without = {n for n in BUILT_IN - WITHOUT_GRADIENT if not any(getattr(OPS[n], w) for w in ways)}
    compared = {"equal", "less", "less_equal", "not_equal", "compare_integers"}
    assert without == compared | {"detach", "to_floats"}
