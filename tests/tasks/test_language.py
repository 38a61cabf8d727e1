"""Language models over characters and words, and what they write."""

import math

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data import load_shakespeare
from fastnn.data.text import batchify
from fastnn.errors import DataError, OptionError
from fastnn.tasks import char_lm, word_lm
from fastnn.tasks.language import (
    LanguageModel,
    load_language_model,
    mean_loss,
    save_description,
    train_language_model,
)
from fastnn.tasks.sampling import sample, write_text
from tests.tasks.foreign import another_order, refused

SMALL = {"embedding": 8, "hidden": 24, "layers": 1, "dropout": 0.0, "workers": 1, "verbose": False}


@pytest.fixture(scope="module")
def trained(rhyme):
    """A model that knows the rhyme, with history and bits per character."""
    trainer, history, bits = char_lm.train_char_lm(
        rhyme, **SMALL, batch_size=8, steps=12, epochs=6, lr=0.02
    )
    return trainer, history, bits


def test_it_learns_a_rhyme(trained):
    _, history, bits = trained
    assert bits < 0.4
    assert history["val_bits"][-1] == pytest.approx(history["val_loss"][-1] / math.log(2))
    assert history["val_bits"][-1] == pytest.approx(bits, abs=0.1)


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_mean_loss_is_that_of_one_pass_over_the_text(trained, rhyme):
    model = trained[0].model.with_streams(1)
    ids = rhyme.valid[:101]
    logits = log_probabilities(model.predict(ids[None, :-1])[0])
    wanted = -logits[np.arange(100), ids[1:]].mean()
    model.lstm.reset_state()
    assert mean_loss(model, ids, steps=7, workers=1) == pytest.approx(wanted, rel=1e-5)


def test_states_begin_anew_with_each_epoch_and_validation(rhyme):
    """Two epochs of one run are those of two runs."""
    ids = rhyme.train[:401]
    x, y = (a.reshape(-1, 10) for a in batchify(ids, 4, 10))

    def trainer():
        model = LanguageModel(len(rhyme.vocabulary), embedding=4, hidden=6, layers=1, streams=4)
        return fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1), workers=1)

    def fit(trainer, epochs, **more):
        trainer.fit(
            x, y, epochs=epochs, batch_size=4, shuffle=False, verbose=False,
            callbacks=[fnn.callbacks.ResetStates()], **more,
        )  # fmt: skip
        return trainer

    one = fit(trainer(), 2, validation=(x[:8], y[:8]))
    two = trainer()
    for _ in range(2):
        two.model.lstm.state_h_l0.value = np.ones((4, 6))
        fit(two, 1)
    for name, p in one.model.named_parameters().items():
        np.testing.assert_array_equal(p.value, two.model.named_parameters()[name].value)
    assert not one.model.lstm.state_h_l0.value.any()
    assert two.model.lstm.state_h_l0.value.any()


def test_sampling_carries_the_state(trained, rhyme):
    model = trained[0].model.with_streams(1)
    text = write_text(model, rhyme.vocabulary, 60, prime="one two thr", temperature=0.0)
    assert text.startswith("one two three four five\none two three")
    assert len(text) == 11 + 60


def test_samples_follow_from_the_seed(trained, rhyme):
    model = trained[0].model.with_streams(1)
    prime = rhyme.vocabulary.encode("one ")
    texts = [sample(model, prime, 40, temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(0 <= k < len(rhyme.vocabulary) for k in texts[2])


def test_samples_have_the_models_distribution(rhyme):
    model = LanguageModel(3, embedding=2, hidden=2, layers=1, streams=1)
    model.store()
    model.logits.weight.value = np.zeros((3, 2))
    model.logits.bias.value = np.log([0.5, 0.3, 0.2])
    drawn = sample(model, [0], 1500)
    np.testing.assert_allclose(np.bincount(drawn) / 1500, [0.5, 0.3, 0.2], atol=0.05)


@pytest.mark.parametrize(
    ("prime", "options", "message"),
    [
        ([], {}, "at least one symbol"),
        ([0], {"temperature": -1.0}, "temperature"),
        ([0], {"temperature": float("nan")}, "temperature"),
    ],
)
def test_mistakes_in_sampling(trained, prime, options, message):
    with pytest.raises(OptionError, match=message):
        sample(trained[0].model.with_streams(1), prime, 3, **options)
    with pytest.raises(OptionError, match="one stream"):
        sample(trained[0].model, [0], 3)


def test_a_checkpoint_and_its_description_make_the_model_again(trained, rhyme, tmp_path):
    trainer = trained[0]
    checkpoint = tmp_path / "model.safetensors"
    trainer.save(checkpoint)
    with pytest.raises(DataError, match="no such file"):
        load_language_model(tmp_path)
    description = save_description(trainer.model, rhyme.vocabulary, checkpoint, "character")
    model, vocabulary, unit = load_language_model(tmp_path)
    assert (vocabulary, unit) == (rhyme.vocabulary, "character")
    wanted = write_text(trainer.model.with_streams(1), vocabulary, 50, seed=4)
    assert write_text(model, vocabulary, 50, seed=4) == wanted
    refused(load_language_model, tmp_path, another_order("symbols"))
    description.write_text("{}")
    with pytest.raises(DataError, match="expected the description of a language model"):
        load_language_model(checkpoint)


def test_words(few_words):
    trainer, history, (valid, test) = word_lm.train_word_lm(
        few_words, **SMALL, batch_size=5, steps=10, epochs=4, lr=0.02
    )
    assert 1.0 < valid < 1.5  # one of two words in one of six places: 2 ** (1/6)
    assert 1.0 < test < 1.5
    assert history["val_perplexity"][-1] == pytest.approx(math.exp(history["val_loss"][-1]))
    text = write_text(
        trainer.model.with_streams(1), few_words.vocabulary, 12, unit="word", prime="the cat"
    )
    assert text.splitlines()[0] == "the cat sees the bird"


@pytest.mark.parametrize("hidden", [8, 12])
def test_a_tied_model_with_all_kinds_of_dropout_comes_back(few_words, tmp_path, hidden):
    options = {"tied": True, "variational": True, "weight_drop": 0.1, "word_dropout": 0.05}
    trainer, _, (valid, _) = word_lm.train_word_lm(
        few_words, **SMALL | {"hidden": hidden, "layers": 2, "dropout": 0.1}, **options,
        batch_size=5, steps=10, epochs=3, lr=0.02, precision="bf16",
    )  # fmt: skip
    assert 1.0 < valid < 3.0
    model = trainer.model
    assert model.logits.weight is model.vectors.weight
    assert (model.narrow is None) == (hidden == 8)
    trainer.save(tmp_path / "model.safetensors")
    save_description(model, few_words.vocabulary, tmp_path / "model.safetensors", "word")
    again, _, _ = load_language_model(tmp_path)
    assert again.logits.weight is again.vectors.weight
    ids = few_words.valid[None, :6]
    np.testing.assert_array_equal(again.predict(ids), model.with_streams(1).predict(ids))


@pytest.mark.parametrize("tied", [False, True])
def test_training_on_a_sample_of_words(few_words, tmp_path, tied):
    """It learns; what is measured takes all words, and the model is one without a sample."""
    trainer, history, (valid, _) = word_lm.train_word_lm(
        few_words, **SMALL, tied=tied, sampled=4, batch_size=5, steps=10, epochs=4, lr=0.02
    )
    assert 1.0 < valid < 1.5
    model = trainer.model
    assert model.softmax.weight is model.logits.weight
    x, y = (a.reshape(-1, 10) for a in batchify(few_words.valid, 5, 10))
    first = LanguageModel(
        model.symbols, **{**model.options, "sampled": 0}, streams=len(x)
    )  # as if each row were a text of its own
    for name, value in first.named_parameters().items():
        value.value = np.array(model.named_parameters()[name])
    losses = -np.take_along_axis(log_probabilities(first.predict(x)), y[..., None], axis=-1)
    again = model.with_streams(len(x))
    np.testing.assert_allclose(again.predict(x, y), losses[..., 0], rtol=1e-4, atol=1e-6)
    assert history["val_perplexity"][-1] == pytest.approx(valid, rel=0.1)
    trainer.save(tmp_path / "model.safetensors")
    save_description(model, few_words.vocabulary, tmp_path / "model.safetensors", "word")
    loaded, _, _ = load_language_model(tmp_path)
    assert loaded.softmax.bias is loaded.logits.bias
    refused(load_language_model, tmp_path, another_order("symbols"))
    ids = few_words.valid[None, :6]
    np.testing.assert_array_equal(loaded.predict(ids), model.with_streams(1).predict(ids))


def test_public_text(real_data):
    text = load_shakespeare()
    ids = text.train[:20001]
    model = LanguageModel(len(text.vocabulary), embedding=16, hidden=32, layers=1, streams=8)
    before = mean_loss(model, ids[:2001], 16, 1)
    train_language_model(
        model, ids, text.valid[:2001], steps=16, epochs=1, lr=0.01, workers=1, verbose=False
    )
    assert mean_loss(model, ids[:2001], 16, 1) < before - 0.8


def test_the_last_epochs_take_all_words(few_words, tmp_path):
    """As a run that was broken off before them, and went on, does."""
    options = SMALL | {
        "hidden": 8, "tied": True, "sampled": 3, "augmented": 0.02, "full_softmax": 1,
        "batch_size": 5, "steps": 10, "epochs": 3,
    }  # fmt: skip
    sampled = []  # in which epochs

    def note(epoch, logs):
        sampled.append(not model().softmax.full)

    def stop(epoch, logs):
        broken.trainer.stop_training = epoch == 1

    def model():
        return seen.trainer.model

    seen, broken = (fnn.callbacks.LambdaCallback(on_epoch_end=f) for f in (note, stop))
    whole, _, _ = word_lm.train_word_lm(few_words, **options, callbacks=[seen])
    assert sampled == [True, True, False]
    first, history, _ = word_lm.train_word_lm(few_words, **options, callbacks=[broken])
    assert len(history.epoch) == 2
    first.save(tmp_path / "model.safetensors")
    again, _, _ = word_lm.train_word_lm(
        few_words, **options, resume=tmp_path / "model.safetensors"
    )  # fmt: skip
    for name, value in whole.get_parameters().items():
        np.testing.assert_array_equal(value, again.get_parameters()[name])
        if not name.startswith("lstm.state"):
            assert not np.array_equal(value, first.get_parameters()[name])
    plain, _, _ = word_lm.train_word_lm(few_words, **options | {"full_softmax": 0})
    assert not np.array_equal(plain.model.logits.weight.value, whole.model.logits.weight.value)


def test_options_that_need_others_are_refused(few_words):
    for wrong in ({"full_softmax": 1}, {"full_softmax": 5, "sampled": 3}):
        with pytest.raises(
            OptionError, match=r"full_softmax: expected at most the 4 epochs, and s"
        ):
            word_lm.train_word_lm(few_words, **wrong)
    for wrong in ({"sampled": 3}, {"tied": True}, {}):
        with pytest.raises(OptionError, match="augmented compares the vectors of drawn symbols"):
            LanguageModel(5, augmented=0.1, **wrong)
