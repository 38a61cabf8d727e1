"""How ops are declared: what follows from a decorated function."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.op import OPS
from fastnn.graph.value import Value
from fastnn.ops.declare import Operand, floats, like, op, outputs


@pytest.fixture
def graph():
    return Graph(batch=4)


def test_an_op_follows_from_its_function():
    row = OPS["softplus"]
    assert (row.inputs, row.outputs, row.returns) == (("x",), ("y",), ("y",))
    assert row.defaults == {"beta": 1.0, "threshold": 20.0}
    row = OPS["layer_norm"]
    assert row.inputs == ("x", "gain", "bias")
    assert (row.outputs, row.returns) == (("y", "mean", "rstd"), ("y",))
    assert row.defaults == {"eps": 1e-5}


def test_functions_keep_signature_and_text():
    assert (
        str(inspect.signature(ops.leaky_relu)) == "(x: 'Operand', slope: 'float' = 0.01) -> 'Value'"
    )
    assert ops.leaky_relu.__name__ == "leaky_relu"
    assert all(getattr(ops, name).__doc__ for name in ops.__all__)
    assert all(getattr(nn, name).__doc__ for name in nn.__all__)


@pytest.mark.parametrize("package", [ops, nn])
def test_what_modules_define_is_public(package):
    """Each name once, from the module that defines it, and nothing that this imports."""
    names = package.__all__
    assert len(set(names)) == len(names)
    assert not {"Value", "publish", "provide", "getitem", "np"} & set(names)
    for name in set(names) - {"init"}:
        found = getattr(package, name)
        assert found.__module__.startswith(package.__name__)
        assert name in vars(sys.modules[found.__module__])


@pytest.mark.parametrize(
    ("args", "named", "message"),
    [
        ((), {}, r"leaky_relu\(\) missing 1 required positional argument: 'x'"),
        ((0.1, 0.2), {}, r"leaky_relu\(\) takes from 1 to 2 positional arguments but 3 were given"),
        ((), {"alpha": 0.2}, r"leaky_relu\(\) got an unexpected keyword argument 'alpha'"),
        ((0.1,), {"slope": 0.2}, r"leaky_relu\(\) got multiple values for argument 'slope'"),
    ],
)
def test_wrong_arguments_are_those_of_the_function(graph, args, named, message):
    given = args if message.find("missing") > 0 else (graph.input("x", (3,)), *args)
    with pytest.raises(TypeError, match=message):
        ops.leaky_relu(*given, **named)


@pytest.mark.parametrize("value", ["0.1", None, True, np.ones(2)])
def test_attributes_are_numbers(graph, value):
    with pytest.raises(OptionError, match="leaky_relu: attribute 'slope': expected a number, got"):
        ops.leaky_relu(graph.input("x", (3,)), value)


def test_whole_attributes_are_whole(graph):
    x = graph.input("x", (6,))
    assert ops.maxout(x, 2.0).shape == (4, 3)
    assert ops.maxout(x, pieces=np.int32(3)).shape == (4, 2)
    with pytest.raises(OptionError, match=r"'pieces': expected a whole number, got 2\.5"):
        ops.maxout(x, 2.5)


def test_numbers_of_other_types_become_those_of_the_attribute(graph):
    y = ops.leaky_relu(graph.input("x", (3,)), np.float32(0.5))
    assert type(y.node.attrs["slope"]) is float


@pytest.fixture
def entered():
    """The table of ops, as it was before."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def test_a_name_is_given_once(entered):
    with pytest.raises(ValueError, match="an op called 'relu' exists already"):

        @op()
        def relu(x: Operand) -> Value:
            return like(x)


def test_several_outputs_and_attributes_by_name_alone(graph, entered):
    @op(name="test_halves", returns=("left", "right"), forward="affine")
    def halves(
        x: Operand, y: Value | None = None, *, keep: int = 1, how: str = "so"
    ) -> tuple[Value, Value]:
        if x.ndim != 2:
            raise ShapeError("two")
        return outputs(left=floats(x.shape[0], keep), right=like(x))

    row = OPS["test_halves"]
    assert row.inputs == ("x", "y")
    assert row.defaults == {"keep": 1, "how": "so"}
    x = graph.input("x", (3,))
    assert row.shape({"x": x}, {"keep": 2, "how": ""}, "") == {
        "left": ((4, 2), "f"), "right": ((4, 3), "f")
    }  # fmt: skip
