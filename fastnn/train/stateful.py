"""Stateful recurrent layers within a training run."""

from __future__ import annotations

from fastnn.nn.module import Module
from fastnn.nn.recurrent_base import Recurrent
from fastnn.train.hooks import Callback, Logs


def reset_states(model: Module) -> None:
    """Begin new sequences: set the carried states of all stateful layers to zero."""
    for _, module in model.named_modules():
        if isinstance(module, Recurrent) and module.stateful:
            module.reset_state()


class ResetStates(Callback):
    """Sets the states that `stateful` layers carry to zero where the data begin anew.

    That is at the beginning of each epoch (but not where a resumed run goes on within one: the
    states are in the checkpoint), and before and after the validation.

    >>> from fastnn.train.callbacks import ResetStates
    >>> ResetStates().stop_reason
    ''
    """

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        if getattr(self.trainer, "cursor", 0) == 0:
            reset_states(self.model)

    def on_test_begin(self, logs: Logs) -> None:
        reset_states(self.model)

    def on_test_end(self, logs: Logs) -> None:
        reset_states(self.model)
