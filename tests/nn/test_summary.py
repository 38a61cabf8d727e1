"""The table of layers, shapes and parameters."""

import pytest

from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.nn.summary import summarize


def rows(text):
    """layer -> (type, output shape, parameters)"""
    found = {}
    for line in text.split("\n\n")[0].splitlines()[2:]:
        layer, kind, *rest = line.split(maxsplit=2)
        shape, _, count = (rest[0] if rest else "").rpartition(")")
        found[layer] = (kind, f"{shape})" if shape else "", count.strip())
    return found


class Residual(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(6, 6)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return x + ops.relu(self.fc(x))


def test_layers_shapes_and_counts():
    model = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm(6),
        Residual(),
        nn.Dropout(0.5),
        nn.Reshape(2, 3),
        nn.Flatten(),
    )
    assert rows(summarize(model)) == {
        "Sequential": ("Sequential", "(batch, 6)", ""),
        "0": ("Linear", "(batch, 6)", "30"),
        "1": ("BatchNorm", "(batch, 6)", "24"),
        "2": ("Residual", "(batch, 6)", ""),
        "2.fc": ("Linear", "(batch, 6)", "42"),
        "2.unused": ("Linear", "", "6"),
        "3": ("Dropout", "(batch, 6)", "0"),
        "4": ("Reshape", "(batch, 2, 3)", "0"),
        "5": ("Flatten", "(batch, 6)", "0"),
    }
    assert "parameters: 102 (408 bytes in float32)" in summarize(model)
    assert "trained: 90" in summarize(model)
    assert "buffers: 12" in summarize(model)


def test_nothing_is_computed_or_left_behind():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    summarize(model)
    assert not any(p.initialized or p.offset is not None for p in model.parameters())
    assert "forward" not in model[0].__dict__
    with pytest.raises(ShapeError):
        summarize(model, (5,))
    assert "forward" not in model[0].__dict__


def test_input_shape_and_ids():
    model = nn.Sequential(nn.Embedding(1000, 8), nn.Flatten(), nn.Linear(40, 2))
    with pytest.raises(OptionError, match=r"input_shape=\(length,\), dtype='int64'"):
        summarize(model)
    found = rows(summarize(model, (5,), "int64"))
    assert found["0"] == ("Embedding", "(batch, 5, 8)", "8,000")
    assert found["2"] == ("Linear", "(batch, 2)", "82")
    with pytest.raises(OptionError, match="input_shape"):
        summarize(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    assert rows(summarize(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (2, 2)))["0"][1] == (
        "(batch, 4)"
    )
    with pytest.raises(OptionError, match="dtype"):
        summarize(model, (5,), "int8")


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            self.join = nn.Concatenate()

        def forward(self, a, b):
            return self.join(a, b), ops.mean(a)

    found = rows(summarize(Two(), [(3,), (2,)]))
    assert found["join"] == ("Concatenate", "(batch, 5)", "0")
    assert found["Two"][1].startswith("(batch, 5), (")


def test_shared_layer_counts_once():
    layer = nn.Linear(3, 3)
    text = summarize(nn.Sequential(layer, nn.Tanh(), layer))
    assert "trained: 12" in text


def test_model_prints_it_once(capsys):
    model = nn.Sequential(nn.Linear(4, 3))
    assert model.summary() is None  # so that neither `print` nor the prompt shows it again
    assert capsys.readouterr().out == summarize(model) + "\n"


def test_text_may_go_elsewhere(capsys):
    texts: list[str] = []
    nn.Linear(4, 3).summary(print_fn=texts.append)
    assert texts == [summarize(nn.Linear(4, 3))]
    assert capsys.readouterr().out == ""


def test_several_inputs_of_different_kinds():
    class Both(nn.Module):
        def __init__(self):
            self.words, self.rest = nn.Embedding(9, 4), nn.Linear(3, 4)

        def forward(self, ids, x):
            return self.words(ids) + self.rest(x)

    found = rows(summarize(Both(), [(), (3,)], ["int64", "float32"]))
    assert found["Both"][1] == "(batch, 4)"
    with pytest.raises(OptionError, match="one for each of 2 inputs, got 1"):
        summarize(Both(), [(), (3,)], ["int64"])


def test_frozen_and_stateful_layers():
    model = nn.Sequential(nn.GRU(4, 6, stateful=2), nn.Linear(6, 3)).freeze("1")
    found = rows(summarize(model, (5, 4)))
    assert found["1"][1] == "(batch, 5, 3)"
    assert "frozen: 21" in summarize(model, (5, 4))
