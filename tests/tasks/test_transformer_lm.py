"""A Transformer as a language model: cached keys, windows, checkpoints."""

import math

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.tasks import char_lm
from fastnn.tasks.language import load_language_model, mean_loss, save_description
from fastnn.tasks.sampling import write_text
from fastnn.tasks.transformer_lm import TransformerModel
from tests.tasks.foreign import refused


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def model_of(context, streams=1):
    model = TransformerModel(
        7, hidden=8, heads=2, layers=2, dropout=0.0, context=context, streams=streams
    )
    for name, p in model.named_parameters().items():
        p.value = np.random.default_rng(len(name)).standard_normal(p.shape) * 0.5
    return model


def test_a_step_with_kept_keys_is_a_row_of_the_whole():
    """And when the context is full, that of the text from its last half on."""
    model, ids = model_of(6), np.random.default_rng(0).integers(0, 7, 11)
    reader = model.reader()
    found = np.array([reader.feed(int(k)) for k in ids])
    np.testing.assert_allclose(found[:6], model.predict(ids[None, :6])[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found[6:9], model.predict(ids[None, 3:9])[0, 3:], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found[9:], model.predict(ids[None, 6:11])[0, 3:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("context", [2, 5, 6])
@pytest.mark.parametrize("size", [2, 6, 7, 8, 20])
def test_each_symbol_counts_once_with_half_a_context_before_it(context, size):
    model, ids = model_of(context, streams=3), np.random.default_rng(1).integers(0, 7, size)
    half, losses = context // 2, []
    for k in range(1, size):  # the window whose second half has the target
        begin = max(0, -(-(k - context) // half)) * half
        logits = log_probabilities(model.predict(ids[None, begin:k])[0])
        losses.append(-logits[-1, ids[k]])
    assert mean_loss(model, ids, workers=1) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.fixture(scope="module")
def trained(rhyme):
    return char_lm.train_char_lm(
        rhyme, transformer=True, heads=2, hidden=32, layers=2, dropout=0.0, tied=True, batch_size=8,
        steps=16, epochs=6, lr=0.005, workers=1, verbose=False,
    )  # fmt: skip


def test_it_learns_a_rhyme_and_writes_it(trained, rhyme):
    trainer, history, bits = trained
    assert bits < 0.3
    assert history["val_bits"][-1] == pytest.approx(history["val_loss"][-1] / math.log(2))
    model = trainer.model.with_streams(1)
    text = write_text(model, rhyme.vocabulary, 40, prime="one two thr", temperature=0.0)
    assert text.startswith("one two three four five\none two three")


def test_a_checkpoint_and_its_description_make_it_again(trained, rhyme, tmp_path):
    trainer = trained[0]
    trainer.save(tmp_path / "model.safetensors")
    save_description(trainer.model, rhyme.vocabulary, tmp_path / "model.safetensors", "character")
    model, vocabulary, _ = load_language_model(tmp_path)
    assert isinstance(model, TransformerModel)
    assert model.logits.weight is model.vectors.weight
    refused(load_language_model, tmp_path, lambda state: state["options"].update(heads=4))
    wanted = write_text(trainer.model.with_streams(1), vocabulary, 30, seed=4)
    assert write_text(model, vocabulary, 30, seed=4) == wanted


def test_options_of_an_lstm_are_refused(rhyme):
    with pytest.raises(OptionError, match="weight_drop: expected with an LSTM only"):
        char_lm.train_char_lm(rhyme, transformer=True, weight_drop=0.1)
    with pytest.raises(OptionError, match="context of 2 or more"):
        TransformerModel(5, context=1)
