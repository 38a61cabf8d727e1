"""Checkpoints: whole files, exact resumption, refusal of what does not fit."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fastnn import nn
from fastnn.engine import container
from fastnn.errors import CheckpointError
from fastnn.nn.saving import read_model
from tests.train.checkpoints import X, assert_same, fit, make_model, make_trainer, rewritten

# -------------------------------------------------------------------- models


def test_model_comes_back(tmp_path):
    model = make_model()
    model.initialize(3)
    path = tmp_path / "deep" / "er" / "model.safetensors"
    model.save(path)
    assert_same(make_model().load(path).state_dict(), model.state_dict())


def test_a_models_file_has_the_names_of_its_state_dict(tmp_path):
    class Outer(nn.Module):
        def __init__(self):
            self.model = nn.Linear(3, 2)  # as older files call everything
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.model(x))

    outer, path = Outer(), tmp_path / "outer.safetensors"
    outer.save(path)
    assert_same(load_file(path), outer.state_dict())
    assert "model.weight" in load_file(path)
    assert_same(Outer().load(path).state_dict(), outer.state_dict())
    part = nn.Linear(3, 2).load(path, prefix="model.")
    assert_same(part.state_dict(), outer.model.state_dict())
    assert_same(read_model(path), outer.state_dict())


def test_equal_trainings_write_equal_files(tmp_path):
    """To the byte, also with text that JSON writes in its own way."""
    for name in "ab":
        trainer = make_trainer()
        fit(trainer, 2)
        trainer.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    arrays, texts = {"é\t": np.arange(3.0)}, {f"{k}é\u007f\n": "\\\u0001ü" for k in range(9)}
    for name in "cd":
        container.write(tmp_path / name, arrays, texts)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()
    again, found = container.read(tmp_path / "c")
    assert_same(again, arrays)
    assert texts.items() <= found.items()


@pytest.mark.parametrize("how", ["load", "prefix", "loose"])
def test_a_models_file_of_an_older_version_can_be_read(how, tmp_path):
    """Names with `model.` in front, and nothing said of it."""
    model, path = make_model(), tmp_path / "old.safetensors"
    arrays = {f"model.{n}": np.array(a, order="C") for n, a in model.state_dict().items()}
    container.write(path, arrays, {"kind": "model", "dtype": "float32", "streams": {}})
    if how == "prefix":
        part = nn.Linear(6, 9).load(path, prefix="0.")
        assert_same(part.state_dict(), model[0].state_dict())
    else:
        assert_same(make_model().load(path, strict=how == "load").state_dict(), model.state_dict())


@pytest.mark.parametrize("text", ["3", '"model"', "null", "[]"])
def test_a_prefix_that_is_none(text, tmp_path):
    path = tmp_path / "model.safetensors"
    make_model().save(path)
    rewritten(path, prefix=text)
    with pytest.raises(CheckpointError, match=r"prefix: expected '' or 'model\.'"):
        make_model().load(path)


def test_arrays_in_the_file_have_pytorchs_names_shapes_and_order(tmp_path):
    trainer = make_trainer()
    fit(trainer, 1)
    trainer.save(tmp_path / "run.safetensors")
    arrays = load_file(tmp_path / "run.safetensors")
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(arrays[f"model.{name}"], value)
    assert arrays["model.0.weight"].shape == (9, 6)
    assert arrays["optimizer.exp_avg.0.weight"].shape == (9, 6)
    parameter = trainer.model.named_parameters()["0.weight"]
    flat = trainer.session.memory["slots/exp_avg"]
    np.testing.assert_array_equal(
        arrays["optimizer.exp_avg.0.weight"], trainer.store.view(flat, parameter).T
    )


def test_model_reads_a_trainers_checkpoint(tmp_path):
    trainer = make_trainer()
    fit(trainer, 1)
    trainer.save(tmp_path / "run.safetensors")
    model = make_model().load(tmp_path / "run.safetensors")
    assert_same(model.state_dict(), trainer.model.state_dict())
    np.testing.assert_array_equal(model.predict(X), trainer.predict(X))


def test_new_model_takes_the_files_dtype(tmp_path):
    model = make_model()
    model.store("float64")
    model.save(tmp_path / "m.safetensors")
    again = make_model().load(tmp_path / "m.safetensors")
    assert again.store().dtype == "float64"
    assert_same(again.state_dict(), model.state_dict())
    single = make_model()
    single.store("float32")
    with pytest.raises(CheckpointError, match="holds float64, the model is in float32"):
        single.load(tmp_path / "m.safetensors")
