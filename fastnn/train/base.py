"""What a trainer and a step share: options, memory, what is trained, rates, checks of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastnn import optim
from fastnn.engine import scaling
from fastnn.engine.arrays import NO_ARRAYS, Arrays, as_arrays, check_lengths, check_weights
from fastnn.engine.builder import GRADIENT
from fastnn.engine.model import PROBE, first_fit, fixed_batch, resolved
from fastnn.engine.precision import check_precision
from fastnn.engine.session import Session
from fastnn.engine.specs import Spec
from fastnn.engine.update import Objective
from fastnn.errors import OptionError
from fastnn.graph.leaf import as_seen
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.structure import Watch, select
from fastnn.optim.full_batch import FullBatch
from fastnn.runtime import devices
from fastnn.runtime.interface import Bound
from fastnn.spellings import missing
from fastnn.train import averages, copies, mixup
from fastnn.train.build import StepBuilder
from fastnn.train.exchange import partners
from fastnn.train.mixup import Mixture
from fastnn.train.options import check_device_options, check_on_gradients, check_options
from fastnn.train.penalties import Penalties
from fastnn.weak import weakly

Specs = tuple[Spec, ...]
#: what users' functions of gradients look like
OnGradients = Callable[[Mapping[str, np.ndarray]], None]
#: inputs, targets, sample weights
Data = tuple[Arrays, Arrays, Arrays]


@dataclass(frozen=True)
class Options:
    """The options that `Trainer` and `fastnn.compile` share, as they were given; see there."""

    loss: Any
    optimizer: str | optim.Optimizer
    loss_weights: Any
    penalties: Any
    mixup: float
    parameters: Any
    seed: int
    dtype: str
    workers: int | str
    device: str
    stop_on_nonfinite: bool
    keep_gradients: bool
    graphs: bool
    precision: str
    on_gradients: OnGradients | None


class Training(ABC):
    """A model that is trained by programs, with the memory of it and of its optimiser."""

    #: what messages call it
    kind: ClassVar[str]
    #: attributes that a copy makes anew
    rebuilt: ClassVar[frozenset[str]] = frozenset(
        {"_chosen", "_host", "store", "session", "_resolved", "_plans", "_watch", "aside", "latest"}
    )

    if not TYPE_CHECKING:  # which would take any attribute for one that there is

        def __getattr__(self, name: str) -> Any:
            raise missing(self, self.kind, name)

    def __init__(self, model: Module, options: Options):
        self.losses, self.optimizer = check_options(
            model, options.loss, options.optimizer, options.seed, options.dtype,
            options.loss_weights,
        )  # fmt: skip
        self.loss = self.losses.functions[0] if self.losses.single else self.losses
        self.penalties = Penalties(model, options.penalties)
        self.mixup = mixup.check(options.mixup)
        check_device_options(options.device, options.graphs)
        self.model, self.seed, self.dtype = model, int(options.seed), options.dtype
        self.device = devices.choose(options.device)
        self.precision = check_precision(options.precision, self.dtype)
        scaling.check(self.precision, self.optimizer, isinstance(self.optimizer, FullBatch))
        self.stop_on_nonfinite = bool(options.stop_on_nonfinite)
        check_on_gradients(options.on_gradients)
        self._on_gradients = options.on_gradients
        self.keep_gradients = bool(options.keep_gradients) or self.on_gradients is not None
        self._selection = options.parameters
        self.rate_factor = self.optimizer.rate_factor

    def _open(self, workers: int | str, graphs: bool) -> None:
        """Memory and workers: of a new one, and of a copy."""
        from fastnn.engine.plans import Plans  # brings the planner

        self._chosen = select(self.model, self._selection, "parameters")
        self.store = self.model.store(self.dtype, self.seed)
        self.store.device = self.device
        self.session = Session(
            self.store, self.optimizer.arrays, self._total_count(), workers, self.device, graphs
        )
        #: the number by which programs call `on_gradients`
        self._host: int | None = None
        if self.on_gradients is not None:
            self._host = self.session.on_host("on_gradients", weakly(self._show_gradients))
            group = partners(self.on_gradients)
            both = group is not None and not devices.on_host(group.device)
            if both and not devices.on_host(self.device):
                self.session.use_device_all_reduce(self._host, group)
        for slot in self.optimizer.arrays:
            self.session.memory[f"slots/{slot}"].fill(self.optimizer.initial(slot))
        averages.begin(self)
        scaling.begin(self.session.control, self.precision)
        self.aside: Any = None  # the parameters, while averages are in their place
        self._resolved: dict[tuple[Specs, Specs, Specs], tuple[Specs, Specs]] = {}
        self._plans = Plans()
        self._watch = Watch(self.model)
        self.latest: Any = None  # what the next `fit` may take up (`again`)

    @property
    def loss_scale(self) -> float:
        """The factor that the next step's gradients have while they are computed: a power of two at
        precision="fp16", 1.0 at any other (docs/precision.md)."""
        return scaling.factor_of(self.session.control, self.precision)

    def _total_count(self) -> int:
        """How many running totals of losses and metrics there are."""
        return 0

    def __getstate__(self) -> dict[str, Any]:
        return copies.contents(self, self.rebuilt)

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_copied")
        self.__dict__.update(state)
        self._open(copied["workers"], copied["graphs"])
        copies.fill(self, copied)

    def averaged(self) -> AbstractContextManager[Module]:
        """A context manager that replaces the model's parameters by the averages that the optimiser
        keeps (`optim.EMA`, `SWA`, `ASGD`, `ScheduleFreeAdamW`), to evaluate, predict and save with.

        Afterwards they are exactly those of training again. (`fit` validates the averages anyway.)
        Anything that is not a trained parameter, such as the running statistics of a batch norm,
        stays as it is.

        Raises:
            OptionError: the optimiser keeps no averages; or `fit`, a step or `save` is called
                inside the context.

        >>> import numpy as np
        >>> import fastnn as fnn
        >>> from fastnn import nn, optim
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        >>> trainer = fnn.Trainer(nn.Linear(4, 1), "mse", optim.EMA(optim.Adam(), decay=0.9))
        >>> history = trainer.fit(x, x[:, :1], epochs=3, verbose=False)
        >>> with trainer.averaged() as model:
        ...     score = trainer.evaluate(x, x[:, :1])
        ...     kept = model.state_dict()
        """
        return averages.averaged(self)

    def begin_average(self, step: int | None) -> None:
        """Let the optimiser average from this step (from 1) on; None: not yet."""
        if self.optimizer.trigger is None:
            raise OptionError(
                f"begin_average: {type(self.optimizer).__name__} keeps no average that can be "
                "begun; use optim.ASGD or optim.SWA"
            )
        counted = None if step is None else (step - 1) // self.optimizer.accumulate + 1
        self.optimizer.begin_average(counted)
        self._forget()

    @property
    def on_gradients(self) -> OnGradients | None:
        """What each training step calls with its gradients; programs are made for it."""
        return self._on_gradients

    # ---------------------------------------------------------------- what is trained, and how fast

    @property
    def trained(self) -> dict[str, Parameter]:
        """The parameters that are trained, by name: those chosen that are not frozen."""
        return {name: p for name, p in self._chosen.items() if p.trainable}

    @property
    def learning_rate(self) -> float:
        """The base learning rate; setting it scales the rates of all parameter groups equally."""
        return self.optimizer.rate_for(self.rate_factor)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not (np.isfinite(rate) and rate >= 0):
            raise OptionError(f"learning_rate: expected a number >= 0, got {rate!r}")
        self.rate_factor = self.optimizer.factor_for(float(rate))
        self._rates_changed()

    def scheduled(self, first: int, steps: int, **epoch: int) -> np.ndarray:
        """Learning rates of so many steps from number `first` on, for each parameter group, shape
        (steps, groups). `epoch`: which it is, or how many steps it has, as for the schedule."""
        base, schedule = self.optimizer.rates(self.rate_factor), self.optimizer.schedule
        if schedule is None:
            found = np.empty((steps, len(base)))
            found[:] = base
            return found
        return np.stack([schedule.rates(b, first, steps, **epoch) for b in base], axis=1)

    def _rates_changed(self) -> None:  # noqa: B027 - a trainer asks for them in each epoch
        """Rates that were computed ahead are not right any more."""

    def _take_changes(self) -> None:
        """The model has changed (its parts, attributes of a layer, what is frozen): forget what was
        made of it.

        Raises OptionError where it has new parameters.
        """
        copies.refuse_new_parameters(self.model, self.store, self.kind)
        self._chosen = select(self.model, self._selection, "parameters")
        self._resolved.clear()
        self._plans.clear()
        self._forget()
        self._watch.accept()

    @abstractmethod
    def _forget(self) -> None:
        """Forget the programs."""

    # ---------------------------------------------------------------- data

    def arrays(self, x: Any, y: Any, weight: Any, prefix: str, whole: str) -> Data:
        """Inputs, targets and sample weights as arrays that fit each other.

        Args:
            prefix: what messages put before "inputs" and "targets".
            whole: what messages call inputs and targets together.
        """
        several = not self.losses.single
        inputs = as_arrays(x, "x", f"{prefix}inputs")
        targets = NO_ARRAYS if y is None else as_arrays(y, "y", f"{prefix}targets", several)
        weights = NO_ARRAYS
        if weight is not None:
            weights = as_arrays(weight, "w", "sample_weight", several)
            check_weights(weights, inputs, self.dtype)
        check_lengths(inputs, targets, whole)
        return inputs, targets, weights

    def understood(self, x: Arrays, y: Arrays, w: Arrays) -> Data:
        """The same data, small integers among the inputs as the model takes them, and bool and
        uint8 among the targets as the losses do: as ids, or else as numbers."""
        key = x.specs, y.specs, w.specs
        if key not in self._resolved:
            inputs = resolved(self.model, x.specs)
            self._resolved[key] = inputs, self._resolved_targets(inputs, y.specs, w.specs)
        inputs, targets = self._resolved[key]
        return x.with_specs(inputs), y.with_specs(targets), w

    def _resolved_targets(self, x: Specs, y: Specs, w: Specs) -> Specs:
        def traced(found: Specs) -> None:
            batch = fixed_batch(self.model) or PROBE
            builder = StepBuilder(self.model, self.store, batch, False, "direct")
            self.describe(builder, x, found, w)

        return first_fit(y, "if", traced)

    # ---------------------------------------------------------------- building

    def builder(self, batch: int, training: bool, feed: str) -> StepBuilder:
        """What puts a step's graph together."""
        return StepBuilder(
            self.model,
            self.store,
            batch,
            training,
            feed,
            self.session.runtime.kind,
            self.precision,
        )

    def describe(
        self, builder: StepBuilder, x: Specs, y: Specs, w: Specs
    ) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        """Put data, model and losses into a graph; returns the values of the data."""
        inputs = builder.inputs("x", x)
        targets = builder.inputs("y", y) if y else inputs
        builder.of_inputs = not y
        weights = builder.inputs("w", w)
        training = builder.graph.training
        mixture = Mixture(builder, self.mixup) if self.mixup and training else None
        given = inputs if mixture is None else mixture.inputs(inputs)

        def traced(builder: StepBuilder) -> None:
            loss = builder.loss(self.losses, builder.outputs(given), targets, weights)
            if mixture is not None:
                loss = builder.places["loss"] = mixture.loss(self.losses, loss, targets, weights)
            if self.penalties and training:
                builder.places["loss"] = self.penalties.add_to(loss, self.trained)

        builder.trace(traced, again=training and hasattr(self.optimizer, "shift"))
        return inputs, targets, weights

    def losses_alone(self, batch: int, training: bool, x: Specs, y: Specs, w: Specs) -> StepBuilder:
        """The losses of a batch of any size, for a look at them."""
        builder = self.builder(batch, training, "direct")
        builder.graph.stateless = True
        Training.describe(self, builder, x, y, w)
        return builder

    def _traced(self, kind: str, batch: int, specs: tuple[Specs, Specs, Specs]) -> StepBuilder:
        """A step of some kind ("train", "gradients" or "evaluate") as far as its losses."""
        builder = self.builder(batch, kind != "evaluate", "direct")
        self.describe(builder, *specs)
        return builder

    def add_updates(self, builder: StepBuilder) -> None:
        """Make it a training step: gradients of the loss, and updates."""
        self.store.dropped = not self.keep_gradients
        objective = Objective(
            builder.places["loss"], self.trained, self.optimizer, again=builder.loss_again
        )
        builder.train(objective, self.keep_gradients, self.stop_on_nonfinite, self._host)

    def _show_gradients(self, bound: Bound) -> None:
        """Call `on_gradients` in the middle of a step."""
        names = [name for name in bound.program.places if name.startswith(GRADIENT)]
        with bound.edit(names) as arrays:
            gradients = {}
            for place in names:
                name = place.removeprefix(GRADIENT)
                array = arrays[place]
                gradients[name] = as_seen(array) if self._chosen[name].transposed else array
            result: Any = self.on_gradients(MappingProxyType(gradients))  # type: ignore[misc]
        if result is not None:
            raise OptionError(
                f"on_gradients: expected a function that returns None, got {type(result).__name__}"
                "; to change a gradient write to its array, gradients[name][...] = new"
            )
