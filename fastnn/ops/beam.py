"""Beam search over steps of a decoder, within a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, check_whole, where
from fastnn.graph.graph import Graph
from fastnn.graph.op import batched
from fastnn.graph.value import Value
from fastnn.kernels.beam.shared import NEVER
from fastnn.ops.arithmetic import _to_floats, affine, multiply, subtract
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.declare import like, op, output, outputs
from fastnn.ops.indexing import columns
from fastnn.ops.joining import concatenate
from fastnn.ops.reduce import logsumexp
from fastnn.ops.reduce import min as least_of
from fastnn.ops.sequence import loop
from fastnn.ops.shape import expand, reshape
from fastnn.public import publish

#: hypotheses of a sample, at most: time and memory grow with them
WIDEST = 10_000

#: of (a step's input (N, ...), states (N, ...), maybe what does not change (N, ...)): scores of the
#: next symbols (N, V), new states
Step = Callable[..., tuple[Value, Sequence[Value]]]


_SELECTED = ("parent", "symbol", "new_score", "new_count", "new_ended")


@op(forward="beam_select", returns=_SELECTED, saves=("best", "which"), placement=batched)
def _beam_select(
    logits: Value, score: Value, count: Value, ended: Value, norms: Value, live: Value, stop: int
) -> Any:
    """The continuations that a beam keeps, a row a sample; see `beam_search`."""
    new, ids = like(score), output(score.shape, "i")
    return outputs(
        parent=ids, symbol=ids, new_score=new, new_count=new, new_ended=new, best=new, which=ids
    )


@op(forward="beam_reorder", constant=("parent", "running"), placement=batched)
def _beam_reorder(x: Value, parent: Value, running: Value | None = None) -> Value:
    """Each hypothesis's part of a row of x (N, C) from its parent. `running`: samples where it is 0
    stay as they are; None: none."""
    return like(x)


@op(forward="to_ids", constant=("x",), placement=batched)
def _to_ids(x: Value) -> Value:
    return output(x.shape, "i")


def _select(
    scores: Value, carried: tuple[Value, ...], norms: Value, live: Value, stop: int
) -> tuple[Value, Value, tuple[Value, ...]]:
    """Parents and symbols of the hypotheses that go on, and (score, count, ended) of them."""
    score, count, ended = carried
    parent, symbol, *new = _beam_select(scores, score, count, ended, norms, live, stop)
    return parent, symbol, tuple(new)


def _reordered(x: Value, parent: Value) -> Value:
    """What belongs to the hypotheses that go on: x is (batch, width, ...)."""
    return reshape(_beam_reorder(reshape(x, _rows_of(x)), parent), x.shape)


def _ids(x: Value) -> Value:
    """Floats that are whole as integers."""
    return reshape(_to_ids(reshape(x, _rows_of(x))), x.shape)


def _rows_of(x: Value) -> tuple[int, int]:
    return x.shape[0], x.size // x.shape[0]


def beam_search(
    step: Step, embed: Callable[[Value], Value], state: Any, *, start: int, stop: int, steps: int,
    width: int = 4, min_steps: int = 0, length_penalty: float = 0.0, n_best: int | None = None,
    fixed: Sequence[Value] = (),
) -> tuple[Value, Value, Value]:  # fmt: skip
    """The likeliest sequences that a decoder writes, as far as a beam finds them.

    In each step every hypothesis of a sample is continued by every symbol, and the `width` best
    continuations are kept. One that has written the stop symbol has ended: it stays as it is, and
    competes with the others; the search is over when all have ended. All of it is one `loop`.

    Args:
        step: function of (a step's input, states) that returns (scores of the next symbols,
            new states); inputs and states have batch * width rows. Scores need not be
            log-probabilities: their log-softmax is taken. What the scores of a step have in
            common should not be large: in float32, 1,000 added to all of them costs some 5e-5 of a
            log-probability.
        embed: function of symbols (integers) that returns a step's inputs.
        state: the decoder's states in the beginning, each (batch, ...).
        start: the symbol before the first one.
        stop: the symbol that ends a sequence.
        steps: symbols of a sequence, at most, the stop symbol included.
        width: hypotheses of each sample, at most 10,000.
        min_steps: symbols before the stop symbol, at least.
        length_penalty: hypotheses are compared by their log-probability divided by ((5 + symbols) /
            6) to this power (Wu et al. 2016, "Google's neural machine translation system"). 0: by
            the log-probability; 0.6 to 1 lets longer ones win.
        n_best: how many sequences of each sample are returned; all `width` by default.
        fixed: what steps need of each sample and do not change, each (batch, ...): the encoder's
            outputs, a mask. The step is given a tuple of them, with batch * width rows, as a third
            argument. Unlike states they are not moved when hypotheses change places.

    Returns:
        Symbols (batch, n_best, steps), the best sequence first, the stop symbol at its end and
        behind it; how many symbols each has, the stop symbol included, (batch, n_best), both
        integers; log-probabilities (batch, n_best). Where there are fewer sequences than `n_best`,
        the log-probability is -1e30.

    Raises:
        OptionError: an option is out of range.
        ShapeError: scores have another shape.

    >>> import numpy as np
    >>> from fastnn import nn, ops
    >>> class Writer(nn.Module):
    ...     def __init__(self):
    ...         self.embed, self.cell = nn.Embedding(9, 8), nn.GRUCell(8, 16)
    ...         self.out = nn.Linear(16, 9)
    ...     def forward(self, h):
    ...         def step(x, states):
    ...             h = self.cell(x, states[0])
    ...             return self.out(h), (h,)
    ...         return ops.beam_search(step, self.embed, h, start=0, stop=1, steps=12)
    >>> symbols, lengths, scores = Writer().predict(np.ones((2, 16), np.float32))
    >>> symbols.shape, lengths.shape, scores.shape
    ((2, 4, 12), (2, 4), (2, 4))
    """
    states = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    if not states or not all(isinstance(s, Value) and s.ndim > 1 for s in (*states, *fixed)):
        raise ShapeError(
            "beam_search: expected states of shape (batch, ...), symbolic, one or several, and "
            "what is fixed likewise"
        )
    graph, batch = states[0].graph, states[0].shape[0]
    name = f"{where(graph.scope)}beam_search"
    n_best = width if n_best is None else n_best
    check_whole(name, 1, WIDEST, width=width)
    check_whole(name, 1, steps=steps, n_best=n_best)
    check_whole(name, 0, start=start, stop=stop, min_steps=min_steps)
    if min_steps >= steps:
        raise OptionError(f"{name}: expected min_steps below steps={steps}, got {min_steps}")
    if n_best > width:
        raise OptionError(f"{name}: expected n_best to be at most width={width}, got {n_best}")
    if not (isinstance(length_penalty, (int, float)) and 0 <= length_penalty < 100):
        raise OptionError(f"{name}: expected a length_penalty in [0, 100), got {length_penalty!r}")
    norms = graph.constant(((5.0 + np.arange(steps + 2)) / 6.0) ** length_penalty, name="norms")

    def each(x: Value) -> Value:
        """A state once for each hypothesis."""
        wide = reshape(x, (batch, 1, *x.shape[1:]))
        return expand(wide, (batch, width, *x.shape[1:])) if width > 1 else wide

    kept = tuple(reshape(each(f), (batch * width, *f.shape[1:])) for f in fixed)

    def body(_: None, carried: tuple[Value, ...]) -> tuple[Value, tuple[Value, ...]]:
        found, history, written, x, *old = carried
        score, count, ended = (reshape(p, (batch, width)) for p in _thirds(found))
        rows = [reshape(s, (batch * width, *s.shape[2:])) for s in (x, *old)]
        scores, new = step(rows[0], tuple(rows[1:]), *((kept,) if kept else ()))
        if scores.ndim != 2 or scores.shape[0] != batch * width or len(new) != len(old):
            raise ShapeError(
                f"{name}: expected the step to return scores of shape ({batch * width}, symbols) "
                f"and {len(old)} states, got {scores.shape} and {len(new)}"
            )
        if not (start < scores.shape[1] and stop < scores.shape[1]):
            raise OptionError(
                f"{name}: expected start and stop below the {scores.shape[1]} symbols, got {start} "
                f"and {stop}"
            )
        if width > scores.shape[1] ** steps:
            raise OptionError(f"{name}: there are fewer sequences than width={width}")
        # normalised are the hypotheses, not the scores of all symbols: these are only read
        norm = reshape(logsumexp(scores, -1), (batch, width))
        score = choose(ended, score, subtract(score, norm))
        wide = reshape(scores, (batch, width * scores.shape[1]))
        one = graph.full((batch, 1), 1.0, batched=True)
        ahead = one if steps == 1 else concatenate(graph, [one, columns(written, 0, steps - 1)])
        now = reshape(subtract(ahead, written), (batch, 1, steps))
        live = one if min_steps == 0 else columns(written, min_steps - 1, min_steps)
        parent, symbol, selected = _select(wide, (score, count, ended), norms, live, stop)
        after = affine(ahead, 1.0, 0.0)  # may be written where `written` was, which has been read
        value = reshape(_to_floats(symbol), (batch, width, 1))
        history = choose(now, value, _reordered(history, parent))
        carried_on = [_reordered(reshape(s, (batch, width, *s.shape[1:])), parent) for s in new]
        x = embed(reshape(symbol, (batch * width,)))
        x = reshape(x, (batch, width, *x.shape[1:]))
        joined = concatenate(graph, list(selected))
        return reshape(live, (batch,)), (joined, history, after, x, *carried_on)

    def all_ended(_: Value, carried: tuple[Value, ...]) -> Value:
        return least_of(_thirds(carried[0])[2], 1)

    first = np.full((1, width), NEVER)
    first[0, 0] = 0.0
    scores = expand(graph.constant(first, name="scores"), (batch, width))
    zeros = graph.full((batch, width), 0.0, batched=True)
    found = concatenate(graph, [multiply(scores, _ones(graph, batch, width)), zeros, zeros])
    ids = graph.constant(np.full((batch * width,), start), "i", name="start")
    x = embed(ids)
    x = multiply(reshape(x, (batch, width, *x.shape[1:])), _ones(graph, batch, width, *x.shape[1:]))
    history = graph.full((batch, width, steps), float(stop), batched=True)
    written = graph.full((batch, steps), 0.0, batched=True)
    _, finals, _ = loop(
        body, None, (found, history, written, x, *map(each, states)), until=all_ended, steps=steps
    )
    score, count, _ = _thirds(finals[0])
    symbols = _ids(finals[1])[:, :n_best]
    return symbols, _ids(count)[:, :n_best], score[:, :n_best]


def likeliest(scores: Value) -> Value:
    """The symbol with the largest of the `scores` in each row (N, V), integers within the symbols
    even where all are NaN.

    >>> testing.apply(ops.likeliest, [[0.1, 2.0, -1.0]])
    array([1])
    """
    graph, (rows, _) = scores.graph, scores.shape
    zero = graph.full((rows, 1), 0.0, batched=True)
    norms = graph.constant(np.ones(3), name="norms")
    live = graph.full((rows, 1), 1.0, batched=True)
    _, symbol, _ = _select(scores, (zero, zero, zero), norms, live, 0)
    return reshape(symbol, (rows,))


def _thirds(found: Value) -> list[Value]:
    width = found.shape[1] // 3
    return [columns(found, k * width, (k + 1) * width) for k in range(3)]


def _ones(graph: Graph, *shape: int) -> Value:
    return graph.full(shape, 1.0, batched=True)


publish(globals(), FunctionType)
