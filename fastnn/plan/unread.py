"""Transposes in vain are left out.

A layer hands on its output with the channels first, say, and the next one takes what that is the
transpose of (`ops/layout.py`): then nobody reads the transpose.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fastnn.graph.node import Call
from fastnn.graph.value import Value


def without_unread(
    calls: Sequence[Call], transposes: Collection[Value], kept: Collection[Value]
) -> list[Call]:
    """The calls in their order, without those that write nothing but some of `transposes` which
    neither a call reads nor are in `kept`."""
    left, among = list(calls), {v.root for v in transposes}.difference(kept)
    while among:
        unread = among.difference(v.root for call in left for _, p, v in call.arrays() if p.reads)
        found = [call for call in left if not _writes_only(call, unread)]
        if len(found) == len(left):
            break
        left = found
    return left


def _writes_only(call: Call, unread: set[Value]) -> bool:
    return all(p.mode == "out" and v.root in unread for _, p, v in call.arrays() if p.writes)
