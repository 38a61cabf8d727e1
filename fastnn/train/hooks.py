"""What a callback is: hooks with Keras's names, called by the trainer from the main thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias
from weakref import ref

import numpy as np

from fastnn.errors import OptionError

Logs: TypeAlias = dict[str, float]
#: what a callback remembers: numbers, strings, NumPy arrays, None, lists and dicts of them
State: TypeAlias = Mapping[str, Any]


class TrainerLike(Protocol):
    """What callbacks can use of a trainer; setting `stop_training` ends the run at a step
    boundary."""

    stop_training: bool
    learning_rate: float

    @property
    def epoch(self) -> int:
        """The number of the current epoch, from 0."""

    def get_parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters and statistics by name."""

    def set_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Copy these values into the parameters."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint."""


class _Past:
    """The trainer of the last run, as long as it is there; a copy knows of none."""

    def __init__(self, trainer: Any = None):
        self.trainer: Callable[[], Any] = (lambda: None) if trainer is None else ref(trainer)

    def __reduce__(self) -> Any:
        return _Past, ()


class _Trainer:
    """What `Callback.trainer` is between two runs: the trainer keeps its callbacks (checkpoints
    need them), and they do not keep it."""

    def __get__(self, callback: Any, kind: type | None = None) -> TrainerLike:
        past: _Past | None = vars(callback).get("_past") if callback is not None else None
        found: TrainerLike | None = past.trainer() if past is not None else None
        if found is None:
            name = (kind or type(callback)).__name__
            raise AttributeError(f"{name}.trainer: there is none, no run of `fit` is going on")
        return found


class Callback:
    """Base of all callbacks: override the hooks that you need; each does nothing here.

    ``logs`` holds what is known at that time ("loss", metrics, and at the end of an epoch the same
    with "val_"); values written into it at the end of an epoch go into the history.
    ``self.trainer`` is the trainer (`TrainerLike`), ``self.model`` the model, ``self.params`` a
    dict with "epochs", "steps" (an epoch), "samples" (an epoch) and "batch_size".

    `on_train_batch_begin` and `on_train_batch_end` are called only if some callback overrides them,
    because then the compiled loop has to return to Python after every step, which costs time. For
    an occasional look use `update`.

    A callback with state that the run depends on returns it from `state_dict` and restores it in
    `load_state_dict`: the state is then in checkpoints, and a resumed run continues as if it had
    not been interrupted. A hook that Ctrl-C cuts off is called again after a resume, with the state
    from before the call.

    >>> class Shout(Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         if logs["accuracy"] > 0.99:
    ...             self.trainer.stop_training = True
    """

    trainer: TrainerLike = _Trainer()  # type: ignore[assignment]
    model: Any = None
    params: Mapping[str, Any] = MappingProxyType({})
    #: whether it reads `Parameter.grad`: then training steps keep their gradients
    needs_gradients: bool = False
    #: why the run ended, where it was this callback that set ``trainer.stop_training``
    stop_reason: str = ""
    #: whether the run is the same without it, as without a log
    passive: bool = False
    #: whether it writes checkpoints: its hooks come after those of all others, so that what these
    #: remember is up to date
    saves: bool = False

    def state_dict(self) -> State:
        """Its state for a checkpoint: a dict with string keys and numbers, strings, NumPy arrays,
        None, lists or such dicts as values; empty if there is none.

        The values may change later.
        """
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` of a callback of the same class returned (tuples come back as
        lists).

        Called after `on_train_begin`, and after `on_epoch_begin` if the run continues within an
        epoch.
        """

    def check_state(self, state: State) -> None:
        """Raise CheckpointError if `load_state_dict` could not restore this state. Called after
        `set_model`, before anything is changed."""

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Receive the run's settings; they are then in `self.params`."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Receive the model; it is then in `self.model`."""
        self.model = model

    def set_trainer(self, trainer: TrainerLike) -> None:
        """Receive the trainer; it is then in `self.trainer`."""
        self.trainer = trainer

    def _let_go(self) -> None:
        """The run is over: do not keep the trainer, which keeps its callbacks."""
        if (trainer := vars(self).pop("trainer", None)) is not None:
            vars(self)["_past"] = _Past(trainer)

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch, also after an interruption."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before an epoch; they count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Before a training step, number `batch`, from 0 in each epoch. See the class about the
        cost."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After training step `batch` of the epoch. See the class about the cost."""

    def on_test_begin(self, logs: Logs) -> None:
        """Before an evaluation, the validation of an epoch included."""

    def on_test_end(self, logs: Logs) -> None:
        """After an evaluation."""

    def on_predict_begin(self, logs: Logs) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: Logs) -> None:
        """After a prediction."""

    def update(self, step: int, logs: Logs) -> None:
        """A few times per second while the compiled loop runs; `step` steps of the epoch are done.

        ``logs`` holds the means of this epoch so far. Not in Keras.
        """


def overrides(callback: Callback, hook: str) -> bool:
    """Whether a callback has a hook of its own."""
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


class CallbackList(Callback):
    """Calls each hook of all its callbacks in order. A None among them is left out.

    Raises OptionError for anything but callbacks.

    >>> bool(CallbackList([LambdaCallback(on_epoch_end=lambda epoch, logs: None)]).needs_batches)
    False
    """

    def __init__(self, callbacks: Callback | Iterable[Callback | None] | None = ()) -> None:
        if callbacks is None:
            callbacks = ()
        elif not isinstance(callbacks, (tuple, list, Iterable)):
            callbacks = (callbacks,)
        self.callbacks = [callback for callback in callbacks if callback is not None]
        for callback in self.callbacks:
            if isinstance(callback, type) or not isinstance(callback, Callback):
                raise OptionError(
                    f"callbacks: expected instances of subclasses of Callback, got {callback!r}"
                )
        self.callbacks.sort(key=lambda callback: callback.saves)  # stable

    def named(self) -> dict[str, Callback]:
        """The callbacks by the names that checkpoints have for them: their classes, numbered."""
        found: dict[str, Callback] = {}
        for callback in self.callbacks:
            kind = type(callback).__name__
            number = sum(type(c).__name__ == kind for c in found.values())
            found[f"{kind} {number + 1}" if number else kind] = callback
        return found

    @property
    def needs_batches(self) -> bool:
        """Whether any callback wants to be called at every training step."""
        names = ("on_train_batch_begin", "on_train_batch_end")
        return any(overrides(callback, name) for callback in self.callbacks for name in names)

    @property
    def stopped_by(self) -> str:
        """The reason of the first callback that stopped the run, or ""."""
        return next((c.stop_reason for c in self.callbacks if c.stop_reason), "")

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    def __len__(self) -> int:
        return len(self.callbacks)

    def append(self, callback: Callback) -> None:
        """Add a callback at the end."""
        self.callbacks.append(callback)


def _for_all(name: str) -> Callable[..., None]:
    def hook(self: CallbackList, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(*arguments)

    hook.__name__ = name
    hook.__doc__ = getattr(Callback, name).__doc__
    return hook


#: the hooks that a `LambdaCallback` takes
HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
for _name in ("set_params", "set_model", "set_trainer", "_let_go", "update", *HOOKS):
    setattr(CallbackList, _name, _for_all(_name))


class LambdaCallback(Callback):
    """A callback made of functions, the `hooks` by name, each with its hook's arguments.

    Raises OptionError for a hook that there is not.

    >>> seen = []
    >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["loss"]))
    >>> callback.on_epoch_end(0, {"loss": 0.5})
    >>> seen
    [0.5]
    """

    def __init__(self, **hooks: Callable[..., None]) -> None:
        for name, function in hooks.items():
            if name not in (*HOOKS, "update"):
                raise OptionError(
                    f"LambdaCallback: unknown hook {name!r}; "
                    f"choose among {', '.join((*HOOKS, 'update'))}"
                )
            setattr(self, name, function)
