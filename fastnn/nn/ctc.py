"""The loss of labels whose places in time are unknown."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, is_whole
from fastnn.graph.value import Value
from fastnn.nn.loss_base import Loss
from fastnn.public import publish


class CTCLoss(Loss):
    """Connectionist temporal classification (Graves, Fernandez, Gomez and Schmidhuber 2006)::

        loss = -log of the sum of p(path) over all paths that give the labels

    A path has one class for each frame. It gives the labels that remain when repeated classes are
    taken as one and then blanks are taken away; so "aa" needs a blank between, and can be told from
    "a". The softmax is part of the loss, which takes logits.

    Args:
        blank: the class that stands for no label.
        reduction: "mean" (each loss is divided by the number of its labels, or 1, and then the mean
            taken over sequences, as in PyTorch), "sum" or "none".
        zero_infinity: see `ops.ctc_loss`.

    Shapes: output (batch, steps, classes), or a tuple of it and the numbers of its valid steps,
    integers (batch,), as layers return that take lengths. Target: labels (batch, most labels),
    padded with -1, or a tuple of labels, padded with anything, and their numbers (batch,). PyTorch
    takes log-probabilities of shape (steps, batch, classes) instead.

    Raises:
        OptionError, ShapeError: arguments, output or target do not fit. DataError, when data come
            in: lengths beyond the data, labels that are no class or the blank, and (without
            `zero_infinity`) more labels than the frames have room for, by the sequence.

    >>> import numpy as np, fastnn as fnn
    >>> class Net(fnn.nn.Module):
    ...     def __init__(self):
    ...         self.lstm = fnn.nn.LSTM(4, 8, bidirectional=True)
    ...         self.logits = fnn.nn.Linear(16, 3)
    ...     def forward(self, frames, lengths):
    ...         return self.logits(self.lstm(frames, lengths=lengths)[0]), lengths
    >>> trainer = fnn.Trainer(Net(), fnn.nn.CTCLoss(), "adam")
    >>> x, lengths = np.ones((2, 6, 4), np.float32), np.array([6, 4])
    >>> labels = np.array([[1, 2, 2], [2, -1, -1]])
    >>> history = trainer.fit((x, lengths), labels, epochs=1, verbose=False)
    """

    takes_several = True

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction)
        if not is_whole(blank, 0):
            raise OptionError(f"CTCLoss: expected blank to be a class, 0 or more, got {blank!r}")
        check_flags("CTCLoss", zero_infinity=zero_infinity)
        self.blank, self.zero_infinity = int(blank), bool(zero_infinity)

    def check(self, output: Any, target: Any) -> None:
        _pair(output, "output", "logits and their lengths")
        _pair(target, "target", "labels and their numbers")

    def rows(self, output: Any, target: Any) -> Value:
        x, lengths = _pair(output, "output", "logits and their lengths")
        labels, counts = _pair(target, "target", "labels and their numbers")
        return ops.ctc_loss(
            x, labels, lengths, counts, blank=self.blank, zero_infinity=self.zero_infinity,
            by_labels=self.reduction == "mean",
        )  # fmt: skip

    def extra(self) -> str:
        return f"blank={self.blank}"


def _pair(given: Any, what: str, parts: str, name: str = "CTCLoss") -> tuple[Value, Value | None]:
    if isinstance(given, Value):
        return given, None
    if isinstance(given, (tuple, list)) and len(given) == 2:
        first, second = given
        if isinstance(first, Value) and isinstance(second, Value):
            return first, second
    got = f"{len(given)} parts" if isinstance(given, (tuple, list)) else type(given).__name__
    raise ShapeError(f"{name}: expected one {what} or a tuple of {parts}, got {got}")


publish(globals(), type)
