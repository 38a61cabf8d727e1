"""Which calls are left out because nobody reads what they write."""

from __future__ import annotations

from fastnn.graph.graph import Graph
from fastnn.kernels.host import host_call
from fastnn.plan.call import Call
from fastnn.plan.unread import without_unread


def test_a_call_that_writes_nothing_is_made_for_something_else() -> None:
    graph = Graph(2)
    x, y, z = (graph.value((2, 3)) for _ in range(3))
    writes = Call("relu_forward", {"x": x, "y": y}, "")
    again = Call("relu_forward", {"x": y, "y": z}, "")
    host = Call(host_call(0), {"number": 0}, "")
    assert without_unread([writes, host, again], {y, z}, ()) == [host]
    assert without_unread([writes, host, again], {y, z}, {z}) == [writes, host, again]
