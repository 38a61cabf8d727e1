"""Descriptions and checkpoints that belong together, and those that don't."""

import json
import re
import shutil

import numpy as np
import pytest

from fastnn import nn, optim
from fastnn.cli import COMMANDS
from fastnn.data.text import Vocabulary
from fastnn.engine.container import head
from fastnn.errors import CheckpointError, DataError
from fastnn.tasks import description
from fastnn.tasks.asr import load_speech_recogniser
from fastnn.tasks.images import load_image_model
from fastnn.tasks.language import (
    LanguageModel,
    load_language_model,
    make_model,
    save_description,
)
from fastnn.tasks.memory import load_memory
from fastnn.tasks.ner import load_tagger
from fastnn.tasks.raw_audio import load_recogniser
from fastnn.tasks.translate import load_translator
from fastnn.tasks.wavenet import load_wavenet
from fastnn.train.trainer import Trainer


def model_of(symbols, **more):
    options = {"embedding": 2, "hidden": 3, "layers": 1, "streams": 1, "dropout": 0.0, **more}
    vocabulary = Vocabulary(symbols)
    model = make_model(vocabulary, "character", transformer=False, heads=1, context=2, **options)
    model.store()
    return model, vocabulary


def written(folder, symbols, **more):
    """Checkpoint and description of a model, and the model."""
    model, vocabulary = model_of(symbols, **more)
    checkpoint = folder / "model.safetensors"
    model.save(checkpoint)
    save_description(model, vocabulary, checkpoint, "character")
    return checkpoint, model


def test_of_another_training(tmp_path):
    """Also where it has as many symbols, and after a training that was killed before it wrote its
    own; under other names and after more training they still belong together."""
    checkpoint, model = written(tmp_path, "abc")
    before = checkpoint.with_suffix(".json").read_text()
    other, _ = model_of("abd")
    other.save(checkpoint)
    with pytest.raises(DataError, match=r"got that of another training .*fastnn train char-lm"):
        load_language_model(checkpoint)
    for p in model.named_parameters().values():
        p.value = np.array(p) + 1.0
    model.save(tmp_path / "moved.safetensors")
    (tmp_path / "moved.json").write_text(before)
    assert list(load_language_model(tmp_path / "moved.safetensors")[1]) == list("abc")


def test_a_model_that_was_loaded_keeps_its_mark(tmp_path):
    checkpoint, _ = written(tmp_path, "abc")
    model = LanguageModel(3, embedding=2, hidden=3, layers=1, streams=1).load(checkpoint)
    model.save(tmp_path / "again.safetensors")
    assert head(tmp_path / "again.safetensors")["description"] == head(checkpoint)["description"]


def test_what_training_alone_takes_may_differ(tmp_path):
    checkpoint, _ = written(tmp_path, "abc")
    path = checkpoint.with_suffix(".json")
    state = json.loads(path.read_text())
    state["options"]["dropout"] = 0.7
    path.write_text(json.dumps(state))
    load_language_model(checkpoint)
    state["options"]["tied"] = True
    path.write_text(json.dumps(state))
    with pytest.raises(DataError, match="got that of another training"):
        load_language_model(checkpoint)


def test_files_of_older_versions(tmp_path):
    """A checkpoint without digests goes with any description of an older version, and with its own
    one only as long as neither changes."""
    vocabulary, checkpoint = Vocabulary("abc"), tmp_path / "model.safetensors"
    model = LanguageModel(3, embedding=2, hidden=3, layers=1, streams=1)
    model.save(checkpoint)
    path = save_description(model, vocabulary, checkpoint, "character")
    load_language_model(checkpoint)
    shutil.copy(path, tmp_path / "kept.json")
    state = json.loads(path.read_text())
    del state["checkpoint"]
    path.write_text(json.dumps(state))
    load_language_model(checkpoint)
    other = LanguageModel(3, embedding=2, hidden=3, layers=1, streams=1)
    other.initialize(seed=1)
    other.save(tmp_path / "kept.safetensors")
    with pytest.raises(DataError, match="got that of another training"):
        load_language_model(tmp_path / "kept.safetensors")


def test_a_description_is_not_written_beside_another_checkpoint(tmp_path):
    checkpoint, _ = written(tmp_path, "abc")
    before = checkpoint.with_suffix(".json").read_text()
    model, vocabulary = model_of("abd")
    with pytest.raises(DataError, match=r"got that of a training with other symbols.*save the mod"):
        save_description(model, vocabulary, checkpoint, "character")
    assert checkpoint.with_suffix(".json").read_text() == before


def test_training_does_not_go_on_with_other_symbols(tmp_path):
    """But it does with other dropout. Symbols come first: another task has another optimizer."""

    def trainer(symbols, lr=0.1, **more):
        model, _ = model_of(symbols, **more)
        return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=lr), workers=1)

    trainer("abc").save(tmp_path / "run.safetensors")
    with pytest.raises(CheckpointError, match="trained with other symbols or features"):
        trainer("abd", lr=0.2).load(tmp_path / "run.safetensors")
    trainer("abc", dropout=0.5).load(tmp_path / "run.safetensors")


def test_digests_are_the_same_after_json():
    state = {"a": (1, 2.5), "options": {"size": np.int64(3), "dropout": 0.1}, "symbols": ["ä", "b"]}
    again = json.loads(json.dumps(state, default=int))
    assert description.digests(again) == description.digests(state)
    assert description.digests({**state, "streams": 9}) == description.digests(state)
    assert description.digests({**state, "symbols": ["b", "ä"]}) != description.digests(state)


LOADERS = {
    "asr": load_speech_recogniser, "ner": load_tagger, "translate": load_translator,
    "language": load_language_model, "recordings": load_recogniser, "images": load_image_model,
    "wavenet": load_wavenet, "memory": load_memory,
}  # fmt: skip
#: what tells a description's kind
SIGNS = {
    "asr": {"task": "asr"}, "ner": {"task": "ner"}, "translate": {"translator": "gru"},
    "language": {"unit": "word"}, "recordings": {"kind": "recordings"}, "images": {"kind": "vae"},
    "wavenet": {"sound": 0}, "memory": {"task": "copy", "net": "ntm"},
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_of_another_task(tmp_path, name):
    """Each loader names the task of any other description, and the command that takes it."""
    folder = tmp_path / "my run"
    folder.mkdir()
    mine = description.KINDS[name]
    assert mine.used.removeprefix("fastnn ") in COMMANDS
    for other, signs in SIGNS.items():
        (folder / "model.json").write_text(json.dumps(signs))
        kind = description.KINDS[other]
        with pytest.raises(DataError) as error:
            LOADERS[name](folder)
        said = str(error.value)
        assert f"expected the description of {mine.what}, as `{mine.trained}` writes" in said
        assert (f"got that of {kind.what}, a model of another task" in said) == (other != name)
        if other != name:
            assert said.endswith(f"use it with `{kind.used} --checkpoint '{folder}'`")


@pytest.mark.parametrize("name", LOADERS)
def test_places_without_a_description(tmp_path, name):
    nowhere, alone = tmp_path / "nowhere", tmp_path / "alone.safetensors"
    alone.write_bytes(b"")
    (tmp_path / "other.json").write_text("{}")
    for place, text in (
        (tmp_path / "other.json", f"got a description; give {tmp_path / 'other.safetensors'}"),
        (nowhere, f"{nowhere}: no such file or folder; expected the checkpoint of"),
        (tmp_path, f"{tmp_path / 'model.json'}: no such file in this folder; expected the desc"),
        (alone, f"{tmp_path / 'alone.json'}: no such file beside the checkpoint; expected the"),
    ):
        with pytest.raises(DataError, match=re.escape(text)):
            LOADERS[name](place)
