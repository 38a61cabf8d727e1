"""Translation: a toy language whose words are the source's, in reverse order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.data.multi30k import Sentences
from fastnn.errors import DataError, OptionError
from fastnn.tasks import translate
from tests.tasks.foreign import another_order, refused

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier"}


def sentences(count: int, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    source = [list(rng.choice(list(WORDS), rng.integers(1, 4))) for _ in range(count)]
    return (
        [" ".join(words) for words in source],
        [" ".join(WORDS[w] for w in reversed(words)) for words in source],
    )


@pytest.fixture(scope="module")
def toy() -> Sentences:
    return Sentences("en", "xx", sentences(256, 0), sentences(16, 1), sentences(16, 2))


@pytest.mark.parametrize("model", ["gru", "transformer"])
def test_a_toy_language_is_learnt(toy: Sentences, model: str, tmp_path: Any) -> None:
    _, history, translator, scores = translate.train_translator(
        toy, model=model, size=16, layers=1, merges=60, dropout=0.0, batch_size=32, smoothing=0.0,
        epochs=40 if model == "gru" else 60, lr=1e-2, width=2, verbose=False,
    )  # fmt: skip
    assert history["val_loss"][-1] < 0.2 * history["val_loss"][0]
    found = translator(toy.test[0], width=2)
    assert sum(a.text == b for a, b in zip(found, toy.test[1], strict=True)) >= 12
    assert scores["test"] >= 0.0

    translator.model.save(tmp_path / "model.safetensors")
    translate.save_description(translator, toy, tmp_path / "model.safetensors")
    again = translate.load_translator(tmp_path)
    assert again(toy.test[0], width=2) == found
    refused(translate.load_translator, tmp_path, another_order("symbols"))
    refused(translate.load_translator, tmp_path, another_order("merges"))
    if model == "gru":
        weights = again.alignment(found[0])
        assert weights.shape == (len(found[0].target) + 1, len(found[0].source))
        np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
        with pytest.raises(DataError, match="a sentence with words, got an empty one"):
            again.alignment(again([""])[0])
    else:
        with pytest.raises(OptionError, match="expected a recurrent model"):
            again.alignment(found[0])
    assert again(["", "one"])[0].text == ""
    with pytest.raises(DataError, match="expected a list of sentences"):
        again("one two")


def test_bad_descriptions(tmp_path: Any) -> None:
    with pytest.raises(DataError, match="no such file"):
        translate.load_translator(tmp_path)
    (tmp_path / "model.json").write_text('{"symbols": ["a"], "merges": []}')
    with pytest.raises(DataError, match="start, stop and unknown first"):
        translate.load_translator(tmp_path)


def test_other_models_are_refused(toy: Sentences) -> None:
    with pytest.raises(OptionError, match="expected one of gru, transformer, got 'cnn'"):
        translate.train_translator(toy, model="cnn", merges=3)


def test_without_attention(toy: Sentences, tmp_path: Any) -> None:
    """A decoder that does not look back has no alignment, and comes back without one."""
    _, _, translator, _ = translate.train_translator(
        toy, attention=False, size=8, merges=20, epochs=1, width=1, verbose=False
    )
    assert "attention" not in {name.split(".")[1] for name in translator.model.state_dict()}
    translator.model.save(tmp_path / "model.safetensors")
    translate.save_description(translator, toy, tmp_path / "model.safetensors")
    again = translate.load_translator(tmp_path)
    found = again(toy.test[0], width=2)
    assert found == translator(toy.test[0], width=2)
    with pytest.raises(OptionError, match="got RecurrentTranslator without attention"):
        again.alignment(found[0])
