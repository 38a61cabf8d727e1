"""Runs a model forward over arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.data.arrays import Arrays, as_arrays, check_ranges
from fastnn.errors import DataError, OptionError
from fastnn.kernels import clock as words
from fastnn.train.build import Built, Spec, StepBuilder
from fastnn.train.session import Session, segments_for

if TYPE_CHECKING:
    from fastnn.nn.module import Module


#: batches up to which a prediction is made batch by batch, each a call of a bound program; more go
#: through the compiled loop, which Python prepares anew each time
CHUNKS = 8


class _Bound:
    """A forward pass that is ready to run again and again on arrays of one shape."""

    def __init__(self, session: Session, built: Built, x: Arrays):
        self.built, self.bound = built, session.bind(built.program)
        self.step = session.runtime.single([self.bound], x.names, x.arrays)
        self.names = [f"output{k}" for k in range(len(built.output_shapes))]

    def __call__(self, x: Arrays) -> list[np.ndarray]:
        self.step.run(x.arrays)
        return [self.bound.view(name).copy() for name in self.names]


class Predictor:
    """Forward passes of a model in evaluation mode; programs are kept per batch size.

    On the CPU a few batches are computed by a program that stays bound: one sample takes some 40
    microseconds.
    """

    def __init__(self, model: Module, workers: int | str = "auto"):
        self.model = model
        self.session = Session(model.store(), (), 1, workers, model.store().device)
        self._built: dict[tuple[tuple[Spec, ...], int, str], Built] = {}
        self._bound: dict[Any, _Bound] = {}

    def __call__(self, *inputs: Any, batch_size: int = 256, on_device: bool = False) -> Any:
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise DataError(f"batch_size: expected a whole number >= 1, got {batch_size!r}")
        data = inputs[0] if len(inputs) == 1 else tuple(inputs)
        x = as_arrays(data, "x", "inputs")
        if on_device and self.session.device == "cpu":
            raise OptionError("on_device: the model is on the CPU; move it with model.to('cuda')")
        if len(x) <= CHUNKS * batch_size and self.session.device == "cpu":
            return self.in_chunks(x.on_host(), int(batch_size))
        return self.run(x, min(int(batch_size), len(x)), on_device)

    def built(self, specs: tuple[Spec, ...], batch: int, feed: str = "gather") -> Built:
        """The planned forward step for a batch size."""
        key = (specs, batch, feed)
        if key not in self._built:
            kind = self.session.runtime.kind
            builder = StepBuilder(self.model, self.model.store(), batch, False, feed, kind)
            outputs = builder.outputs(builder.inputs("x", specs))
            graph = builder.graph
            for k, output in enumerate(outputs):
                builder.places[f"output{k}"] = output
                if feed == "direct":
                    continue
                width = output.size // batch
                dtype = "f" if output.dtype == "f" else "i"
                graph.call(
                    "scatter_rows", x=graph.view(output, (batch, width)), clock=graph.clock(),
                    y=graph.leaf(("result", k), (1, width), f"result/{k}", dtype=dtype),
                )  # fmt: skip
            self._built[key] = builder.finish()
        return self._built[key]

    def in_chunks(self, x: Arrays, batch: int) -> Any:
        """Outputs for a few batches, one after the other."""
        self.session.store.check()
        parts = [
            self.at_once(x.take(slice(begin, begin + batch))) for begin in range(0, len(x), batch)
        ]
        outputs = parts[0]
        if len(parts) > 1:
            outputs = [np.concatenate(several) for several in zip(*parts, strict=True)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def at_once(self, x: Arrays) -> list[np.ndarray]:
        """Outputs for one batch."""
        key = (x.specs, len(x), *(a.dtype for a in x.arrays))
        if key not in self._bound:
            built = self.built(x.specs, len(x), "direct")
            self._bound[key] = _Bound(self.session, built, x)
        ready = self._bound[key]
        check_ranges(x, ready.built.ranges)
        return ready(x)

    def run(self, x: Arrays, batch: int, on_device: bool = False) -> Any:
        built = self.built(x.specs, batch)
        check_ranges(x, built.ranges)
        session, samples = self.session, len(x)
        rest = self.built(x.specs, samples % batch) if samples % batch else None
        for name, source in x.sources().items():
            session.set(name, source)
        session.set("order", np.arange(samples, dtype=np.int64))
        results: list[Any] = []
        for k, shape in enumerate(built.output_shapes):
            width = int(np.prod(shape[1:], dtype=np.int64))
            results.append(np.zeros((samples, width), session.store.dtype))
            session.set(f"result/{k}", results[k])
        bound = [session.bind(b.program) if b else None for b in (built, rest)]
        session.clock[words.CURSOR] = 0
        session.run(segments_for(bound[0], bound[1], samples, batch), lambda: None)
        runtime: Any = session.runtime
        if on_device:
            results = [runtime.give(f"result/{k}") for k in range(len(results))]
        else:
            for k in range(len(results)):
                runtime.read(f"result/{k}")
        arrays = tuple(
            r.reshape(samples, *shape[1:])
            for r, shape in zip(results, built.output_shapes, strict=True)
        )
        return arrays[0] if len(arrays) == 1 else arrays
