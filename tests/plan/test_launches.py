"""Launches on a GPU: what one block computes is gathered into one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import metrics, nn, optim
from fastnn.graph.graph import Graph
from fastnn.kernels.declare import kernel_of
from fastnn.ops.declare import apply_effect
from fastnn.plan.instruction import instructions_of
from fastnn.plan.launches import in_order, in_turn
from fastnn.plan.lower import Lowering
from fastnn.plan.products import chosen
from fastnn.plan.program import Program
from fastnn.testing.null import null_device

X, Y = np.zeros((128, 784), np.float32), np.zeros(128, np.int64)


def planned(
    model: nn.Module, x: Any, y: Any, loss: Any = "cross_entropy", **options: Any
) -> Program:
    """The training step of a model, planned for CUDA."""
    with null_device("cuda") as null:
        trainer = fnn.Trainer(model, loss, optim.Adam(1e-3), **options)
        trainer.fit(x, y, epochs=1, batch_size=len(x), verbose=False)
    return null.programs[0]


def launches(program: Program) -> list[str]:
    """The kernels of each launch."""
    calls = [call for _, call, _ in program.steps()]
    return ["+".join(calls[k].kernel for k in launch) for launch in program.launches()]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def test_loss_check_totals_and_preparation_are_one_launch_and_the_end_of_a_step_another() -> None:
    found = launches(planned(mlp(), X, Y))
    assert "mean+check_finite+accumulate+adam_prepare" in found
    assert found[-1] == "latch+advance"


def test_metrics_wait_with_the_loss() -> None:
    chosen = ["accuracy", "top_2_accuracy", metrics.binary_accuracy(0.2)]
    found = launches(planned(mlp(), X, np.zeros((128, 10), np.float32), "mse", metrics=chosen[2:]))
    assert sum("accumulate" in launch for launch in found) == 1
    found = launches(planned(mlp(), X, Y, metrics=chosen[:2]))
    assert sum("accumulate" in launch for launch in found) == 1


def test_what_a_gradient_needs_does_not_wait_for_the_update() -> None:
    """The weights' sum is a factor of the gradient."""
    found = launches(planned(mlp(), X, Y, nn.CrossEntropyLoss(np.ones(10))))
    at = next(k for k, launch in enumerate(found) if launch.startswith("weighted_mean"))
    assert "weighted_mean_backward" in found[at + 1 :]
    assert "prepare" not in found[at]


def test_what_waits_is_made_before_the_host_is_called() -> None:
    """Whether the loss is finite decides whether the host is called."""
    program = planned(mlp(), X, Y, on_gradients=lambda gradients: None)
    names = [call.kernel for call in program.calls()]
    (host,) = (k for k, name in enumerate(names) if kernel_of(name).traits.host)
    assert names.index("check_finite") < host < names.index("adam_prepare")


def test_what_is_kept_shares_memory_with_nothing_that_comes_later() -> None:
    graph = Graph(batch=8)
    values = [graph.value((8, 4)) for _ in range(5)]
    for x, y in itertools.pairwise(values):
        apply_effect(graph, "relu_forward", x=x, y=y)
    lowering = Lowering(graph, device="cuda")
    phases = in_order(instructions_of(chosen(lowering), lowering.batch))
    _, early, _, _, late = values
    assert in_turn(phases, ())(early, late)
    assert not in_turn(phases, [early])(early, late)


def test_clipping_is_one_launch_beside_its_squares() -> None:
    with null_device("cuda") as null:
        rule = optim.Adam(1e-3, clip_global_norm=1.0)
        trainer = fnn.Trainer(mlp(), "cross_entropy", rule)
        trainer.fit(X, Y, epochs=1, batch_size=128, verbose=False)
    found = launches(null.programs[0])
    assert sum("norm_sum" in launch for launch in found) == 1
    assert any(launch.endswith("+".join(["norm_sum"] * 4 + ["clip_scale"])) for launch in found)


def test_the_steps_of_a_loop_are_launches_of_their_own() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            self.cell = nn.RNNCell(3, 4)

        def forward(self, x: Any) -> Any:
            def step(x_t: Any, h: Any) -> Any:
                h = self.cell(x_t, h)
                return h, h

            return fnn.ops.loop(step, x, fnn.ops.zeros_state(x, 4))[0]

    x = np.zeros((4, 6, 3), np.float32)
    program = planned(Loop(), x, np.zeros((4, 6, 4), np.float32), "mse")
    assert [k for launch in program.launches() for k in launch] == [
        *range(sum(1 for _ in program.steps()))
    ]
    assert sum("tanh_forward" in launch for launch in launches(program)) == 6


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(np.ones(10))])
def test_only_kernels_of_one_block_share_a_launch(loss: Any) -> None:
    from fastnn.kernels.declare import CUDA_KERNELS

    program = planned(mlp(), X, Y, loss, metrics=["accuracy"])
    calls = [call for _, call, _ in program.steps()]
    for launch in program.launches():
        names = [calls[k].kernel for k in launch]
        assert len(names) == 1 or all(CUDA_KERNELS[n].traits.one_block for n in names)
        assert all(kernel_of(n) is not None for n in names)
