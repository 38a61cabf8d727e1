"""Random models for property tests: a recipe of layers drawn by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fastnn import nn, ops, optim
from fastnn.engine.specs import Spec
from fastnn.engine.store import ParameterStore
from fastnn.engine.update import Objective
from fastnn.plan.program import Program
from fastnn.train.build import StepBuilder
from fastnn.train.losses import Losses
from fastnn.train.metrics import choose

STEPS = (
    "linear", "relu", "tanh", "gelu", "softmax", "layer_norm", "batch_norm", "dropout", "add",
    "multiply", "concatenate", "scale", "prelu", "maxout", "slice", "reshape", "bias",
)  # fmt: skip


class RandomModel(nn.Module):
    """Each step takes one of the values so far (or two) and adds one to them."""

    def __init__(self, features: int, recipe: list[tuple[str, int, int, int]]):
        self.features, self.recipe = features, recipe
        self.layers: list[nn.Module] = []
        self.plan(features)
        self.head = nn.Linear(self.last, 3)

    def plan(self, features: int) -> None:
        """Make the layers; the sizes follow from the recipe alone."""
        sizes = [features]
        for kind, first, _, size in self.recipe:
            width = sizes[first % len(sizes)]
            layer: nn.Module = nn.ReLU()
            if kind == "linear":
                layer, width = nn.Linear(width, size), size
            elif kind in ("layer_norm", "bias"):
                layer = nn.LayerNorm(width)
            elif kind == "batch_norm":
                layer = nn.BatchNorm(width)
            elif kind == "dropout":
                layer = nn.Dropout(0.4)
            elif kind == "prelu":
                layer = nn.PReLU(width)
            elif kind == "slice":
                width = -(-width // 2)
            elif kind == "concatenate":
                width += sizes[self.recipe_second(len(sizes), kind, first)]
            elif kind == "maxout":
                width = width // 2 if width % 2 == 0 else width
            self.layers.append(layer)
            sizes.append(width)
        self.last = sizes[-1]

    def recipe_second(self, count: int, kind: str, first: int) -> int:
        return (first * 7 + 1) % count

    def forward(self, x: Any) -> Any:
        values = [x]
        for (kind, first, second, _), layer in zip(self.recipe, self.layers, strict=True):
            a = values[first % len(values)]
            b = values[second % len(values)]
            if kind in ("add", "multiply") and a.shape == b.shape:
                y = ops.add(a, b) if kind == "add" else ops.multiply(a, b)
            elif kind == "concatenate":
                y = ops.concatenate(a, values[self.recipe_second(len(values), kind, first)])
            elif kind == "softmax":
                y = ops.softmax(a)
            elif kind == "tanh":
                y = ops.tanh(a)
            elif kind == "gelu":
                y = ops.gelu(a)
            elif kind == "scale":
                y = 0.5 * a + 1.0
            elif kind == "slice":
                y = ops.columns(a, 0, -(-a.shape[-1] // 2))
            elif kind == "maxout" and a.shape[-1] % 2 == 0:
                y = ops.maxout(a, 2)
            elif kind == "reshape":
                y = ops.reshape(ops.reshape(a, -1), *a.shape)
            else:
                y = layer(a)
            values.append(y)
        return self.head(values[-1])


recipes = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 20), st.integers(0, 20), st.integers(1, 40)),
    min_size=1,
    max_size=9,
)
optimizers = st.sampled_from(["sgd", "momentum", "adam", "global norm", "norm"])


def optimizer_called(name: str) -> optim.Optimizer:
    made: dict[str, optim.Optimizer] = {
        "sgd": optim.SGD(lr=0.1),
        "momentum": optim.SGD(lr=0.1, momentum=0.9),
        "adam": optim.Adam(groups={"*.bias": {"lr": 0.2}}),
        "global norm": optim.Adam(clip_global_norm=1.0),
        "norm": optim.SGD(lr=0.1, clip_norm=1.0),
    }
    return made[name]


def training_program(
    model: nn.Module,
    shape: tuple[int, ...],
    batch: int,
    optimizer: optim.Optimizer,
    dtype: str = "float32",
    feed: str = "gather",
    device: str = "cpu",
) -> tuple[StepBuilder, Program]:
    """The graph and the program of a training step."""
    store = ParameterStore(model.named_arrays().items(), dtype)
    builder = StepBuilder(model, store, batch, True, feed, device)
    inputs = builder.inputs("x", [Spec(shape, "f")])
    targets = builder.inputs("y", [Spec((), "i")])
    outputs = builder.outputs(inputs)
    losses = Losses(nn.CrossEntropyLoss())
    loss = builder.loss(losses, outputs, targets)
    builder.check_finite(loss)
    builder.report(choose(["accuracy"], losses))
    builder.train(Objective(loss, model.named_parameters(), optimizer))
    return builder, builder.finish().program
