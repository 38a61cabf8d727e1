"""Loops on a stand-in for the driver: calls are prepared once, and each step gets its own words."""

from __future__ import annotations

import pytest

from fastnn.plan.branches import MOST_LAUNCHES
from tests.stub.harness import Ran, numbers, run

#: notes what is prepared, and the arguments of each launch
WATCH = """
import os
os.environ["FASTNN_POISON"] = "0"  # which fills memory by launches of its own
import cuda.core
from fastnn.runtime.cuda import bound, compiler
bound.MOST_LAUNCHES = 10**9  # bodies of longer loops are launched again and again (test_again.py)
from fastnn.runtime.cuda.bound import CudaProgram
from fastnn.runtime.cuda.gpu import Gpu
from fastnn.runtime.cuda.made import made
from fastnn.runtime.cuda.place import Place

prepared, launched, programs = [], [], []
real_prepared, real_launch, real_init = Gpu.prepared, cuda.core.launch, CudaProgram.__init__

def prepare(self, kernel, *more):
    prepared.append(kernel.name)
    return real_prepared(self, kernel, *more)

def launch(stream, config, code, *arguments):
    launched.append([(type(a).__name__, a.item()) for a in arguments])
    return real_launch(stream, config, code, *arguments)

def init(self, *given):
    programs.append(self)
    real_init(self, *given)

Gpu.prepared, cuda.core.launch, CudaProgram.__init__ = prepare, launch, init

class Loop(nn.Module):
    '''A cell, dropout, and in each step a loop over three vectors.'''
    def __init__(self):
        self.cell, self.drop, self.inner = nn.GRUCell(6, 8), nn.Dropout(0.3), nn.Linear(6, 6)
        self.out = nn.Linear(8, 4)
    def forward(self, x):
        def body(x, h):
            several = ops.stack([x, 2 * x, -x], axis=1)
            x = ops.loop(lambda a, b: (a, ops.tanh(self.inner(a) + b)), several, x)[1]
            h = self.cell(self.drop(x), h)
            return h, h
        return self.out(ops.loop(body, x, ops.zeros_state(x, 8))[0])

def step_of(model):
    return fnn.compile(model, "cross_entropy", optim.SGD(0.1), device="cuda")
"""


@pytest.fixture(scope="module")
def ran() -> Ran:
    return run(
        WATCH
        + """
for steps in (5, 70):
    prepared.clear()
    step = step_of(Loop())
    section(f"first of {steps}")
    step(*data(4, steps, 6, steps=(steps,)))
    section(f"second of {steps}")
    step(*data(4, steps, 6, steps=(steps,)))
    print("prepared", steps, len(prepared))

class Until(nn.Module):
    def __init__(self):
        self.cell, self.out = nn.RNNCell(6, 8), nn.Linear(8, 4)
    def forward(self, x):
        def body(x, h):
            h = self.cell(x, h)
            return h, h
        enough = lambda _, h: ops.sum(h, axis=1) > 1.0
        return self.out(ops.loop(body, x, ops.zeros_state(x, 8), until=enough)[0])

for steps in (32, 70):
    step = step_of(Until())
    for turn in range(3):
        section(f"until {steps} {turn}")
        step(*data(4, steps, 6, steps=(steps,)))
section("")

def alone(bound, call):
    kernel, operands = (one := made((call,), bound.place)).kernel, one.operands
    values = {
        n: (v.address, v.dims) if isinstance(v, Place)
        else (0, (0,) * len(kernel.arrays[n].dims)) if v is None else v
        for n, v in operands.items()
    }
    return [(type(a).__name__, a.item()) for a in compiler.arguments(kernel, "float32", values)]

programs.clear()
step = step_of(Loop())
launched.clear()
step(*data(4, 5, 6, steps=(5,)))
(own,) = (p for p in programs if "grads" in p.used)
first = list(launched)
launched.clear()
step(*data(4, 5, 6, steps=(5,)))
calls = [call for _, call, _ in own.program.steps()]
expected = [sum((alone(own, calls[k]) for k in group), []) for group in own.program.launches()]
print("same", first[-len(expected):] == expected, launched[-len(expected):] == expected)
"""
    )


def test_the_calls_of_a_loop_are_prepared_once(ran: Ran):
    assert ran.status == 0, ran.output
    assert ran.mistakes == []
    counts = [x.split()[1:] for x in ran.output.splitlines() if x.startswith("prepared")]
    assert [steps for steps, _ in counts] == ["5", "70"]
    assert counts[0][1] == counts[1][1]


def test_each_step_is_launched_with_its_own_words(ran: Ran):
    """Those that the call has which the program makes in that step: addresses and streams."""
    assert "same True True" in ran.output


def test_all_steps_are_nodes_of_one_graph(ran: Ran):
    """In branches as long as there are few; else one launch after the other."""
    for steps in (5, 70):
        log = ran.section(f"second of {steps}")
        captured = sum("captured=1" in line for line in log)
        ends = [numbers(line) for line in log if line.startswith("EndCapture")]
        assert sum(end["nodes"] for end in ends) == captured > 10 * steps
        largest = max(ends, key=lambda end: end["nodes"])
        assert (largest["nodes"] > MOST_LAUNCHES) == (steps == 70)
        assert (largest["forked"] == 0) == (steps == 70)


def test_a_loop_that_ends_early_is_in_graphs_that_may_be_left_out(ran: Ran):
    """The stand-in computes nothing: no sequence goes on after the first 32 steps."""
    short, long = ([ran.section(f"until {n} {turn}") for turn in range(3)] for n in (32, 70))
    made = [[sum(x.startswith("Launch") for x in log) for log in logs] for logs in (short, long)]
    assert made[0][0] == made[1][0] > 100  # the same 32 steps, forward and back
    assert made[0][2] == made[1][2] == 0
    replayed = [[sum(x.startswith("GraphLaunch") for x in log) for log in (s, l)]
                for s, l in zip(short, long, strict=True)]  # fmt: skip
    assert replayed[2][1] > replayed[2][0]  # before the loops, each of them, between and after
