"""Environment variables that turn something on or off: all are spelled alike."""

from __future__ import annotations

import os

from fastnn.errors import OptionError

#: what such a variable may say, in any case; "" is as if it were not set
ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def switch(name: str, default: bool = False, *, also: tuple[str, ...] = ()) -> bool | str:
    """Whether the variable `name` turns on what it stands for.

    Args:
        default: what holds where it is not set, or empty.
        also: other words that it may say; one of them is returned as it is.

    Raises:
        OptionError: it says something else.

    >>> switch("FASTNN_EXAMPLE"), switch("FASTNN_EXAMPLE", default=True)
    (False, True)
    """
    found = os.environ.get(name, "")
    word = found.strip().lower()
    if not word:
        return default
    if word in ON or word in OFF:
        return word in ON
    if word in also:
        return word
    raise OptionError(
        f"{name}={found!r}: expected {', '.join(ON)} to turn it on"
        + "".join(f", {other}" for other in also)
        + f", or {', '.join(OFF)} to turn it off; or leave it unset"
    )


def on(name: str, default: bool = False) -> bool:
    """Whether the variable `name`, which says yes or no and nothing else, is on; see `switch`."""
    return bool(switch(name, default))
