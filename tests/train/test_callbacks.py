"""Callbacks, driven by a trainer that only replays values."""

import csv
import doctest
import math
import os

import numpy as np
import pytest

from fastnn.errors import OptionError
from fastnn.train import callbacks as module
from fastnn.train import hooks
from fastnn.train.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgressBar,
    ReduceLROnPlateau,
)
from tests.train.callbacks import FakeTrainer


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_epoch_begin(self, epoch, logs):
        self.calls.append(("begin", epoch))

    def on_epoch_end(self, epoch, logs):
        self.calls.append(("end", epoch, logs["loss"]))


def test_hooks_are_called_in_order():
    first, second = Recorder(), Recorder()
    trainer = FakeTrainer(first, second)
    trainer.fit("loss", [3, 2])
    assert first.calls == [("begin", 0), ("end", 0, 3), ("begin", 1), ("end", 1, 2)]
    assert second.calls == first.calls
    assert first.trainer is trainer
    assert first.params["batch_size"] == 8


def test_list_leaves_out_none_and_refuses_what_is_no_callback():
    assert list(CallbackList([None])) == list(CallbackList(None)) == []
    assert len(CallbackList(Recorder())) == 1
    callbacks = CallbackList()
    callbacks.append(Recorder())
    assert len(callbacks) == 1
    with pytest.raises(OptionError, match="instances of subclasses of Callback, got <class"):
        CallbackList([Recorder])
    with pytest.raises(OptionError, match="got 3"):
        CallbackList([3])


def test_batches_are_asked_for_only_by_who_overrides_their_hooks(tmp_path):
    class Batches(Callback):
        def on_train_batch_begin(self, batch, logs):
            pass

    def nothing(*arguments):
        pass

    quiet = [
        Recorder(),
        EarlyStopping(),
        ModelCheckpoint(tmp_path / "a"),
        ProgressBar(),
        LambdaCallback(on_epoch_end=nothing, update=nothing),
    ]
    assert not CallbackList(quiet).needs_batches
    for loud in (
        Batches(),
        LambdaCallback(on_train_batch_end=nothing),
        ModelCheckpoint(tmp_path / "a", save_freq=5),
    ):
        assert CallbackList([*quiet, loud]).needs_batches


def test_lambda_callback():
    seen = []
    callback = LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        update=lambda step, logs: seen.append(-step),
        on_train_end=lambda logs: seen.append("end"),
    )
    FakeTrainer(callback).fit("loss", [1], steps=2)
    assert seen == [0, -1, 1, -2, "end"]
    with pytest.raises(OptionError, match="unknown hook 'on_epoch'; choose among on_train_begin"):
        LambdaCallback(on_epoch=print)


def test_every_hook_reaches_the_callbacks():
    for name in hooks.HOOKS:
        seen = []
        callbacks = CallbackList([LambdaCallback(**{name: lambda *a, seen=seen: seen.append(a)})])
        arguments = (1, {}) if "epoch" in name or "batch" in name else ({},)
        getattr(callbacks, name)(*arguments)
        assert seen == [arguments]


def test_early_stopping_restores_the_best_epoch():
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = FakeTrainer(stopping)
    assert len(trainer.fit("val_loss", [3, 2, 2.5, 2.1, 0])) == 4
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (2, 1, 3)
    assert trainer.callbacks.stopped_by == "early stopping"
    np.testing.assert_array_equal(trainer.parameters["weight"], [2, 2])


def test_early_stopping_restores_after_a_full_run_too():
    stopping = EarlyStopping("val_loss", patience=5)
    trainer = FakeTrainer(stopping)
    trainer.fit("val_loss", [3, 2, 2.5])
    assert stopping.stopped_epoch is None
    assert trainer.callbacks.stopped_by == ""
    np.testing.assert_array_equal(trainer.parameters["weight"], [2, 2])


def test_early_stopping_may_keep_the_last_epoch():
    trainer = FakeTrainer(EarlyStopping("val_loss", patience=1, restore_best_weights=False))
    assert len(trainer.fit("val_loss", [1, 2, 0])) == 2
    np.testing.assert_array_equal(trainer.parameters["weight"], [2, 2])


@pytest.mark.parametrize(
    ("options", "values", "epochs"),
    [
        (dict(monitor="accuracy", patience=1), [0.5, 0.6, 0.6, 0.9], 3),
        (dict(monitor="accuracy", mode="min", patience=1), [0.5, 0.4, 0.5], 3),
        (dict(monitor="loss", patience=1, min_delta=0.5), [3, 2.8, 1], 2),
        (dict(monitor="loss", patience=2, start_from_epoch=2), [1, 2, 3, 4, 5, 0], 5),
        (dict(monitor="loss", patience=2, baseline=1), [3, 2, 1.5, 0], 2),
        (dict(monitor="loss", patience=2, baseline=1), [3, 0.9, 1.5, 1.4, 0], 4),
        (dict(monitor="loss", patience=2), [math.nan, math.nan, 0], 2),
        (dict(monitor="loss", patience=0), [3, 2, 2, 0], 3),
    ],
)
def test_early_stopping_stops_after(options, values, epochs):
    trainer = FakeTrainer(EarlyStopping(**options))
    assert len(trainer.fit(options["monitor"], values)) == epochs


def test_early_stopping_begins_anew_in_a_second_run():
    trainer = FakeTrainer(EarlyStopping("loss", patience=1))
    trainer.fit("loss", [1, 2])
    trainer.stop_training = False
    assert len(trainer.fit("loss", [5, 4, 3])) == 3
    assert trainer.callbacks.stopped_by == ""


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceLROnPlateau])
def test_missing_monitor_says_what_there_is(kind):
    with pytest.raises(
        ValueError, match=r"monitors 'val_loss', but there is only loss; give validation data"
    ):
        FakeTrainer(kind()).fit("loss", [1])


def test_checkpoint_paths(tmp_path):
    callback = ModelCheckpoint(tmp_path / "new" / "{epoch:02d}-{loss:.2f}")
    trainer = FakeTrainer(callback)
    trainer.fit("loss", [0.5, 0.25])
    assert trainer.saved == ["01-0.50", "02-0.25"]
    assert sorted(os.listdir(tmp_path / "new")) == trainer.saved


def test_checkpoint_of_the_best_only(tmp_path):
    callback = ModelCheckpoint(tmp_path / "{epoch}", monitor="accuracy", save_best_only=True)
    trainer = FakeTrainer(callback)
    trainer.fit("accuracy", [0.5, 0.4, math.nan, 0.6, 0.6])
    assert trainer.saved == ["1", "4"]
    threshold = ModelCheckpoint(
        tmp_path / "{epoch}", monitor="loss", save_best_only=True, initial_value_threshold=0.5
    )
    trainer = FakeTrainer(threshold)
    trainer.fit("loss", [0.6, 0.4])
    assert trainer.saved == ["2"]


def test_checkpoint_every_few_steps(tmp_path):
    trainer = FakeTrainer(ModelCheckpoint(tmp_path / "{epoch}-{batch}", save_freq=3))
    trainer.fit("loss", [1, 1, 1], steps=4)
    assert trainer.saved == ["1-3", "2-2", "3-1", "3-4"]


def test_checkpoint_with_an_unknown_field(tmp_path):
    with pytest.raises(ValueError, match=r"'\{val_loss\}' \('val_loss'\); there is epoch, loss"):
        FakeTrainer(ModelCheckpoint("{val_loss}")).fit("loss", [1])


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    logger = CSVLogger(path)
    rows = []

    def look(epoch, logs):
        rows.append(path.read_text().splitlines()[-1])

    trainer = FakeTrainer(logger, LambdaCallback(on_epoch_end=look))
    trainer.fit("loss", [1.5, 0.5])
    assert rows == ["0,1.5", "1,0.5"]  # complete after each epoch
    FakeTrainer(CSVLogger(path, append=True)).fit("loss", [0.25])
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["epoch", "loss"],
            ["0", "1.5"],
            ["1", "0.5"],
            ["0", "0.25"],
        ]
    FakeTrainer(CSVLogger(path, separator=";")).fit("loss", [2])
    assert path.read_text().splitlines() == ["epoch;loss", "0;2"]


def test_csv_logger_leaves_missing_values_empty(tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin({})
    logger.on_epoch_end(0, {"loss": 1, "accuracy": 0.5})
    logger.on_epoch_end(1, {"loss": 2})
    logger.on_train_end({})
    assert (tmp_path / "log.csv").read_text().splitlines()[1:] == ["0,1,0.5", "1,2,"]


def test_reduce_on_plateau():
    trainer = FakeTrainer(ReduceLROnPlateau("loss", factor=0.5, patience=2, min_lr=0.2))
    seen = trainer.fit("loss", [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    rates = [logs["learning_rate"] for logs in seen]
    assert rates == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]
    assert trainer.learning_rate == 0.2


def test_reduce_on_plateau_cools_down():
    trainer = FakeTrainer(ReduceLROnPlateau("loss", factor=0.5, patience=1, cooldown=2))
    seen = trainer.fit("loss", [1] * 9)
    rates = [logs["learning_rate"] for logs in seen]
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]  # two epochs don't count


@pytest.mark.parametrize(("mode", "values"), [("max", [0.5, 0.55, 0.7]), ("min", [0.5, 0.45, 0])])
def test_what_grows_by_less_than_min_delta_is_no_improvement(mode, values):
    stopping = EarlyStopping("loss", min_delta=0.1, patience=1, mode=mode)
    assert len(FakeTrainer(stopping).fit("loss", values)) == 2
    assert (stopping.best, stopping.best_epoch) == (0.5, 0)


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize(
    "make",
    [
        lambda: ReduceLROnPlateau("loss", factor=0.5, patience=2, cooldown=2),
        lambda: EarlyStopping("loss", patience=3, baseline=0.5),
    ],
)
def test_what_a_monitor_remembers_is_all_that_it_decides_by(make, at):
    """Another one that takes up its state goes on as it would have."""
    values = [3, 1, 2, 2, 2, 0.75, 1, 1, 1, 1, 1, 1]
    whole = FakeTrainer(make())
    want = [(logs.get("learning_rate"), whole.stop_training) for logs in whole.fit("loss", values)]
    first = make()
    before = FakeTrainer(first)
    before.fit("loss", values[:at])
    if before.stop_training:
        return
    trainer = FakeTrainer(second := make())
    trainer.learning_rate = before.learning_rate
    second.load_state_dict(first.state_dict())
    seen = []
    for epoch, value in enumerate(values[at:], at):
        logs = {"loss": value}
        trainer.callbacks.on_epoch_end(epoch, logs)
        seen.append(logs.get("learning_rate"))
        if trainer.stop_training:
            break
    assert seen == [rate for rate, _ in want[at:]]


def test_learning_rate_scheduler():
    trainer = FakeTrainer(LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else 8))
    assert [logs["learning_rate"] for logs in trainer.fit("loss", [1, 1, 1])] == [8, 4, 2]
    with pytest.raises(ValueError, match="gave nan for epoch 0"):
        FakeTrainer(LearningRateScheduler(lambda epoch, rate: math.nan)).fit("loss", [1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(mode="up"), "EarlyStopping: mode must be"),
        (lambda: EarlyStopping(patience=-1), "patience to be a whole number >= 0"),
        (lambda: ModelCheckpoint("a", save_freq=0), "save_freq must be 'epoch' or a number"),
        (lambda: ModelCheckpoint("a", save_freq="batch"), "got 'batch'"),
        (lambda: ReduceLROnPlateau(factor=1), "factor must lie between 0 and 1"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("examined", [module, hooks], ids=["callbacks", "hooks"])
def test_examples(examined):
    result = doctest.testmod(examined)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_missing_value_is_named_with_its_remedy():
    for logs, hint in (
        ({"loss": 1.0}, "give validation data to fit"),
        ({"loss": 1.0, "val_loss": 1.0}, "monitor one of these"),
    ):
        with pytest.raises(OptionError, match=hint):
            EarlyStopping("val_accuracy").current(logs)
