"""What depends on what goes by segments and bytes, whichever values stand for them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn.graph.graph import Graph
from fastnn.graph.value import Repeat, Value
from fastnn.ops.declare import apply_effect
from fastnn.plan.call import Call
from fastnn.plan.instruction import Instruction, instruction_of, instructions_of
from fastnn.plan.lower import Lowering
from fastnn.plan.planner import plan
from fastnn.plan.schedule import conflict, leaves, schedule

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


def place(graph: Graph, begin: int, size: int, segment: str = "params") -> Value:
    """Memory of a segment, by a value of its own."""
    return graph.value((size,), segment=segment, offset=begin, name=f"{begin} to {begin + size}")


def copy(graph: Graph, x: Value, y: Value) -> None:
    apply_effect(graph, "affine", x=x, y=y, scale=1.0, shift=0.0)


def phases_of(graph: Graph) -> dict[int, int]:
    """Of each call, by number, the phase that it is in; the program is verified."""
    lowered = Lowering(graph)
    plan(lowered, {})
    work = instructions_of(lowered.calls, lowered.batch)
    found = {
        id(one): number
        for number, phase in enumerate(leaves(schedule(work)))
        for group in phase.groups
        for one in group.instructions
    }
    return {k: found[id(one)] for k, one in enumerate(work)}


@pytest.mark.parametrize("segment", ["params", "buffers", "slots/m"])
def test_two_values_over_the_same_bytes_are_one_memory(segment: str) -> None:
    graph = Graph(4)
    copy(graph, graph.full((32,), 1.0), place(graph, 0, 32, segment))
    copy(graph, place(graph, 16, 32, segment), graph.value((32,)))
    assert phases_of(graph) == {0: 0, 1: 1}


def test_neighbours_do_not_wait_for_each_other() -> None:
    graph = Graph(4)
    copy(graph, graph.full((32,), 1.0), place(graph, 0, 32))
    copy(graph, place(graph, 32, 32), graph.value((32,)))
    copy(graph, graph.full((16,), 1.0), place(graph, 64, 16))
    assert phases_of(graph) == {0: 0, 1: 0, 2: 0}


def test_the_same_elements_of_two_values_are_in_one_group() -> None:
    graph = Graph(4)
    copy(graph, graph.full((32,), 1.0), place(graph, 8, 32))
    copy(graph, place(graph, 8, 32), graph.value((32,)))
    [phase] = schedule(instructions_of(Lowering(graph).calls, 4))
    [group] = phase.groups
    assert len(group.instructions) == 2


@SETTINGS
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from([4, 8, 16])),
        min_size=2, max_size=12,
    ),
    aligned=st.booleans(),
)  # fmt: skip
def test_calls_that_meet_keep_their_order_and_no_others(
    calls: list[tuple[int, int, int]], aligned: bool
) -> None:
    """A call is in the phase after the last one that it has to wait for, and in no later one."""
    graph = Graph(64)
    grid = 16 if aligned else 1
    for source, target, size in calls:
        copy(
            graph, place(graph, 100 * grid + source * grid, size), place(graph, target * grid, size)
        )
        copy(graph, place(graph, target * grid, size), graph.value((size,)))
    spans = [
        place_ for source, target, size in calls
        for place_ in ((target * grid, size, True), (target * grid, size, False))
    ]  # fmt: skip
    found = phases_of(graph)
    earliest: list[int] = []
    for k, (begin, size, writes) in enumerate(spans):
        phase = 0
        for j, (other, extent, wrote) in enumerate(spans[:k]):
            if (writes or wrote) and begin < other + extent and other < begin + size:
                phase = max(phase, earliest[j] + ((begin, size) != (other, extent)))
        earliest.append(phase)
    for k, phase in enumerate(earliest):
        assert found[k] >= phase
    for j, k in itertools.combinations(range(len(spans)), 2):
        (begin, size, writes), (other, extent, wrote) = spans[k], spans[j]
        if (writes or wrote) and begin < other + extent and other < begin + size:
            assert found[k] >= found[j] + ((begin, size) != (other, extent))
    # a copy may be put off to whom it is read by, but not beyond
    assert max(found.values()) == max(earliest)


def test_views_that_move_in_loops_meet_where_their_bytes_do() -> None:
    """Rows 0, 2, 4 ... and 1, 3, 5 ... of a piece of memory never meet; rows 0, 2 and 0, 4 do."""
    graph, loop = Graph(4), Repeat(5)

    def moving(memory: Value, begin: int, by: int) -> Instruction:
        view = graph.view(memory, (8,), begin=begin, steps={loop: by})
        operands = {"x": graph.full((8,), 1.0), "y": view, "scale": 1.0, "shift": 0.0}
        return instruction_of(Call("affine", operands, "", repeats=(loop,)), 4)

    for a, b in itertools.product([place(graph, 24, 100), place(graph, 24, 100)], repeat=2):
        even, odd, other = moving(a, 0, 16), moving(b, 8, 16), moving(b, 0, 32)
        assert conflict(even, odd) is None
        assert conflict(even, other) is not None
