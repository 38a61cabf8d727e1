"""What every optimiser shares: options per parameter group, clipping, weight decay, slots.

To add an optimiser, write one small file: a subclass with its options, `slots`, `scalars` and
`rule`; the loops over memory, the schedule and the fusion with the gradient come from here.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from fastnn.errors import OptionError, check_whole
from fastnn.kernels.update.making import make_prepare, make_update
from fastnn.kernels.update.shared import ACCUMULATED, SHARED
from fastnn.optim.common import (
    MOST,
    check_not_negative,
    check_numbers,
    check_positive,
    no_schedule,
    plain,
    refuse_unknown,
)
from fastnn.optim.schedule import Schedule
from fastnn.optim.shown import call_text

#: options that every optimiser takes beside its own
COMMON = (
    "lr", "weight_decay", "decoupled_weight_decay", "clip_value", "clip_norm", "maximize",
    "max_norm", "proximal_l1", "gradient_noise",
)  # fmt: skip
#: names that a rule's own options can't have, as the kernel that prepares a step has them
RESERVED = frozenset(
    ("control", "schedule", "hyper", "group", "l2", "decay", "limit", "sign", "every", "rate", "t")
)
#: options that are yes or no
SWITCHES = (
    "maximize", "nesterov", "centered", "amsgrad", "match_rms", "orthogonal",
)  # fmt: skip
#: of (the name of a rule's kernel, operands by name): applies it
Apply = Callable[..., None]


class Optimizer:
    """Base class of optimisers.

    Args:
        lr: learning rate, a number >= 0, or a `schedules.Schedule` whose factors are the rates (as
            ``lr=1.0, schedule=...``).
        weight_decay: L2 regularisation: `weight_decay * p` is added to the gradient of p, as if
            `weight_decay / 2 * sum(p**2)` were a term of the loss.
        decoupled_weight_decay: p shrinks by `lr * decoupled_weight_decay * p` at each step,
            independent of the gradient (Loshchilov & Hutter 2019).
        clip_value: clip every gradient element to [-clip_value, clip_value].
        clip_norm: scale the gradient of each parameter to at most this L2 norm.
        clip_global_norm: scale all gradients together to at most this L2 norm (Pascanu et al.
            2013). Clipping by value comes after clipping by a norm.
        max_norm: after the update each unit's weights (a row of the array as `value` shows it, such
            as those that come into one unit of a `Linear` layer) are scaled down to at most this L2
            norm (Srebro & Shraibman 2005; Hinton et al. 2012). Arrays of one axis (biases) have no
            such rows, and are left as they are.
        proximal_l1: L1 regularisation by its proximal step: after the update each number moves
            towards 0 by `lr * proximal_l1` and stops there (Daubechies, Defrise & De Mol 2004;
            Duchi & Singer 2009), so weights become exactly 0. (`nn.L1Penalty` is the term of the
            loss.)
        gradient_noise: eta of normally distributed noise on the gradients, of variance
            ``eta / (1 + t)**0.55`` in the update t = 0, 1, ... (Neelakantan et al. 2015, "Adding
            gradient noise improves learning for very deep networks"; eta is 0.01, 0.3 or 1 there).
            It comes after clipping by a norm and before clipping by value.
        maximize: go up the gradient instead of down; weight decay still pulls towards 0, as in
            PyTorch.
        accumulate: number of steps whose gradients are averaged into one update, as if the batch
            were that many times larger (except for batch norms). Decay and clipping apply to the
            average. Schedules count steps; the bias corrections and averages of the rules count
            updates. Gradients left over at the end of an epoch carry over into the next one.
        groups: options for some parameters, by name pattern:
            ``{"*.bias": {"weight_decay": 0.0}, "embed.*": {"lr": 1e-4}}``. The first pattern that
            matches a parameter's name applies.
        schedule: gives the rate of each step from the group's `lr` (`fastnn.optim.schedules`).
        given, options: the optimiser's own options, by place and by name.

    Raises OptionError for options that are unknown, out of range or exclude each other, and for
    groups that are no dict of options by name pattern.
    """

    #: name of the kernels and of the slots in checkpoints, and for who names it by a string
    name: ClassVar[str] = ""
    #: options by further names (`Trainer(..., optimizer="amsgrad")`)
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: whether each number is updated by itself, whatever parameter it belongs to
    elementwise: ClassVar[bool] = True
    #: the option that says from which step on parameters are averaged, where a callback may say it
    trigger: str | None = None
    #: the step from which on they are, once a callback has said it
    begun: int | None = None

    #: what the constructor was given
    _given: tuple[Sequence[Any], Mapping[str, Any]]
    #: the option that the constructor's `weight_decay` is
    decay_option: ClassVar[str] = "weight_decay"

    def __new__(cls, *given: Any, **options: Any) -> Self:
        """Refuses the names that only a rule knows, as "beta1" for what `betas` holds."""
        takes = inspect.signature(cls.__init__).parameters
        if cls.__module__.startswith("fastnn.optim.") and "common" in takes:
            known = {*takes, *inspect.signature(Optimizer.__init__).parameters}
            known -= {"self", "common", "options"}
            if cls.decay_option == "decoupled_weight_decay":
                known.remove("decoupled_weight_decay")
            refuse_unknown(cls.__name__, set(options) - known, known)
        made = super().__new__(cls)
        made._given = given, options
        return made

    def __init__(
        self,
        *,
        lr: float | Schedule,
        weight_decay: float = 0.0,
        decoupled_weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        clip_global_norm: float | None = None,
        max_norm: float | None = None,
        proximal_l1: float = 0.0,
        gradient_noise: float = 0.0,
        maximize: bool = False,
        accumulate: int = 1,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        schedule: Schedule | None = None,
        **options: float,
    ):
        if isinstance(lr, Schedule):
            if schedule is not None:
                raise OptionError(
                    "optimizer lr and schedule: expected one schedule, got two; multiply them "
                    "(lr=a * b), or pass lr as a number"
                )
            schedule = lr
            lr = 1.0
        if schedule is not None and not isinstance(schedule, Schedule):
            raise no_schedule(schedule)
        clip_global_norm = plain(clip_global_norm)
        options = {name: plain(value) for name, value in options.items()}
        self.options: dict[str, Any] = {
            "lr": plain(lr),
            "weight_decay": plain(weight_decay),
            "decoupled_weight_decay": plain(decoupled_weight_decay),
            "clip_value": plain(clip_value),
            "clip_norm": plain(clip_norm),
            "maximize": plain(maximize),
            "max_norm": plain(max_norm),
            "proximal_l1": plain(proximal_l1),
            "gradient_noise": plain(gradient_noise),
            **options,
        }
        self.own = tuple(options)
        self._refuse_unknown()
        check_whole("optimizer", 1, MOST, accumulate=accumulate)
        self.accumulate = int(accumulate)
        self.clip_global_norm = clip_global_norm
        groups = {} if groups is None else groups
        if not isinstance(groups, Mapping) or any(
            not isinstance(k, str) or not isinstance(v, Mapping) for k, v in groups.items()
        ):
            raise OptionError(
                "optimizer groups: expected a dict of options by name pattern, such as "
                f"{{'*.bias': {{'weight_decay': 0.0}}}}, got {groups!r}"
            )
        self.groups = {
            k: {name: plain(value) for name, value in v.items()} for k, v in groups.items()
        }
        self.schedule = schedule
        self._check(self.options, "")
        check_positive("clip_global_norm", clip_global_norm)
        for pattern, changes in self.groups.items():
            unknown = set(changes) - set(self.options)
            if unknown:
                raise OptionError(
                    f"optimizer group {pattern!r}: unknown option {sorted(unknown)[0]!r}; "
                    f"expected some of {sorted(self.options)}"
                )
            self._check({**self.options, **changes}, f"group {pattern!r}: ")
        norms = [self.options, *self.groups.values()]
        if clip_global_norm is not None and any(o.get("clip_norm") is not None for o in norms):
            raise OptionError(
                "optimizer clip_norm and clip_global_norm: expected one of the two; leave one out"
            )

    # ---------------------------------------------------------------- what a subclass gives

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter, of the parameter's shape."""
        return ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """The slots, and the sum of gradients where several steps make one update."""
        return (*self.slots, ACCUMULATED) if self.accumulate > 1 else tuple(self.slots)

    def initial(self, slot: str) -> float:
        """The number a slot begins with."""
        return 0.0

    @property
    def copied(self) -> tuple[str, ...]:
        """The slots that begin as copies of the parameters."""
        return ()

    def averages(self, p: Any, slots: Mapping[str, Any]) -> Any:
        """Averaged parameters, from arrays of parameters and slots; None if there is no average."""
        return None

    def begin_average(self, step: int | None) -> None:
        """Average from this step (from 1) on, whatever the options say; None: as they say."""
        self.begun = step

    @property
    def unlimited(self) -> tuple[str, ...]:
        """Own options that may be of any size: the rule doesn't compute with them."""
        return ()

    #: the rule's scalars for step t = 1, 2, ... in float64: `scalars(t, lr, *options)`, with the
    #: own options in order, returns a tuple
    scalars: ClassVar[Callable[..., tuple[float, ...]]]
    #: new values of p and of the slots, from vectors of them: `rule(p, g, *slots, *scalars)`
    #: returns a tuple
    rule: ClassVar[Callable[..., tuple[Any, ...]]]

    def check(self, options: Mapping[str, Any]) -> str | None:
        """What is wrong with these options, or None."""
        return None

    # ---------------------------------------------------------------- what comes with it

    def _refuse_unknown(self) -> None:
        """What a constructor was given beyond its own options comes last among them."""
        takes = inspect.signature(type(self).scalars).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in takes):
            return
        count = len(takes) - 2  # without t and lr
        if len(self.own) > count:
            known = {*COMMON, "clip_global_norm", "accumulate", "groups", "schedule"}
            known.update(self.own[:count])
            refuse_unknown(type(self).__name__, self.own[count:], known)

    def _check(self, options: Mapping[str, Any], prefix: str) -> None:
        shown = {n: prefix + ("weight_decay" if n == self.decay_option else n) for n in options}
        check_numbers(options, shown, SWITCHES)
        check_not_negative({n: v for n, v in options.items() if n not in self.own}, shown)
        for name in ("clip_value", "clip_norm", "max_norm"):
            check_positive(prefix + name, options[name])
        problem = self.check(options)
        if problem:
            raise OptionError(f"optimizer {prefix}{problem}")
        check_not_negative(options, shown)  # those whose range `check` does not name

    def group_of(self, parameter: str) -> int:
        """Number of the group a parameter belongs to; 0 is the default group."""
        for number, pattern in enumerate(self.groups, 1):
            if fnmatch.fnmatchcase(parameter, pattern):
                return number
        return 0

    def check_groups(self, parameters: Iterable[str]) -> None:
        """Raise OptionError unless each group's pattern matches one of these parameters' names."""
        names = list(parameters)
        for pattern in self.groups:
            if not fnmatch.filter(names, pattern):
                raise OptionError(
                    f"optimizer group {pattern!r} matches no parameter; expected a pattern for "
                    f"some of {names}"
                )

    def group_options(self, number: int) -> dict[str, Any]:
        """The options of a group."""
        if number == 0:
            return dict(self.options)
        return {**self.options, **list(self.groups.values())[number - 1]}

    @property
    def rate_factor(self) -> float:
        """The factor (see `rates`) that stands for the rates as given."""
        return 1.0 if self.options["lr"] else 0.0

    def factor_for(self, rate: float) -> float:
        """The factor that makes the base learning rate `rate`."""
        return rate / (float(self.options["lr"]) or 1.0)

    def rate_for(self, factor: float) -> float:
        """The base learning rate that a factor stands for."""
        return (float(self.options["lr"]) or 1.0) * factor

    def rates(self, factor: float) -> list[float]:
        """The groups' learning rates, all scaled by a factor.

        Where the base rate is 0 the factor is the rate itself, of the groups without one.
        """
        base = self.options["lr"]
        given = [float(base), *(float(own.get("lr", base)) for own in self.groups.values())]
        if base:
            return [rate * factor for rate in given]
        return [rate or factor for rate in given]

    @property
    def group_count(self) -> int:
        """Number of parameter groups, the default one included."""
        return 1 + len(self.groups)

    def own_values(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        """The optimiser's own options as numbers, in order."""
        return tuple(float(options[name]) for name in self.own)

    @property
    def bounded(self) -> bool:
        """Whether gradients and parameters within bounds are known to give finite parameters (see
        `engine/guard.py`): where not, each step begins with copies of what it changes."""
        if not type(self).__module__.startswith("fastnn.optim."):
            return False
        return all(
            all(
                abs(float(v)) <= 1e3
                for n, v in group.items()
                if n not in ("lr", *self.unlimited) and v is not None
            )
            and group.get("eps", 1.0) >= 1e-16
            for group in map(self.group_options, range(self.group_count))
        )

    @property
    def kernel_name(self) -> str:
        """Name of the kernels; differs where options change the rule's form."""
        return self.name

    @property
    def scalar_count(self) -> int:
        """How many numbers `scalars` returns."""
        values = self.own_values(self.options)
        return len(self._scalars()(1, float(self.options["lr"]), *values))

    def kernels(self) -> tuple[str, str]:
        """Names of the prepare and the update kernel (declared on the first call)."""
        update = make_update(
            f"{self.kernel_name}_update", self._rule(), self.slots, self.scalar_count
        )
        return self._prepare_kernel(), update.name

    def _prepare_kernel(self) -> str:
        if taken := sorted(RESERVED & set(self.own)):
            raise OptionError(
                f"{type(self).__name__}: expected another name for the option {taken[0]!r}, which "
                "kernels have for something else; rename it in __init__ and scalars"
            )
        name, every = f"{self.kernel_name}_prepare", self.accumulate > 1
        return make_prepare(name, self._scalars(), self.own, every).name

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        """Add the update of one parameter to a step's graph.

        Args:
            apply: function of the name of one of its kernels and operands by name, that applies it.
            given: values by name: "p", "g", the slots, "hyper" (what the prepare kernel has
                computed), "scale" (a factor of the gradient, or None), "guard" (or None).
            options: those of the parameter's group.
            transposed: whether the parameter lies in memory transposed.
        """
        apply(self.kernels()[1], **given)

    def _rule(self) -> Any:
        return type(self).rule

    def _scalars(self) -> Any:
        return type(self).scalars

    @property
    def description(self) -> str:
        """Its kind, as checkpoints name it."""
        return type(self).__name__

    def adopt(self, other: Optimizer, own: Mapping[str, float]) -> None:
        """Take over another's options, groups and schedule, and options of one's own beside."""
        own = {name: plain(value) for name, value in own.items()}
        self.options = {**other.options, **own}
        self.own = (*other.own, *own)
        self.groups, self.schedule = other.groups, other.schedule
        self.clip_global_norm, self.accumulate = other.clip_global_norm, other.accumulate
        self._check(self.options, "")

    @property
    def hyper_size(self) -> int:
        """Numbers in the array that the prepare kernel fills."""
        return SHARED + self.scalar_count

    def __repr__(self) -> str:
        return call_text(type(self), *self._given)
