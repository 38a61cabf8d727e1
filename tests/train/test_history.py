"""History: what it keeps, its table and its picture."""

import csv
import doctest
import math
import sys

import pytest

from fastnn.train import history as module
from fastnn.train.history import History


@pytest.fixture
def record():
    record = History({"epochs": 3, "batch_size": 32})
    record.append(0, {"loss": 1.0, "accuracy": 0.5})
    record.append(1, {"loss": 0.5, "accuracy": 0.7, "val_loss": 0.6})
    record.append(2, {"loss": 0.25, "accuracy": 0.8})
    return record


def test_is_a_mapping_as_kerass(record):
    assert record.history["loss"] == record["loss"] == [1.0, 0.5, 0.25]
    assert record.epoch == [0, 1, 2]
    assert record.params == {"epochs": 3, "batch_size": 32}
    assert list(record) == ["loss", "accuracy", "val_loss"]
    assert "val_loss" in record
    assert "val_accuracy" not in record
    assert len(record) == 3


def test_missing_values_are_nan(record):
    before, value, after = record["val_loss"]
    assert math.isnan(before)
    assert value == 0.6
    assert math.isnan(after)


def test_unknown_name_lists_what_is_there(record):
    with pytest.raises(KeyError, match="no 'f1'; it has loss, accuracy, val_loss"):
        record["f1"]


def test_repr_says_how_it_ended(record):
    assert repr(History()) == "History(0 epochs)"
    record.stopped = "interrupted"
    assert repr(record) == "History(3 epochs, interrupted: loss 0.25, accuracy 0.8, val_loss nan)"


def test_csv(record, tmp_path):
    record.to_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["epoch", "loss", "accuracy", "val_loss"],
        ["0", "1.0", "0.5", ""],
        ["1", "0.5", "0.7", "0.6"],
        ["2", "0.25", "0.8", ""],
    ]


def test_plot(record, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figure = record.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [ax.get_title() for ax in figure.axes] == ["loss", "accuracy"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}
    assert lines == {"training": [[1, 1.0], [2, 0.5], [3, 0.25]], "validation": [[2, 0.6]]}


def test_plot_without_matplotlib_says_what_to_install(record, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib$"):
        record.plot()


def test_plot_of_nothing():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with pytest.raises(ValueError, match="no epoch has ended"):
        History().plot()


def test_examples():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
