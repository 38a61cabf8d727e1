"""Conditional random fields: tags that depend on their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_whole, is_whole
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.ctc import _pair
from fastnn.nn.loss_base import Loss
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.lengths import valid_steps
from fastnn.public import publish

#: names of schemes, and what they are called here
SCHEMES = {"IOB1": "IOB1", "IOB2": "IOB2", "BIO": "IOB2", "IOBES": "IOBES", "BIOES": "IOBES"}
#: which prefixes may follow a prefix within an entity, by scheme
_WITHIN = {
    "IOB1": {"B": "BI", "I": "BI"},
    "IOB2": {"B": "I", "I": "I"},
    "IOBES": {"B": "IE", "I": "IE"},
}
#: which prefixes may begin an entity, and which may end one
_FIRST = {"IOB1": "I", "IOB2": "B", "IOBES": "BS"}
_LAST = {"IOB1": "BI", "IOB2": "BI", "IOBES": "ES"}


class CRF(Module):
    """A linear-chain conditional random field on top of the scores of tags (Lafferty, McCallum and
    Pereira, ICML 2001; on an LSTM: Huang, Xu and Yu 2015).

    It gives a score to each pair of neighbouring tags, and to the first and the last one, and finds
    the tags with the largest sum of scores. `CRFLoss` trains it; see `ops.crf_loss`.

    Args:
        tags: how many tags there are, or their names.
        scheme: "IOB2" (or "BIO"), "IOBES" ("BIOES") or "IOB1": which tags may follow each other
            then follows from their names, such as "B-PER". What may not has no probability, in
            the loss and in the tags that are found.
        allowed: the same for tags of another kind: booleans, of a tag (first index) before another
            one, shape (tags, tags); or a tuple of these and of those of first and of last tags,
            shape (tags,). There must be something that can follow each tag, or it can be the last.

    Attributes:
        transitions: scores of a tag (first index) before another one, shape (tags, tags).
        start_transitions, end_transitions: of the first and of the last tag, shape (tags,).
        allowed: the three arrays, or None.

    Inputs: scores of the tags, shape (batch, steps, tags), and the numbers of steps, integers
    (batch,), or none; outputs: the best tags, integers (batch, steps), -1 past the end, and their
    scores (batch,).

    Raises OptionError for unknown schemes, and tags that don't fit them or come twice; ShapeError
    for scores of another number of tags.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> crf = nn.CRF(["O", "B-PER", "I-PER"], "IOB2")
    >>> scores = np.array([[[0.0, 1.0, 9.0], [0.0, 0.0, 2.0], [3.0, 0.0, 0.0]]], np.float32)
    >>> crf.decode(scores)  # not 2, 2, 0: an entity can't begin with I-
    [[1, 2, 0]]
    """

    def __init__(
        self, tags: int | Sequence[str], scheme: str | None = None, *, allowed: Any = None
    ):
        self.names: list[str] | None = None
        if not is_whole(tags, 1):
            if isinstance(tags, str) or not isinstance(tags, Sequence) or not tags:
                raise OptionError(
                    f"CRF: expected the number of tags, 1 or more, or their names, got {tags!r}"
                )
            self.names = [str(tag) for tag in tags]
            twice = [tag for k, tag in enumerate(self.names) if tag in self.names[:k]]
            if twice:
                raise OptionError(f"CRF: expected each tag once, got {twice[0]!r} several times")
            tags = len(self.names)
        assert not isinstance(tags, Sequence)
        check_whole("CRF", 1, tags=tags)
        self.tags = int(tags)
        if scheme is not None and allowed is not None:
            raise OptionError("CRF: expected scheme or allowed, got both; leave one out")
        if scheme is not None:
            allowed = _by_scheme(self.names, scheme)
        self.scheme = scheme
        self.allowed = None if allowed is None else _allowed(allowed, self.tags)
        small = init.get("uniform", low=-0.1, high=0.1)
        self.transitions = Parameter((self.tags, self.tags), small)
        self.start_transitions = Parameter((self.tags,), small)
        self.end_transitions = Parameter((self.tags,), small)

    def forward(self, x: Value, lengths: Value | None = None) -> tuple[Value, Value]:
        self._check(x)
        return ops.crf_decode(x, *self._scores(), lengths)

    def loss(self, x: Value, target: Value, lengths: Value | None = None) -> Value:
        """-log p(target | x) of each sequence, up to its length where `lengths` are given; see
        `ops.crf_loss`."""
        self._check(x)
        return ops.crf_loss(x, target, *self._scores(), lengths, allowed=self.allowed)

    def decode(self, scores: Any, lengths: Any = None) -> list[list[int]]:
        """The best tags of each sequence.

        Args:
            scores: shape (batch, steps, tags). lengths: (batch,), or None for all steps.
        """
        tags, _ = self.predict(*((scores,) if lengths is None else (scores, lengths)))
        return [row[row >= 0].tolist() for row in tags]

    def _check(self, x: Value) -> None:
        if x.ndim != 3 or x.shape[2] != self.tags:
            raise ShapeError(
                f"CRF: expected scores of shape (batch, steps, {self.tags}), got {x.shape}; the "
                "layer before it has an output for each tag"
            )

    def _scores(self) -> tuple[Any, Any, Any]:
        given = self.transitions, self.start_transitions, self.end_transitions
        if self.allowed is None:
            return given
        pairs, start, end = (
            ops.where(mask.astype(np.float64), score, -np.inf)
            for mask, score in zip(self.allowed, given, strict=True)
        )
        return pairs, start, end

    def extra(self) -> str:
        return f"{self.tags}" + (f", scheme={self.scheme!r}" if self.scheme else "")


class CRFLoss(Loss):
    """The loss of a model whose outputs are the scores of tags for a `CRF`::

        loss = -log p(target | scores)

    Args:
        crf: the layer, which belongs to the model: its scores of transitions are trained, too.
        reduction: "mean" (over sequences), "token_mean" (the sum of the losses divided by the
            number of tags), "sum" or "none".

    Shapes: output (batch, steps, tags), or a tuple of it and the numbers of its valid steps,
    integers (batch,); without these a sequence ends at the first negative tag. Target: tags,
    integers (batch, steps), padded with -1.

    Raises:
        OptionError, ShapeError: arguments, output or target do not fit. DataError, when data come
            in: lengths beyond the data, tags that are none, and those that the CRF rules out.

    >>> import numpy as np, fastnn as fnn
    >>> class Tagger(fnn.nn.Module):
    ...     def __init__(self):
    ...         self.scores, self.crf = fnn.nn.Linear(4, 3), fnn.nn.CRF(["O", "B-X", "I-X"], "IOB2")
    ...     def forward(self, x):
    ...         return self.scores(x)
    >>> model = Tagger()
    >>> trainer = fnn.Trainer(model, fnn.nn.CRFLoss(model.crf), "adam")
    >>> x, tags = np.ones((2, 3, 4), np.float32), np.array([[0, 1, 2], [1, 0, -1]])
    >>> history = trainer.fit(x, tags, epochs=1, verbose=False)
    >>> model.crf.decode(model.predict(x))[0].count(2) <= 2
    True
    """

    takes_several = True

    def __init__(self, crf: CRF, reduction: str = "mean"):
        self.by_tokens = reduction == "token_mean"
        super().__init__("mean" if self.by_tokens else reduction)
        if not isinstance(crf, CRF):
            raise OptionError(
                f"CRFLoss: expected the model's CRF layer, got {type(crf).__name__}; make one with "
                "nn.CRF and keep it in the model"
            )
        self._crf = (crf,)  # in a tuple: it is the model's, not a layer of the loss

    def check(self, output: Any, target: Any) -> None:
        _x, _ = _pair(output, "output", "scores and lengths", "CRFLoss")
        if not isinstance(target, Value):
            raise ShapeError(f"CRFLoss: expected one target, got {type(target).__name__}")

    def rows(self, output: Any, target: Any) -> Value:
        x, lengths = _pair(output, "output", "scores and lengths", "CRFLoss")
        return self._crf[0].loss(x, target, lengths)

    def weights(self, output: Any, target: Any) -> Value | None:
        if not self.by_tokens:
            return None
        _, lengths = _pair(output, "output", "scores and lengths", "CRFLoss")
        if lengths is None:
            return ops.sum(ops.greater_equal(target, 0), 1)
        return ops.sum(valid_steps(lengths, target.shape[1]), 1)


def _by_scheme(names: list[str] | None, scheme: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which tags may follow each other, be the first and the last; OptionError for bad names."""
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise OptionError(f"CRF: expected a scheme among {', '.join(SCHEMES)}, got {scheme!r}")
    if names is None:
        raise OptionError(
            f"CRF: scheme {scheme!r} needs the names of the tags; give a list of them"
        )
    scheme = SCHEMES[scheme]
    within, first, last = _WITHIN[scheme], _FIRST[scheme], _LAST[scheme]
    parts = [(name[:1], name[2:]) for name in names]
    for name, (prefix, kind) in zip(names, parts, strict=True):
        known = prefix in (*within, *first, *last) and name[1:2] in ("", "-")
        if name != "O" and (not known or (name != prefix and not kind)):
            raise OptionError(
                f"CRF: expected tags of the scheme {scheme}, such as O and B-PER, got {name!r}"
            )
    begins = np.array([prefix == "O" or prefix in first for prefix, _ in parts])
    ends = np.array([prefix == "O" or prefix in last for prefix, _ in parts])
    pairs = ends[:, None] & begins[None, :]
    for i, (prefix, kind) in enumerate(parts):
        for j, (following, same) in enumerate(parts):
            if kind == same and following in within.get(prefix, ""):
                pairs[i, j] = True
    return pairs, begins, ends


def _allowed(given: Any, tags: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks as arrays; OptionError for what is none."""
    parts = given if isinstance(given, tuple) else (given, np.ones(tags), np.ones(tags))
    try:
        arrays = [np.asarray(part) for part in parts]
        pairs, first, last = (a.astype(bool) for a in arrays)
        if not all(np.isin(a, (0, 1)).all() for a in arrays):
            raise ValueError
    except (TypeError, ValueError):
        raise OptionError(
            "CRF: expected allowed as booleans of shape (tags, tags), or a tuple of these and of "
            f"those of first and of last tags, got {type(given).__name__}"
        ) from None
    if pairs.shape != (tags, tags) or first.shape != (tags,) or last.shape != (tags,):
        raise OptionError(
            f"CRF: expected allowed of the shapes ({tags}, {tags}), ({tags},) and ({tags},), got "
            f"{pairs.shape}, {first.shape} and {last.shape}"
        )
    stuck = ~(pairs.any(axis=1) | last)
    if stuck.any() or not first.any() or not last.any():
        what = f"tag {int(stuck.argmax())} can" if stuck.any() else "no tag can be first, or last"
        ends = " neither be the last nor be followed by one" if stuck.any() else ""
        raise OptionError(f"CRF: {what}{ends}; allow something in each case")
    return pairs, first, last


publish(globals(), type)
