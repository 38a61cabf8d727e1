"""Users' own ops: rows of the same table that the built-in ops are in."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.fold import fold
from fastnn.graph.op import OPS, Op, Shape
from fastnn.graph.value import Value
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, Array, CudaKernel, Kernel
from fastnn.kernels.types import TYPES
from fastnn.ops.declare import expressed_by, number
from fastnn.ops.operands import as_shown, graph_of

ShapeFunction = Callable[[dict[str, Shape], dict[str, Any]], Any]
#: names of the ops that users have defined; these may be defined again
_defined: set[str] = set()
_EXAMPLE = (
    "write for example\n"
    "    @fnn.kernel\n"
    '    def swish_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", beta: "real",\n'
    '                      lo: "begin", hi: "end"): ...'
)


def define_op(
    name: str,
    forward: Kernel,
    backward: Kernel | Sequence[Kernel] | None = None,
    *,
    shape: ShapeFunction | None = None,
    defaults: Mapping[str, float] | None = None,
    cuda: CudaKernel | Sequence[CudaKernel] = (),
    expression: Callable[..., Any] | None = None,
) -> UserOp:
    """Define an op of your own, in the same way as the built-in ones.

    Kernels are plain Python functions of NumPy arrays, decorated with `fastnn.kernel`; its module,
    `fastnn.kernels.declare`, explains how their parameters are annotated. They are compiled when a
    model that has the op first runs, once per machine, and may use loops, arithmetic, the `math`
    module, and functions of yours that are decorated with `fastnn.helper`. They must not create
    arrays, must not depend on other items (rows), and must not draw random numbers: those come in
    as an input, from `fastnn.ops.uniform_like` or `normal_like`.

    Args:
        name: the op's name, which must not be that of a built-in op. Defining an op again replaces
            it.
        forward: parameters that are "in" arrays are the op's inputs, "out" arrays its outputs, and
            numbers ("real", "int") its attributes. Float arrays are "f", integers "i".
        backward: one kernel or several. A parameter ``d<output>`` is the gradient that comes in,
            ``d<input>`` ("out") one that goes out; others are inputs, outputs and attributes of
            forward, by name. Kernels whose items are rows cannot sum over them, so the gradient of
            a weight is a kernel of its own, with "cols" arrays. A model that needs the gradient of
            an input without one raises an error.
        shape: function of (shapes of the inputs, attributes), both dicts by name, that returns the
            output's shape, or a dict of them by output. By default it follows from the dimension
            letters: ``y: f[N,K]`` has x's leading dimensions if x is ``f[N,C]``, and K from
            whichever input has it.
        defaults: attributes' defaults; an attribute without one has to be given at each use.
        cuda: the same kernels for CUDA, made with `fastnn.cuda_kernel`: with the names and the
            parameters of those above, less ``lo`` and ``hi``. They compute all items; threads find
            theirs with `cuda` from `fastnn.kernels.cuda.device`. Without them the op runs on the
            CPU only.
        expression: the same op written with functions of `fastnn.ops`: of the inputs in order and
            the attributes by name, it returns the output, or a tuple of them. Gradients of
            gradients (`fastnn.ops.gradient`) are built from it; without it they raise an error.

    Returns:
        A function for use in a module's `forward`: inputs first, in the order of the forward
        kernel's parameters, then attributes. Inputs may be symbolic values, parameters or arrays.

    Raises:
        OptionError: the kernels' parameters do not fit each other; the message says what was
            expected.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> @fnn.kernel
    ... def third_power_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    ...     for i in range(lo, hi):
    ...         for j in range(x.shape[1]):
    ...             y[i, j] = x[i, j] ** 3
    >>> @fnn.kernel
    ... def third_power_backward(x: "in rows f[N,C]", dy: "in rows f[N,C]", dx: "out rows f[N,C]",
    ...                   lo: "begin", hi: "end"):
    ...     for i in range(lo, hi):
    ...         for j in range(x.shape[1]):
    ...             dx[i, j] = 3 * x[i, j] ** 2 * dy[i, j]
    >>> third_power = fnn.define_op("third_power", third_power_forward, third_power_backward)
    >>> fnn.testing.gradcheck(third_power, np.random.default_rng(0).normal(size=(4, 3)))
    True
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise OptionError(f"define_op: expected a name like 'swish', got {name!r}")
    if name in OPS and name not in _defined:
        raise OptionError(f"define_op: {name!r} is a built-in op; choose another name")
    interface = _Interface(name, forward, shape is not None, dict(defaults or {}))
    gradients: list[Any] = list(backward) if isinstance(backward, (list, tuple)) else []
    if backward is not None and not isinstance(backward, (list, tuple)):
        gradients = [backward]
    interface.check_backward(gradients)
    on_cuda = _cuda_kernels(name, [forward, *gradients], cuda)
    op = Op(
        name,
        inputs=interface.inputs,
        outputs=interface.outputs,
        returns=interface.outputs,
        defaults=interface.defaults,
        shape=interface.shapes if shape is None else interface.shapes_by(shape),
        forward=_enter(f"{name}_forward", forward, on_cuda),
        backward=tuple(_enter(f"{name}_{k.name}", k, on_cuda) for k in gradients),
        expression=None if expression is None else expressed_by(name, expression),
    )
    OPS[name] = op
    _defined.add(name)
    return UserOp(op, interface)


class UserOp:
    """An op that a user has defined; call it in a module's `forward`."""

    def __init__(self, op: Op, interface: _Interface):
        self.op, self._interface = op, interface
        self.__name__ = op.name

    def __call__(self, *operands: Any, **named: Any) -> Any:
        op = self.op
        names = (*op.inputs, *self._interface.attributes)
        given = dict(zip(names, operands, strict=False))
        unknown = (set(named) - set(names)) | (set(named) & set(given))
        given.update(named)
        missing = [n for n in names if n not in given and n not in op.defaults]
        if len(operands) > len(names) or unknown or missing:
            raise ShapeError(f"{op.name}: expected {self}, got {self._got(operands, named)}")
        graph = graph_of(*(given[n] for n in op.inputs))
        inputs = {}
        for n in op.inputs:
            value = as_shown(graph, given.pop(n))
            wanted = self._interface.arrays[n].dtype
            if value.dtype != wanted:
                raise ShapeError(
                    f"{where(graph.scope)}{op.name}: expected {TYPES[wanted].words} input {n!r}, "
                    f"got {TYPES[value.dtype].words}; convert the data with astype"
                )
            inputs[n] = value
        attributes = {n: self._interface.number(n, v) for n, v in given.items()}
        return graph.apply(op, **inputs, **attributes)

    def _got(self, operands: Sequence[Any], named: Mapping[str, Any]) -> str:
        parts = [type(o).__name__ for o in operands]
        return f"({', '.join([*parts, *(f'{k}={v!r}' for k, v in named.items())])})"

    def __repr__(self) -> str:
        known = self.op.defaults
        attributes = [f"{n}={known[n]!r}" if n in known else n for n in self._interface.attributes]
        return f"{self.op.name}({', '.join([*self.op.inputs, *attributes])})"


class _Interface:
    """What the forward kernel's parameters say about an op."""

    def __init__(self, name: str, forward: Any, has_shape: bool, defaults: dict[str, Any]):
        self.name = name
        _check_kernel(name, "forward", forward)
        self.arrays: dict[str, Array] = {n: a for n, a in forward.arrays.items() if n != "control"}
        for n, array in self.arrays.items():
            if array.mode not in ("in", "out") or array.dtype not in ("f", "i"):
                self._fail(
                    f"forward's parameter {n!r}: expected an 'in' or 'out' array of 'f' or 'i', "
                    f"got {array.mode!r} of {array.dtype!r}"
                )
            if n[:1] == "d" and n[1:] in self.arrays:
                self._fail(f"forward's {n!r} would be the gradient of {n[1:]!r}; rename it")
        self.inputs = tuple(n for n, a in self.arrays.items() if a.mode == "in")
        self.outputs = tuple(n for n, a in self.arrays.items() if a.mode == "out")
        if not self.inputs or not self.outputs:
            self._fail(
                f"forward: expected at least one 'in' and one 'out' array, got {len(self.inputs)} "
                f"and {len(self.outputs)}; {_EXAMPLE}"
            )
        self.attributes = {n: p.kind for n, p in forward.params.items() if not isinstance(p, Array)}
        unknown = set(defaults) - set(self.attributes)
        if unknown:
            self._fail(
                f"defaults: expected some of {sorted(self.attributes)}, got {sorted(unknown)[0]!r}"
            )
        self.defaults = {n: self.number(n, v) for n, v in defaults.items()}
        letters = {d for n in self.inputs for d in self.arrays[n].dims}
        for n in self.outputs:
            new = [d for d in self.arrays[n].dims if d not in letters]
            if new and not has_shape:
                self._fail(
                    f"forward's output {n!r}: no input has the dimension {new[0]}; pass "
                    "shape=, a function of (input shapes, attributes)"
                )

    def _fail(self, message: str) -> None:
        raise OptionError(f"define_op {self.name!r}: {message}")

    def check_backward(self, kernels: Sequence[Any]) -> None:
        written: set[str] = set()
        for kernel in kernels:
            _check_kernel(self.name, "backward", kernel)
            label = f"backward kernel {kernel.name!r}"
            for n, parameter in kernel.params.items():
                if not isinstance(parameter, Array):
                    known = n in self.attributes
                elif n[:1] == "d" and n[1:] in self.inputs:
                    known = parameter.mode == "out" and self.arrays[n[1:]].dtype == "f"
                    if n in written or not known:
                        self._fail(
                            f"{label}: expected {n!r} to be an 'out' array, the gradient of a "
                            "float input, and in one kernel only"
                        )
                    written.add(n)
                else:
                    d_output = n[:1] == "d" and n[1:] in self.outputs
                    known = parameter.mode == "in" and (
                        d_output or n in self.arrays or n == "control"
                    )
                if not known:
                    self._fail(
                        f"{label}: cannot tell what parameter {n!r} is; expected inputs and "
                        f"outputs {[*self.inputs, *self.outputs]} and their gradients "
                        f"{['d' + o for o in self.outputs]} as 'in' arrays, "
                        f"{['d' + i for i in self.inputs]} as 'out' arrays, and numbers "
                        f"{sorted(self.attributes)}"
                    )
            if not any(n in written for n in kernel.params):
                self._fail(
                    f"{label}: expected at least one of {['d' + i for i in self.inputs]} as an "
                    "'out' array"
                )

    def number(self, name: str, value: Any) -> float | int:
        return number(f"define_op {self.name!r}", name, value, self.attributes[name] == "int")

    # ---------------------------------------------------------------- shapes

    def shapes(self, inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
        """The outputs' shapes by their dimension letters."""
        extents: dict[str, Shape] = {}  # a leading letter may stand for several dimensions
        sizes: dict[str, int] = {}
        for n in self.inputs:
            dims, shape = self.arrays[n].dims, inputs[n].shape
            folded = fold(shape, len(dims))
            lead = shape[: len(shape) - len(dims) + 1] if len(shape) > len(dims) else folded[:1]
            for letter, size, extent in zip(
                dims, folded, [lead, *((s,) for s in folded[1:])], strict=True
            ):
                if sizes.setdefault(letter, size) != size:
                    raise ShapeError(
                        f"{where(scope)}{self.name}: expected input {n!r} with {letter} = "
                        f"{sizes[letter]}, as the inputs before it have, got shape {shape}"
                    )
                if len(extent) > len(extents.get(letter, ())):
                    extents[letter] = extent
        same = {self.arrays[n].dims: inputs[n].shape for n in reversed(self.inputs)}
        found = {}
        for n in self.outputs:
            array = self.arrays[n]
            shape = same.get(array.dims) or tuple(
                itertools.chain(*(extents[d] for d in array.dims))
            )
            found[n] = (shape, array.dtype)
        return found

    def shapes_by(self, function: ShapeFunction) -> Any:
        """A shape rule from the user's function."""

        def rule(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
            result = function({n: v.shape for n, v in inputs.items()}, dict(attrs))
            if not isinstance(result, dict):
                result = {self.outputs[0]: result}
            try:
                shapes = {n: tuple(int(k) for k in result[n]) for n in self.outputs}
            except (KeyError, TypeError, ValueError):
                raise ShapeError(
                    f"{where(scope)}{self.name}: expected shape= to return a shape for each of "
                    f"{list(self.outputs)}, got {result!r}"
                ) from None
            return {n: (s, self.arrays[n].dtype) for n, s in shapes.items()}

        return rule


def _check_kernel(op: str, role: str, kernel: Any) -> None:
    if not isinstance(kernel, Kernel):
        raise OptionError(
            f"define_op {op!r}: expected {role} to be a function decorated with @fnn.kernel, got "
            f"{type(kernel).__name__}; {_EXAMPLE}"
        )


def _cuda_kernels(op: str, kernels: Sequence[Kernel], given: Any) -> dict[str, CudaKernel]:
    """The kernels for CUDA by the names of those for the CPU."""
    found = {}
    for kernel in given if isinstance(given, (list, tuple)) else [given]:
        if not isinstance(kernel, CudaKernel):
            raise OptionError(
                f"define_op {op!r}: expected cuda to be functions decorated with @fnn.cuda_kernel, "
                f"got {type(kernel).__name__}"
            )
        found[kernel.name] = kernel
    names = [kernel.name for kernel in kernels]
    if found and set(found) != set(names):
        raise OptionError(
            f"define_op {op!r}: expected cuda to have kernels called {names}, got {list(found)}; "
            'give them these names with @fnn.cuda_kernel(launch=..., name="...")'
        )
    for kernel in kernels if found else ():
        wanted, got = list(kernel.params.items()), list(found[kernel.name].params.items())
        if wanted != got:
            pair = next((w, g) for w, g in itertools.zip_longest(wanted, got) if w != g)
            raise OptionError(
                f"define_op {op!r}: expected the CUDA kernel {kernel.name!r} to have the CPU's "
                f"parameters; the CPU's has {pair[0]}, CUDA's {pair[1]}"
            )
    return found


def _enter(label: str, kernel: Kernel, on_cuda: Mapping[str, CudaKernel]) -> str:
    """Enter a kernel, and the one for CUDA, under a name of the op's own; returns that name.

    Programs that are planned already keep the kernels they were planned with, so a name is never
    given twice.
    """
    name, number = label, 1
    while name in KERNELS:
        number += 1
        name = f"{label}_{number}"
    KERNELS[name] = dataclasses.replace(kernel, name=name, given=kernel.name)
    if kernel.name in on_cuda:
        CUDA_KERNELS[name] = dataclasses.replace(on_cuda[kernel.name], name=name)
    return name
