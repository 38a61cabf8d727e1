"""Connectionist temporal classification: the loss of labels whose places in time are unknown."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import DataError, OptionError, ShapeError, where
from fastnn.graph.node import Check
from fastnn.graph.value import Value
from fastnn.kernels.ctc.shared import columns_for
from fastnn.ops import by_steps
from fastnn.ops.declare import floats, op, outputs
from fastnn.ops.lengths import checked_lengths
from fastnn.public import publish


@op(
    returns=("loss",), saves=("norm", "share"), constant=("target", "lengths", "target_lengths"),
    expression=by_steps.ctc,
)  # fmt: skip
def _ctc(
    x: Value, target: Value, lengths: Value | None, target_lengths: Value | None, blank: int = 0,
    mean: int = 0, zero_infinity: int = 0,
) -> Value:  # fmt: skip
    batch, steps, _ = x.shape
    share = floats(batch, steps, columns_for(target.shape[1]))
    return outputs(loss=floats(batch), norm=floats(batch, steps, 2), share=share)


def ctc_loss(
    x: Value,
    target: Value,
    lengths: Value | None = None,
    target_lengths: Value | None = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    by_labels: bool = False,
) -> Value:
    """-log p(labels | x) of each sequence by connectionist temporal classification (Graves,
    Fernandez, Gomez and Schmidhuber, ICML 2006): the sum over all ways to give the frames to the
    labels in their order, with blanks between.

    Args:
        x: logits, shape (batch, steps, classes); the softmax is part of the loss.
        target: labels, integers of shape (batch, most labels), each a class other than the blank.
        lengths: frames of each sequence, integers (batch,); None: all steps. What is past them does
            not matter, and its gradient is 0.
        target_lengths: labels of each sequence, integers (batch,); None: those before the first
            negative number (pad with -1).
        blank: the class that stands for no label.
        zero_infinity: whether a sequence whose frames are too few for its labels has the loss 0 and
            no gradient. Otherwise such data are refused where they come in, and where that can't be
            seen (the model shortens the sequences) the loss is infinite.
        by_labels: divide each loss by the number of labels (by 1 where there are none).

    Returns the losses, shape (batch,). They have a gradient to `x`.

    Raises:
        ShapeError, OptionError: the arguments do not fit. DataError, when data come in: lengths
            beyond the data, labels that are no class or the blank, too few frames for the labels.

    >>> x, labels = np.zeros((1, 2, 3)), np.array([[1]])
    >>> testing.apply(ops.ctc_loss, x, labels)  # 3 of 9 paths: log 3
    array([1.09861229])
    """
    blank = _checked_blank(x, blank)
    lengths = _checked_labels(x, target, lengths, target_lengths, blank, zero_infinity)
    loss: Value = x.graph.apply(
        "ctc", x=x, target=target, lengths=lengths, target_lengths=target_lengths, blank=blank,
        mean=int(by_labels), zero_infinity=int(zero_infinity),
    )  # fmt: skip
    return loss


def _checked_blank(x: Value, blank: Any) -> int:
    """The blank's class; OptionError for what is none."""
    scope, classes = where(x.graph.scope), x.shape[-1] if x.ndim else 0
    if isinstance(blank, bool) or not isinstance(blank, (int, np.integer)):
        raise OptionError(f"{scope}CTC: expected blank to be a class, got {blank!r}")
    if not 0 <= blank < classes:
        raise OptionError(
            f"{scope}CTC: expected blank in 0..{classes - 1}, the classes of the outputs, got "
            f"{blank}; the last class is {classes - 1}"
        )
    return int(blank)


def _checked_labels(
    x: Value, target: Value, lengths: Value | None, target_lengths: Value | None, blank: int,
    short: bool, what: str = "the loss",
) -> Value | None:  # fmt: skip
    """The lengths; raises ShapeError for what does not fit, and sees to it that data do. `short`:
    sequences may have too few frames for their labels. `what`: takes the labels."""
    graph, classes = x.graph, x.shape[-1]
    lengths = _checked_logits(x, lengths)
    _check_shapes(x, target, target_lengths)
    checked = [target, *([] if target_lengths is None else [target_lengths])]
    if all(v.root.segment == "input" for v in checked):
        frames = [x.shape[1]]
        if lengths is not None:
            frames = [] if lengths.root.segment != "input" else frames
            checked += [lengths] if frames else []
        limit = frames[0] if frames and not short else None
        rule = _LabelRule(
            graph.scope, classes, blank, limit, target_lengths is not None, len(checked), what
        )
        graph.checks.append(Check(tuple(v.root for v in checked), rule))
    return lengths


def _checked_logits(x: Value, lengths: Any) -> Value | None:
    """The lengths; raises ShapeError for logits and lengths that do not fit."""
    scope = where(x.graph.scope)
    if x.ndim != 3 or x.dtype != "f":
        raise ShapeError(
            f"{scope}CTC: expected logits of shape (batch, steps, classes), got {x.shape} of type "
            f"{x.dtype!r}"
        )
    found: Value | None = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "CTC")
    return found


def _check_shapes(x: Value, target: Value, target_lengths: Value | None) -> None:
    scope = where(x.graph.scope)
    if target.ndim != 2 or target.shape[0] != x.shape[0] or target.dtype != "i":
        kind = "integers" if target.dtype == "i" else "floats"
        raise ShapeError(
            f"{scope}CTC: expected labels as integers of shape ({x.shape[0]}, most labels), got "
            f"{kind} of shape {target.shape}; pad them at their ends (fastnn.data.pad, value=-1)"
        )
    counts = target_lengths
    if counts is not None and (counts.shape != x.shape[:1] or counts.dtype != "i"):
        raise ShapeError(
            f"{scope}CTC: expected target_lengths as integers of shape {x.shape[:1]}, one for each "
            f"sequence, got shape {counts.shape} of type {counts.dtype!r}"
        )


class _LabelRule:
    """Labels, with or without their lengths and those of the inputs, as a loss takes them.

    Args:
        scope: of the loss, or of what else takes the labels.
        classes, blank: of the outputs.
        steps: frames of a sequence where lengths don't say less; None: they are not looked at.
        counted: whether the second array has the numbers of labels.
        arrays: how many arrays there are; the last of more than those has the numbers of frames.
        what: its name where there is no scope. A loss may be told to take short sequences, too.
    """

    def __init__(
        self, scope: str, classes: int, blank: int, steps: int | None, counted: bool, arrays: int,
        what: str = "the loss",
    ):  # fmt: skip
        self.scope, self.classes, self.blank = scope or what, classes, blank
        self.remedy = "leave these out, shorten the inputs less"
        self.remedy += ", or pass zero_infinity=True" if what == "the loss" else ""
        self.steps, self.counted, self.timed = steps, counted, arrays > 1 + counted

    def __call__(self, target: np.ndarray, *more: np.ndarray) -> None:
        """Raise DataError, which names the sequence."""
        most = target.shape[1]
        if self.counted:
            counts = more[0].reshape(-1)
            if ((counts < 0) | (counts > most)).any():
                n = int(((counts < 0) | (counts > most)).argmax())
                raise DataError(
                    f"targets: {self.scope!r} expects target_lengths in 0..{most}, the labels that "
                    f"the targets have room for, got {counts[n]} for sequence {n}; pad the labels "
                    "to the longest, or cut the lengths"
                )
        else:
            negative = target < 0
            counts = np.where(negative.any(axis=1), negative.argmax(axis=1), most)
        within = np.arange(most) < counts[:, None]
        wrong = within & ((target < 0) | (target >= self.classes) | (target == self.blank))
        if wrong.any():
            n, k = (int(i) for i in np.argwhere(wrong)[0])
            got = int(target[n, k])
            remedy = (
                f"{self.blank} is the blank: number labels otherwise, or set blank"
                if got == self.blank
                else "check the data, or make the last layer larger"
                if got >= 0
                else "count from 0"
            )
            raise DataError(
                f"targets: {self.scope!r} expects labels in 0..{self.classes - 1} other than the "
                f"blank, got {got} as label {k} of sequence {n}; {remedy}"
            )
        if self.steps is None:
            return
        frames = more[-1].reshape(-1) if self.timed else np.full(len(target), self.steps)
        doubled = (target[:, 1:] == target[:, :-1]) & within[:, 1:]
        need = counts + doubled.sum(axis=1)
        short = frames < need
        if short.any():
            n = int(short.argmax())
            raise DataError(
                f"targets: {self.scope!r} can't give {counts[n]} labels ({doubled[n].sum()} of "
                f"them doubled) to {frames[n]} frames, they need {need[n]}: sequence {n}, and "
                f"{int(short.sum())} of {len(target)} in all; {self.remedy}"
            )


publish(globals(), FunctionType)
