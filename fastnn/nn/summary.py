"""A table of a model's layers, output shapes and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastnn.errors import OptionError
from fastnn.graph.graph import Graph
from fastnn.graph.trace import trace
from fastnn.graph.value import Value
from fastnn.nn import structure
from fastnn.nn.parameter import Parameter

if TYPE_CHECKING:
    from fastnn.nn.module import Module

Shape = tuple[int, ...]
#: batch size of the trace: no size that a layer is likely to have, so that it is recognised again
_BATCH = 10007


def summarize(
    model: Module,
    input_shape: Shape | Sequence[Shape] | None = None,
    dtype: str | Sequence[str] = "float32",
) -> str:
    """A table of layers with type, output shape and number of parameters, and the totals.

    The model is traced; nothing is computed or initialised. A layer inside another is indented, one
    that `forward` does not use has no output shape, and one used several times shows the last.

    Args:
        model: any module.
        input_shape: shape of one sample, without the batch; a sequence of shapes for several
            inputs. Not needed where the first layer is Linear.
        dtype: element type of the inputs: a float type, or "int64" for ids; a sequence where they
            differ.

    Raises:
        OptionError: the input's shape does not follow from the layers, or `dtype` is unknown.
        ShapeError: the model does not accept inputs of this shape.

    >>> from fastnn import nn
    >>> print(summarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm(3), nn.ReLU())))
    layer       type        output shape      parameters
    ----------  ----------  --------------  ------------
    Sequential  Sequential  (batch, 3)
    0           Linear      (batch, 3)                15
    1           BatchNorm   (batch, 3)                12
    2           ReLU        (batch, 3)                 0
    <BLANKLINE>
    parameters: 27 (108 bytes in float32)
      trained: 21
      buffers: 6
    """
    from tabulate import tabulate

    shapes = _input_shapes(model, input_shape)
    kinds = [dtype] * len(shapes) if isinstance(dtype, str) else list(dtype)
    for kind in kinds:
        if kind not in ("float32", "float64", "int64"):
            raise OptionError(f"dtype: expected 'float32', 'float64' or 'int64', got {kind!r}")
    if len(kinds) != len(shapes):
        raise OptionError(f"dtype: expected one for each of {len(shapes)} inputs, got {len(kinds)}")
    graph = Graph(_batch(model), dtype="float64")  # it holds every constant
    inputs = [
        graph.input(f"x{k}", shape, "i" if kind == "int64" else "f")
        for k, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    with _recorded(model) as outputs:
        try:
            trace(model, graph, *inputs)
        finally:
            graph.release()
    rows = [
        [
            "  " * name.count(".") + (name or type(model).__name__),
            type(module).__name__,
            _shown(outputs.get(id(module)), graph.batch),
            _own_count(module),
        ]
        for name, module in model.named_modules()
    ]
    table = tabulate(rows, ("layer", "type", "output shape", "parameters"), intfmt=",")
    return f"{table}\n\n{_totals(model)}"


def _batch(model: Module) -> int:
    """The batch of the trace: one that stateful layers accept, else one that is recognised."""
    found = [getattr(m, "stateful", None) for _, m in model.named_modules()]
    return next((int(batch) for batch in found if batch), _BATCH)


def _input_shapes(model: Module, given: Shape | Sequence[Shape] | None) -> list[Shape]:
    if given is not None:
        several = len(given) > 0 and not isinstance(given[0], int)
        shapes: Any = given if several else [given]
        return [tuple(int(n) for n in shape) for shape in shapes]
    leaves = [m for _, m in model.named_modules() if not any(True for _ in m.children())]
    told = leaves[0]._sample_shape() if leaves else None
    if told is not None:
        return [told]
    ids = leaves and leaves[0]._takes_ids
    hint = "input_shape=(length,), dtype='int64'" if ids else "input_shape=(8, 8)"
    raise OptionError(
        "summary: expected input_shape, the shape of one sample without the batch, because the "
        f"first layer does not tell it; for example model.summary({hint})"
    )


@contextmanager
def _recorded(model: Module) -> Iterator[dict[int, Any]]:
    """While it lasts, every module's `forward` notes its output."""
    outputs: dict[int, Any] = {}
    modules = [module for _, module in model.named_modules()]

    def noting(module: Module, forward: Any) -> Any:
        def run(*inputs: Any, **options: Any) -> Any:
            outputs[id(module)] = forward(*inputs, **options)
            return outputs[id(module)]

        return run

    try:
        for module in modules:
            module.__dict__["forward"] = noting(module, module.forward)
        yield outputs
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


def _shown(output: Any, batch: int) -> str:
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return ", ".join(_shown(part, batch) for part in output)
    if not isinstance(output, Value):
        return ""
    sizes = []
    for place, size in enumerate(output.shape):
        times, rest = divmod(size, batch if batch == _BATCH or place == 0 else _BATCH)
        sizes.append(str(size) if rest or not times else "batch" + f"·{times}" * (times > 1))
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def _own_count(module: Module) -> int | None:
    """Parameters and buffers that a layer holds itself; None for a mere container."""
    own = [part.size for _, part in structure.held(module) if isinstance(part, Parameter)]
    return sum(own) if own or not any(True for _ in module.children()) else None


def _totals(model: Module) -> str:
    arrays = model.named_arrays().values()
    trained = sum(p.size for p in arrays if p.trainable)
    frozen = sum(p.size for p in arrays if not (p.trainable or p.buffer))
    buffers = sum(p.size for p in arrays if p.buffer)
    store = model.memory()
    kind = store.dtype if store else "float32"
    size = (trained + frozen + buffers) * (8 if kind == "float64" else 4)
    return (
        f"parameters: {trained + frozen + buffers:,} ({_bytes(size)} in {kind})\n"
        f"  trained: {trained:,}\n"
        + (f"  frozen: {frozen:,}\n" if frozen else "")
        + f"  buffers: {buffers:,}"
    )


def _bytes(count: float) -> str:
    """A size for people.

    >>> _bytes(108), _bytes(3 * 2**20)
    ('108 bytes', '3.0 MB')
    """
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1024
        if count < 1024 or unit == "GB":
            return f"{count:.1f} {unit}"
    raise AssertionError("unreachable")
