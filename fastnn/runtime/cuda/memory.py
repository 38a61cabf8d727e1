"""The memory of a session on a device: segments by name, and the control block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, Protocol

import numpy as np

from fastnn.cached import cached
from fastnn.kernels import control_block
from fastnn.plan.halves import HALVES
from fastnn.plan.program import Program
from fastnn.runtime.cuda.place import Launch, Piece
from fastnn.runtime.interface import Store
from fastnn.runtime.segment import Segment


class Bound(Protocol):
    """A program that is bound, and its memory."""

    program: Program
    segments: dict[str, Segment]


#: how many answers of the control block may be on their way
ANSWERS = 4


class DeviceControl:
    """The control block and running totals: on the host as two arrays, on the device in one piece.

    `send` before a run sends what the host has changed; `fetch` brings what the device has.
    """

    def __init__(self, gpu: Any, totals: int):
        self.gpu = gpu
        self.size = 8 * (control_block.LENGTH + 2 * totals)
        self.piece: Piece = gpu.allocate(self.size, "control")
        self.host = np.zeros(self.size, np.uint8)
        self.control = self.host[: 8 * control_block.LENGTH].view(np.int64)
        self.totals = self.host[8 * control_block.LENGTH :].view(np.float64)
        self._known = self.host.copy()  # as the device has it
        pinned = gpu.pinned(ANSWERS * self.size)
        self._answers = [pinned[k * self.size : (k + 1) * self.size] for k in range(ANSWERS)]
        self._turn = 0

    def send(self) -> None:
        if not np.array_equal(self.host, self._known):
            self._known[:] = self.host
            self.gpu.upload(self.host, self.piece)

    def forget(self) -> None:
        """Somebody has run programs without `take`: the next `send` sends all."""
        self._known.fill(0xFF)

    def ask(self) -> np.ndarray:
        """Have the device's copied to the host; it is there when the device has come so far."""
        self._turn = (self._turn + 1) % ANSWERS
        self.gpu.start_download(self.piece, self._answers[self._turn])
        return self._answers[self._turn]

    @cached
    def looks(self) -> list[tuple[np.ndarray, Launch, Launch]]:
        """The same prepared: answers, each with what asks for it and what waits for it."""
        return [(answer, *self.gpu.look(self.piece, answer)) for answer in self._answers]

    def take(self, answer: np.ndarray) -> None:
        """Use what `ask` returned, when it is there."""
        self.gpu.check_partners()
        self.host[:] = self._known[:] = answer


class CudaMemory(MutableMapping[str, np.ndarray]):
    """Segments by name; taking one brings the host's copy up to date (see `interface`).

    Args:
        gpu: the device.
        store: the parameters' memory, shared with other sessions.
        slots: names of the optimiser's slots.
        device_control: the control block and totals.
    """

    def __init__(self, gpu: Any, store: Store, slots: Sequence[str], device_control: DeviceControl):
        self.gpu, self.store, self.device_control = gpu, store, device_control
        self.segments: dict[str, Segment] = dict(store.segments)
        for slot in slots:
            array = np.zeros(store.size, store.dtype)
            self.segments[f"slots/{slot}"] = Segment(f"slots/{slot}", array, blank=True)
        self.segments["guard"] = Segment("guard", np.zeros(control_block.GUARD_LENGTH, np.int64))
        for name in ("params", *(f"slots/{slot}" for slot in slots)):
            saved = np.zeros(store.size, store.dtype)
            self.segments[f"saved/{name}"] = Segment(f"saved/{name}", saved, blank=True)
        self._own = {"control": device_control.control, "totals": device_control.totals}
        #: what waits for steps that are on their way, before somebody looks
        self.synchronize: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> np.ndarray:
        self.synchronize()
        if name in self._own:
            return self._own[name]
        if name in self.store.segments:
            self.store.bring_to_host(name)
        return self.segments[name].for_writing()

    def __setitem__(self, name: str, array: Any) -> None:
        """Provide a segment. One of the same form takes the place of the one before on the device,
        for programs bound before, too."""
        if not isinstance(array, np.ndarray):  # on a device already
            self.segments[name] = array.segment(self.gpu, name)
            return
        known = self.segments.get(name)
        if (
            known is not None
            and known.host.shape == array.shape
            and known.host.dtype == array.dtype
            and not known.foreign
        ):
            known.replace(array)
        else:
            self.segments[name] = Segment(name, array)

    def let_go(self, bound: MutableMapping[Any, Any]) -> None:
        """Keep no array of the host's that was data or a result, and no memory of somebody else's:
        programs that are `bound` to that go. What this device has of its own stays, for the next
        arrays of the same form."""
        foreign = set()
        for name, segment in list(self.segments.items()):
            if not name.startswith(("data/", "result/")):
                continue
            if segment.foreign:
                foreign.add(name)
                del self.segments[name]
            else:
                host = segment.host
                segment.replace(np.broadcast_to(np.zeros((), host.dtype), host.shape))
        for key, program in list(bound.items()) if foreign else ():
            if foreign & program.used:
                del bound[key]  # it would be bound anew: the next arrays lie elsewhere
            for name in foreign:
                program.segments.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self.segments[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.segments, *self._own])

    def __len__(self) -> int:
        return len(self.segments) + len(self._own)

    def make_room(self, program: Program, larger: Bound | None) -> dict[str, Segment]:
        """The segments for a program: work and input memory large enough, constants.

        These are its own, or those of the larger program whose memory it has (`larger`, where that
        is bound), if they are the same.
        """
        for name in ("work", "input"):
            size = program.sizes[name]
            if name not in self.segments or self.segments[name].host.nbytes < size:
                self.segments[name] = Segment(name, np.zeros(size, np.uint8), blank=True)
        if (
            larger is None
            and HALVES not in self.segments
            and any(
                operand.segment == HALVES
                for call in program.calls()
                for _, _, operand in call.arrays()
            )
        ):
            words = np.zeros(self.store.size, np.uint16)
            self.segments[HALVES] = Segment(HALVES, words, blank=True)
        if larger is not None and _same(larger.program.constants, program.constants):
            return {**self.segments, "constant": larger.segments["constant"]}
        constants = np.zeros(program.sizes["constant"], np.uint8)
        for offset, data in program.constants:
            constants[offset : offset + data.nbytes].view(data.dtype)[:] = data.reshape(-1)
        return {**self.segments, "constant": Segment("constant", constants)}


def _same(one: Sequence[tuple[int, np.ndarray]], other: Sequence[tuple[int, np.ndarray]]) -> bool:
    """Whether constants are the very same arrays in the same places."""
    return [(at, id(data)) for at, data in one] == [(at, id(data)) for at, data in other]
