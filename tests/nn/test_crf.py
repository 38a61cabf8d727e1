"""Chains of tags in models."""

import itertools

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.testing import gradcheck
from tests import naive_crf

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


class Tagger(nn.Module):
    """Scores of tags for steps, with or without their numbers."""

    def __init__(self, tags=4, scheme=None, features=3):
        self.scores = nn.Linear(features, tags if isinstance(tags, int) else len(tags))
        self.crf = nn.CRF(tags, scheme)

    def forward(self, x, lengths=None):
        return self.scores(x) if lengths is None else (self.scores(x), lengths)


def data(seed=0, tags=4):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 8, 3)).astype(np.float32)
    lengths, target = np.array([8, 6, 4, 1, 8, 0]), rng.integers(0, tags, (6, 8))
    return x, lengths, np.where(np.arange(8) < lengths[:, None], target, -1)


def weights_of(crf):
    return crf.transitions.value, crf.start_transitions.value, crf.end_transitions.value


def test_the_loss_is_a_mean_over_sequences_or_over_tags():
    x, lengths, target = data()
    model = Tagger()
    scores, _ = model.predict(x, lengths)
    rows = naive_crf.crf(scores, target, lengths, *weights_of(model.crf), np.ones(6))[0]
    assert rows.min() >= 0
    for reduction, want in (
        ("mean", rows.mean()), ("token_mean", rows.sum() / lengths.sum()), ("sum", rows.sum())
    ):  # fmt: skip
        trainer = fnn.Trainer(model, nn.CRFLoss(model.crf, reduction), optim.SGD(lr=0.1))
        for inputs in ((x, lengths), x):
            for batch in (6, 4):
                got = trainer.evaluate(inputs, target, batch_size=batch)["loss"]
                np.testing.assert_allclose(got, float(want), rtol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_learns_what_follows_what(workers):
    """Inputs say nothing about every second tag: only the one before does."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 2, (40, 3))
    target = np.stack([first, first + 2], axis=2).reshape(40, 6)
    x = np.where(target < 2, target * 2.0 - 1.0, 0.0)[..., None].astype(np.float32)
    model = Tagger(4, features=1)
    trainer = fnn.Trainer(
        model, nn.CRFLoss(model.crf), optim.Adam(lr=0.1), seed=2, workers=workers
    )  # fmt: skip
    history = trainer.fit(x, target, epochs=40, batch_size=8, verbose=False)
    assert history["loss"][-1] < 0.05 * history["loss"][0]
    assert model.crf.decode(model.predict(x)) == target.tolist()
    np.testing.assert_array_equal(model.predict(x).argmax(axis=2)[:, ::2], target[:, ::2])


def test_any_number_of_workers_gives_the_same_bits():
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 10, 37)
    tags = np.where(np.arange(9) < lengths[:, None], rng.integers(0, 2, (37, 9)), -1)
    x = rng.standard_normal((37, 9, 3)).astype(np.float32)
    bits = []
    for workers in (1, 2, 3):
        model = Tagger(BIO, "BIO")
        trainer = fnn.Trainer(model, nn.CRFLoss(model.crf), "adam", seed=1, workers=workers)
        trainer.fit((x, lengths), tags, epochs=2, batch_size=11, verbose=False)
        parts = [*model.state_dict().values(), *model.crf.predict(x[:, :, [0, 1, 2, 0, 1]])]
        bits.append(b"".join(np.asarray(part).tobytes() for part in parts))
    assert bits[0] == bits[1] == bits[2]


def test_decoded_are_the_best_tags():
    x, lengths, _ = data()
    model = Tagger()
    for parameter in (model.crf.transitions, model.crf.start_transitions):
        parameter.value = np.random.default_rng(3).standard_normal(parameter.shape)
    scores, _ = model.predict(x, lengths)
    want = [
        naive_crf.best(s[:n], *weights_of(model.crf))[0] if n else []
        for s, n in zip(scores, lengths, strict=True)
    ]
    assert model.crf.decode(scores, lengths) == want
    tags, score = model.crf.predict(scores, lengths)
    assert tags.dtype == np.int64
    assert (tags[5] == -1).all()
    assert score[5] == 0
    best = naive_crf.best(scores[0], *weights_of(model.crf))[1]
    np.testing.assert_allclose(score[0], best, rtol=1e-5)


def test_long_sequences_lose_no_digits():
    """2,000 steps with scores near 300: their sums would be rounded to 1/16 in float32."""
    rng = np.random.default_rng(1)
    x = (300.0 + 0.1 * rng.normal(size=(1, 2000, 3))).astype(np.float32)
    crf = nn.CRF(3)
    weights = [0.1 * rng.normal(size=shape) for shape in ((3, 3), 3, 3)]
    crf.transitions.value, crf.start_transitions.value, crf.end_transitions.value = weights
    between, first, last = (w.astype(np.float32).astype(np.float64) for w in weights)
    rows, came = x[0].astype(np.float64), []
    best = rows[0] + first
    for row in rows[1:]:
        sums = best[:, None] + between
        came.append(sums.argmax(0))
        best = sums.max(0) + row
    tags = [int((best + last).argmax())]
    for before in reversed(came):
        tags.append(int(before[tags[-1]]))
    assert crf.decode(x) == [tags[::-1]]


def test_gradients_are_those_of_differences():
    rng = np.random.default_rng(3)
    x, pairs = rng.standard_normal((3, 4, 3)), rng.standard_normal((3, 3))
    ends, lengths = rng.standard_normal((2, 3)), np.array([4, 2, 0])
    target = rng.integers(0, 3, (3, 4))

    def loss(x, pairs, start, end):
        labels, counts = (x.graph.constant(a, "i") for a in (target, lengths))
        return ops.crf_loss(x, labels, pairs, start, end, counts)

    gradcheck(loss, x, pairs, *ends)


def follows(scheme, a, b):
    """Whether tag b may stand after tag a, by the definition of the schemes."""
    before, after = a[0], b[0]
    same = a[1:] == b[1:] and a != "O"
    if scheme == "IOB2":
        return after != "I" or (before in "BI" and same)
    if scheme == "IOB1":
        return after != "B" or (before in "BI" and same)
    inside = before in "BI" and a != "O"
    return (after in "IE" and b != "O" and same) if inside else after not in "IE"


@pytest.mark.parametrize(
    ("scheme", "prefixes"), [("IOB2", "BI"), ("IOB1", "BI"), ("IOBES", "BIES")]
)
def test_which_tags_follow_each_other(scheme, prefixes):
    tags = ["O", *(f"{p}-{kind}" for kind in ("PER", "LOC") for p in prefixes)]
    crf = nn.CRF(tags, scheme)
    pairs, first, last = crf.allowed
    for i, a in enumerate(tags):
        for j, b in enumerate(tags):
            assert pairs[i, j] == follows(scheme, a, b), (a, b)
        assert first[i] == follows(scheme, "O", a)
        assert last[i] == (scheme != "IOBES" or a == "O" or a[0] in "ES")
    other = {"IOB2": "BIO", "IOBES": "BIOES"}.get(scheme, scheme)
    assert (nn.CRF(tags, other).allowed[0] == pairs).all()


def test_what_is_ruled_out_is_never_found_and_has_no_probability():
    rng = np.random.default_rng(5)
    crf = nn.CRF(BIO, "IOB2")
    scores = 5 * rng.standard_normal((50, 6, 5)).astype(np.float32)
    pairs, first, _ = crf.allowed
    free = nn.CRF(5)
    broken = 0
    for row, other in zip(crf.decode(scores), free.decode(scores), strict=True):
        assert first[row[0]]
        assert all(pairs[a, b] for a, b in itertools.pairwise(row))
        broken += not all(pairs[a, b] for a, b in itertools.pairwise(other))
    assert broken > 10

    class Sum(nn.Module):
        """The probabilities of all tags that there can be."""

        def __init__(self):
            self.crf = nn.CRF(["O", "B-X", "I-X"], "IOB2")

        def forward(self, x, target):
            return ops.exp(-self.crf.loss(x, target))

    model = Sum()
    x = rng.standard_normal((1, 3, 3)).astype(np.float32)
    every = [
        t for t in np.ndindex(3, 3, 3) if t[0] != 2 and (t[1] != 2 or t[0]) and (t[2] != 2 or t[1])
    ]
    p = [float(model.predict(x, np.array([t]))[0]) for t in every]
    np.testing.assert_allclose(sum(p), 1.0, rtol=1e-5)


def test_transitions_that_are_ruled_out_have_no_gradient():
    x, lengths, _ = data()
    model = Tagger(BIO, "IOB2")
    target = np.where(np.arange(8) < lengths[:, None], [1, 2, 2, 0, 3, 4, 0, 0], -1)
    step = fnn.compile(model, nn.CRFLoss(model.crf))
    g = step.gradients((x, lengths), target)["crf.transitions"]
    np.testing.assert_array_equal(g != 0, model.crf.allowed[0])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([0, 7, 2, 0], r"tags in 0\.\.4, got 7 in step 1 of sequence 1"),
        ([0, -1, 2, 0], r"got -1 in step 1 of sequence 1"),
        ([0, 2, 0, 0], "sequence 1 has tag 2 after 0 in step 1"),
        ([1, 2, 4, 0], "has tag 4 after 2 in step 2"),
        ([2, 2, 0, 0], "sequence 1 begins with tag 2"),
    ],
)
def test_bad_tags_are_refused_by_name(tags, message):
    x, lengths = np.ones((2, 4, 3), np.float32), np.array([2, 3])
    target = np.array([[0, 1, 9, 9], tags])
    model = Tagger(BIO, "IOB2")
    for run in (
        lambda: fnn.Trainer(model, nn.CRFLoss(model.crf), "sgd").fit(
            (x, lengths), target, epochs=1, verbose=False
        ),
        lambda: fnn.compile(model, nn.CRFLoss(model.crf), optim.SGD(lr=0.1))((x, lengths), target),
    ):
        with pytest.raises(DataError, match=message):
            run()


def test_an_end_that_is_ruled_out():
    model = Tagger(["O", "B-X", "E-X", "S-X"], "IOBES")
    x = np.ones((1, 4, 3), np.float32)
    trainer = fnn.Trainer(model, nn.CRFLoss(model.crf), "sgd")
    with pytest.raises(DataError, match="sequence 0 ends with tag 1"):
        trainer.fit(x, np.array([[0, 3, 1, -1]]), epochs=1, verbose=False)
    trainer.fit(x, np.array([[0, 3, -1, 1]]), epochs=1, verbose=False)


def test_lengths_beyond_the_data_are_refused():
    model = Tagger()
    trainer = fnn.Trainer(model, nn.CRFLoss(model.crf), "sgd")
    with pytest.raises(DataError, match=r"lengths in 0\.\.8.* got 9"):
        trainer.fit(
            (np.ones((2, 8, 3), np.float32), np.array([8, 9])), np.zeros((2, 8), int), epochs=1,
            verbose=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.CRF(0), "number of tags"),
        (lambda: nn.CRF("IOB"), "number of tags"),
        (lambda: nn.CRF(["O", "B-X", "O"]), "each tag once, got 'O' several times"),
        (lambda: nn.CRF(["O", "B-X"], "BILUO"), "a scheme among IOB1"),
        (lambda: nn.CRF(3, "IOB2"), "needs the names of the tags"),
        (lambda: nn.CRF(["O", "X-PER"], "IOB2"), "got 'X-PER'"),
        (lambda: nn.CRF(["O", "E-PER"], "IOB2"), "got 'E-PER'"),
        (lambda: nn.CRF(2, allowed=np.ones((3, 3))), "of the shapes"),
        (lambda: nn.CRF(2, allowed="all"), "booleans of shape"),
        (lambda: nn.CRF(2, allowed=(np.array([[1, 0], [0, 0]]), [1, 1], [1, 0])), "tag 1 can"),
        (lambda: nn.CRF(["O"], "IOB2", allowed=[[1]]), "got both"),
        (lambda: nn.CRFLoss(nn.Linear(2, 2)), "CRF layer, got Linear"),
        (lambda: nn.CRFLoss(nn.CRF(2), "median"), "reduction"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_bad_shapes():
    with pytest.raises(ShapeError, match=r"CRF: expected scores of shape \(batch, steps, 4\)"):
        nn.CRF(4).predict(np.ones((2, 3, 5), np.float32))
    model = Tagger()
    trainer = fnn.Trainer(model, nn.CRFLoss(model.crf), "sgd")
    with pytest.raises(ShapeError, match="tags as integers"):
        trainer.fit(
            np.ones((2, 8, 3), np.float32), np.zeros((2, 7), int), epochs=1, verbose=False
        )  # fmt: skip
