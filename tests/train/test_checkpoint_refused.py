"""Checkpoints that are refused: damaged, of something else, not whole."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastnn import nn, optim
from fastnn.engine import container
from fastnn.errors import CheckpointError
from fastnn.optim import schedules
from fastnn.train.trainer import Trainer
from tests.train.checkpoints import (
    StopAfter,
    assert_same,
    fit,
    make_model,
    make_optimizer,
    make_trainer,
    rewritten,
    state,
)

# -------------------------------------------------------------------- what is refused


@pytest.fixture
def saved(tmp_path):
    trainer = make_trainer()
    fit(trainer, 1)
    trainer.save(tmp_path / "run.safetensors")
    return tmp_path / "run.safetensors"


def refused(trainer, path, *parts):
    """Loading fails with a message that says all of this, and changes nothing."""
    before = state(trainer)
    with pytest.raises(CheckpointError) as caught:
        trainer.load(path)
    assert_same(state(trainer), before)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_missing_file(tmp_path):
    refused(make_trainer(), tmp_path / "none.safetensors", "no such file")


def test_arrays_of_another_version_of_the_optimizer(saved):
    """The remedy is about the optimiser, not about the model's layers; parameters can be read."""
    names = [n for n in load_file(saved) if n.startswith("optimizer.exp_avg_sq.")]
    rewritten(saved, dict.fromkeys(names))
    refused(make_trainer(), saved, "lacks 'exp_avg_sq', which Adam keeps", "model.load(path)")
    make_model().load(saved)
    rewritten(saved, {"optimizer.old.0.bias": np.zeros(9, np.float32)})
    refused(make_trainer(), saved, "it has 'old', which Adam does not keep")


def test_something_else(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("epoch,loss\n0,1.0\n" * 100)
    refused(make_trainer(), path, "not a whole safetensors file")
    path.write_bytes(b"")
    refused(make_trainer(), path, "not a whole safetensors file")


def test_other_safetensors_file(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    refused(make_trainer(), path, "fastnn did not write")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    refused(make_trainer(), saved, "not a whole safetensors file")


@pytest.mark.parametrize("place", ["data", "metadata"])
def test_tampered_file(saved, place):
    content = bytearray(saved.read_bytes())
    if place == "data":
        content[-7] ^= 1
    else:
        assert content.count(b'"step":"6"') == 1
        content[:] = content.replace(b'"step":"6"', b'"step":"7"')
    saved.write_bytes(content)
    refused(make_trainer(), saved, "checksum")
    with pytest.raises(CheckpointError, match="checksum"):
        make_model().load(saved)


@pytest.mark.parametrize(
    ("old", "new"), [(b"[2,3]", b"[3,2]"), (b'"F32"', b'"I32"'), (b'"first"', b'"forst"')]
)
def test_the_checksum_covers_names_types_and_shapes(old, new, tmp_path):
    """The bytes of the arrays are the same."""
    path = tmp_path / "file"
    container.write(path, {"first": np.ones((2, 3), np.float32)}, {"kind": "model"})
    assert container.read(path)[0]["first"].shape == (2, 3)
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(CheckpointError, match="don't match its checksum"):
        container.read(path)


def test_other_layers(saved):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm(8), nn.ReLU(), nn.PReLU(), nn.Linear(8, 3))
    model.store()
    before = model.state_dict()
    with pytest.raises(CheckpointError) as caught:
        model.load(saved)
    assert_same(model.state_dict(), before)
    message = str(caught.value)
    assert "missing 'model.3.weight'" in message
    assert "'model.0.weight': expected shape (8, 6), got (9, 6)" in message
    trainer = Trainer(model, "cross_entropy", make_optimizer(), metrics=["accuracy"])
    refused(trainer, saved, "missing 'model.3.weight'")
    with pytest.raises(CheckpointError, match=r"unexpected 'model\.4\.bias'"):
        nn.Sequential(nn.Linear(6, 9), nn.BatchNorm(9)).load(saved)


@pytest.mark.parametrize(
    ("optimizer", "parts"),
    [
        (optim.SGD(lr=0.02), ["written with Adam", "has SGD"]),
        (make_optimizer(lr=0.03), ["lr: expected 0.03, got 0.02"]),
        (make_optimizer(clip_global_norm=None), ["clip_global_norm: expected None, got 1.0"]),
        (make_optimizer(groups=None), ["groups: expected {}"]),
        (make_optimizer(schedule=None), ["schedule: expected None"]),
        (make_optimizer(schedule=schedules.LinearWarmup(5)), ["schedule: expected"]),
    ],
)
def test_other_optimizer(saved, optimizer, parts):
    refused(make_trainer(optimizer=optimizer), saved, *parts, "model.load")


def test_other_dtype(saved):
    refused(make_trainer(dtype="float64"), saved, "float32", "float64")


def test_model_file_does_not_resume(tmp_path):
    make_model().save(tmp_path / "m.safetensors")
    refused(make_trainer(), tmp_path / "m.safetensors", "without a trainer's state")


def test_other_metrics_in_the_middle_of_an_epoch(tmp_path):
    first = make_trainer()
    fit(first, 1, [StopAfter(0, 2)])
    first.save(tmp_path / "run.safetensors")
    refused(make_trainer(metrics=[]), tmp_path / "run.safetensors", "same metrics")


def test_newer_format(saved):
    from safetensors import safe_open

    with safe_open(saved, framework="numpy") as file:
        metadata = {**file.metadata(), "format_version": "2"}
    save_file(load_file(saved), saved, metadata)
    refused(make_trainer(), saved, "format version 1, got 2")


def test_metadata_say_what_the_file_is(saved):
    from safetensors import safe_open

    with safe_open(saved, framework="numpy") as file:
        texts = file.metadata()
    metadata = {k: v if k == "checksum" else json.loads(v) for k, v in texts.items()}
    assert metadata["kind"] == "trainer"
    assert (metadata["step"], metadata["epoch"], metadata["cursor"]) == (6, 1, 0)
    assert (metadata["seed"], metadata["dtype"]) == (7, "float32")
    assert metadata["optimizer"]["options"]["lr"] == 0.02
    assert len(metadata["checksum"]) == 64


# -------------------------------------------------------------------- writing


def test_failure_keeps_the_old_file(saved, monkeypatch):
    old = saved.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        make_trainer().save(saved)
    assert saved.read_bytes() == old
    assert list(saved.parent.iterdir()) == [saved]


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        make_model().save(tmp_path / "file" / "m.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        make_model().save(tmp_path / "folder")


SAVE_FOREVER = """
import sys
import numpy as np
from fastnn import nn
model = nn.Linear(300, 200)
for k in range(10**6):
    model.weight = np.full((200, 300), float(k))
    model.save(sys.argv[1])
    print(k, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_saving_the_file_is_whole(tmp_path):
    path = tmp_path / "m.safetensors"
    for delay in (0.0, 0.003, 0.011, 0.017):
        with subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"0\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        weight = nn.Linear(300, 200).load(path).weight.value
        assert (weight == weight[0, 0]).all()


WRONG = {
    "kind": [None, "7", '"other"'],
    "dtype": [None, "7", '"float16"', "null"],
    "step": [None, "-1", "true", "1.0", "1e999", "9007199254740992", '"6"', "[6]", "NaN"],
    "epoch": [None, "-1", "null", "{}", "99999999999999999999999"],
    "cursor": [None, "-16", "8.0", "false", "[]", "8"],
    "seed": [None, "-1", "9223372036854775808", '"7"'],
    "rate_factor": [None, "NaN", "Infinity", "-1", '"1"', "true", "9" * 400, "9" * 5000],
    "names": [None, "3", "[3]", '"loss"'],
    "optimizer": [None, "null", "[]", "{}", '{"kind": "Adam"}', '{"kind": 1, "options": {}}'],
    "scaling": ["3", "[1, 2]", "[-1, 0, 0]", "[25, 0, 0]", "[1, true, 0]"],
    "streams": ["3", '{"a": -1}', '{"a": "b"}'],
    "feed": ["3", '{"a": []}'],
    "callbacks": ["[]", '{"A": 3}', '{"A": {"state": 3, "passive": true}}',
                  '{"A": {"state": {"x": {"__array__": "y"}}, "passive": true}}'],
    "turn": ["3", "{}", '{"hook": "save", "number": 1, "logs": {}, "left": []}',
             '{"hook": "on_epoch_end", "number": -1, "logs": {}, "left": []}'],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "text"), [(key, text) for key, texts in WRONG.items() for text in (*texts, "[" * 10**5)]
)
def test_metadata_are_checked_before_anything_changes(saved, key, text):
    rewritten(saved, **{key: text})
    part = (
        "totals" if (key, text) == ("cursor", "8") else "A" if "__array__" in (text or "") else key
    )
    refused(make_trainer(), saved, part)


def test_other_arrays_with_a_right_checksum(saved):
    for arrays, part in (
        ({"extra": np.zeros(3, np.float32)}, "unexpected 'extra'"),
        ({"model.0.weight": np.zeros((9, 6), np.float64)}, "expected float32, got float64"),
        ({"model.0.weight": np.zeros((0, 2**40), np.float32)}, "expected shape (9, 6)"),
        ({"totals": np.zeros(4)}, "totals"),
    ):
        content = saved.read_bytes()
        rewritten(saved, arrays)
        refused(make_trainer(), saved, part)
        saved.write_bytes(content)
