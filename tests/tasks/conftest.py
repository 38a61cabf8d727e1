"""Small data of the kind that each task is made for."""

import os

import numpy as np
import pytest

from fastnn.data.ptb import Words
from fastnn.data.shakespeare import Characters
from fastnn.data.spoken_digits import RATE, SpokenDigits
from fastnn.data.text import Vocabulary
from fastnn.runtime.cpu import ahead, runtime


@pytest.fixture(autouse=True)
def _warmed_up(monkeypatch):
    """Whatever a task runs is among what `fastnn warmup` compiles."""
    ensure = runtime.compile_missing

    def checked(program, memory):
        common = ahead.common_variants((program.dtype,))
        assert set(ahead.variants(program, memory)) <= set(common)
        ensure(program, memory)

    monkeypatch.setattr(runtime, "compile_missing", checked)


@pytest.fixture
def real_data():
    """Skips where the public sets are not on this machine."""
    if not os.environ.get("FASTNN_DATA"):
        pytest.skip("FASTNN_DATA is not set: the task's data are not on this machine")


@pytest.fixture(scope="session")
def tones():
    """'Digits' that are tones of ten pitches, of different lengths, by two 'speakers'."""
    rng = np.random.default_rng(0)
    waveforms, labels, indices = [], [], []
    for index in range(12):
        for digit in range(10):
            time = np.arange(rng.integers(1200, 3200)) / RATE
            wave = 0.3 * np.sin(2 * np.pi * (300 + 250 * digit) * time)
            waveforms.append((wave + 0.01 * rng.normal(size=len(time))).astype(np.float32))
            labels.append(digit)
            indices.append(index)
    speakers = np.where(np.arange(len(labels)) % 2, "lucas", "george")
    return SpokenDigits(waveforms, np.array(labels), speakers, np.array(indices))


@pytest.fixture(scope="session")
def rhyme():
    """A text that repeats itself."""
    text = "one two three four five\n" * 240
    vocabulary = Vocabulary(sorted(set(text)))
    ids = vocabulary.encode(text)
    return Characters(text, vocabulary, ids[:4800], ids[4800:])


@pytest.fixture(scope="session")
def few_words():
    """Sentences of few words, some followed by two others."""
    rng = np.random.default_rng(1)
    text = []
    for _ in range(600):
        text += ["the", rng.choice(["cat", "dog"]), "sees", "the", "bird", "<eos>"]
    vocabulary = Vocabulary.build([*text, "<unk>"], unknown="<unk>")
    ids = vocabulary.encode(text)
    return Words(vocabulary, ids[:2400], ids[2400:3000], ids[3000:])
