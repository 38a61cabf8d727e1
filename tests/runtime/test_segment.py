"""Memory with copies on the host and on devices: every reader sees what was written last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.runtime.segment import Segment


class Device:
    """A device whose memory is arrays of the host, filled with rubbish at first."""

    def __init__(self, name: str, rubbish: int = 0xAA):
        self.device, self.rubbish = name, rubbish
        self.transfers = 0

    def allocate(self, size: int, name: str) -> np.ndarray:
        return np.full(size, self.rubbish, np.uint8)

    def upload(self, host: np.ndarray, copy: np.ndarray, offset: int = 0) -> None:
        self.transfers += 1
        raw = host.reshape(-1).view(np.uint8)
        copy[offset : offset + raw.size] = raw

    def download(self, copy: np.ndarray, host: np.ndarray, offset: int = 0) -> None:
        self.transfers += 1
        raw = host.reshape(-1).view(np.uint8)
        raw[:] = copy[offset : offset + raw.size]


def segment() -> Segment:
    return Segment("params", np.arange(4, dtype=np.float32))


def test_written_bytes_are_read_everywhere() -> None:
    """The host and another device are out of date after a write to a part."""
    one, two, memory = Device("one"), Device("two"), segment()
    memory.on(one)
    memory.on(two)
    memory.write(one, 4, np.array([9.0], np.float32))
    assert not memory.on_host
    assert None not in memory.current
    assert memory.read(one, 0, 16).view(np.float32).tolist() == [0, 9, 2, 3]
    assert memory.for_reading().tolist() == [0, 9, 2, 3]
    assert memory.on(two).view(np.float32).tolist() == [0, 9, 2, 3]
    memory.write(two, 0, np.array([7.0], np.float32))
    assert memory.for_writing().tolist() == [7, 9, 2, 3]
    assert memory.on_host
    assert memory.on(one).view(np.float32).tolist() == [7, 9, 2, 3]


@pytest.mark.parametrize("blank", [False, True])
def test_any_order_of_uses(blank: bool) -> None:
    """Random writes and reads on three sides, against one plain array; blank memory is all zero on
    a device, too, until somebody has it."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        devices = [Device(name, 0 if blank else 0xAA) for name in ("one", "two")]
        memory = Segment("params", np.zeros(4, np.float32), blank=True) if blank else segment()
        wanted = memory.host.copy()
        for _ in range(30):
            way, side = rng.integers(5), devices[rng.integers(2)]
            place, number = int(rng.integers(4)), float(rng.integers(100))
            if way == 0:
                memory.write(side, 4 * place, np.array([number], np.float32))
                wanted[place] = number
            elif way == 1:
                memory.for_writing()[place] = number
                wanted[place] = number
            elif way == 2:
                memory.on(side, writes=True).view(np.float32)[place] = number
                wanted[place] = number
            elif way == 3:
                wanted = np.full(4, number, np.float32)
                memory.replace(wanted.copy())
            seen: list[Any] = [
                lambda m=memory: m.for_reading(),
                lambda s=side, m=memory: m.on(s).view(np.float32),
                lambda s=side, m=memory: m.read(s, 0, 16).view(np.float32),
            ]
            assert seen[rng.integers(3)]().tolist() == wanted.tolist()


@pytest.mark.parametrize("blank", [False, True])
def test_a_copy_that_is_up_to_date_is_not_sent(blank: bool) -> None:
    """Neither is a new one where the host's is all zero."""
    one = Device("one")
    memory = Segment("grads", np.zeros(4, np.float32), blank)
    memory.on(one)
    assert one.transfers == (0 if blank else 1)
    memory.on(one, writes=True)
    memory.on(one)
    assert one.transfers == (0 if blank else 1)
    memory.for_reading()
    memory.for_reading()
    assert one.transfers == (1 if blank else 2)
