"""Models that learn from data without labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from fastnn import ops, optim
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.optim.names import given_or_default
from fastnn.train.metrics import Metric
from fastnn.train.trainer import Trainer

if TYPE_CHECKING:
    from fastnn.train.history import History


class Unlabelled(Module):
    """A model with a trainer that needs nothing but the data."""

    @abstractmethod
    def trainer(self, **options: Any) -> Trainer:
        """What trains it."""

    def _check_data(self, x: Any, name: str) -> None:
        """Raise DataError for data that the model can't be of."""

    def fit(
        self, x: Any, *, epochs: int = 10, batch_size: int = 100, verbose: bool = True,
        callbacks: Any = (), validation: Any = None, shuffle: Any = None, resume: Any = None,
        **options: Any,
    ) -> History:  # fmt: skip
        """Learn from data.

        Args:
            x: data of shape (samples, ...).
            epochs, batch_size, verbose, callbacks, shuffle, resume: as for `Trainer.fit`.
            validation: held-out data like `x`, or the share of the samples to hold out.
            options: as for `trainer`.

        Returns:
            The history, with "loss" and the metrics of the trainer.
        """
        self._check_data(x, "x")
        if validation is not None and not isinstance(validation, float):
            self._check_data(validation, "validation")
            validation = (validation, validation)
        return self.trainer(**options).fit(
            x, epochs=epochs, batch_size=batch_size, verbose=verbose, callbacks=callbacks,
            validation=validation, shuffle=shuffle, resume=resume,
        )  # fmt: skip


class Reconstructing(Unlabelled):
    """A model that learns to restore its data."""

    @abstractmethod
    def _trained(self) -> Module:
        """What is trained: a module from data to the "loss" and the "error" of each sample."""

    def trainer(self, *, optimizer: Any = None, lr: Any = None, **options: Any) -> Trainer:
        """The trainer. In evaluation nothing is damaged, and the loss is that of the reconstruction
        alone; the metric "reconstruction_error" is the mean square of a number.

        Args:
            optimizer: as for `Trainer`; None is Adam with `lr`.
            lr: its learning rate; None is 1e-3. Another optimizer has its own.
            options: as for `Trainer`.
        """
        optimizer = given_or_default(f"{type(self).__name__}.trainer", optimizer, optim.Adam, lr=lr)
        metrics = [Metric("reconstruction_error", _error)]
        return Trainer(self._trained(), mean_loss, optimizer, metrics, **options)


def mean_loss(output: dict[str, Value], target: Any) -> Value:
    """The mean of the loss of each sample, whatever the target."""
    return ops.mean(output["loss"])


def _error(output: dict[str, Value], target: Any) -> Value:
    return output["error"]
