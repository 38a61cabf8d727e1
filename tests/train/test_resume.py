"""Ctrl-C at any point, a checkpoint, a new process's trainer: the run ends in the same bits.

The interruption is put before the n-th line that Python executes in the code under test, for many
n, as a signal would put it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn import nn, optim
from fastnn.errors import CheckpointError, DataError
from fastnn.train import callbacks as callbacks_module
from fastnn.train import fitting, hook_calls, hooks, learning_rates, monitor
from fastnn.train import trainer as trainer_module
from fastnn.train.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    ResetStates,
)
from fastnn.train.trainer import Trainer

RNG = np.random.default_rng(3)
X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 24)
SEQUENCES = RNG.normal(size=(24, 3, 4)).astype(np.float32)
EPOCHS = 4


class Counter(Callback):
    """What a user might write: counts in all hooks, and lets a number of the logs depend on it."""

    def __init__(self) -> None:
        self.counts = {"epochs": 0, "batches": 0}
        self.trace = np.zeros(3)

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        self.in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.counts["batches"] += 1
        self.in_epoch += 1
        self.trace = 0.5 * self.trace + logs["loss"]

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.counts["epochs"] += 1
        logs["count"] = 100 * self.counts["batches"] + 10 * self.counts["epochs"] + self.in_epoch
        logs["trace"] = float(self.trace.sum())

    def state_dict(self) -> Any:
        return {
            "counts": dict(self.counts), "in_epoch": getattr(self, "in_epoch", 0),
            "trace": self.trace,
        }  # fmt: skip

    def load_state_dict(self, state: Any) -> None:
        self.counts, self.in_epoch, self.trace = (
            dict(state["counts"]), state["in_epoch"], state["trace"],
        )  # fmt: skip


class Batches:
    def __iter__(self) -> Iterator[Any]:
        return ((X[k : k + 8], Y[k : k + 8]) for k in range(0, 24, 8))

    def __len__(self) -> int:
        return 3


class Net(nn.Module):
    def __init__(self) -> None:
        self.rnn = nn.RNN(4, 5, stateful=8)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.rnn(x)[1][-1])


def make(kind: str) -> Trainer:
    model = Net() if kind == "stateful" else nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm(6), nn.Dropout(0.2), nn.Linear(6, 3)
    )  # fmt: skip
    return Trainer(model, "cross_entropy", optim.Adam(lr=0.05), metrics=["accuracy"], workers=1)


def callbacks(kind: str = "") -> list[Callback]:
    patience = 1 if kind == "arrays" else 2  # that run is stopped
    return [
        ModelCheckpointNowhere(monitor="loss", save_best_only=True),  # comes last nevertheless
        Counter(),
        EarlyStopping("loss", patience=patience, min_delta=0.2 / patience**3),
        ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.05, cooldown=1),
        LearningRateScheduler(lambda epoch, rate: rate * (0.9 if epoch else 1.0)),
        ResetStates(),
    ]


class ModelCheckpointNowhere(ModelCheckpoint):
    def __init__(self, **options: Any) -> None:
        super().__init__("nowhere", **options)

    def _save(self, epoch: int, logs: Any) -> None:
        value = self.current(logs)
        if self.improved(value, self.best):
            self.best = value


def run(trainer: Trainer, kind: str, found: list[Callback], **more: Any) -> Any:
    if kind == "batches":
        data: dict[str, Any] = dict(x=Batches(), validation=(X[:16], Y[:16]))
    elif kind == "stateful":
        data = dict(
            x=SEQUENCES, y=Y, batch_size=8, shuffle=False, validation=(SEQUENCES[:8], Y[:8])
        )
    else:
        data = dict(x=X, y=Y, batch_size=8, validation=(X[:16], Y[:16]))
    return trainer.fit(epochs=EPOCHS, callbacks=found, verbose=False, **data, **more)


def everything(trainer: Trainer, found: list[Callback]) -> dict[str, Any]:
    arrays: dict[str, Any] = dict(trainer.model.state_dict())
    for name in trainer.session.memory:
        if name.startswith("slots/"):
            arrays[name] = trainer.session.memory[name].copy()
    arrays["control"] = np.array([trainer.step, *trainer.place])
    arrays["rate"] = np.array(trainer.learning_rate)
    for callback in found:
        arrays.update(flat(type(callback).__name__, callback.state_dict()))
    return arrays


def flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(f"{name}.{key}", item).items()}
    return {name: np.array(value if value is not None else "none")}


class Interrupt:
    """Raises KeyboardInterrupt before the n-th line of these modules' code, within a run."""

    def __init__(self, number: int):
        self.number, self.lines, self.begun = number, 0, False
        modules = (
            trainer_module, fitting, hook_calls, hooks, callbacks_module, learning_rates, monitor
        )  # fmt: skip
        self.files = {m.__file__ for m in modules}
        self.files.add(Counter.on_epoch_end.__code__.co_filename)

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        self.begun |= code is fitting.Epochs.run.__code__
        self.begun &= code is not fitting.synchronize.__code__  # the run is over
        if not self.begun or code.co_filename not in self.files:
            return None
        if code is Trainer.fit.__code__:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                sys.settrace(None)
                raise KeyboardInterrupt(f"{code.co_qualname}, line {frame.f_lineno}")
        return self


def interrupted(kind: str, number: int) -> tuple[Trainer, Any, int]:
    trainer, interrupt = make(kind), Interrupt(number)
    found = callbacks(kind)
    sys.settrace(interrupt)
    try:
        history = run(trainer, kind, found)
    finally:
        sys.settrace(None)
    return trainer, history, interrupt.lines


@pytest.mark.parametrize("kind", ["arrays", "batches", "stateful"])
def test_any_point_of_interruption(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole, found = make(kind), callbacks(kind)
    full = run(whole, kind, found)
    expected = everything(whole, found)
    _, _, lines = interrupted(kind, 10**9)
    assert lines > 400
    numbers = np.random.default_rng(len(kind)).choice(np.arange(1, lines), 45, replace=False)
    for number in numbers.tolist():
        first, history, _ = interrupted(kind, number)
        assert history.stopped == "interrupted"
        first.save(path)
        second, found = make(kind), callbacks(kind)
        rest = run(second, kind, found, resume=path)
        for name, value in everything(second, found).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"line {number}: {name}")
        assert history.epoch + rest.epoch == full.epoch, number
        for name in full:
            joined = [*history.history.get(name, []), *rest.history.get(name, [])]
            assert joined == full[name], (number, name)
        assert rest.stopped == full.stopped


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_checkpoint_of_an_epochs_end_has_what_all_callbacks_remember(
    where: str, tmp_path: Path
) -> None:
    """Wherever the callback that saves stands in the list."""

    class Save(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            self.trainer.save(tmp_path / f"{epoch}")

    whole, found = make("arrays"), callbacks()
    full = run(whole, "arrays", [Save(), *found] if where == "first" else [*found, Save()])
    for epoch in full.epoch:
        second, again = make("arrays"), callbacks()
        run(second, "arrays", again, resume=tmp_path / f"{epoch}")
        for name, value in everything(second, again).items():
            np.testing.assert_array_equal(value, everything(whole, found)[name], err_msg=name)


def test_ctrl_c_leaves_the_run_where_it_stopped(tmp_path: Path) -> None:
    """Early stopping does not put the best parameters beside a later optimiser's state."""

    class CtrlC(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.parameters = self.trainer.get_parameters()
            if (self.trainer.epoch, batch) == (2, 1):
                raise KeyboardInterrupt

    trainer, stop, stopping = make("arrays"), CtrlC(), EarlyStopping("loss", patience=9)
    run(trainer, "arrays", [stopping, stop])
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, stop.parameters[name])
    assert stopping.best_parameters is not None


def test_callbacks_that_do_not_fit_are_refused_before_anything_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    first = make("arrays")
    run(first, "arrays", [EarlyStopping("loss", patience=9), ReduceLROnPlateau("loss")])
    first.save(path)
    for other, message in (
        (EarlyStopping("accuracy"), "monitor='loss'.*has 'accuracy'"),
        (EarlyStopping("loss", mode="max"), "mode='min'.*has 'max'"),
    ):
        second = make("arrays")
        before = everything(second, [])
        with pytest.raises(CheckpointError, match=message):
            run(second, "arrays", [other, ReduceLROnPlateau("loss")], resume=path)
        for name, value in everything(second, []).items():
            np.testing.assert_array_equal(value, before[name])
    with pytest.warns(UserWarning, match="state of ReduceLROnPlateau, which is not among"):
        run(make("arrays"), "arrays", [EarlyStopping("loss", patience=9)], resume=path)


def test_other_batches_are_said_between_epochs_and_refused_within(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    trainer = make("arrays")
    trainer.fit(X, Y, epochs=1, batch_size=8, verbose=False)
    trainer.save(path)
    with pytest.warns(UserWarning, match="batch_size was 8 and is 12"):
        make("arrays").fit(X, Y, epochs=2, batch_size=12, verbose=False, resume=path)

    class CtrlC(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            raise KeyboardInterrupt

    trainer.fit(X, Y, epochs=1, batch_size=8, verbose=False, callbacks=[CtrlC()])
    trainer.save(path)
    second = make("arrays")
    before = everything(second, [])
    for changes in (dict(batch_size=4), dict(batch_size=8, shuffle=False)):
        with pytest.raises(DataError, match="was written after 8 samples of epoch 2"):
            second.fit(X, Y, epochs=2, verbose=False, resume=path, **changes)
    with pytest.raises(DataError, match="samples was 24 and is 16"):
        second.fit(X[:16], Y[:16], epochs=2, batch_size=8, verbose=False, resume=path)
    for name, value in everything(second, []).items():
        np.testing.assert_array_equal(value, before[name])


def test_streams_are_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    nn.LSTM(3, 4, stateful=8).save(path)
    with pytest.raises(CheckpointError, match="states of 8 streams, the model has 5"):
        nn.LSTM(3, 4, stateful=5).load(path)
    nn.Sequential(nn.LSTM(3, 4, stateful=8)).save(path)
    with pytest.raises(CheckpointError, match="states of 8 streams, layer '0' has 5"):
        nn.Sequential(nn.LSTM(3, 4, stateful=5)).load(path)


@pytest.mark.parametrize("state", [{"a": object()}, {"a": {1: 2}}, {"a": np.array(["b"])}])
def test_a_state_that_no_file_can_hold(state: Any, tmp_path: Path) -> None:
    class Odd(Callback):
        def state_dict(self) -> Any:
            return state

    trainer = make("arrays")
    trainer.fit(X, Y, batch_size=8, verbose=False, callbacks=[Odd()])
    with pytest.raises(CheckpointError, match=r"callback\.Odd\.a: state_dict\(\) gave"):
        trainer.save(tmp_path / "run.safetensors")


@pytest.mark.parametrize("append", [False, True])
def test_csv_logger_goes_on_with_the_run(tmp_path: Path, append: bool) -> None:
    """Rows before the checkpoint stay, rows after it (of a killed run) are written anew."""
    table, path = tmp_path / "log.csv", tmp_path / "run.safetensors"

    def train(trainer: Any, epochs: int, **options: Any) -> None:
        log = CSVLogger(table, append=append)
        trainer.fit(X, Y, epochs=epochs, batch_size=8, verbose=False, callbacks=log, **options)

    trainer = make("arrays")
    train(trainer, 2)
    trainer.save(path)
    train(trainer, 2)
    train(make("arrays"), 5, resume=path)
    rows = [row.split(",")[0] for row in table.read_text().splitlines()]
    # without `append`, each call of fit that isn't a resumed run begins the table anew
    assert rows == ["epoch", *("01234" if append else "234")]
    table.unlink()
    whole = make("arrays")
    train(whole, 2)
    whole.save(path)
    train(make("arrays"), 2, resume=path)  # nothing to do: nothing is lost
    train(make("arrays"), 5, resume=path)
    epochs = [row.split(",")[0] for row in table.read_text().splitlines()]
    assert epochs == ["epoch", "0", "1", "2", "3", "4"]


def test_csv_logger_keeps_all_columns(tmp_path: Path) -> None:
    """Columns of another run, and values that come with a later epoch."""
    path = tmp_path / "log.csv"
    path.write_text("epoch,old,loss\n0,7,1.5\n1,8,1.25")  # a killed writer left no end of line
    logger = CSVLogger(path, append=True)
    logger.on_train_begin({})
    logger.on_epoch_end(2, {"loss": 1.0, "accuracy": 0.5})
    logger.on_epoch_end(3, {"loss": 0.5})
    logger.on_epoch_end(4, {"val_loss": 0.25})
    logger.on_train_end({})
    assert path.read_text().splitlines() == [
        "epoch,old,loss,accuracy,val_loss", "0,7,1.5,,", "1,8,1.25,,", "2,,1.0,0.5,", "3,,0.5,,",
        "4,,,,0.25",
    ]  # fmt: skip
    for content, separator in (("epoch;loss\n", ","), ("a,b\n", ","), ("epoch,a\n1,2,3\n", ",")):
        path.write_text(content)
        with pytest.raises(DataError, match="table"):
            CSVLogger(path, separator, append=True).on_train_begin({})
        assert path.read_text() == content


def test_ctrl_c_in_a_validation_leaves_the_states_of_training(tmp_path: Path) -> None:
    """A stateful layer's states go on in the validation; training resumes from its own."""

    class CtrlC(Callback):
        def on_test_end(self, logs: Any) -> None:
            if self.trainer.epoch == 1:
                raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    whole = make("stateful")
    run(whole, "stateful", [])
    first = make("stateful")
    run(first, "stateful", [CtrlC()])
    assert first.place == (1, 24)
    first.save(path)
    second = make("stateful")
    run(second, "stateful", [], resume=path)
    expected = everything(whole, [])
    assert np.abs(expected["rnn.state_h_l0"]).max() > 0
    for name, value in everything(second, []).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_saver_comes_after_the_values_that_others_add(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "{epoch}", monitor="count", mode="max", save_best_only=True)
    run(make("arrays"), "arrays", [saver, Counter()])
    assert len(list(tmp_path.iterdir())) == EPOCHS


def test_history_has_whole_epochs_only() -> None:
    """Ctrl-C in the middle of adding one."""
    from fastnn.train.history import History

    history = History()
    history.append(0, {"loss": 1.0})
    history.history["loss"].append(2.0)
    history.history["new"] = []
    history.even()
    assert history.history == {"loss": [1.0]}
    history.append(1, {"loss": 0.5, "new": 3.0})
    np.testing.assert_array_equal(history["new"], [np.nan, 3.0])
