"""Chains of tags: their loss, and the best of them."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import DataError, ShapeError, where
from fastnn.graph.node import Check
from fastnn.graph.value import Value
from fastnn.kernels.crf.shared import columns_for
from fastnn.ops import by_steps
from fastnn.ops.declare import Operand, floats, op, output, outputs
from fastnn.ops.lengths import checked_lengths
from fastnn.ops.operands import as_shown
from fastnn.public import publish


@op(
    returns=("loss",), saves=("share", "pair"), constant=("target", "lengths"),
    backward=("crf_backward", "crf_backward_transitions"), expression=by_steps.crf,
)  # fmt: skip
def _crf(
    x: Value, target: Value, lengths: Value | None, transitions: Value, start: Value, end: Value
) -> Value:
    batch, steps, tags = x.shape
    columns = columns_for(tags)
    return outputs(
        loss=floats(batch), share=floats(batch, steps, columns),
        pair=floats(batch, tags + 2, columns),
    )  # fmt: skip


@op(returns=("tags", "score"), forward="crf_decode", backward=())
def _crf_decode(
    x: Value, lengths: Value | None, transitions: Value, start: Value, end: Value
) -> Value:
    return outputs(tags=output(x.shape[:2], "i"), score=floats(x.shape[0]))


def crf_loss(
    x: Value, target: Value, transitions: Operand, start: Operand, end: Operand,
    lengths: Value | None = None, *, allowed: tuple[np.ndarray, ...] | None = None,
) -> Value:  # fmt: skip
    """-log p(target | x) of each sequence by a linear-chain conditional random field (Lafferty,
    McCallum and Pereira, ICML 2001)::

        score(y) = start[y_1] + x[1, y_1] + sum_t (transitions[y_t-1, y_t] + x[t, y_t]) + end[y_T]
        p(y | x) = e^score(y) / sum over all y' of e^score(y')

    Args:
        x: scores of the tags, shape (batch, steps, tags).
        target: tags, integers of shape (batch, steps).
        transitions: scores of a tag (first index) before another one, shape (tags, tags); minus
            infinity: it can't be.
        start, end: scores of the first and of the last tag, shape (tags,).
        lengths: steps of each sequence, integers (batch,); None: those before the first negative
            tag (pad with -1). What is past them does not matter, and its gradient is 0.
        allowed: which transitions, first and last tags there can be: booleans of the shapes of
            `transitions`, `start` and `end`. Targets that have others are refused.

    Returns the losses, shape (batch,), 0 for no steps. They have gradients to `x`, `transitions`,
    `start` and `end`.

    Raises:
        ShapeError: the arguments do not fit. DataError, when data come in: lengths beyond the data,
            tags that are none, and those that `allowed` rules out.

    >>> x, tags = np.zeros((1, 3, 2)), np.array([[0, 1, 1]])
    >>> loss = lambda x, t: ops.crf_loss(x, t, np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    >>> testing.apply(loss, x, tags)  # 8 sequences of tags, equally likely: log 8
    array([2.07944154])
    """
    lengths, scores = _checked(x, lengths, transitions, start, end)
    graph = x.graph
    if target.shape != x.shape[:2] or target.dtype != "i":
        kind = "integers" if target.dtype == "i" else "floats"
        raise ShapeError(
            f"{where(graph.scope)}CRF: expected tags as integers of shape {x.shape[:2]}, got "
            f"{kind} of shape {target.shape}; pad them at their ends (fastnn.data.pad, value=-1)"
        )
    checked = [target, *([] if lengths is None else [lengths])]
    if all(v.root.segment == "input" for v in checked):
        rule = _TagRule(graph.scope, x.shape[2], allowed)
        graph.checks.append(Check(tuple(v.root for v in checked), rule))
    loss: Value = graph.apply("crf", x=x, target=target, lengths=lengths, **scores)
    return loss


def crf_decode(
    x: Value, transitions: Operand, start: Operand, end: Operand, lengths: Value | None = None
) -> tuple[Value, Value]:
    """The tags with the largest score (Viterbi 1967).

    Args:
        x, transitions, start, end, lengths: as of `crf_loss`; None: all steps.

    Returns the tags, integers (batch, steps), -1 past the end, and their scores (batch,), 0 for no
    steps. Of equal scores, the tags with smaller numbers are taken, seen from the end.

    >>> x = np.array([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
    >>> decode = lambda x: ops.crf_decode(x, np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    >>> testing.apply(decode, x)
    (array([[0, 1, 0]]), array([4.]))
    """
    lengths, scores = _checked(x, lengths, transitions, start, end)
    found: tuple[Value, Value] = x.graph.apply("crf_decode", x=x, lengths=lengths, **scores)
    return found


def _checked(
    x: Value, lengths: Any, transitions: Any, start: Any, end: Any
) -> tuple[Value | None, dict[str, Value]]:
    """The lengths, and the scores as values; ShapeError for what does not fit."""
    scope = where(x.graph.scope)
    if x.ndim != 3 or x.dtype != "f":
        raise ShapeError(
            f"{scope}CRF: expected scores of shape (batch, steps, tags), got {x.shape} of type "
            f"{x.dtype!r}"
        )
    tags = x.shape[2]
    scores = {"transitions": transitions, "start": start, "end": end}
    scores = {name: as_shown(x.graph, given) for name, given in scores.items()}
    for name, value in scores.items():
        wanted = (tags, tags) if name == "transitions" else (tags,)
        if value.shape != wanted or value.dtype != "f":
            raise ShapeError(
                f"{scope}CRF: expected {name} of shape {wanted} for scores of {tags} tags, got "
                f"{value.shape}; there is one for each tag"
            )
    found: Value | None = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "CRF")
    return found, scores


class _TagRule:
    """Tags, with or without the numbers of steps, as the loss takes them.

    Args:
        scope: of the loss.
        tags: how many there are.
        allowed: see `crf_loss`.
    """

    def __init__(self, scope: str, tags: int, allowed: tuple[np.ndarray, ...] | None):
        self.scope, self.tags, self.allowed = scope or "the loss", tags, allowed

    def __call__(self, target: np.ndarray, *lengths: np.ndarray) -> None:
        """Raise DataError, which names the sequence."""
        steps = target.shape[1]
        if lengths:
            counts = lengths[0].reshape(-1)
        else:
            negative = target < 0
            counts = np.where(negative.any(axis=1), negative.argmax(axis=1), steps)
        within = np.arange(steps) < counts[:, None]
        wrong = within & ((target < 0) | (target >= self.tags))
        if wrong.any():
            n, t = (int(i) for i in np.argwhere(wrong)[0])
            raise DataError(
                f"targets: {self.scope!r} expects tags in 0..{self.tags - 1}, got {target[n, t]} "
                f"in step {t} of sequence {n}; check the data, or make the last layer larger"
            )
        if self.allowed is None:
            return
        pairs, first, last = self.allowed
        tags = np.where(within, target, 0)
        rows, some = np.arange(len(target)), counts > 0
        refused = np.zeros(target.shape, bool)  # the transition to the tag of a step
        refused[:, 1:] = within[:, 1:] & ~pairs[tags[:, :-1], tags[:, 1:]]
        refused[:, 0] = some & ~first[tags[:, 0]]
        ends = np.maximum(counts - 1, 0)
        final = some & ~last[tags[rows, ends]]
        if refused.any() or final.any():
            if refused.any():
                n, t = (int(i) for i in np.argwhere(refused)[0])
                what = f"begins with tag {tags[n, 0]}" if t == 0 else (
                    f"has tag {tags[n, t]} after {tags[n, t - 1]} in step {t}"
                )  # fmt: skip
            else:
                n = int(final.argmax())
                what = f"ends with tag {tags[n, ends[n]]}"
            raise DataError(
                f"targets: sequence {n} {what}, which {self.scope!r} rules out; convert the tags "
                "(fastnn.data.convert_tags), or leave the constraints out"
            )


publish(globals(), FunctionType)
