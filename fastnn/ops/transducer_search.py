"""Reading the outputs of a transducer: beam search within a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, check_whole, where
from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.kernels.beam.shared import NEVER
from fastnn.ops.arithmetic import _to_floats, multiply
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.beam import _ids, _reordered
from fastnn.ops.comparison import equal
from fastnn.ops.lengths import checked_lengths
from fastnn.ops.reduce import log_softmax
from fastnn.ops.sequence import loop
from fastnn.ops.shape import expand, reshape
from fastnn.public import publish

#: of (symbols (N,), states): what joins the frames (N, ...), and the new states
Predict = Callable[[Value, tuple[Value, ...]], tuple[Value, Sequence[Value]]]

SELECTED = ("score", "frame", "count", "history", "done_score", "done_count", "done_history")


def _select(
    graph: Graph, logits: Value, lengths: Value, carried: Sequence[Value], blank: int
) -> tuple[Value, Value, list[Value]]:
    """Parents and symbols of the hypotheses that go on, and what is known of them."""
    score, frame, count, history, *done = carried
    shape = score.shape
    new = [graph.value(v.shape, batched=True, name=n)
           for n, v in zip(SELECTED, carried, strict=True)]  # fmt: skip
    parent, symbol, which, mates = (
        graph.value(shape, "i", batched=True, name=n)
        for n in ("parent", "symbol", "which", "mates")
    )
    graph.call(
        "transducer_select", logits=logits, lengths=lengths, score=score, frame=frame, count=count,
        history=history, old_score=done[0], old_count=done[1], old_history=done[2],
        parent=parent, symbol=symbol, new_score=new[0], new_frame=new[1], new_count=new[2],
        new_history=new[3], done_score=new[4], done_count=new[5], done_history=new[6],
        best=graph.value(shape, "r", batched=True, name="best"), which=which, mates=mates,
        blank=blank,
    )  # fmt: skip
    return parent, symbol, new


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
        width: hypotheses that are kept.
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
    check_whole(name, 1, labels=labels, width=width, n_best=n_best)
    check_whole(name, 0, blank=blank)
    if n_best > width:
        raise OptionError(f"{name}: expected n_best to be at most width={width}, got {n_best}")
    batch, steps, features = encoded.shape
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
        known, (seen, *old) = carried[: len(SELECTED)], carried[len(SELECTED) :]
        at = graph.value((batch, width, features), batched=True, name="frames")
        graph.call("transducer_frames", x=encoded, frame=known[1], y=at)
        logits = join(rows(at), rows(seen))
        if logits.ndim != 2 or logits.shape[0] != batch * width or blank >= logits.shape[1]:
            raise ShapeError(
                f"{name}: expected join to return logits of shape ({batch * width}, classes) with "
                f"the blank {blank} among the classes, got {logits.shape}"
            )
        scores = reshape(log_softmax(logits), (batch, width * logits.shape[1]))
        parent, symbol, found = _select(graph, scores, given, known, blank)
        kept = [_reordered(graph, v, parent) for v in (seen, *old)]
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
    found_labels = reshape(_ids(graph, finals[6]), (batch, n_best, labels))
    return found_labels, _ids(graph, finals[5]), finals[4]


publish(globals(), FunctionType)
