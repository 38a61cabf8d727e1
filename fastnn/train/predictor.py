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


class Predictor:
    """Forward passes of a model in evaluation mode; programs are kept per batch size."""

    def __init__(self, model: Module, workers: int | str = "auto"):
        self.model = model
        self.session = Session(model.store(), (), 1, workers, model.store().device)
        self._built: dict[tuple[tuple[Spec, ...], int], Built] = {}

    def __call__(self, *inputs: Any, batch_size: int = 256, on_device: bool = False) -> Any:
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise DataError(f"batch_size: expected a whole number >= 1, got {batch_size!r}")
        data = inputs[0] if len(inputs) == 1 else tuple(inputs)
        x = as_arrays(data, "x", "inputs")
        if on_device and self.session.device == "cpu":
            raise OptionError("on_device: the model is on the CPU; move it with model.to('cuda')")
        return self.run(x, min(int(batch_size), len(x)), on_device)

    def built(self, specs: tuple[Spec, ...], batch: int) -> Built:
        """The planned forward step for a batch size."""
        key = (specs, batch)
        if key not in self._built:
            kind = self.session.runtime.kind
            builder = StepBuilder(self.model, self.model.store(), batch, False, "gather", kind)
            outputs = builder.outputs(builder.inputs("x", specs))
            graph = builder.graph
            for k, output in enumerate(outputs):
                builder.places[f"output{k}"] = output
                width = output.size // batch
                dtype = "f" if output.dtype == "f" else "i"
                graph.call(
                    "scatter_rows", x=graph.view(output, (batch, width)), clock=graph.clock(),
                    y=graph.leaf(("result", k), (1, width), f"result/{k}", dtype=dtype),
                )  # fmt: skip
            self._built[key] = builder.finish()
        return self._built[key]

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
