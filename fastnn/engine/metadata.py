"""What the metadata of a checkpoint have to look like, checked before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastnn import files
from fastnn.errors import CheckpointError

Check = Callable[[Any], bool]

#: stands before the names of a model's arrays where a file holds others, too
PREFIX = "model."
#: steps, epochs and samples are below it, so that they are exact in float64 too
MOST = 2**53


def whole(value: Any, end: int = MOST) -> bool:
    """A whole number from 0, below `end`; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def number(value: Any) -> bool:
    """A number, infinity and NaN among them."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 2**1000  # what float() takes


def _positive(value: Any) -> bool:
    return number(value) and math.isfinite(value) and value >= 0


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _optimizer(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("options"), dict)
    )


def _scaling(value: Any) -> bool:
    """The exponent of the gradients' factor, steps since it changed, steps that were left out."""
    right = isinstance(value, list) and len(value) == 3 and all(map(whole, value))
    return value is None or (right and value[0] <= 24)


def _states(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(state, dict)
        and isinstance(state.get("state"), dict)
        and isinstance(state.get("passive"), bool)
        for state in value.values()
    )


def _streams(value: Any) -> bool:
    return isinstance(value, dict) and all(whole(streams) for streams in value.values())


def _feed(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(v, (int, str)) for v in value.values())
    )


def _digests(value: Any) -> bool:
    return value is None or (_names(value) and len(value) == 2)


def _turn(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and value.get("hook") in ("on_epoch_end", "on_train_batch_end")
        and whole(value.get("number"))
        and isinstance(value.get("logs"), dict)
        and all(number(v) for v in value["logs"].values())
        and _names(value.get("left"))
    )


#: key -> what it has to be, in words and as a check; those of every checkpoint
COMMON: dict[str, tuple[str, Check]] = {
    "kind": ("'model' or 'trainer'", lambda v: v in ("model", "trainer")),
    "dtype": ("'float32' or 'float64'", lambda v: v in ("float32", "float64")),
}
TRAINER: dict[str, tuple[str, Check]] = {
    "optimizer": ("an optimizer's description", _optimizer),
    "step": ("a whole number from 0", whole),
    "seed": ("a whole number in 0..2**63-1", lambda v: whole(v, 2**63)),
    "epoch": ("a whole number from 0", whole),
    "cursor": ("a whole number from 0", whole),
    "rate_factor": ("a finite number from 0", _positive),
    "names": ("a list of names", _names),
}
#: keys that older files lack, with what stands for them
OPTIONAL: dict[str, tuple[str, Check, Any]] = {
    "streams": ("numbers of streams by layer", _streams, None),
    "prefix": ("'' or 'model.'", lambda v: v in ("", PREFIX), PREFIX),
    "feed": ("a description of the data", _feed, None),
    "callbacks": ("states by callback", _states, {}),
    "turn": ("a hook that was not finished", _turn, None),
    "scaling": ("an exponent and two numbers of steps", _scaling, None),
    "description": ("two digests", _digests, None),
    "frozen": ("a list of names", lambda v: v is None or _names(v), None),
}


def check(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The metadata with what older files lack.

    Raises CheckpointError for a value that is missing or not of its kind.
    """
    checks = dict(COMMON)
    if metadata.get("kind") == "trainer":
        checks.update(TRAINER)
    for key, (expected, fits) in checks.items():
        if key not in metadata:
            raise CheckpointError(
                f"checkpoint {str(path)!r}: it lacks {key!r}, which fastnn writes into each; "
                "use another copy"
            )
        _fits(key, metadata[key], expected, fits, path)
    found = dict(metadata)
    for key, (expected, fits, default) in OPTIONAL.items():
        if key in found:
            _fits(key, found[key], expected, fits, path)
        else:
            found[key] = default
    return found


def _fits(key: str, value: Any, expected: str, fits: Check, path: Path) -> None:
    if not fits(value):
        raise CheckpointError(
            f"checkpoint {str(path)!r}: {key}: expected {expected}, got "
            f"{files.one_line(repr(value), 80)}; fastnn did not write this, use another copy"
        )
