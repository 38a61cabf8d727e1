"""The transducer's loss: labels between frames, each of which sees those before it."""

from __future__ import annotations

from types import FunctionType

from fastnn.errors import ShapeError, where
from fastnn.graph.node import Check
from fastnn.graph.value import Value
from fastnn.ops import by_steps
from fastnn.ops.ctc import _checked_blank, _LabelRule
from fastnn.ops.declare import floats, op, output, outputs
from fastnn.ops.lengths import checked_lengths
from fastnn.public import publish


@op(returns=("loss",), saves=("norm", "alpha"), constant=("target", "lengths", "target_lengths"),
    differentiable=("x",), expression=by_steps.transducer)  # fmt: skip
def _transducer(
    x: Value, target: Value, lengths: Value | None, target_lengths: Value | None, blank: int = 0,
    mean: int = 0,
) -> Value:  # fmt: skip
    lattice = x.shape[:3]
    return outputs(
        loss=floats(x.shape[0]), norm=floats(*lattice, 2), alpha=output(lattice, "r")
    )  # fmt: skip


def transducer_loss(
    x: Value, target: Value, lengths: Value | None = None, target_lengths: Value | None = None, *,
    blank: int = 0, by_labels: bool = False,
) -> Value:  # fmt: skip
    """-log p(labels | x) of each sequence by a transducer (Graves, "Sequence transduction with
    recurrent neural networks", 2012): the sum over all ways to write the labels, any number at a
    frame, and a blank that goes on to the next frame.

    Args:
        x: logits, shape (batch, steps, most labels + 1, classes): of frame t after u labels. The
            softmax is part of the loss.
        target: labels, integers of shape (batch, most labels), each a class other than the blank.
        lengths: frames of each sequence, integers (batch,), from 1 on; None: all steps.
        target_lengths: labels of each sequence, integers (batch,); None: those before the first
            negative number.
        blank: the class that goes on to the next frame.
        by_labels: divide each loss by the number of labels (by 1 where there are none).

    Returns the losses, shape (batch,). They have a gradient to `x`.

    Raises:
        ShapeError, OptionError: the arguments do not fit. DataError, when data come in: lengths
            of 0 or beyond the data, labels that are no class or the blank.

    >>> x, labels = np.zeros((1, 2, 2, 3)), np.array([[1]])
    >>> testing.apply(ops.transducer_loss, x, labels)  # 2 paths of 3 symbols: 3 log 3 - log 2
    array([2.60268969])
    """
    graph, scope = x.graph, where(x.graph.scope)
    if x.ndim != 4 or x.dtype != "f":
        raise ShapeError(
            f"{scope}transducer: expected logits of shape (batch, steps, labels + 1, classes), got "
            f"{x.shape} of type {x.dtype!r}; add a term of the frames, reshaped to (batch, steps, "
            "1, classes), and one of the labels, (batch, 1, labels + 1, classes)"
        )
    blank = _checked_blank(x, blank)
    wanted = (x.shape[0], x.shape[2] - 1)
    if target.shape != wanted or target.dtype != "i" or wanted[1] < 1:
        raise ShapeError(
            f"{scope}transducer: expected labels as integers of shape {wanted}, one less than "
            f"logits have, got {target.shape} of type {target.dtype!r}"
        )
    lengths = checked_lengths(graph, lengths, x.shape[0], x.shape[1], "transducer", least=1)
    counts = target_lengths
    if counts is not None and (counts.shape != x.shape[:1] or counts.dtype != "i"):
        raise ShapeError(
            f"{scope}transducer: expected target_lengths as integers of shape {x.shape[:1]}, got "
            f"{counts.shape} of type {counts.dtype!r}"
        )
    checked = [target, *([] if counts is None else [counts])]
    if all(v.root.segment == "input" for v in checked):
        rule = _LabelRule(
            graph.scope, x.shape[3], blank, None, counts is not None, len(checked)
        )  # fmt: skip
        graph.checks.append(Check(tuple(v.root for v in checked), rule))
    loss: Value = graph.apply(
        "transducer", x=x, target=target, lengths=lengths, target_lengths=target_lengths,
        blank=blank, mean=int(by_labels),
    )  # fmt: skip
    return loss


publish(globals(), FunctionType)
