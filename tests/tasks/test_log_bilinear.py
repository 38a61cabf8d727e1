"""The log-bilinear model against its formula."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.text import batchify
from fastnn.errors import OptionError
from fastnn.tasks.log_bilinear import LogBilinear


@pytest.mark.parametrize(("order", "steps"), [(1, 4), (3, 5), (4, 2), (3, 1)])
def test_logits_are_those_of_the_formula(order, steps):
    model = LogBilinear(7, features=3, order=order)
    for p in model.named_parameters().values():
        p.value = np.random.default_rng(p.size).standard_normal(p.shape)
    ids = np.random.default_rng(0).integers(0, 7, (2, steps))
    state = {k: v.astype(np.float64) for k, v in model.state_dict().items()}
    vectors, mixes = state["vectors.weight"], np.split(state["mix.weight"], order, axis=1)
    found = model.predict(ids)
    for b in range(2):
        for t in range(steps):
            r = sum(mixes[i] @ vectors[ids[b, t - i]] for i in range(order) if t >= i)
            want = vectors @ r + state["logits.bias"]
            np.testing.assert_allclose(found[b, t], want, rtol=1e-4, atol=1e-5)


def test_it_learns_a_text_that_five_symbols_determine(rhyme):
    model = LogBilinear(len(rhyme.vocabulary), features=24, order=6)
    x, y = (a.reshape(-1, 32) for a in batchify(rhyme.train, 4, 32))
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(lr=0.02), workers=1, seed=1)
    history = trainer.fit(x, y, epochs=12, batch_size=8, verbose=False)
    assert history["loss"][-1] < 0.3
    ids = rhyme.valid[None, :20]
    np.testing.assert_array_equal(model.with_streams(1).predict(ids), model.predict(ids))


def test_wrong_options():
    with pytest.raises(OptionError, match="order"):
        LogBilinear(5, order=0)
