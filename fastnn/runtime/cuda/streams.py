"""The branches of a graph while it is captured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastnn.plan.branches import Place

if TYPE_CHECKING:
    from fastnn.runtime.cuda.gpu import Gpu

#: of an event that only says that something is done
WITHOUT_TIME = 2


class Streams:
    """The streams on which the branches of a graph are captured, and the events between them.

    Without places all launches are in one branch.
    """

    def __init__(self, gpu: Gpu, first: Any, places: Sequence[Place]):
        self.gpu, self.driver, self.places = gpu, gpu.driver, places
        count = max((place.branch for place in places), default=0)
        self.streams = [first, *(self._free_stream() for _ in range(count))]
        #: launches that another branch waits for, and the last ones of the branches
        self.waited = {j for place in places for j in place.waits}
        self.last: dict[int, int] = {}
        for number, place in enumerate(places):
            self.last[place.branch] = number
        self.events: dict[int, Any] = {}
        self.begun, self.joined = {0}, False
        if count:
            self._record(-1, 0)

    def begin(self, number: int) -> Any:
        """The stream of a launch, after what it has to wait for."""
        if not self.places:
            return self.streams[0]
        place = self.places[number]
        waits = place.waits
        if place.branch not in self.begun:
            self.begun.add(place.branch)
            waits = waits or (-1,)
        for j in waits:
            self._wait(place.branch, j)
        return self.streams[place.branch]

    def end(self, number: int) -> None:
        """After a launch."""
        if not self.places:
            return
        branch = self.places[number].branch
        if number in self.waited or (branch and self.last[branch] == number):
            self._record(number, branch)

    def join(self) -> None:
        """The first branch waits for the ends of all others."""
        for branch, number in self.last.items():
            if branch:
                self._wait(0, number)
        self.joined = True

    def _free_stream(self) -> Any:
        """One that no other thread's capture has meanwhile."""
        try:
            return self.gpu.idle_streams.pop()
        except IndexError:
            return self.gpu.use().create_stream()

    def close(self) -> None:
        if self.joined:  # else they are left in a capture that came to nothing
            self.gpu.idle_streams.extend(self.streams[1:])
        for event in self.events.values():
            self.driver.cuEventDestroy(event)

    def _record(self, number: int, branch: int) -> None:
        event = self.gpu._check(self.driver.cuEventCreate(WITHOUT_TIME))
        self.events[number] = event
        self.gpu._check(self.driver.cuEventRecord(event, self.streams[branch].handle))

    def _wait(self, branch: int, number: int) -> None:
        handle = self.streams[branch].handle
        self.gpu._check(self.driver.cuStreamWaitEvent(handle, self.events[number], 0))
