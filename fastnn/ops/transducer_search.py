"""Reading the outputs of a transducer: beam search within a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, check_whole, where
from fastnn.graph.op import batched
from fastnn.graph.value import Value
from fastnn.kernels.beam.shared import NEVER
from fastnn.ops.arithmetic import _to_floats, multiply
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.beam import WIDEST, _ids, _reordered
from fastnn.ops.comparison import equal
from fastnn.ops.declare import floats, like, op, output, outputs
from fastnn.ops.lengths import checked_lengths
from fastnn.ops.reduce import log_softmax
from fastnn.ops.sequence import loop
from fastnn.ops.shape import expand, reshape
from fastnn.public import publish

#: of (symbols (N,), states): what joins the frames (N, ...), and the new states
Predict = Callable[[Value, tuple[Value, ...]], tuple[Value, Sequence[Value]]]

#: what is known of the hypotheses, and of complete ones
_SELECTED = (
    "new_score", "new_frame", "new_count", "new_history", "done_score", "done_count", "done_history"
)  # fmt: skip


@op(
    forward="transducer_select", returns=("parent", "symbol", *_SELECTED),
    saves=("best", "which", "mates"), constant=("lengths",), placement=batched,
)  # fmt: skip
def _transducer_select(
    logits: Value, lengths: Value, score: Value, frame: Value, count: Value, history: Value,
    old_score: Value, old_count: Value, old_history: Value, blank: int,
) -> Any:  # fmt: skip
    """The continuations that a beam keeps, a row a sample; see `transducer_search`."""
    known = (score, frame, count, history, old_score, old_count, old_history)
    ids, best = output(score.shape, "i"), output(score.shape, "r")
    new = {name: like(value) for name, value in zip(_SELECTED, known, strict=True)}
    return outputs(parent=ids, symbol=ids, **new, best=best, which=ids, mates=ids)


@op(forward="transducer_frames", constant=("frame",), placement=batched)
def _transducer_frames(x: Value, frame: Value) -> Value:
    """Of encoded frames (N, T, D) those that hypotheses are at, (N, W, D)."""
    return floats(*frame.shape, x.shape[2])


def transducer_search(
    encoded: Value, predict: Predict, join: Callable[[Value, Value], Value], state: Any, *,
    lengths: Value | None = None, blank: int = 0, labels: int, width: int = 4, n_best: int = 1,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """The likeliest labels by a transducer (Graves 2012), as far as a beam finds them.

    In each step every hypothesis is continued by a blank, which takes it to the next frame, or by a
    label; the `width` best go on. All of them have been made by the same number of steps (Saon,
    Tuske & Audhkhasi 2020, "Alignment-length synchronous decoding for RNN transducer"), so
    hypotheses with the same labels are at the same frame and become one, which has the sum of
    their probabilities. A width of 1 takes the likeliest symbol in each step (greedy). All of it is
    one `loop`, which ends when there is nothing left to continue.

    Args:
        encoded: what `join` is given of each frame, shape (batch, steps, E).
        predict: function of (symbols, states) that returns (what `join` is given, new states);
            symbols are integers of shape (batch * width,), the others have as many rows. The symbol
            before the first label is the blank.
        join: function of (frames (batch * width, E), what `predict` returned) that returns logits
            (batch * width, classes).
        state: the states before the first label, each (batch, ...), one or several.
        lengths: frames of each sequence, integers (batch,); None: all steps.
        blank: the class that goes on to the next frame.
        labels: how many labels a sequence has at most.
        width: hypotheses that are kept, at most 10,000.
        n_best: how many sequences of labels are returned, at most `width`.

    Returns:
        Labels, integers (batch, n_best, labels), -1 past the end, the best first; their numbers
        (batch, n_best), -1 where there are fewer; log-probabilities (batch, n_best), each the sum
        over the ways to write the labels that the beam has seen.

    Raises:
        OptionError, ShapeError: the arguments do not fit. DataError, when data come in: lengths
            beyond the data.
    """
    states = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    graph, name = encoded.graph, f"{where(encoded.graph.scope)}transducer_search"
    if encoded.ndim != 3 or encoded.dtype != "f":
        raise ShapeError(
            f"{name}: expected encoded frames of shape (batch, steps, features), got "
            f"{encoded.shape} of type {encoded.dtype!r}"
        )
    if not all(isinstance(s, Value) and s.ndim > 1 for s in states):
        raise ShapeError(f"{name}: expected states of shape (batch, ...), symbolic")
    check_whole(name, 1, WIDEST, width=width)
    check_whole(name, 1, labels=labels, n_best=n_best)
    check_whole(name, 0, blank=blank)
    if n_best > width:
        raise OptionError(f"{name}: expected n_best to be at most width={width}, got {n_best}")
    batch, steps, _ = encoded.shape
    given = checked_lengths(graph, lengths, batch, steps, "transducer_search")
    if given is None:
        given = graph.constant(np.full((batch,), steps), "i", name="frames")

    def rows(x: Value) -> Value:
        return reshape(x, (batch * width, *x.shape[2:]))

    def wide(x: Value) -> Value:
        return reshape(x, (batch, width, *x.shape[1:]))

    def each(x: Value) -> Value:
        """A state once for each hypothesis."""
        one = reshape(x, (batch, 1, *x.shape[1:]))
        return expand(one, (batch, width, *x.shape[1:])) if width > 1 else one

    def body(_: None, carried: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        known, (seen, *old) = carried[: len(_SELECTED)], carried[len(_SELECTED) :]
        at = _transducer_frames(encoded, known[1])
        logits = join(rows(at), rows(seen))
        if logits.ndim != 2 or logits.shape[0] != batch * width or blank >= logits.shape[1]:
            raise ShapeError(
                f"{name}: expected join to return logits of shape ({batch * width}, classes) with "
                f"the blank {blank} among the classes, got {logits.shape}"
            )
        scores = reshape(log_softmax(logits), (batch, width * logits.shape[1]))
        score, frame, count, written, *done = known
        parent, symbol, *found = _transducer_select(
            scores, given, score, frame, count, written, done[0], done[1], done[2], blank
        )
        kept = [_reordered(v, parent) for v in (seen, *old)]
        flat = reshape(symbol, (batch * width,))
        new, after = predict(flat, tuple(rows(v) for v in kept[1:]))
        stays = equal(_to_floats(flat), float(blank))
        new_states = [
            choose(reshape(stays, (batch * width, *[1] * (v.ndim - 1))), rows(k), v)
            for k, v in zip(kept, (new, *after), strict=True)
        ]
        return found[0], (*found, *map(wide, new_states))

    def all_ended(score: Value, _: tuple[Value, ...]) -> Value:
        best = reshape(score, (batch, width))[:, :1]
        return choose(best < NEVER / 2, 1.0, 0.0)

    def made(shape: tuple[int, ...], value: float) -> Value:
        return graph.full((batch, *shape), value, batched=True)

    first = np.full((1, width), NEVER)
    first[0, 0] = 0.0
    score = multiply(
        expand(graph.constant(first, name="scores"), (batch, width)), made((width,), 1.0)
    )
    ids = graph.constant(np.full((batch * width,), blank), "i", name="start")
    begun = [rows(each(s)) for s in states]
    seen, after = predict(ids, tuple(begun))
    known = (
        score, made((width,), 0.0), made((width,), 0.0), made((width * labels,), -1.0),
        made((n_best,), NEVER), made((n_best,), -1.0), made((n_best * labels,), -1.0),
    )  # fmt: skip
    ones = made((width, 1), 1.0)
    _, finals, _ = loop(
        body, None, (*known, *(multiply(wide(v), ones) for v in (seen, *after))), until=all_ended,
        steps=steps + labels,
    )  # fmt: skip
    found_labels = reshape(_ids(finals[6]), (batch, n_best, labels))
    return found_labels, _ids(finals[5]), finals[4]


publish(globals(), FunctionType)
