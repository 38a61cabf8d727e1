"""Runs a model forward over arrays."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from typing import Any

import numpy as np

from fastnn.engine.access import AGAIN, Access, access_to, building
from fastnn.engine.arrays import Arrays, as_arrays
from fastnn.engine.builder import Builder, follows_size
from fastnn.engine.model import PROBE, Model, fixed_batch, resolved
from fastnn.engine.outputs import (
    FIRST,
    MIXED,
    in_work,
    join_of,
    put_part,
    result_rows,
    scattered,
    structure_of,
    whole_shape,
)
from fastnn.engine.precision import check_precision
from fastnn.engine.ready import Forward, Ready
from fastnn.engine.session import CarriedStates, Session, segments_for
from fastnn.engine.specs import Spec
from fastnn.errors import OptionError, is_whole
from fastnn.graph.tree import leaves, rebuild
from fastnn.kernels import control_block
from fastnn.plan.samples import Samples
from fastnn.runtime import devices
from fastnn.runtime.kept import Kept
from fastnn.weak import there

#: a predictor's attributes
_ALL = (
    "_access", "_bound", "_forwards", "_given", "_idle", "_joins", "_latest", "_others",
    "_parameters", "_plans", "_readers", "_resolved", "_stateful", "_turn", "device", "precision",
    "session", "store",
)  # fmt: skip


class Predictor:
    """Forward passes of a model in evaluation mode; programs are kept for shapes that come again,
    up to `FASTNN_PROGRAM_BYTES` (`fastnn/runtime/kept.py`).

    On the CPU each batch is a call of a program that stays bound, and its outputs are copied into
    the results; arrays like those of a call before go a short way (`_again`). On a GPU the batches
    are gathered and the results scattered on the device.

    Batches may be cut where an output has a piece for each sample that depends on this sample alone
    (`fastnn/plan/samples.py`). A model with an output of another kind gets all samples at once,
    whatever the batch size.

    Args:
        model: the model; or a weak reference, where the model keeps the predictor (see `of`).
        workers: number of workers, or "auto".
        fixed: whether the model's parameters change between calls only if `renew` is called before
            the next one. Then weights that are read in 16 bits are rounded once, not in each call.
    """

    def __init__(
        self, model: Model | weakref.ref[Any], workers: int | str = "auto", fixed: bool = False
    ):
        from fastnn.engine.plans import Plans  # brings the planner

        self._given = model
        self._keeps: Model | None = None
        self.store = self.model.store()
        self.session = Session(self.store, (), 1, workers, self.store.device)
        self.device = self.session.device
        self._forwards: Kept[Forward] = Kept()
        self._bound: Kept[Ready] = Kept()
        self._joins: dict[tuple[Spec, ...], tuple[str, ...]] = {}
        #: whether one call changes what the next one gives
        self._stateful = fixed_batch(self.model) is not None
        #: what `_again` has found last, and for which key
        self._latest: list[Any] = [None, None]
        self._readers = access_to(self.store)
        self._turn = Access("predict", sys._getframe(), owner=AGAIN)
        self._turn.end()
        #: those that no thread is using; None: this one
        self._idle: deque[Predictor | None] = deque([None])
        #: those with memory of their own, for other threads
        self._others: weakref.WeakSet[Predictor] = weakref.WeakSet()
        if self._stateful:
            access_to(self)  # made now: what `of` returns has the same
        self.precision = "highest"  # of the call that is going on
        self._resolved: dict[tuple[Spec, ...], tuple[Spec, ...]] = {}
        self._plans = Plans()
        #: the parameters that programs were made with, where they stay as they are
        self._parameters = self.store.memory["params"].copy() if fixed else None

    @property
    def model(self) -> Model:
        """The model."""
        given: Any = self._given
        found: Model
        found = there(given, "a model's predictor") if isinstance(given, weakref.ref) else given
        return found

    def of(self, model: Model) -> Predictor:
        """The same for somebody to keep: it keeps the model alive."""
        found = Predictor.__new__(Predictor)
        for name in _ALL:  # not by `vars`, whose objects have slower attributes ever after
            if hasattr(self, name):
                setattr(found, name, getattr(self, name))
        found._keeps = model
        return found

    def renew(self) -> None:
        """Take the parameters as they are now, where they were to stay as they are."""
        now = self.store.memory["params"]
        if self._parameters is None or np.array_equal(self._parameters, now):
            return
        turn = access_to(self.store).train(Access("renewing a predictor", sys._getframe()))
        try:  # no thread is predicting
            self._parameters[:] = now
            self._forwards.clear()
            self._plans.clear()
            for worker in (self, *self._others):
                worker._bound.clear()
                worker._latest[:] = None, None
        finally:
            turn.end()

    def __call__(
        self, *inputs: Any, batch_size: int = 256, on_device: bool = False,
        precision: str = "highest",
    ) -> Any:  # fmt: skip
        return self.call(inputs, batch_size, on_device, precision)

    def call(
        self, inputs: tuple[Any, ...], batch_size: int, on_device: bool, precision: str,
        in_turn: bool = False,
    ) -> Any:  # fmt: skip
        """The same by place, which takes Python less time; `in_turn`: within `_one_by_one`."""
        if precision.__class__ is not str or precision != "highest":
            precision = check_precision(precision, self.store.dtype)
        if self._stateful and not in_turn:
            return self._one_by_one(inputs, batch_size, on_device, precision)
        try:
            idle = self._idle.pop()
            worker = self if idle is None else idle
        except IndexError:  # other threads are predicting
            idle = worker = self._another()
        turn = worker._turn
        try:
            self._readers.read_again(turn)
            worker.precision = precision
            ready = None if on_device else worker._again(inputs, batch_size)
            if ready is not None:
                return ready.again(inputs)
            return worker.outputs(inputs, batch_size, on_device)
        finally:
            try:
                turn.end()
            finally:  # whatever comes in that moment: its next call takes the turn again
                self._idle.append(idle)

    def _one_by_one(
        self, inputs: tuple[Any, ...], batch_size: int, on_device: bool, precision: str
    ) -> Any:
        """The outputs of a model with states, whose calls wait for each other."""
        turn = self._readers.read(Access("predict", sys._getframe()))
        try:
            place = access_to(self).train(Access("predict", sys._getframe()), wait=True)
            try:
                return self.call(inputs, batch_size, on_device, precision, True)
            finally:
                place.end()
        finally:
            turn.end()

    def _another(self) -> Predictor:
        """Another one with memory of its own, for another thread."""
        with building:
            other = Predictor(self._given, self.session.workers, self._parameters is not None)
        other._forwards, other._joins, other._plans = self._forwards, self._joins, self._plans
        other._parameters = self._parameters
        self._others.add(other)
        return other

    def outputs(self, inputs: tuple[Any, ...], batch_size: int, on_device: bool) -> Any:
        """The outputs for inputs of any kind."""
        if not is_whole(batch_size, 1):
            raise OptionError(f"batch_size: expected a whole number >= 1, got {batch_size!r}")
        data = inputs[0] if len(inputs) == 1 else tuple(inputs)
        x = as_arrays(data, "x", "inputs")
        if on_device and devices.on_host(self.session.device):
            raise OptionError("on_device: the model is on the CPU; move it with model.to('cuda')")
        self.session.store.check()
        if x.specs not in self._resolved:
            with building:
                self._resolved[x.specs] = resolved(self.model, x.specs)
        x = x.with_specs(self._resolved[x.specs])
        batch = min(int(batch_size), len(x))
        joins: tuple[str, ...] = (FIRST,)
        if batch < len(x):
            joins = self.joins(x.specs)
            if MIXED in joins:
                batch = len(x)
        if devices.on_host(self.session.device):
            host = x.on_host()
            results = self.in_batches(host, batch, joins)
            if batch == len(x) and all(a is b for a, b in zip(host.arrays, inputs, strict=False)):
                self._note(inputs, self._ready(host))
            return results
        if batch < len(x) and not on_device and MIXED not in joins:
            return self._in_pieces(x, batch)
        return self.on_gpu(x, batch, on_device)

    # ---------------------------------------------------------------- preparation

    def forward(self, specs: tuple[Spec, ...], batch: int, feed: str) -> Forward:
        """The planned forward step for a batch size."""
        key = (specs, batch, feed, self.precision)
        if key not in self._forwards:
            kind = self.session.runtime.kind

            def make(size: int, parts: Any) -> Builder:
                builder = Builder(
                    self.model,
                    self.model.store(),
                    size,
                    False,
                    feed,
                    kind,
                    self.precision,
                    self._parameters is not None,
                )
                for k, output in enumerate(builder.outputs(builder.inputs("x", parts[0]))):
                    own = in_work(builder.graph, output)
                    builder.places[f"output{k}"] = own
                    if feed == "gather":
                        scattered(builder.graph, k, own)
                return builder

            (tree, dtypes), built = self._plans.build(
                f"{feed} {self.precision}", make, batch, (specs,), note=structure_of
            )
            self._forwards[key] = Forward(built, tree, dtypes)
        return self._forwards[key]

    def joins(self, specs: tuple[Spec, ...]) -> tuple[str, ...]:
        """How the outputs of batches are put together, for each output."""
        if specs not in self._joins:
            batch = fixed_batch(self.model) or PROBE
            builder = Builder(self.model, self.session.store, batch, False, "direct")
            inputs = builder.inputs("x", specs)
            outputs = builder.outputs(inputs)
            samples = Samples(builder.lowered, inputs)
            kinds = [join_of(samples, output) for output in outputs]
            followed = follows_size(
                builder, lambda size: self._traced("predict", size, (specs,)), self._stateful
            )
            kinds = [MIXED if f else kind for f, kind in zip(followed, kinds, strict=True)]
            if not devices.on_host(self.session.device):  # results are scattered by samples
                kinds = [kind if kind == FIRST else MIXED for kind in kinds]
            self._joins[specs] = tuple(kinds)
        return self._joins[specs]

    # ---------------------------------------------------------------- runs

    def in_batches(self, x: Arrays, batch: int, joins: tuple[str, ...]) -> Any:
        """Outputs of one batch after the other, on the CPU."""
        results: list[np.ndarray] = []
        tree: Any = None
        with CarriedStates(self.session) as states:
            for begin in range(0, len(x), batch):
                part = x if batch == len(x) else x.take(slice(begin, begin + batch))
                count = len(part)
                ready = self._ready(part)
                states.before(ready.forward.built)
                found, tree = ready(part), ready.forward.tree
                if batch == len(x):
                    results = [array.copy() for array in found]
                    break
                if begin == 0:
                    results = [
                        np.empty(whole_shape(array.shape, join, batch, len(x)), array.dtype)
                        for array, join in zip(found, joins, strict=True)
                    ]
                for result, array, join in zip(results, found, joins, strict=True):
                    put_part(result, array, join, begin, count, len(x))
        return rebuild(tree, results)

    def _traced(self, kind: str, batch: int, specs: Any) -> Builder:
        builder = Builder(self.model, self.session.store, batch, False, "direct")
        builder.outputs(builder.inputs("x", specs[0]))
        return builder

    def _ready(self, x: Arrays) -> Ready:
        """A bound program for one batch; refuses integers out of range."""
        key = (x.specs, len(x), self.precision, *(a.dtype for a in x.arrays))
        if key not in self._bound:
            with building:
                forward = self.forward(x.specs, len(x), "direct")
                self._bound[key] = Ready(self.session, forward, x)
        ready = self._bound[key]
        ready.forward.built.check(x)
        return ready

    def _again(self, inputs: tuple[Any, ...], batch_size: int) -> Ready | None:
        """What runs these inputs, if arrays of these shapes and types were predicted from before,
        in one batch: all that is found about inputs but their numbers follows from both."""
        if batch_size.__class__ is not int or self.store.stale:
            return None
        if len(inputs) == 1 and inputs[0].__class__ is np.ndarray:
            key: Any = (self.precision, inputs[0].shape, inputs[0].dtype)
        else:
            key = self._same(inputs)
        if key == self._latest[0]:
            found: Ready | None = self._latest[1]
        else:
            found = self._bound.get(key)
            self._latest[:] = key, found
        return found if found is not None and found.samples <= batch_size else None

    def _same(self, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Key of what inputs of these shapes and element types have in common."""
        parts: list[Any] = [self.precision]
        for array in inputs:
            if type(array) is not np.ndarray:
                return None
            parts += array.shape, array.dtype
        return tuple(parts)

    def _note(self, inputs: tuple[Any, ...], ready: Ready) -> None:
        """The next inputs like these are run at once."""
        key = self._same(inputs)
        if key is not None:
            self._bound[key] = ready
            self._latest[:] = key, ready

    def _in_pieces(self, x: Arrays, batch: int) -> Any:
        """Outputs on a GPU: of a part at a time, where its memory does not hold the whole."""
        forward, count = self.forward(x.specs, batch, "gather"), len(x)
        sizes = [int(a.nbytes) for a in x.arrays if isinstance(a, np.ndarray)]
        results = sum(
            int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
            for shape, kind in zip(forward.shapes, forward.dtypes, strict=True)
        )
        each = sum(sizes) // count + results // batch
        if self.session.runtime.holds(count * each):
            return self.on_gpu(x, batch)
        while count > batch and not self.session.runtime.holds(4 * count * each):
            count = -(-count // 2 // batch) * batch if count > 2 * batch else batch
        pieces = [
            [a for _, a in leaves(self.on_gpu(x.take(slice(k, k + count)), batch))]
            for k in range(0, len(x), count)
        ]
        joined = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        return rebuild(forward.tree, joined)

    def on_gpu(self, x: Arrays, batch: int, on_device: bool = False) -> Any:
        """Outputs by one run over all batches, which gathers and scatters on the device."""
        forward = self.forward(x.specs, batch, "gather")
        forward.built.check(x)
        session, samples = self.session, len(x)
        left = samples % batch
        rest = self.forward(x.specs, left, "gather") if left else None
        results: list[Any] = []
        try:
            for name, source in x.sources().items():
                session.set(name, source)
            session.set("order", np.arange(samples, dtype=np.int64))
            shapes = [whole_shape(s, FIRST, batch, samples) for s in forward.shapes]
            for k, (shape, dtype) in enumerate(zip(shapes, forward.dtypes, strict=True)):
                rows = samples if result_rows(forward.shapes[k], batch) == batch else 1
                results.append(np.zeros((rows, int(np.prod(shape, dtype=np.int64)) // rows), dtype))
                session.set(f"result/{k}", results[k])
            bound = [session.bind(f.built.program) if f else None for f in (forward, rest)]
            session.control[control_block.CURSOR] = 0
            session.run(segments_for(bound[0], bound[1], samples, batch), lambda: None)
            runtime: Any = session.runtime
            if on_device:
                results = [runtime.give(f"result/{k}") for k in range(len(results))]
            else:
                for k in range(len(results)):
                    runtime.read(f"result/{k}")
        finally:
            session.let_go()
        arrays = [
            r.reshape(shape) if isinstance(r, np.ndarray) else r.reshape(*shape)
            for r, shape in zip(results, shapes, strict=True)
        ]
        return rebuild(forward.tree, arrays)
