"""Mini-batches of sequences of different lengths."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.bucketing import Buckets, predict_sequences
from fastnn.errors import DataError, OptionError

LENGTHS = [3, 9, 4, 8, 1, 12, 7]


def sequences(width=2):
    return [np.full((n, width), n, np.float32) for n in LENGTHS]


class Last(nn.Module):
    """Final state of an RNN over the inputs."""

    def __init__(self):
        self.rnn = nn.RNN(2, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x, lengths):
        _, finals = self.rnn(x, lengths=lengths)
        return self.out(finals[0])


class Steps(Last):
    def forward(self, x, lengths):
        return self.out(self.rnn(x, lengths=lengths)[0])


def test_batches_are_full_padded_and_rounded_up():
    batches = Buckets(sequences(), LENGTHS, 3, multiple=4)
    assert len(batches) == 2
    seen = []
    for (x, lengths), y in batches:
        assert x.shape[0] == 3
        assert x.shape[1] % 4 == 0
        assert 0 <= x.shape[1] - lengths.max() < 4
        np.testing.assert_array_equal(lengths, y)
        for row, n in zip(x, lengths, strict=True):
            assert (row[:n] == n).all()
            assert (row[n:] == 0).all()
        seen += y.tolist()
    assert len(set(seen)) == 6


def test_order_follows_from_seed_and_epoch():
    def order(seed, epoch):
        batches = Buckets(sequences(), LENGTHS, 2, seed=seed)
        batches.set_epoch(epoch)
        return [y.tolist() for _, y in batches]

    assert order(0, 1) == order(0, 1)
    assert len({str(order(s, e)) for s in (0, 1) for e in (0, 1, 2)}) > 3


def test_targets_for_each_step_are_padded_with_the_ignored_one():
    targets = [np.arange(n) for n in LENGTHS]
    for (_, lengths), y in Buckets(sequences(), targets, 2, ignore=-7):
        for row, n in zip(y, lengths, strict=True):
            assert row.tolist() == [*range(n), *[-7] * (len(row) - n)]


def test_several_inputs():
    ids = [np.arange(n) for n in LENGTHS]
    (x, more, lengths), _ = next(iter(Buckets((sequences(), ids), LENGTHS, 2)))
    assert x.shape[:2] == more.shape
    assert more[0, lengths[0] - 1] == lengths[0] - 1


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((LENGTHS[:3], 2), {}, DataError, "as many targets"),
        ((LENGTHS, 8), {}, OptionError, "batch_size"),
        ((LENGTHS, 0), {}, OptionError, "batch_size"),
        ((LENGTHS, 2), {"multiple": 0}, OptionError, "multiple"),
    ],
)
def test_mistakes(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Buckets(sequences(), *arguments, **options)
    with pytest.raises(DataError, match="same lengths"):
        Buckets((sequences(), sequences()[::-1]), LENGTHS, 2)


def test_predictions_come_in_the_order_of_the_sequences():
    model = Last()
    found = predict_sequences(model, sequences(), batch_size=2, multiple=4)
    alone = [model.predict(s[None], np.array([len(s)]))[0] for s in sequences()]
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)


def test_predictions_for_each_step_end_with_the_sequence():
    found = predict_sequences(Steps(), sequences(), batch_size=3, per_step=True)
    assert [f.shape for f in found] == [(n, 3) for n in LENGTHS]


def trained(epochs, folder=None, resume=None):
    trainer = fnn.Trainer(Last(), "cross_entropy", optim.Adam(lr=0.05), workers=1, seed=3)
    batches = Buckets(sequences(), np.array(LENGTHS) % 3, 2, seed=3)
    trainer.fit(batches, epochs=epochs, resume=resume, verbose=False)
    if folder:
        trainer.save(folder)
    return trainer


def test_training_plans_a_program_for_each_number_of_steps():
    trainer = trained(6)
    assert trainer.step == 6 * 3
    assert len(trainer._built) == 2  # 8 and 16 steps


def test_a_resumed_run_draws_the_same_batches(tmp_path):
    whole = trained(4)
    trained(2, tmp_path / "half.safetensors")
    resumed = trained(4, resume=tmp_path / "half.safetensors")
    for name, value in whole.get_parameters().items():
        np.testing.assert_array_equal(value, resumed.get_parameters()[name])
