"""Calls of callbacks' hooks, which go on after a resume where Ctrl-C cut them off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastnn.train.hooks import Callback, CallbackList, State, overrides

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


@dataclass(frozen=True)
class Before:
    """A callback as it was before a hook of it was called, and the learning rate then."""

    callback: Callback
    state: State
    rate_factor: float


class HookCall:
    """A hook that is called for one callback after the other, and can be gone on with later.

    What is left is always told by a single reference, so that Ctrl-C at any moment leaves it right.

    Args:
        hook: "on_epoch_end" or "on_train_batch_end".
        number: the epoch or batch that it is called for.
        logs: what it is called with.
        left: the callbacks that it is to be called for.
        step: how many steps are done when it is due; None: it is due.
    """

    def __init__(
        self, hook: str, number: int, logs: dict[str, float], left: Sequence[Callback],
        step: int | None = None,
    ):  # fmt: skip
        self.hook, self.number, self.logs, self.step = hook, number, logs, step
        self.left = [callback for callback in left if overrides(callback, hook)]
        self.before: Before | None = None

    @property
    def ends_epoch(self) -> bool:
        return self.hook == "on_epoch_end"

    @property
    def cut_off(self) -> Before | None:
        """The callback that was being called, as it was before."""
        left, before = self.left, self.before
        return before if left and before is not None and before.callback is left[0] else None

    def run(self, trainer: Trainer) -> None:
        """Call the hook of all that are left."""
        while self.left:
            callback = self.left[0]
            self.before = Before(callback, callback.state_dict(), trainer.rate_factor)
            getattr(callback, self.hook)(self.number, self.logs)
            self.left = self.left[1:]

    def describe(self, trainer: Trainer) -> dict[str, Any] | None:
        """What a checkpoint keeps of it; None where nothing is to be done again.

        While `fit` runs it is one of the callbacks that saves: that one is done.
        """
        if self.step is not None and trainer.step < self.step:
            return None
        left = self.left[1:] if trainer.fitting else self.left
        if not left and (trainer.fitting or not self.ends_epoch):
            return None
        names = {id(callback): name for name, callback in trainer.hooks.named().items()}
        logs = self.logs or trainer.report.values(trainer.session.totals)
        return {
            "hook": self.hook,
            "number": self.number,
            "logs": {name: float(value) for name, value in logs.items()},
            "left": [names[id(callback)] for callback in left if id(callback) in names],
        }

    @classmethod
    def described(cls, description: Mapping[str, Any], hooks: CallbackList) -> HookCall:
        """The one that `describe` told of, for the callbacks of a new run."""
        named = hooks.named()
        left = [named[name] for name in description["left"] if name in named]
        logs = {name: float(value) for name, value in description["logs"].items()}
        return cls(description["hook"], description["number"], logs, left)
