"""Conditional random fields: kernels against sums over all tags."""

import numpy as np
import pytest

import fastnn.kernels.crf.cpu
import fastnn.kernels.crf.cpu_decode  # noqa: F401
from fastnn.kernels.crf.shared import columns_for, room_for
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests import naive_crf
from tests.kernels.common import DTYPES, GUARD, close, poisoned

NAMES = ("transitions", "start", "end")


def kernels(x, target, lengths, weights, dloss, dtype=np.float64):
    """Losses and gradients of the kernels: compiled, in ranges, and (small ones) as plain Python,
    whatever was in their outputs and in their working memory."""
    x, dloss, *weights = (a.astype(dtype) for a in (x, dloss, *weights))
    B, T, C = x.shape
    M = columns_for(C)
    weights = dict(zip(NAMES, weights, strict=True))

    def once(byte, ranges, tags, run):
        shapes = dict(
            loss=(B,), share=(B, T, M), pair=(B, C + 2, M), work=(B, room_for(C, T)), dx=x.shape,
            dtransitions=(C, C), dstart=(C,), dend=(C,),
        )  # fmt: skip
        made = {name: poisoned(shape, dtype, byte) for name, shape in shapes.items()}
        out = {name: array for name, (array, _) in made.items()}
        before = {name: buffer.copy() for name, (_, buffer) in made.items()}
        kept = {name: out[name] for name in ("share", "pair")}
        labels = dict(target=target, lengths=lengths)
        for lo, hi in ranges:
            more = dict(loss=out["loss"], work=out["work"], **kept)
            run(KERNELS["crf_forward"], lo, hi, x=x, **labels, **weights, **more)
            more = dict(share=out["share"], dloss=dloss, dx=out["dx"])
            run(KERNELS["crf_backward"], lo, hi, **labels, **more)
        more = {f"d{name}": out[f"d{name}"] for name in NAMES}
        for lo, hi in tags:
            run(KERNELS["crf_backward_transitions"], lo, hi, pair=out["pair"], dloss=dloss, **more)
        for name, (_, buffer) in made.items():
            for part in (slice(None, GUARD), slice(-GUARD, None)):
                assert buffer[part].tobytes() == before[name][part].tobytes(), f"{name}: overrun"
        return out["loss"], out["dx"], *(out[f"d{name}"] for name in NAMES)

    whole = once(0xFF, [(0, B)], [(0, C)], call)
    pieces = once(0x00, [(n, n + 1) for n in range(B)], [(n, n + 1) for n in range(C)], call)
    for a, b in zip(whole, pieces, strict=True):
        assert a.tobytes() == b.tobytes(), "ranges change the bits"
    if x.size < 100 and lengths is not None:
        with np.errstate(all="ignore"):
            python = once(
                0xFF, [(0, B)], [(0, C)], lambda kernel, lo, hi, **k: kernel(**k, lo=lo, hi=hi)
            )
        for a, b in zip(python, whole, strict=True):
            close(a, b, dtype, factor=5)
    return whole


def decoded(x, lengths, weights, dtype=np.float64):
    """Tags and scores of the kernel: compiled, in ranges, and (small ones) as plain Python."""
    x, *weights = (a.astype(dtype) for a in (x, *weights))
    B, T, C = x.shape
    given = dict(zip(NAMES, weights, strict=True), x=x, lengths=lengths)

    def once(byte, ranges, run):
        tags = np.full((B, T), 77)
        score, best, came = (
            poisoned(shape, dtype, byte)[0]
            for shape in ((B,), (B, columns_for(C)), (B, T, columns_for(C)))
        )
        for lo, hi in ranges:
            run(
                KERNELS["crf_decode"], lo, hi, **given, tags=tags, score=score, best=best, came=came
            )
        return tags, score

    whole = once(0xFF, [(0, B)], call)
    pieces = once(0x00, [(n, n + 1) for n in range(B)], call)
    runs = [whole, pieces]
    if x.size < 100 and lengths is not None:
        runs.append(once(0xFF, [(0, B)], lambda k, lo, hi, **a: k(**a, lo=lo, hi=hi)))
    for tags, score in runs[1:]:
        np.testing.assert_array_equal(tags, whole[0])
        close(score, whole[1], dtype)
    return whole


def chains(B, T, C, seed=0, scale=2.0):
    """Scores, tags, lengths of which one is 0, weights, gradients of the losses."""
    rng = np.random.default_rng(seed)
    weights = [scale * rng.standard_normal(s) for s in ((C, C), (C,), (C,))]
    lengths = rng.integers(1, T + 1, B)
    lengths[0], lengths[-1] = T, (T if B == 1 else 0)
    x = scale * rng.standard_normal((B, T, C))
    return x, rng.integers(0, C, (B, T)), lengths, weights, rng.standard_normal(B)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [2.0, 9.0])
@pytest.mark.parametrize(
    ("B", "T", "C"), [(1, 1, 1), (3, 1, 3), (3, 5, 2), (2, 12, 9), (3, 40, 17), (2, 7, 33)]
)
def test_loss_and_gradients(B, T, C, scale, dtype):
    """Of scores near each other, which are summed as plain numbers, and of others."""
    x, target, lengths, weights, dloss = chains(B, T, C, scale=scale)
    x, dloss, *weights = (a.astype(dtype) for a in (x, dloss, *weights))
    want = naive_crf.crf(x, target, lengths, *weights, dloss)
    for got, expected in zip(kernels(x, target, lengths, weights, dloss, dtype), want, strict=True):
        close(got, expected, dtype, factor=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "C"), [(1, 1), (6, 2), (5, 5), (9, 16), (4, 17), (3, 33)])
def test_sequences_side_by_side(T, C, dtype):
    """One in each lane, of which some end early, have no steps or none that are possible, or scores
    too far apart for plain numbers; `kernels` compares their bits with those of each by itself."""
    x, target, lengths, weights, dloss = chains(37, T, C, scale=1.0)
    x, dloss, *weights = (a.astype(dtype) for a in (x, dloss, *weights))
    lengths[1:20], lengths[7], lengths[11] = T, 0, max(T - 1, 1)
    x[3] *= 200
    for n, length in enumerate(lengths):
        x[n, length:], target[n, length:] = np.nan, C + 1
    want = naive_crf.crf(x, target, lengths, *weights, dloss)
    for got, expected in zip(kernels(x, target, lengths, weights, dloss, dtype), want, strict=True):
        close(got, expected, dtype, factor=5)
    target[5, 0] = C
    loss = kernels(x, target, lengths, weights, dloss, dtype)[0]
    assert np.isnan(loss[5])
    assert np.isfinite(np.delete(loss, 5)).all()


@pytest.mark.parametrize("T", range(1, 6))
def test_the_sum_over_all_tags_and_the_best_of_them(T):
    x, target, _, weights, dloss = chains(1, T, 3, seed=T)
    scores = naive_crf.every(x[0], *weights)
    log_z = np.logaddexp.reduce(list(scores.values()))
    lengths = np.array([T])
    loss, dx, *_ = kernels(x, target, lengths, weights, dloss)
    close(loss[0], log_z - scores[tuple(target[0])], np.float64)
    p = np.zeros((T, 3))
    for tags, value in scores.items():
        p[np.arange(T), tags] += np.exp(value - log_z)
    p[np.arange(T), target[0]] -= 1
    close(dx[0], p * dloss[0], np.float64)
    tags, score = decoded(x, lengths, weights)
    best = max(scores, key=scores.__getitem__)
    assert tuple(tags[0]) == best
    close(score[0], scores[best], np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "T", "C"), [(3, 5, 2), (2, 12, 9), (2, 30, 17), (2, 7, 33)])
def test_the_best_tags(B, T, C, dtype):
    x, _, lengths, weights, _ = chains(B, T, C, seed=1)
    x, *weights = (a.astype(dtype).astype(np.float64) for a in (x, *weights))
    tags, score = decoded(x, lengths, weights, dtype)
    for b, n in enumerate(lengths):
        want = naive_crf.best(x[b, :n], *weights) if n else ([], 0.0)
        assert tags[b].tolist() == want[0] + [-1] * (T - n)
        close(score[b], want[1], dtype)


def test_of_equal_scores_the_first_is_taken():
    zeros = [np.zeros((3, 3)), np.zeros(3), np.zeros(3)]
    tags, score = decoded(np.zeros((1, 40, 3)), None, zeros)
    assert not tags.any()
    assert not score.any()


def test_absent_lengths_end_at_the_first_negative_tag():
    x, target, _, weights, dloss = chains(3, 6, 4)
    target[1, 3:], target[2] = -1, -1
    want = kernels(x, target, np.array([6, 3, 0]), weights, dloss)
    for a, b in zip(want, kernels(x, target, None, weights, dloss), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        decoded(x, None, weights)[0], decoded(x, np.full(3, 6), weights)[0]
    )


def test_padding_and_neighbours_do_not_matter():
    x, target, _, weights, dloss = chains(4, 20, 5)
    lengths = np.array([20, 12, 1, 0])
    loss, dx, *_ = kernels(x, target, lengths, weights, dloss)
    tags, _ = decoded(x, lengths, weights)
    for n in range(4):
        x[n, lengths[n] :], target[n, lengths[n] :] = np.nan, 77
    again = kernels(x, target, lengths, weights, dloss)
    np.testing.assert_array_equal(loss, again[0])
    np.testing.assert_array_equal(dx, again[1])
    np.testing.assert_array_equal(tags, decoded(x, lengths, weights)[0])
    alone = kernels(
        x[1:2, :12].copy(), target[1:2, :12].copy(), lengths[1:2], weights, dloss[1:2]
    )  # fmt: skip
    np.testing.assert_array_equal(loss[1:2], alone[0])
    np.testing.assert_array_equal(dx[1:2, :12], alone[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_far_below_what_floats_hold(dtype):
    """Scores of hundreds, large ones that all tags of a step have, and tags that only a transition
    of a very small probability leads to."""
    x, target, lengths, weights, dloss = chains(3, 100, 4, scale=60.0)
    weights[0][:, 2] -= 300.0
    x, dloss, *weights = (a.astype(dtype) for a in (x, dloss, *weights))
    x[1] += np.round(1000 * np.sin(np.arange(100)))[:, None]
    want = naive_crf.crf(x, target, lengths, *weights, dloss)
    for got, expected in zip(kernels(x, target, lengths, weights, dloss, dtype), want, strict=True):
        close(got, expected, dtype, factor=5)


def test_what_can_not_be():
    """Scores of minus infinity are probabilities of 0, and what has one is no number's target."""
    x, target, lengths, weights, dloss = chains(3, 8, 4)
    target[:], lengths[:] = [0, 1, 2, 0, 1, 0, 1, 2], 8
    weights[0][3], weights[1][3], x[0, 4, 2] = -np.inf, -np.inf, -np.inf
    x[2, 3, 0] = -np.inf  # a target's
    loss, dx, dtransitions, dstart, _ = kernels(x, target, lengths, weights, dloss)
    finite = [a[:2] for a in (x, target, lengths)]
    with np.errstate(all="ignore"):
        want = naive_crf.crf(*finite, *weights, dloss[:2])
    close(loss[:2], want[0], np.float64)
    close(dx[:2], want[1], np.float64)
    assert loss[2] == np.inf
    assert np.isnan(dx[2]).all()
    assert np.isnan(dtransitions).all()
    got = kernels(*finite, weights, dloss[:2])
    for a, b in zip(got[2:], want[2:], strict=True):
        close(a, b, np.float64)
    assert dstart[3] != 0
    assert abs(got[3][3]) < 1e-29


def test_what_is_no_number_and_what_is_no_tag():
    x, target, _, weights, dloss = chains(5, 8, 4)
    lengths = np.full(5, 8)
    x[0, 3, 2], x[1, 7, 1] = np.nan, np.inf
    target[2, 1], target[3, 2], lengths[4] = 4, -1, 9
    loss, dx, dtransitions, dstart, dend = kernels(x, target, lengths, weights, dloss)
    for values in (loss, dx, dtransitions, dstart, dend):
        assert np.isnan(values).all()
    for weight in weights:
        broken = [w.copy() for w in weights]
        broken[[w is weight for w in weights].index(True)].flat[1] = np.nan
        x, target, lengths, _, dloss = chains(2, 8, 4)
        assert np.isnan(kernels(x, target, lengths, broken, dloss)[0][0])
