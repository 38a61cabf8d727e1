"""Properties that are computed once wait for no other thread."""

from __future__ import annotations

import threading

from fastnn.cached import cached


class Slow:
    def __init__(self, wait: threading.Event | None) -> None:
        self.wait, self.count = wait, 0

    @cached
    def value(self) -> int:
        """What is slow."""
        self.count += 1
        if self.wait is not None:
            self.wait.wait(60)
        return self.count


def test_it_is_computed_once() -> None:
    one = Slow(None)
    assert one.value == one.value == 1
    assert one.count == 1
    assert isinstance(Slow.value, cached)
    assert Slow.value.__doc__ == "What is slow."


def test_another_object_does_not_wait() -> None:
    """As a forked process would, for a thread that it does not have."""
    go = threading.Event()
    slow = Slow(go)
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(Slow(None).value))
    other.start()
    other.join(30)
    go.set()
    thread.join()
    assert found == [1]
