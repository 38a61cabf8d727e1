"""Connectionist temporal classification: against sums over all paths."""

import numpy as np
import pytest

import fastnn.kernels.ctc.cpu as cpu
from fastnn.kernels.ctc.shared import columns_for, room_for
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests import naive_ctc
from tests.kernels.common import DTYPES, GUARD, close, poisoned

OPTIONS = dict(blank=0, mean=0, zero_infinity=0)


def kernels(x, target, lengths, counts, dloss, dtype=np.float64, **options):
    """Losses and gradients of the kernels: compiled, in ranges, and (small ones) as plain Python,
    whatever was in their outputs and in their working memory."""
    given = {**OPTIONS, **options}
    zero_infinity = given.pop("zero_infinity")
    x, dloss = x.astype(dtype), dloss.astype(dtype)
    B, T, _C = x.shape
    M = columns_for(target.shape[1])
    width, size = room_for(M)
    common = dict(x=x, target=target, lengths=lengths, target_lengths=counts, **given)

    def once(byte, ranges, run):
        shapes = dict(loss=(B,), norm=(B, T, 2), share=(B, T, M), room=(B, T, width),
                      work=(B, size), dx=x.shape)  # fmt: skip
        made = {name: poisoned(shape, dtype, byte) for name, shape in shapes.items()}
        out = {name: array for name, (array, _) in made.items()}
        before = {name: buffer.copy() for name, (_, buffer) in made.items()}
        dx, loss, room, work = (out.pop(name) for name in ("dx", "loss", "room", "work"))
        for lo, hi in ranges:
            more = dict(loss=loss, room=room, work=work, zero_infinity=zero_infinity)
            run(KERNELS["ctc_forward"], lo, hi, **common, **out, **more)
            run(KERNELS["ctc_backward"], lo, hi, **common, **out, dloss=dloss, dx=dx)
        for name, (_, buffer) in made.items():
            for part in (slice(None, GUARD), slice(-GUARD, None)):
                assert buffer[part].tobytes() == before[name][part].tobytes(), f"{name}: overrun"
        return loss, dx

    whole = once(0xFF, [(0, B)], call)
    pieces = once(0x00, [(n, n + 1) for n in range(B)], call)
    for a, b in zip(whole, pieces, strict=True):
        assert a.tobytes() == b.tobytes(), "ranges change the bits"
    if x.size < 100:
        with np.errstate(all="ignore"):
            python = once(0xFF, [(0, B)], lambda kernel, lo, hi, **k: kernel(**k, lo=lo, hi=hi))
        for a, b in zip(python, whole, strict=True):
            close(a, b, dtype, factor=5)
    return whole


def sequences(B, T, C, L, seed=0, scale=2.0, blank=0):
    """Logits, labels, lengths of both, of which one sequence has none and one too many labels."""
    rng = np.random.default_rng(seed)
    x = scale * rng.standard_normal((B, T, C))
    target = rng.choice([c for c in range(C) if c != blank], (B, L))
    return x, target, rng.integers(0, T + 1, B), rng.integers(0, L + 1, B), rng.normal(size=B)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "T", "C", "L"),
    [
        (1, 1, 2, 1),
        (3, 7, 3, 2),
        (2, 40, 5, 15),
        (2, 20, 33, 16),
        (2, 33, 4, 7),
        (2, 17, 16, 1),
        (2, 37, 128, 5),
        (1, 20, 129, 4),
    ],
)
def test_loss_and_gradient(B, T, C, L, dtype):
    x, target, lengths, counts, dloss = sequences(B, T, C, L)
    lengths[0], counts[0] = T, min(L, (T + 1) // 2)
    x, dloss = x.astype(dtype), dloss.astype(dtype)
    for blank, mean in ((0, 0), (C - 1, 1)):
        labels = np.where(target == blank, (blank + 1) % C, target)
        want, slope = naive_ctc.ctc(x, labels, lengths, counts, blank)
        share = np.maximum(counts, 1) if mean else 1
        loss, dx = kernels(x, labels, lengths, counts, dloss, dtype, blank=blank, mean=mean)
        close(loss, want / share, dtype)
        close(dx, slope * (dloss / share)[:, None, None], dtype, factor=2)


@pytest.mark.parametrize("T", range(1, 7))
def test_the_sum_over_all_paths(T):
    x = np.random.default_rng(T).standard_normal((1, T, 3))
    known = naive_ctc.labellings(x[0])
    for labels in ([], [1], [2, 1], [1, 1], [1, 1, 2], [2, 2, 2]):
        target = np.array([labels + [-1] * (3 - len(labels))])
        p = known.get(tuple(labels), 0.0)
        loss, dx = kernels(x, target, np.array([T]), np.array([len(labels)]), np.ones(1))
        close(loss, [np.inf if p == 0 else -np.log(p)], np.float64)
        assert np.isnan(dx).all() == (p == 0)


def test_absent_lengths_are_all_steps_and_labels_end_at_the_first_negative_number():
    x, target, _, _, dloss = sequences(3, 9, 4, 4)
    target[1, 2:], target[2] = -1, -1
    want = kernels(x, target, np.full(3, 9), np.array([4, 2, 0]), dloss)
    given = kernels(x, target, None, None, dloss)
    for a, b in zip(want, given, strict=True):
        np.testing.assert_array_equal(a, b)


def test_padding_and_neighbours_do_not_matter():
    x, target, lengths, counts, dloss = sequences(4, 20, 5, 6)
    lengths, counts = np.array([20, 12, 7, 15]), np.array([6, 3, 0, 4])
    loss, dx = kernels(x, target, lengths, counts, dloss)
    for n in range(4):
        x[n, lengths[n] :], target[n, counts[n] :] = np.nan, 77
    again = kernels(x, target, lengths, counts, dloss)
    np.testing.assert_array_equal(loss, again[0])
    np.testing.assert_array_equal(dx, again[1])
    one = [a[1:2] for a in (x, target, lengths, counts, dloss)]
    one[0], one[1] = one[0][:, :12].copy(), one[1][:, :3].copy()
    alone = kernels(*one)
    np.testing.assert_array_equal(loss[1:2], alone[0])
    np.testing.assert_array_equal(dx[1:2, :12], alone[1])


def test_too_few_frames():
    x, target, _, _, dloss = sequences(4, 5, 4, 3)
    target[:] = [1, 1, 2]  # need 4 frames
    lengths, counts = np.array([3, 4, 0, 0]), np.array([3, 3, 0, 2])
    loss, dx = kernels(x, target, lengths, counts, dloss)
    assert np.isfinite(loss).tolist() == [False, True, True, False]
    assert loss[2] == 0
    assert np.isnan(dx[0, :3]).all()
    assert np.isfinite(dx[1:]).all()
    loss, dx = kernels(x, target, lengths, counts, dloss, zero_infinity=1)
    assert loss[0] == loss[3] == 0
    assert not dx[0].any()
    assert dx[1].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_far_below_what_floats_hold(dtype):
    """A net that is sure of the blank, as in the beginning of a training."""
    x, target, lengths, counts, dloss = sequences(2, 200, 6, 60, scale=0.1)
    x[:, :, 0] += 30.0
    lengths[:], counts[:] = 200, 60
    x = x.astype(dtype)
    want, slope = naive_ctc.ctc(x, target, lengths, counts, 0)
    loss, dx = kernels(x, target, lengths, counts, dloss, dtype)
    close(loss, want, dtype)
    close(dx, slope * dloss[:, None, None], dtype, factor=5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("scale", "blank"), [(0.01, 0.0), (1.0, 6.0), (10.0, 0.0), (100.0, 0.0)])
def test_states_that_are_far_less_likely_than_others(scale, blank, dtype):
    """In float32 the last two have more orders of magnitude in a frame than plain numbers hold."""
    x, target, lengths, counts, dloss = sequences(2, 120, 6, 40, scale=scale)
    x[:, :, 0] += blank
    lengths[:], counts[:] = [120, 90], [40, 25]
    x, dloss = x.astype(dtype), dloss.astype(dtype)
    want, slope = naive_ctc.ctc(x, target, lengths, counts, 0)
    loss, dx = kernels(x, target, lengths, counts, dloss, dtype)
    close(loss, want, dtype)
    close(dx, slope * dloss[:, None, None], dtype, factor=5)


def test_plain_numbers_do_for_a_net_that_has_learnt_the_blank_only(monkeypatch):
    """The most probable paths to a frame in the middle have no label yet: by e^-70."""
    monkeypatch.setattr(cpu, "scores", None)  # of the other way
    x, target, _, _, _ = sequences(1, 120, 4, 40, scale=0.1)
    x[:, :, 0] += 6.0
    x = x.astype(np.float32)
    want, slope = naive_ctc.ctc(x, target, np.array([120]), np.array([40]), 0)
    M = columns_for(40)
    width, size = room_for(M)
    shapes = dict(loss=(1,), norm=(1, 120, 2), share=(1, 120, M), room=(1, 120, width),
                  work=(1, size), dx=x.shape)  # fmt: skip
    made = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
    given = dict(x=x, target=target, lengths=np.array([120]), target_lengths=np.array([40]),
                 blank=0, mean=0, lo=0, hi=1)  # fmt: skip
    dx = made.pop("dx")
    cpu.ctc_forward(**given, zero_infinity=0, **made)
    kept = {name: made[name] for name in ("norm", "share")}
    cpu.ctc_backward(**given, **kept, dloss=np.ones(1, np.float32), dx=dx)
    close(made["loss"], want, np.float32)
    close(dx, slope, np.float32, factor=5)


def test_what_is_no_number_and_what_is_no_label():
    x, target, _, _, dloss = sequences(6, 8, 4, 3)
    lengths, counts = np.full(6, 8), np.full(6, 3)
    x[0, 3, 2], x[1, 7, 1] = np.nan, np.inf
    target[2, 1], target[3, 2], lengths[4], counts[5] = 0, 4, 9, 4
    loss, dx = kernels(x, target, lengths, counts, dloss, zero_infinity=1)
    assert np.isnan(loss).all()
    assert np.isnan(dx).all()


def test_classes_that_are_ruled_out():
    """Logits of -inf are probabilities of 0."""
    x, target, lengths, counts, dloss = sequences(2, 9, 5, 3)
    target[:], lengths[:], counts[:] = [1, 2, 1], 9, 3
    x[0, :, 4] = -np.inf
    x[1, :, 1] = -np.inf  # a label's
    want, slope = naive_ctc.ctc(x, target, lengths, counts, 0)
    loss, dx = kernels(x, target, lengths, counts, dloss)
    close(loss, want, np.float64)
    close(dx[0], slope[0] * dloss[0], np.float64)
    assert loss[1] == np.inf


#: a logit whose probability is 0 in both float types
RULED_OUT = -2000.0


def race(lost, turns, hit):
    """Two ways through the labels 1, 2, ...: one gives up `lost` nats in the second frame, the
    other `hit` nats in each of so many turns, in which the first is a label or two ahead."""
    labels = turns + 1
    frames = [{0: 0.0}, {0: 0.0, 1: -lost}, {1: -hit, 2: 0.0}]
    for k in range(1, turns):
        frames += 3 * [{k: np.log(0.5), k + 2: np.log(0.5)}] + [{k + 1: -hit, k + 2: 0.0}]
    frames.append({labels: 0.0})
    x = np.full((1, len(frames), labels + 2), RULED_OUT)
    for t, known in enumerate(frames):
        for c, value in known.items():
            x[0, t, c] = value
    return x, np.arange(1, labels + 1)[None]


@pytest.mark.parametrize(
    ("dtype", "given"),
    [(np.float32, race(95, 2, 54)), (np.float64, race(715, 12, 63))],
    ids=["float32", "float64"],
)
def test_what_was_too_small_for_a_plain_number_may_be_all_that_counts(dtype, given):
    """In the end the likely ways have lost more than that: it is noticed."""
    x, target = given[0].astype(dtype), given[1]
    lengths, counts = np.array([x.shape[1]]), np.array([target.shape[1]])
    want, slope = naive_ctc.ctc(x, target, lengths, counts, 0)
    loss, dx = kernels(x, target, lengths, counts, np.ones(1), dtype)
    factor = 5 if dtype == np.float32 else 50  # the oracle's own logarithms
    close(loss, want, dtype, factor)
    close(dx, slope, dtype, factor)


def test_what_is_added_to_all_logits_does_not_matter():
    """Numbers of which float32 holds the sums exactly."""
    x, target, _, _, _ = sequences(2, 50, 5, 8)
    x, lengths, counts = np.round(x * 256) / 256, np.array([50, 40]), np.array([8, 0])
    want, slope = naive_ctc.ctc(x, target, lengths, counts, 0)
    loss, dx = kernels(x + 4096.0, target, lengths, counts, np.ones(2), np.float32)
    close(loss, want, np.float32)
    close(dx, slope, np.float32)
