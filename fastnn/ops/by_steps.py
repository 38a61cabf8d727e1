"""Losses over all paths (CRF, CTC, transducer) once more, as loops of other ops.

Kernels compute these losses and their gradients. What is here is the same as functions that can be
differentiated again: for gradients of gradients, tangents and products with the Hessian. Everything
is in logarithms. What cannot be has the logarithm `NEVER`, which is finite: 0 times it is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add, divide, maximum, multiply, negate, subtract
from fastnn.ops.arithmetic import where as chosen
from fastnn.ops.comparison import equal, greater, less, not_equal
from fastnn.ops.indexing import pad
from fastnn.ops.lengths import valid_steps
from fastnn.ops.matmul import matmul
from fastnn.ops.reduce import cumsum, log_softmax, logsumexp
from fastnn.ops.reduce import sum as summed
from fastnn.ops.sequence import loop
from fastnn.ops.shape import expand, reshape, stack, transpose

NEVER = -1e30


def _hot(ids: Value, count: int) -> Value:
    """1 at the place that each number says: (..., count)."""
    return equal(reshape(ids, (*ids.shape, 1)), np.arange(count))


def _counted(lengths: Value | None, steps: int, target: Value) -> Value:
    """1 where a step counts, (N, steps): by the lengths, or before the first negative target."""
    if lengths is not None:
        return valid_steps(lengths, steps)
    return equal(cumsum(less(target, 0), -1), 0.0)


def _frames(x: Value, lengths: Value | None) -> tuple[Value, Value]:
    """x with 0 past the ends, whatever is there; and 1 where a frame counts, (N, T)."""
    batch, steps = x.shape[:2]
    if lengths is None:
        return x, x.graph.full((batch, steps), 1.0, batched=True)
    valid = valid_steps(lengths, steps)
    return chosen(reshape(valid, (batch, steps, *[1] * (x.ndim - 2))), x, 0.0), valid


def _last(valid: Value) -> Value:
    """1 at the last step that counts, (N, T)."""
    return subtract(valid, pad(valid[:, 1:], ((0, 0), (0, 1))))


def _over_time(step: Any, sequences: tuple[Value, ...], valid: Value, state: Value) -> Value:
    """The state after `step(parts, state)` for all steps from the second on that count."""
    if valid.shape[1] == 1:
        return state

    def body(given: Any, before: Any) -> Any:
        *parts, on = given
        after = chosen(on, step(parts, before), before)
        return after, after

    on = reshape(valid[:, 1:], (*valid[:, 1:].shape, 1))
    _, last = loop(body, (*sequences, on), state)
    found: Value = last
    return found


def crf(
    x: Value, target: Value, lengths: Value | None, transitions: Value, start: Value, end: Value
) -> Value:
    """-log p of tags: (N, T, K), (N, T), (N,) or None, (K, K), (K,), (K,) to (N,)."""
    batch, steps, tags = x.shape
    valid = _counted(lengths, steps, target)
    on = reshape(valid, (batch, steps, 1))
    x, hot = chosen(on, x, 0.0), multiply(_hot(target, tags), on)
    transitions, start, end = (maximum(v, NEVER) for v in (transitions, start, end))
    last = summed(multiply(hot, reshape(_last(valid), (batch, steps, 1))), axis=1)
    score = summed(multiply(hot, x), axis=(1, 2))
    score = add(score, summed(add(multiply(hot[:, 0], start), multiply(last, end)), axis=-1))
    if steps > 1:
        before = matmul(reshape(hot[:, :-1], (batch * (steps - 1), tags)), transitions)
        before = reshape(before, (batch, steps - 1, tags))
        score = add(score, summed(multiply(before, hot[:, 1:]), axis=(1, 2)))

    def step(given: Any, alpha: Value) -> Value:
        (x_t,) = given
        ways = add(reshape(alpha, (batch, tags, 1)), reshape(transitions, (1, tags, tags)))
        return add(logsumexp(ways, axis=1), x_t)

    alpha = _over_time(step, (x[:, 1:],), valid, add(x[:, 0], start))
    loss = subtract(logsumexp(add(alpha, end), axis=-1), score)
    return chosen(valid[:, 0], loss, 0.0)


def ctc(
    x: Value, target: Value, lengths: Value | None, target_lengths: Value | None, blank: int = 0,
    mean: int = 0, zero_infinity: int = 0,
) -> Value:  # fmt: skip
    """-log p of labels: (N, T, C), (N, L), (N,) or None, (N,) or None to (N,)."""
    (batch, steps, classes), labels = x.shape, target.shape[1]
    places = 2 * labels + 1  # labels with blanks around them
    count = summed(_counted(target_lengths, labels, target), axis=-1)
    x, valid = _frames(x, lengths)
    logs = maximum(log_softmax(x), NEVER)
    said = matmul(logs, transpose(_hot(target, classes), (0, 2, 1)))
    silent = expand(logs[:, :, blank : blank + 1], (batch, steps, labels))
    each = reshape(stack([silent, said], axis=-1), (batch, steps, 2 * labels))
    each = pad(each, ((0, 0), (0, 0), (0, 1)))
    final = (np.arange(places) == places - 1).astype(np.float64)
    each = add(each, multiply(logs[:, :, blank : blank + 1], final))
    # a label may follow another one without the blank between
    skips: Any = np.full((1, places), NEVER)
    if labels > 1:
        other = not_equal(target[:, 1:], target[:, :-1])
        wide = reshape(stack([other * 0.0, other], axis=-1), (batch, 2 * labels - 2))
        skips = multiply(subtract(1.0, pad(wide, ((0, 0), (2, 1)))), NEVER)

    def step(given: Any, alpha: Value) -> Value:
        (each_t,) = given
        one = pad(alpha[:, :-1], ((0, 0), (1, 0)), value=NEVER)
        two = add(pad(alpha[:, :-2], ((0, 0), (2, 0)), value=NEVER), skips)
        return add(logsumexp(stack([alpha, one, two], axis=1), axis=1), each_t)

    begin = np.where(np.arange(places) < 2, 0.0, NEVER)
    alpha = _over_time(step, (each[:, 1:],), valid, add(each[:, 0], begin))
    at = np.arange(places)[None]
    double = reshape(count * 2.0, (batch, 1))
    ends = add(equal(at, double), equal(at, double - 1.0))
    loss = negate(logsumexp(add(alpha, multiply(subtract(1.0, ends), NEVER)), axis=-1))
    loss = chosen(greater(loss, -0.1 * NEVER), 0.0 if zero_infinity else np.inf, loss)
    return divide(loss, maximum(count, 1.0)) if mean else loss


def transducer(
    x: Value, target: Value, lengths: Value | None, target_lengths: Value | None, blank: int = 0,
    mean: int = 0,
) -> Value:  # fmt: skip
    """-log p of labels: (N, T, L + 1, C), (N, L), (N,) or None, (N,) or None to (N,)."""
    batch, steps, places, classes = x.shape
    counted = _counted(target_lengths, places - 1, target)
    count = summed(counted, axis=-1)
    x, valid = _frames(x, lengths)
    reached = subtract(1.0, pad(subtract(1.0, counted), ((0, 0), (1, 0))))
    logs = log_softmax(chosen(reshape(reached, (batch, 1, places, 1)), x, 0.0))
    stay = logs[:, :, :, blank]
    hot = reshape(_hot(target, classes), (batch, 1, places - 1, classes))
    write = summed(multiply(logs[:, :, :-1], hot), axis=-1)
    written = pad(cumsum(write, -1), ((0, 0), (0, 0), (1, 0)))  # all labels before, at one frame
    later = np.where(np.tri(places) > 0, 0.0, NEVER)[None]

    def step(given: Any, alpha: Value) -> Value:
        stay_before, written_t = given
        come = subtract(add(alpha, stay_before), written_t)
        ways = add(reshape(come, (batch, 1, places)), later)
        return add(logsumexp(ways, axis=-1), written_t)

    alpha = _over_time(step, (stay[:, :-1], written[:, 1:]), valid, written[:, 0])
    leave = summed(multiply(stay, reshape(_last(valid), (batch, steps, 1))), axis=1)
    end = equal(np.arange(places)[None], reshape(count, (batch, 1)))
    loss = negate(summed(multiply(end, add(alpha, leave)), axis=-1))
    return divide(loss, maximum(count, 1.0)) if mean else loss
