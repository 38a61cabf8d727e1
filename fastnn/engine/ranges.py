"""One program for a range of lengths of sequences.

A program is planned for exact shapes, and sequences come in hundreds of lengths. Where a model is
given `lengths`, and nothing that it computes depends on what stands after T steps
(`plan/stretched.py`), a batch of T steps is padded to the end of a range: the next multiple of 8,
and from 64 steps on the next of eight in each doubling. Its numbers are the same, bit for bit;
memory grows by an eighth at most from 64 steps on, and recurrent layers do no work for padding.
The first few lengths get programs of their own: whoever has no more pays nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnn.engine.arrays import Arrays, check_ranges
from fastnn.engine.builder import Builder
from fastnn.engine.specs import Spec
from fastnn.engine.turns import building
from fastnn.graph.node import Range
from fastnn.plan.stretched import Stretched

#: lengths that get programs of their own
EXACT = 4
#: lengths are multiples of it, at least
MULTIPLE = 8
#: bytes of data that are padded; more are read where they lie
COPIED = 1 << 26

Specs = tuple[Spec, ...]
#: of inputs, targets and sample weights
All = tuple[Specs, Specs, Specs]
#: the traced step for a kind, a batch size and these specs
Trace = Callable[[str, int, All], Builder]


def range_end(steps: int) -> int:
    """How many steps the program has that serves sequences of `steps` steps.

    >>> [range_end(n) for n in (1, 8, 9, 64, 65, 128, 129, 300)]
    [8, 8, 16, 64, 72, 128, 144, 320]
    """
    multiple = max(MULTIPLE, 1 << max((steps - 1).bit_length() - 4, 0))
    return -(-steps // multiple) * multiple


@dataclass(frozen=True)
class Stretch:
    """How data are padded, and what their outputs are before that.

    Attributes:
        batch: samples.
        steps, more: T, and the steps that the program has.
        fills: for inputs, targets and weights, what each array is padded with; None: it isn't.
        limits: of the lengths, by the input's name.
        shapes: of each output, where its first T steps are wanted; None: it is the same.
    """

    batch: int
    steps: int
    more: int
    fills: tuple[tuple[int | None, ...], ...]
    limits: tuple[tuple[str, Range], ...]
    shapes: tuple[tuple[int, ...] | None, ...]

    def pad(self, data: Arrays, group: int) -> Arrays:
        """Inputs (group 0), targets (1) or sample weights (2) with more steps."""
        fills = self.fills[group]
        if all(fill is None for fill in fills):
            return data
        arrays = [self._padded(a, f) for a, f in zip(data.arrays, fills, strict=True)]
        specs = _stretched(data.specs, fills, self.more)
        return Arrays(arrays, specs, data.names)

    def _padded(self, array: np.ndarray, fill: int | None) -> np.ndarray:
        if fill is None:
            return array
        kind = array.dtype
        if fill and not np.can_cast(np.min_scalar_type(fill), kind):
            kind = np.dtype(np.int64)
        padded = np.full((len(array), self.more, *array.shape[2:]), fill, kind)
        padded[:, : self.steps] = array
        return padded

    def renew(self, padded: Sequence[Arrays], data: Sequence[Arrays], rows: Any = ...) -> None:
        """Take up what was written to these rows of the data since they were padded.

        Raises DataError for lengths that are greater than the steps now.
        """
        check_ranges(data[0], self.limits)
        for new, old in zip(padded, data, strict=True):
            for copy, array in zip(new.arrays, old.arrays, strict=True):
                if copy is not array:
                    copy[:, : self.steps][rows] = array[rows]

    def cut(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs as they would be without padding."""
        return [
            array
            if shape is None
            else array.reshape(self.batch, self.more, -1)[:, : self.steps].reshape(shape)
            for array, shape in zip(outputs, self.shapes, strict=True)
        ]


class Ranges:
    """Chooses the lengths that programs are planned for, in one trainer, step or predictor.

    Args:
        trace: traces a step: data, outputs, and the loss where there is one.
    """

    def __init__(self, trace: Trace):
        self._trace = trace
        self._found: dict[Any, Stretch | None] = {}
        self._seen: Counter[Any] = Counter()  # lengths, of data that differ in nothing else

    def find(self, kind: str, batch: int, specs: All) -> Stretch | None:
        """How to pad data for steps of `batch` samples; None: not at all."""
        key = (kind, batch, specs)
        if key not in self._found:
            with building:
                family = (kind, batch, *(tuple(map(_without_steps, part)) for part in specs))
                few = self._seen[family] < EXACT
                self._found[key] = None if few else self._decide(kind, batch, specs)
                self._seen[family] += 1
        return self._found[key]

    def stretch(
        self, kind: str, x: Arrays, y: Arrays, w: Arrays, batches: Iterable[int] = ()
    ) -> tuple[Arrays, Arrays, Arrays, Stretch | None]:
        """Data as their programs take them, and how they were padded.

        Args:
            kind: of the steps.
            x, y, w: inputs, targets and sample weights: a batch, or all samples.
            batches: samples of the steps; all in one by default.

        Raises DataError for lengths that are greater than the steps.
        """
        if len(x.specs) < 2:
            return x, y, w, None  # there are no lengths
        specs = (x.specs, y.specs, w.specs)
        found = [self.find(kind, size, specs) for size in (*batches,) or (len(x),)]
        first = found[0]
        arrays = [a for part in (x, y, w) for a in part.arrays]
        if (
            first is None
            or any(other is None or other.fills != first.fills for other in found)
            or not all(isinstance(a, np.ndarray) for a in arrays)
            or sum(a.nbytes for a in arrays) > COPIED
        ):
            return x, y, w, None
        check_ranges(x, first.limits)
        return first.pad(x, 0), first.pad(y, 1), first.pad(w, 2), first

    def clear(self) -> None:
        """Forget everything: the model has changed."""
        self._found.clear()
        self._seen.clear()

    def _decide(self, kind: str, batch: int, specs: All) -> Stretch | None:
        short = self._trace(kind, batch, specs)
        steps = _steps(short)
        if not steps or range_end(steps) == steps:
            return None
        more, graph = range_end(steps), short.graph
        ignored = {r.value: r.ignored for r in graph.ranges if r.ignored is not None}
        values = {name: value for value, name in short.names.items()}
        fills = tuple(
            tuple(
                None
                if spec.shape[:1] != (steps,)
                else ignored.get(values.get(f"y{k}"), 0) if group == 1 else 0
                for k, spec in enumerate(part)
            )
            for group, part in enumerate(specs)
        )  # fmt: skip
        longer: Any = tuple(_stretched(p, f, more) for p, f in zip(specs, fills, strict=True))
        try:
            long = self._trace(kind, batch, longer)
        except Exception:  # a model for sequences of one length, or so long and no longer
            return None
        targets = {values[f"y{k}"]: float(fill) for k, fill in enumerate(fills[1]) if fill}
        loss = short.places.get("loss")
        found = Stretched(short.lowered, long.lowered, steps, more, targets, loss is not None)
        outputs = list(zip(short.output_values, long.output_values, strict=True))
        right = found.exact and all(found.same(*o) or found.begins(*o) for o in outputs)
        if not right or (loss is not None and not found.same(loss, long.places["loss"])):
            return None
        limits = tuple(
            (short.names[r.value], replace(r, value=None))
            for r in graph.ranges
            if r.steps and r.high == steps + 1 and r.value in short.names
        )
        shapes = tuple(None if found.same(*pair) else pair[0].shape for pair in outputs)
        return Stretch(batch, steps, more, fills, limits, shapes)


def _steps(builder: Builder) -> int:
    """The steps of the sequences that a model gets lengths for; 0 where they differ, or none."""
    found = {
        limits.high - 1
        for limits in builder.graph.ranges
        if limits.steps and limits.value is not None and limits.value.ndim == 1
    }
    return found.pop() if len(found) == 1 else 0


def _without_steps(spec: Spec) -> tuple[Any, ...]:
    """A spec, whatever the first number of its shape is."""
    return len(spec.shape), spec.shape[1:], spec.dtype, spec.key


def _stretched(specs: Specs, fills: Sequence[int | None], more: int) -> Specs:
    return tuple(
        spec if fill is None else replace(spec, shape=(more, *spec.shape[1:]))
        for spec, fill in zip(specs, fills, strict=True)
    )
