"""A trainer that is none, for tests of callbacks."""

from pathlib import Path

import numpy as np

from fastnn.train.callbacks import (
    Callback,
    CallbackList,
)


class FakeTrainer:
    """Has one parameter, the number of epochs it has trained, and replays the logs it is given."""

    def __init__(self, *callbacks: Callback):
        self.callbacks = CallbackList(callbacks)
        self.callbacks.set_trainer(self)
        self.callbacks.set_params({"epochs": 9, "steps": 4, "samples": 30, "batch_size": 8})
        self.stop_training = False
        self.learning_rate = 1.0
        self.epoch = 0
        self.parameters = {"weight": np.zeros(2)}
        self.saved = []

    def get_parameters(self):
        return {name: value.copy() for name, value in self.parameters.items()}

    def set_parameters(self, parameters):
        for name, value in parameters.items():
            self.parameters[name][...] = value

    def save(self, path):
        Path(path).write_bytes(b"checkpoint")
        self.saved.append(Path(path).name)

    def fit(self, name, values, steps=4):
        """The logs of each epoch that ran, with `values` as its values of `name`."""
        seen = []
        self.callbacks.on_train_begin({})
        for self.epoch, value in enumerate(values):
            self.callbacks.on_epoch_begin(self.epoch, {})
            self.parameters["weight"] += 1
            for step in range(steps):
                if self.callbacks.needs_batches:
                    self.callbacks.on_train_batch_begin(step, {})
                    self.callbacks.on_train_batch_end(step, {name: value})
                self.callbacks.update(step + 1, {name: value})
            self.callbacks.on_test_begin({})
            self.callbacks.on_test_end({name: value})
            seen.append({name: value})
            self.callbacks.on_epoch_end(self.epoch, seen[-1])
            if self.stop_training:
                break
        self.callbacks.on_train_end({})
        return seen
