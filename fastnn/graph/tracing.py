"""What a thread is tracing: known wherever values are made, without being handed on."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnn.graph.graph import Graph


class _Tracing(threading.local):
    """What a thread is tracing: the graph, the frame that does it, and what is traced around it."""

    entry: tuple[Graph, FrameType, Any] | None = None


#: of this thread; who sets its entry puts the one before back
tracing = _Tracing()


def traced() -> Graph | None:
    """The graph that this thread is tracing a module's `forward` (or a loss) into, if any.

    Tracing ends with the frame that does it, even where a Ctrl-C kept it from saying so.
    """
    entry = tracing.entry
    if entry is None:
        return None
    while entry is not None and not _is_running(entry[1]):
        entry = entry[2]
    tracing.entry = entry
    return None if entry is None else entry[0]


def _is_running(frame: FrameType) -> bool:
    """Whether a frame is one of this thread's calls."""
    current: FrameType | None = sys._getframe(1)
    while current is not None and current is not frame:
        current = current.f_back
    return current is not None
