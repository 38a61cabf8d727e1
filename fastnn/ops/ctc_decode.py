"""Reading the outputs of a net that was trained by connectionist temporal classification."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.value import Value
from fastnn.kernels.ctc.language import UNKNOWN
from fastnn.ops.beam import WIDEST
from fastnn.ops.ctc import _checked_blank, _checked_labels, _checked_logits
from fastnn.ops.declare import floats, op, output, outputs
from fastnn.ops.reduce import log_softmax
from fastnn.public import publish


@op(returns=("labels", "counts"), forward="ctc_greedy", backward=())
def _ctc_greedy(x: Value, lengths: Value | None, blank: int = 0) -> Value:
    return outputs(labels=output(x.shape[:2], "i"), counts=output(x.shape[:1], "i"))


@op(returns=("places", "score"), forward="ctc_align", backward=())
def _ctc_align(
    y: Value, target: Value, lengths: Value | None, target_lengths: Value | None, blank: int = 0
) -> Value:
    return outputs(places=output(y.shape[:2], "i"), score=floats(y.shape[0]))


@op(returns=("labels", "counts", "score"), forward="ctc_beam", backward=())
def _ctc_beam(
    y: Value, lengths: Value | None, child: Value | None, words: Value | None, first: Value | None,
    arcs: Value | None, arc_scores: Value | None, arc_next: Value | None, backoff: Value | None,
    backoff_scores: Value | None, beam: int = 16, best: int = 1, blank: int = 0, space: int = -1,
    end: int = -1, weight: float = 0.0, bonus: float = 0.0, most: float = 0.0,
) -> Value:  # fmt: skip
    batch, steps, _ = y.shape
    return outputs(
        labels=output((batch, best, steps), "i"), counts=output((batch, best), "i"),
        score=floats(batch, best),
    )  # fmt: skip


def ctc_greedy(x: Value, lengths: Value | None = None, *, blank: int = 0) -> tuple[Value, Value]:
    """The labels of the likeliest path: of each frame the likeliest class, repeated classes once,
    blanks taken away.

    Args:
        x: logits or probabilities, shape (batch, steps, classes).
        lengths: frames of each sequence, integers (batch,); None: all steps.
        blank: the class that stands for no label.

    Returns labels, integers (batch, steps), -1 past the end, and their numbers (batch,).

    Raises OptionError for a `blank` that is no class; ShapeError for inputs that are not logits
    with their lengths.

    >>> x = np.log([[[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]])
    >>> labels, lengths = testing.apply(ops.ctc_greedy, x, dtype='float32')
    >>> labels, lengths
    (array([[ 1,  2, -1]]), array([2]))
    """
    lengths = _checked_logits(x, lengths)
    found: tuple[Value, Value] = x.graph.apply(
        "ctc_greedy", x=x, lengths=lengths, blank=_checked_blank(x, blank)
    )
    return found


def ctc_align(
    x: Value, target: Value, lengths: Value | None = None, target_lengths: Value | None = None, *,
    blank: int = 0,
) -> tuple[Value, Value]:  # fmt: skip
    """Forced alignment: the likeliest path among those that give the labels (Viterbi).

    Args:
        x, target, lengths, target_lengths, blank: as of `ctc_loss`.

    Returns for each frame the number of its label in the target, integers (batch, steps), -1 for
    blanks and past the end; and the path's log-probability, (batch,). Sequences with too few frames
    for their labels are refused where the data come in; where that can't be seen (the model
    shortens the sequences), the log-probability is -inf.

    >>> x = np.log([[[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]])
    >>> testing.apply(ops.ctc_align, x, np.array([[1, 2]]), dtype='float32')
    (array([[ 0, -1,  1]]), array([-0.6694306], dtype=float32))
    """
    blank = _checked_blank(x, blank)
    lengths = _checked_labels(x, target, lengths, target_lengths, blank, False, "the alignment")
    found: tuple[Value, Value] = x.graph.apply(
        "ctc_align", y=log_softmax(x), target=target, lengths=lengths,
        target_lengths=target_lengths, blank=blank,
    )  # fmt: skip
    return found


def ctc_beam(
    x: Value, lengths: Value | None = None, *, beam: int = 16, best: int = 1, blank: int = 0,
    word_list: tuple[np.ndarray, np.ndarray] | None = None, space: int = -1, model: Any = None,
    end: int = -1, weight: float = 0.5, bonus: float = 0.0,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """Prefix beam search (Graves and Jaitly, ICML 2014; Hannun et al. 2014): the labels with the
    largest sum over all of their paths, as far as `beam` prefixes at a time show it::

        log p(labels) + weight log p_model(tokens) + bonus (number of tokens)

    Nothing is allocated in a step. Tokens of the model are labels, or with a word list words; paths
    that end with a space after a word count as those without it.
    `nn.CTCDecoder` makes word list and model of words and an n-gram model.

    Args:
        x: logits, shape (batch, steps, classes).
        lengths: frames of each sequence, integers (batch,); None: all steps.
        beam: prefixes that are kept, at most 10,000.
        best: labellings that are returned, at most `beam`.
        blank: the class that stands for no label.
        word_list: places (Q, classes): the place after a label or -1, place 0 being a word's
            beginning; and the token of the word that ends at a place (Q,), or -1.
        space: the class between words of the list.
        model: a language model's states and arcs (`data.ngram.Arcs`).
        end: the model's token for the end of a sequence; -1: none.
        weight, bonus: see above.

    Returns labels, integers (batch, best, steps), -1 past the end; their numbers (batch, best), -1
    where there are fewer labellings; and their scores (batch, best), the best first.

    Raises OptionError for a negative `weight`, and for a `beam`, `best` or `blank` out of range;
    ShapeError for inputs that are not logits with their lengths, and for a word list that does not
    fit the classes.

    >>> x = np.log([[[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]])
    >>> found = testing.apply(lambda x: ops.ctc_beam(x, beam=4), x, dtype='float32')
    >>> found[0], found[1]
    (array([[[ 1,  2, -1]]]), array([[2]]))
    """
    lengths = _checked_logits(x, lengths)
    graph, scope = x.graph, where(x.graph.scope)
    for what, number, most in (("beam", beam, WIDEST), ("best", best, beam)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise OptionError(f"{scope}ctc_beam: expected {what} in 1..{most}, got {number!r}")
    if not weight >= 0:
        raise OptionError(f"{scope}ctc_beam: expected a weight >= 0, got {weight}")
    given: dict[str, Any] = dict.fromkeys(
        ("child", "words", "first", "arcs", "arc_scores", "arc_next", "backoff", "backoff_scores")
    )
    if word_list is not None:
        child, words = word_list
        if child.shape != (len(words), x.shape[2]) or not 0 <= space < x.shape[2]:
            raise ShapeError(
                f"{scope}ctc_beam: expected a word list of shape (places, {x.shape[2]}) and a "
                f"space among the classes, got {child.shape} and {space}; its columns are the "
                "model's classes"
            )
        given["child"], given["words"] = (graph.constant(a, "i") for a in word_list)
    if model is not None:
        given |= {
            "first": graph.constant(model.first, "i"), "arcs": graph.constant(model.tokens, "i"),
            "arc_scores": graph.constant(model.scores),
            "arc_next": graph.constant(model.following, "i"),
            "backoff": graph.constant(model.backoff, "i"),
            "backoff_scores": graph.constant(model.backoff_scores),
        }  # fmt: skip
    found: tuple[Value, Value, Value] = graph.apply(
        "ctc_beam", y=log_softmax(x), lengths=lengths, **given, beam=beam, best=best,
        blank=_checked_blank(x, blank), space=space, end=end, weight=float(weight),
        bonus=float(bonus), most=_most(model, word_list is not None, float(weight), float(bonus)),
    )  # fmt: skip
    return found


def _most(model: Any, words: bool, weight: float, bonus: float) -> float:
    """What one more label can add to a prefix's score, at most."""
    added = bonus
    if model is not None:
        best = np.full(len(model.backoff), UNKNOWN)
        states = np.repeat(np.arange(len(best)), np.diff(model.first))
        np.maximum.at(best, states, model.scores)
        before = None
        while before is None or (best > before).any():  # as often as contexts are long
            before = best
            lower = model.backoff_scores + before[model.backoff]
            best = np.where(model.backoff >= 0, np.maximum(before, lower), before)
        added += weight * float(best.max())
    return max(added, 0.0) if words else added


publish(globals(), FunctionType)
