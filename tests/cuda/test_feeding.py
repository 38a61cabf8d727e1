"""Batches from iterables, sent ahead of the device: the same bits as when each step is waited for,
and nothing left behind where something goes wrong.

What an iterable or a callback does between two steps is seen by the next one, as on the CPU.
"""

from __future__ import annotations

import ctypes
import sys
import time

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import DataError, NonFiniteError
from fastnn.optim import schedules
from fastnn.runtime.cuda.stream import Stream
from fastnn.train import feeds
from fastnn.train.hooks import Callback

RNG = np.random.default_rng(3)
X = RNG.normal(size=(8, 2)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)
CUT = [(X[a : a + 3], Y[a : a + 3]) for a in range(0, 8, 3)]  # the last one is smaller


class EachStep(Callback):
    """Asks for a turn after every step, so that each is waited for."""

    def on_train_batch_end(self, batch, logs):
        pass


def trainer_for(device="cuda", **options):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3), nn.Tanh(), nn.Linear(3, 2))
    schedule = schedules.StepDecay(2, gamma=0.5)
    options = {"metrics": ["accuracy"], "seed": 4, **options}
    optimizer = optim.Adam(lr=0.05, schedule=schedule)
    return fnn.Trainer(model, "cross_entropy", optimizer, device=device, **options)


def on_device(parameter):
    """A parameter's bytes, where a library that shares its memory sees them."""
    address = parameter.__cuda_array_interface__["data"][0]
    return ctypes.string_at(address, parameter.value.nbytes)


def bits(trainer):
    found = {name: array.tobytes() for name, array in trainer.model.state_dict().items()}
    return found, trainer.step


def fit(trainer, batches, epochs=1, **options):
    return trainer.fit(batches, epochs=epochs, verbose=False, **options)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    until = time.monotonic() + 60
    while streaming() and time.monotonic() < until:
        time.sleep(0.01)
    assert not streaming()


def streaming():
    """Whether a thread that sends steps is there."""
    frames = list(sys._current_frames().values())
    while frames:
        frame = frames.pop()
        if frame.f_code is Stream._work.__code__:
            return True
        frames += [frame.f_back] if frame.f_back else []
    return False


def test_the_bits_are_those_of_arrays():
    fed, whole = trainer_for(), trainer_for()
    seen = fit(fed, CUT).history
    want = whole.fit(X, Y, epochs=1, batch_size=3, shuffle=False, verbose=False).history
    assert bits(fed) == bits(whole)
    assert seen["loss"] == want["loss"]
    assert seen["accuracy"] == want["accuracy"]
    assert fed.evaluate(CUT) == whole.evaluate(X, Y, batch_size=3)


def test_the_bits_are_those_of_steps_that_are_waited_for(monkeypatch):
    """The schedule's rows, too, where they end before the data do."""
    monkeypatch.setattr(feeds, "AHEAD", 2)
    fed, waited = trainer_for(), trainer_for()
    fit(fed, CUT)
    fit(waited, CUT, callbacks=[EachStep()])
    assert bits(fed) == bits(waited)


def test_batches_in_one_buffer():
    class Buffer:
        def __iter__(self):
            x, y = np.zeros((2, 2), np.float32), np.zeros(2, np.int64)
            for k in range(0, 8, 2):
                x[:], y[:] = X[k : k + 2], Y[k : k + 2]
                yield x, y
            x[:], y[:] = np.nan, -1  # long before the last steps are done

    fed, whole = trainer_for(), trainer_for()
    fit(fed, Buffer())
    whole.fit(X, Y, epochs=1, batch_size=2, shuffle=False, verbose=False)
    assert bits(fed) == bits(whole)


def test_batches_of_growing_sizes_types_and_kinds():
    cut = [
        (X[:2].tolist(), Y[:2]), (X[2:7].astype(np.float64), Y[2:7]),
        ((X[3:5],), Y[3:5].astype(np.int8)),
        (X[5:8], Y[5:8], np.array([1.0, 0.0, 2.0])),
    ]  # fmt: skip
    fed, waited = trainer_for(), trainer_for()
    fit(fed, cut)
    fit(waited, cut, callbacks=[EachStep()])
    assert bits(fed) == bits(waited)


def test_what_an_iterable_sees_and_sets_between_steps():
    class Watching:
        def __init__(self, trainer):
            self.trainer, self.seen = trainer, []

        def __iter__(self):
            trainer, model = self.trainer, self.trainer.model
            for k, batch in enumerate(CUT):
                weight = model.state_dict()["0.weight"].copy()
                self.seen += [trainer.step, weight.tobytes(), model.predict(X[:2]).tobytes()]
                if k:
                    self.seen.append(model.layers[0].weight.grad.tobytes())
                    self.seen.append(on_device(model.layers[0].bias))
                if k == 1:
                    model.layers[0].weight.value[0] *= 2.0
                if k == 2:
                    trainer.learning_rate = 0.5
                    self.seen.append(trainer.evaluate(X, Y)["loss"])
                yield batch

    fed, waited = trainer_for(keep_gradients=True), trainer_for(keep_gradients=True)
    ours, theirs = Watching(fed), Watching(waited)
    fit(fed, ours)
    fit(waited, theirs, callbacks=[EachStep()])
    assert ours.seen == theirs.seen
    assert [part for part in ours.seen if isinstance(part, int)] == [0, 1, 2]
    assert bits(fed) == bits(waited)


def test_a_batch_that_breaks_the_loss_is_named_and_undone():
    bad = [*CUT[:2], (np.full((3, 2), np.nan, np.float32), Y[:3]), *CUT]
    messages, found = [], []
    for callbacks in ([], [EachStep()]):
        trainer = trainer_for()
        with pytest.raises(NonFiniteError) as caught:
            fit(trainer, bad, callbacks=callbacks, check_data=False)
        messages.append(str(caught.value))
        found.append(bits(trainer))
    assert messages[0] == messages[1]
    assert "step 3 of the epoch" in messages[0]
    assert " in 0. Parameters" in messages[0]  # the first layer
    assert found[0] == found[1]
    good = trainer_for()
    fit(good, CUT[:2])
    assert found[0] == bits(good)
    fit(trainer, CUT)  # and goes on


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_iterable_that_fails_leaves_the_steps_before(error):
    class Failing:
        def __iter__(self):
            yield from CUT[:2]
            raise error("no more")

    trainer, good = trainer_for(), trainer_for()
    if error is ValueError:
        with pytest.raises(ValueError, match="no more"):
            fit(trainer, Failing())
    else:
        fit(trainer, Failing())
        assert trainer.interrupted
    fit(good, CUT[:2])
    assert bits(trainer) == bits(good)
    assert trainer.place == (0, 6)
    whole = trainer_for()
    fit(whole, CUT)
    fit(trainer, CUT)  # the rest of the epoch
    assert bits(trainer) == bits(whole)


def test_a_batch_that_is_refused_leaves_the_steps_before():
    trainer, good = trainer_for(), trainer_for()
    with pytest.raises(DataError, match=r"integers in 0\.\.1"):
        fit(trainer, [*CUT[:2], (X[:3], np.array([0, 1, 2]))])
    fit(good, CUT[:2])
    assert bits(trainer) == bits(good)


def test_an_exception_in_a_callback_leaves_the_steps_before():
    class Raising(Callback):
        def on_train_batch_end(self, batch, logs):
            if batch == 1:
                raise RuntimeError("enough")

    trainer, good = trainer_for(), trainer_for()
    with pytest.raises(RuntimeError, match="enough"):
        fit(trainer, CUT, callbacks=[Raising()])
    fit(good, CUT[:2])
    assert bits(trainer) == bits(good)


def test_an_iterable_that_stops_the_training():
    trainer, good = trainer_for(), trainer_for()

    class Stopping:
        def __iter__(self):
            for k, batch in enumerate(CUT):
                trainer.stop_training = k == 1
                yield batch

    fit(trainer, Stopping(), 3)
    fit(good, CUT[:2])
    assert bits(trainer) == bits(good)
