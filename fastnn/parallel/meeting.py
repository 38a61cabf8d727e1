"""Where the processes of one machine meet: kept by the one that has started them."""

from __future__ import annotations

import contextlib
import pickle
import time
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from fastnn.errors import ProcessError
from fastnn.parallel.group import disagreement
from fastnn.parallel.messages import GO, HERE, MESSAGE

#: seconds between two looks whether all processes are alive
EVERY = 0.2
#: seconds that processes have to end once one has failed
GRACE = 10.0


class Meeting:
    """The processes, their ends, what they wait for and what has become of them.

    Args:
        begun: how many exchanges the GPU of each process has begun, as the process says.
    """

    def __init__(self, begun: np.ndarray):
        self.size, self.begun = len(begun), begun
        self.ends: list[Any] = []
        self.alarms: list[Any] = []
        self.children: list[Any] = []
        self.waiting: dict[int, tuple[int, int]] = {}
        self.found: dict[int, Any] = {}
        self.failed: list[tuple[bool, int, str]] = []
        #: why nobody can go on; "" as long as all can
        self.broken = ""

    def add(self, end: Any, alarm: Any, child: Any) -> None:
        """A process that was started, its end, and what it is told by while it waits elsewhere."""
        self.ends.append(end)
        self.alarms.append(alarm)
        self.children.append(child)

    def results(self) -> list[Any]:
        """What all processes return; as soon as one fails, no other waits for it.

        Raises ProcessError where one has failed.
        """
        left = dict(enumerate(self.ends))
        until = float("inf")
        while left and time.monotonic() < until:
            ready = wait(list(left.values()), EVERY)
            for rank, end in list(left.items()):
                # a process of its own that outlives it may hold its end open
                gone = not ready and self.children[rank].exitcode is not None and not end.poll()
                if gone or (end in ready and not self._hear(rank, end)):
                    del left[rank]
                    self._ended(rank)
            if not ready and (text := self._apart()):
                self._break(text)
            if self.failed:
                until = min(until, time.monotonic() + GRACE)
        if self.failed:
            _, rank, text = min(self.failed)  # the first cause, not those that waited for it
            raise ProcessError(f"parallel.run: process {rank} of {self.size} failed: {text}")
        return [self.found[rank] for rank in range(self.size)]

    def close(self) -> None:
        """End all that have not ended by themselves."""
        self._break("parallel: another process has failed; parallel.run raises its error")
        for end in self.ends:
            end.close()  # whoever waits for an answer gets none
        until = time.monotonic() + (GRACE if not self.failed else 1.0)
        for child in self.children:
            child.join(max(0.0, until - time.monotonic()))
            if child.is_alive():
                child.terminate()
                child.join(1.0)
            if child.is_alive():  # it does not hear, or was stopped
                child.kill()
                child.join()

    def _hear(self, rank: int, end: Any) -> bool:
        """Take a process's message; whether there will be more."""
        try:
            message = end.recv_bytes()
            if message[:1] == HERE:
                _, purpose, number = MESSAGE.unpack(message)
                self.waiting[rank] = purpose, number
                self._answer()
                return True
            good, value, follows = pickle.loads(message[1:])
        except (EOFError, OSError):
            return False
        except Exception as error:  # what was sent can't be made of its pickle here
            good, follows = False, False
            value = f"its result can't be read ({type(error).__name__}: {error})"
        if good:
            self.found[rank] = value
        else:
            self.failed.append((bool(follows), rank, str(value)))
        return False

    def _ended(self, rank: int) -> None:
        """A process will send no more."""
        if rank not in self.found and all(rank != other for _, other, _ in self.failed):
            self.failed.append((False, rank, "ended without a word (killed?)"))
        if rank not in self.found:
            self._break("parallel: another process has failed; parallel.run raises its error")

    def _answer(self) -> None:
        """Let those who wait go on, if all are there."""
        if self.broken:
            self._release(self.broken.encode())
        elif len(self.waiting) == self.size:
            text = disagreement([self.waiting[rank] for rank in range(self.size)]) or self._apart()
            self._release(text.encode() or GO)

    def _apart(self) -> str:
        """Why a GPU waits in vain for that of a process which is here, and can't go on before."""
        for rank in self.waiting:
            other = int(self.begun.argmax())
            if self.begun[other] > self.begun[rank]:
                return (
                    f"parallel: process {rank} is through with its steps while process {other} "
                    "makes more; give all processes as many (group.share, one batch size)"
                )
        return ""

    def _break(self, why: str) -> None:
        if not self.broken:
            self.broken = why
            for alarm in self.alarms:
                if alarm is not None:
                    with contextlib.suppress(OSError):
                        alarm.send_bytes(why.encode())
        self._release(self.broken.encode())

    def _release(self, answer: bytes) -> None:
        waiting, self.waiting = self.waiting, {}
        for rank in waiting:
            with contextlib.suppress(OSError):  # it has just died
                self.ends[rank].send_bytes(answer)
