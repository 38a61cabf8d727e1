"""How an op is declared: by its public function, decorated with what else there is to say of it::

    @op(expression=lambda x, weight: where(greater(x, 0.0), x, x * weight))
    def prelu(x: Operand, weight: Operand) -> Value:
        '''x where positive, else weight * x; `weight` has 1 or C elements.'''
        if weight.shape not in ((1,), x.shape[-1:]):
            raise ShapeError(...)
        return like(x)

- Parameters that are an `Operand` or a `Value` are inputs, others attributes, with their defaults.
  An `Operand` may be a symbolic value, a parameter, or an array, and has to hold floats; a `Value`
  is taken as it is (of ops that other functions apply, whose names begin with "_").
- The body is the shape rule: it looks at the inputs, which are symbolic values by then, and returns
  what the output is: `like` an input, `floats` of a shape, or `output` of a shape and a type;
  `outputs(y=..., ...)` for several.
- The docstring is the documentation.
- The kernels are those called `<op>_forward` and `<op>_backward`, for each device; which gradients
  there are follows from the backward kernels' parameters. Whatever else `Op` has may be given to
  the decorator.

`effect` declares an op that has no outputs and changes memory that it is given; `effect_of` is that
of a kernel generated from a rule.

`elementwise` declares functions of the elements at one place, whose kernels are made from formulas
(`kernels/scalar.py`, `kernels/arithmetic.py`): they broadcast, and their gradient is the slope that
they are declared with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node, check_operands
from fastnn.graph.op import Derivative, Expression, Op, Shape, register, same_shape, unbatched
from fastnn.graph.sizes import kind, real
from fastnn.graph.tangent import by_element
from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.ops.operands import as_shown, common, float_value, graph_of

#: what a function takes as an input: a symbolic value, a parameter, or an array
Operand: TypeAlias = Any
P = ParamSpec("P")
R = TypeVar("R")


def like(x: Value) -> Any:
    """An output of an input's shape and type."""
    return x.shape, x.dtype


def same(**inputs: Value) -> Any:
    """An output of the shape and type that all of these have: ShapeError if they differ."""
    first = next(iter(inputs.values()))
    return same_shape(inputs, {}, first.graph.scope)["y"]


def output(shape: Shape, dtype: str) -> Any:
    """An output of a shape and a type."""
    return shape, dtype


def floats(*shape: int) -> Any:
    """An output of floats."""
    return shape, "f"


def outputs(**shapes: tuple[Shape, str]) -> Any:
    """Several outputs, by name."""
    return shapes


def need(node: Node, name: str) -> Value:
    """An input that is not absent."""
    value = node.inputs[name]
    assert value is not None
    return value


def op(
    *, name: str = "", returns: tuple[str, ...] = ("y",), saves: tuple[str, ...] = (), **rules: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare an op (see the module's text).

    Args:
        name: the op's name; the function's, without a leading "_", by default.
        returns: the outputs that the function returns, in this order.
        saves: further outputs, which the gradient is computed from.
        rules: what else `Op` has; an `expression` as of `fastnn.define_op`: a function of the
            inputs in order and the attributes by name that returns the outputs.
    """
    return lambda function: _declared(function, _each, name, returns, saves, rules)


def effect(**rules: Any) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Declare an op that changes memory that it is given, and has no outputs and no gradient.

    What it changes, the signature of its kernel says, which has the function's name unless
    `forward` is another; the control block is an operand that need not be given. The op's name is
    "effect" and that of the function: other names are for users' ops.

    Args:
        rules: as of `op`.
    """

    def declare(function: Callable[P, None]) -> Callable[P, None]:
        known = {"forward": function.__name__, "placement": unbatched, **rules}
        return _declared(function, _each, f"effect {function.__name__}", (), (), known)

    return declare


def effect_of(kernel: str) -> Op:
    """The effect of a kernel generated from a rule (an optimiser's, or a call of the host): its
    inputs are the kernel's arrays, its attributes the numbers."""
    return Op(
        f"effect {kernel}", inputs=tuple(kernel_of(kernel).arrays), outputs=(), returns=(),
        shape=lambda inputs, attrs, scope: {}, forward=kernel, placement=unbatched,
    )  # fmt: skip


def apply_effect(graph: Graph, kernel: str, /, **operands: Any) -> None:
    """Apply such an effect; operands by the names of the kernel's parameters, all of them."""
    check_operands(kernel, operands, graph.scope)
    graph.apply(effect_of(kernel), **operands)


def elementwise(
    slope: Callable[..., Any] | None = None, /, *, name: str = "", **rules: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function of the elements at one place; operands of different shapes broadcast.

    Args:
        slope: function of the inputs and the output, in order, and of the attributes by name that
            returns the derivative, written with functions of `fastnn.ops`: a value, or for several
            inputs a dict of them by input. For gradients of gradients.
        name, rules: as of `op`.
    """
    rules.setdefault("tangent", by_element)
    if slope is not None:
        rules["derivative"] = _by_slope(slope)
    return lambda function: _declared(function, common, name, ("y",), (), rules)


def _declared(
    function: Callable[P, R], convert: Callable[..., list[Value]], name: str,
    returns: tuple[str, ...], saves: tuple[str, ...], rules: dict[str, Any],
) -> Callable[P, R]:  # fmt: skip
    name = name or function.__name__.removeprefix("_")
    code, kinds = function.__code__, function.__annotations__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    inputs = tuple(n for n in names if kinds[n].split(" ")[0] in ("Operand", "Value"))
    operands = [n for n in inputs if kinds[n].startswith("Operand")]
    attributes = [n for n in names if n not in inputs]
    positional = names[: code.co_argcount]
    given = function.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(given) :], given, strict=True))
    defaults.update(function.__kwdefaults__ or {})

    def shape(found: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
        rule: Callable[..., Any] = function
        result = rule(**{n: found.get(n) for n in inputs}, **attrs)
        if not returns:
            return {}
        return result if isinstance(result, dict) else {returns[0]: result}

    if convert is common and len(inputs) > 1:  # a kernel for each operand's gradient
        trained = [n for n in inputs if n not in rules.get("constant", ())]
        rules.setdefault("backward", tuple(f"{name}_backward_{n}" for n in trained))
    if "expression" in rules:
        rules["expression"] = expressed_by(name, rules["expression"])
    register(
        Op(
            name, inputs=inputs, outputs=(*returns, *saves), returns=returns, shape=shape,
            defaults={n: v for n, v in defaults.items() if n in attributes}, **rules,
        )
    )  # fmt: skip

    every = frozenset(names)
    numbers = [(n, kinds[n] == "int") for n in attributes if kinds[n] in ("float", "int")]

    @functools.wraps(function)
    def apply(*args: Any, **named: Any) -> Any:
        taken = {**defaults, **dict(zip(positional, args, strict=False)), **named}
        if taken.keys() != every or len(args) > len(positional) or _twice(positional, args, named):
            function(*args, **named)  # a TypeError, that says what is wrong
        if present := [n for n in operands if taken[n] is not None]:
            taken |= zip(present, convert(name, *[taken[n] for n in present]), strict=True)
        for n, whole in numbers:
            taken[n] = number(name, n, taken[n], whole)
        return taken[inputs[0]].graph.apply(name, **taken)

    return apply


def _twice(names: tuple[str, ...], args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether an argument is given by place and by name."""
    return bool(named) and not named.keys().isdisjoint(names[: len(args)])


def _each(name: str, *operands: Any) -> list[Value]:
    """Operands as float values, each of its own shape."""
    if len(operands) == 1:
        return [float_value(operands[0], name)]
    graph = graph_of(*operands)
    return [float_value(as_shown(graph, x), name) for x in operands]


def _by_slope(slope: Callable[..., Any]) -> Derivative:
    def derivative(node: Node, d: dict[str, Value]) -> dict[str, Value]:
        slopes = slope(*node.inputs.values(), node.outputs["y"], **node.attrs)
        if not isinstance(slopes, dict):
            slopes = {node.op.inputs[0]: slopes}
        return {n: d["y"] * s for n, s in slopes.items()}

    return derivative


def expressed_by(op: str, expression: Callable[..., Any]) -> Expression:
    """An op's expression as differentiation asks for it, of one that is a function of the inputs
    in order and the attributes by name, and returns the output, or a tuple of them."""

    def outputs_of(node: Node) -> dict[str, Value]:
        found = expression(*node.inputs.values(), **node.attrs)
        outputs = found if isinstance(found, tuple) else (found,)
        shapes = [v.shape if isinstance(v, Value) else type(v).__name__ for v in outputs]
        names = node.op.returns
        wanted = [node.outputs[n].shape for n in names]
        if shapes != wanted:
            raise ShapeError(
                f"{where(node.scope)}{op}: expected the expression to return values of shapes "
                f"{wanted}, got {shapes}"
            )
        return dict(zip(names, outputs, strict=True))

    return outputs_of


def number(label: str, name: str, value: Any, whole: bool) -> float | int:
    """An attribute as a number of its kind: OptionError for what is none."""
    if kind(value) is (int if whole else float):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise OptionError(f"{label}: attribute {name!r}: expected a number, got {value!r}")
    if whole and int(value) != value:
        raise OptionError(f"{label}: attribute {name!r}: expected a whole number, got {value!r}")
    return int(value) if whole else real(value)
