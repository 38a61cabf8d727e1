"""The trainer: fit, evaluate, predict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import optim
from fastnn.engine.access import reading, synchronize, training
from fastnn.engine.arrays import check_finite
from fastnn.engine.builder import Built
from fastnn.errors import OptionError
from fastnn.kernels import control_block
from fastnn.nn.module import Module
from fastnn.optim.full_batch import FullBatch
from fastnn.runtime.kept import Kept
from fastnn.spellings import told
from fastnn.train import averages, fitting
from fastnn.train import metrics as metric_names
from fastnn.train.base import Data, OnGradients, Options, Training
from fastnn.train.batch_sizes import BatchSizes
from fastnn.train.batches import gives_batches
from fastnn.train.epoch_programs import EpochPrograms
from fastnn.train.evaluation import Evaluation
from fastnn.train.fit_data import Request, checked_batch_size
from fastnn.train.history import History
from fastnn.train.hook_calls import HookCall
from fastnn.train.hooks import Callback, CallbackList
from fastnn.train.report import Report
from fastnn.weak import weakly

if TYPE_CHECKING:
    from fastnn.train.checkpoint import Loaded


class Trainer(EpochPrograms):
    """Trains a model on data, as in Keras. No Python runs between the steps of an epoch.

    Args:
        model: the module to train.
        loss: a loss from `fastnn.nn`, its name ("cross_entropy", "mse", ...), or a function of
            symbolic (output, target) that returns a single number. Several outputs or targets are
            passed as `forward` returns them and as `fit` receives them. Or one loss per output: a
            list (None for an output without a loss), or a dict with the keys of the dict that
            `forward` returns. Each is reported ("output0_loss" or "name_loss"), and "loss" is their
            sum.
        optimizer: an optimiser from `fastnn.optim`, or its name.
        metrics: names ("accuracy", "top_5_accuracy", losses), functions of symbolic (output,
            target) that return one number per row, or `Metric` objects. What "accuracy" means
            depends on the loss: the largest output is that of the target's class
            (`CrossEntropyLoss`, `NLLLoss`), or output and target are on the same side of the
            threshold (`BCELoss`, `BCEWithLogitsLoss`). Rows that the loss ignores are ignored here
            as well. With one loss per output: a list for all outputs, a list of lists, or a dict by
            the outputs' names.
        device: "auto" (a working CUDA device if there is one, otherwise the CPU), "cpu", "cuda" or
            "cuda:1". The environment variable FASTNN_DEVICE overrides "auto".
        workers: number of worker threads, or "auto": a run measures its steps and takes the number
            that proves quickest. The results are the same, bit for bit, for any number.
        seed: seed of all random numbers: initial parameters, data order and dropout.
        dtype: "float32" or "float64".
        stop_on_nonfinite: whether to stop with an error when the loss, or a parameter in an update,
            becomes NaN or infinite; parameters, optimiser and running statistics are then those
            before that step. If False, training continues, and parameters may become NaN.
        keep_gradients: whether each parameter's `grad` holds the gradient of the last step. A step
            is faster if it need not write its gradients to memory. Callbacks with
            ``needs_gradients`` switch this on.
        parameters: what to train: name patterns ("encoder.*"), modules or parameters of the model,
            one or a list; None means all.
        graphs: on a GPU, replay a step as one CUDA graph; if False, launch its kernels one by one.
        precision: what the factors of float32 matrix products are rounded to: "highest" (nothing is
            rounded), "high" (float32's accuracy, by parts), "medium" (two bfloat16 parts on a CPU
            with a tile unit; on a GPU TF32, 10 bits of mantissa), "bf16" (bfloat16, 7 bits) or
            "fp16" (float16, up to 65,504; gradients are scaled). Parameters, optimiser state and
            sums stay float32. On a GPU the time loops of recurrent layers and products of many
            matrices are float32 at "high" and "medium". See docs/precision.md.
        loss_weights: a factor for each of several losses, as a list or dict like `loss`; 1 by
            default.
        penalties: terms of the loss in training that depend on parameters alone: a dict of
            penalties (`nn.L1Penalty`, `nn.L2Penalty`, `nn.ElasticNetPenalty`,
            `nn.OrthogonalPenalty`, or a function of a symbolic parameter that returns a number), or
            of lists of them, by name pattern (``{"*.weight": nn.L1Penalty(1e-4)}``). A single
            penalty applies to all weights with two axes or more, and none to frozen parameters.
            Reported losses are those of the data alone.
        mixup: alpha of mixup (Zhang et al. 2018, "mixup: beyond empirical risk minimization"; 0.1
            to 0.4 there), 0 for none. In training the inputs are ``s x_i + (1 - s) x_j`` and the
            loss is ``s L(output, y_i) + (1 - s) L(output, y_j)``, for cross-entropy that of soft
            labels, with s from the beta distribution (alpha, alpha), one for each batch. Sample j
            is at i's place counted from the end of the batch, so the data must be shuffled; s is
            the larger share, so metrics use the label with the larger weight. Inputs must be
            floats.
        on_gradients: a function that is called in every training step after the gradients have been
            computed and before the update. Its argument maps the names of the trained parameters
            that the loss depends on to their gradients: NumPy arrays, before clipping and weight
            decay, which it may read, change, or average over processes
            (``comm.Allreduce(MPI.IN_PLACE, gradient)``). The workers wait for it. The arrays are
            valid only during the call. If it raises an exception or is interrupted by Ctrl-C, the
            step is undone and the exception propagates. With None nothing is called, and no Python
            runs between two steps.

    Losses and metrics of an epoch or an evaluation are those of all its samples together, however
    they are batched: the sum of the rows' losses (weighted by class and by sample) divided by the
    sum of the weights, or just the sum if that is the loss's reduction. They are NaN if no row
    counts. A loss of your own that is neither a mean nor a sum over rows is averaged over the
    batches of an epoch, and evaluated on all samples at once. A sum divided by the batch size
    (``x.shape[0]``) counts as a mean over samples.

    Raises:
        OptionError: an argument is not allowed.
        DeviceError: the device does not work.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn, optim
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> trainer = fnn.Trainer(nn.Linear(4, 2), loss="cross_entropy", optimizer=optim.Adam(lr=0.1),
    ...                       metrics=["accuracy"])
    >>> history = trainer.fit(x, y, epochs=20, batch_size=16, verbose=False)
    >>> bool(trainer.evaluate(x, y)["accuracy"] > 0.9)
    True
    """

    kind = "Trainer"
    rebuilt = Training.rebuilt | {
        "_batch_sizes", "_built", "_evaluation", "version",
        "hooks", "hook_call", "pending", "before_validation", "fitting", "counting",  # of a run
    }  # fmt: skip

    @told
    def __init__(
        self,
        model: Module,
        loss: Any,
        optimizer: str | optim.Optimizer = "adam",
        metrics: Any = (),
        device: str = "auto",
        workers: int | str = "auto",
        seed: int = 0,
        dtype: str = "float32",
        stop_on_nonfinite: bool = True,
        keep_gradients: bool = False,
        parameters: Any = None,
        graphs: bool = True,
        precision: str = "highest",
        loss_weights: Any = None,
        penalties: Any = None,
        mixup: float = 0.0,
        on_gradients: OnGradients | None = None,
    ):
        options = Options(
            loss=loss, optimizer=optimizer, loss_weights=loss_weights, parameters=parameters,
            penalties=penalties, mixup=mixup,
            seed=seed, dtype=dtype, workers=workers, device=device,
            stop_on_nonfinite=stop_on_nonfinite, keep_gradients=keep_gradients, graphs=graphs,
            precision=precision, on_gradients=on_gradients,
        )  # fmt: skip
        super().__init__(model, options)
        self.metrics = metric_names.choose(metrics, self.losses)
        self.names = metric_names.names_of(self.losses, self.metrics)
        self.report = Report(self.names, self.losses.factors, not self.losses.single)
        for k, chosen in enumerate(self.metrics, len(self.losses.factors)):
            if chosen.metric.finish is not None:
                self.report.finish[k] = chosen.metric.finish
        #: of a full-batch method's search, what it goes on from
        self.search = np.zeros(self._search_size())
        self._open(workers, bool(graphs))
        self.session.control[control_block.SEED] = self.seed
        self.epoch = 0  # the current epoch; epochs done so far between runs
        self.cursor = 0  # samples of the current epoch that are done
        self.epoch_done = False  # within on_epoch_end: nothing is left to do of the current epoch
        self.first_epoch = 0
        self.stop_training = False
        self.interrupted = False  # whether Ctrl-C ended the last run
        self.feed_description: dict[str, Any] | None = None  # of the last run's data
        self.history = History()

    def _open(self, workers: int | str, graphs: bool) -> None:
        super()._open(workers, graphs)
        self._built: Kept[Built] = Kept()
        self._batch_sizes = BatchSizes(weakly(self.losses_alone))
        self._evaluation: Evaluation | None = None
        self.fitting = False  # whether a run is going on
        self.counting = False  # whether the control block's cursor is ahead of `cursor`
        self.hooks = CallbackList()  # those of the last run
        self.hook_call: HookCall | None = None  # that is being called, or was when Ctrl-C came
        self.pending: Loaded | None = None  # what callbacks of the next run take up
        self.before_validation: Any = None  # the buffers, while a validation goes on
        self.version = 0  # grows when programs have to be built anew

    def _total_count(self) -> int:
        return self.report.totals + self._search_size() // 2

    def _search_size(self) -> int:
        """Numbers that a full-batch method keeps, behind the totals."""
        full = isinstance(self.optimizer, FullBatch)
        return self.optimizer.state_size if full else 0  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        epoch, cursor = self.place  # in the middle of a hook, too
        return {**super().__getstate__(), "epoch": epoch, "cursor": cursor, "epoch_done": False}

    def refresh(self) -> None:
        """Discard the programs if the model has changed since they were built: its parts, a layer's
        attributes, or what is frozen.

        Raises:
            OptionError: parameters have moved in memory, or there are new ones.
        """
        self.store.check()
        if self._watch.changed():
            self._take_changes()

    def _forget(self) -> None:
        self._built.clear()
        self._batch_sizes.clear()
        self._evaluation = None
        self.version += 1

    # ---------------------------------------------------------------- steps, rates, parameters

    @property
    def step(self) -> int:
        """Number of optimiser steps taken so far."""
        synchronize(self.store)
        return int(self.session.control[control_block.STEP])

    @property
    def place(self) -> tuple[int, int]:
        """Completed epochs, and samples already used of the next one: where training resumes."""
        if self.hook_call is not None and self.hook_call.ends_epoch:
            return self.hook_call.number + 1, 0
        return (self.epoch + 1, 0) if self.epoch_done else (self.epoch, self.cursor)

    def rates(self, steps: int, first: int | None = None) -> np.ndarray:
        """Learning rates of so many steps of this epoch, for each parameter group: shape (steps,
        groups). `first` is the number of the first one; the next, if it isn't given."""
        return self.scheduled(self.step if first is None else first, steps, epoch=self.epoch)

    def get_parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters and buffers by name."""
        return self.model.state_dict()

    def set_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Copy these values into the parameters and buffers."""
        self.model.load_state_dict(dict(parameters))

    @training("fit")
    @told
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool | str | None = None,
        drop_last: bool = False,
        validation: Any = None,
        callbacks: Callback | Iterable[Callback | None] | None = (),
        verbose: bool = True,
        resume: str | Path | None = None,
        check_data: bool = True,
        sample_weight: Any = None,
    ) -> History:
        """Train the model.

        Data are given either as arrays or as batches. They are arrays if `y` is given, or if `x` is
        an array, a dict, a tuple, or a list that is not a list of batches. They are batches if `y`
        is not given and `x` is a list of pairs or triples of arrays, or any other iterable. Data
        that could be either are refused.

        Args:
            x: an array of samples (first dimension), from any library whose arrays NumPy can read;
                or several inputs, as a tuple or list of arrays, or as a dict by the names of
                `forward`'s arguments. NumPy arrays and memory maps are read in place. uint8 and
                bool are read as numbers or as ids, whichever the model takes. Or batches: a list of
                (inputs, targets) or (inputs, targets, sample weights), or any other iterable of
                these, which is iterated over once per epoch.
            y: targets, one for each sample, or a tuple or dict of several. None means that the
                inputs are the targets (autoencoders); each of several losses then finds its target
                among them by name or number, or else gets all of them. bool and uint8 are classes
                if the loss takes classes, and numbers otherwise (0 and 1 for binary cross-entropy).
            epochs: passes over the data, in addition to earlier ones; with `resume`, in total.
            batch_size: samples per step, 32 by default. The last batch of an epoch may be smaller,
                and so is every batch if there are fewer samples.
            shuffle: whether to draw a new data order for each epoch (the default).
            drop_last: leave out the last batch if it is smaller.
            validation: what to evaluate after each epoch: (x, y) or (x, y, sample weights), a list
                or iterable of batches, or the fraction of samples (the last ones) to hold out.
            callbacks: one or several of `fastnn.callbacks`, or your own.
            verbose: whether to show progress.
            resume: a checkpoint written by `save`. The run and its callbacks continue from there,
                bit for bit as if they had not been interrupted. Between epochs you may change the
                data and the batch size; a warning then says that the run is no longer the same.
            check_data: whether to look for NaN and infinity in the data first.
            sample_weight: the weight of each sample in losses and metrics, of shape (samples,), or
                of the shape of the targets' rows ((samples, steps), with 0 for padding). Means are
                divided by the sum of the weights.

        Returns:
            The history of this call. After Ctrl-C it ends early, and ``stopped`` says so.

        Raises:
            DataError, ShapeError, OptionError: bad input, before anything is trained; or an
                epoch's targets were all ignored.
            BusyError: another thread is training the model.
            NonFiniteError: the loss or a parameter became NaN or infinite (`stop_on_nonfinite`).
            KernelError: one of your kernels raised an exception; the model is as it was before that
                step, and the next run starts the epoch again.
        """
        return fitting.fit(
            self,
            Request(
                x, y, epochs, batch_size, shuffle, drop_last, validation, callbacks, verbose,
                resume, check_data, sample_weight,
            ),
        )  # fmt: skip

    def checked(self, x: Any, y: Any, weight: Any, check_data: bool, what: str) -> Data:
        """x, y, sample weights, ready for steps; `check_data`: DataError for NaN, with `what`."""
        inputs, targets, weights = self.arrays(x, y, weight, f"{what} ", f"{what} data")
        if check_data:
            check_finite(inputs, f"{what} inputs", self.dtype)
            check_finite(targets, f"{what} targets", self.dtype)
        return self.understood(inputs, targets, weights)

    # ---------------------------------------------------------------- evaluate, predict

    @reading("evaluate")
    @told
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        check_data: bool = True,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Compute losses and metrics over all samples together, in evaluation mode.

        Args:
            x, y: as in `fit`: arrays, or batches.
            batch_size: samples at a time, 256 by default; it affects the result only by rounding. A
                loss that is neither a mean nor a sum over rows is computed on all samples at once.
            check_data: whether to look for NaN and infinity first.
            sample_weight: as in `fit`.

        Returns:
            The numbers by name; NaN for a metric or one of several losses in which nothing counts.

        Raises:
            DataError, ShapeError, OptionError: unfit data; also weights that are all 0.
        """
        batch = checked_batch_size(batch_size, 256)
        if gives_batches(x, y):
            if y is not None or batch_size is not None or sample_weight is not None:
                raise OptionError(
                    "evaluate: an iterable of batches gives inputs, targets and sample weights "
                    "itself, as they are; leave out y, batch_size and sample_weight"
                )
            return self.evaluation().of_batches(x, check_data)
        data = self.checked(x, y, sample_weight, check_data, "evaluation")
        return self.evaluation().of_arrays(*data, batch)

    def evaluation(self) -> Evaluation:
        """What evaluates; kept between calls."""
        self.refresh()
        if self._evaluation is None:
            self._evaluation = Evaluation(self)
        return self._evaluation

    def predict(self, *inputs: Any, batch_size: int = 256, **named: Any) -> Any:
        """The model's outputs for arrays of samples, by place or `named`, `batch_size` at a time,
        at the trainer's precision; see `Module.predict`."""
        precision = self.precision
        return self.model.predict(*inputs, batch_size=batch_size, precision=precision, **named)

    def __repr__(self) -> str:
        name = type(self.model).__name__
        return f"Trainer({name}, {self.optimizer!r}, epochs done: {self.epoch})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, optimiser state, step, seed, position in the data and the callbacks'
        state to a safetensors file, atomically. `load`, or `fit` with `resume`, continues from it.
        """
        from fastnn.train.checkpoint import save_trainer

        averages.refuse_aside(self, "save")
        save_trainer(self, path)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote. Raises CheckpointError if model or optimiser do not fit it."""
        from fastnn.train.checkpoint import load_trainer

        load_trainer(self, path)
