"""Which steps of a sequence a step of its stretched copy is made of, for both devices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..declare import helper


class Stretch(NamedTuple):
    """A sequence of `steps` as one of `places`: place j lies at step ``j*pace`` (`mode` 0),
    ``(j + 0.5)*pace - 0.5`` (1), or ``j*pace`` with the ends of both aligned (2)."""

    steps: int
    places: int
    pace: float
    mode: int


@helper
def places_of(length, scale, shift):
    """How many places the result of a sequence has: ``floor(length*scale) + shift``; none without
    steps."""
    return max(int(length * scale) + shift, 0) if length > 0 else 0


@helper
def stretch_of(length, most, places, scale, mode):
    """A sequence of a padded batch with at most `most` steps and `places` for the result: `scale`
    times as long, or where that is 0, of just so many places."""
    steps = max(min(length, most), 0)
    count = min(places_of(steps, scale, places if scale == 0.0 else 0), places)
    pace = 1.0 / scale if scale > 0.0 else steps / places
    if mode == 2:
        pace = (steps - 1) / (count - 1) if count > 1 else 0.0
    return Stretch(steps, count, pace, mode)


@helper
def point_of(stretch, place):
    """Where a place lies between the sequence's steps, not below 0."""
    if stretch.mode == 1:
        return max((place + 0.5) * stretch.pace - 0.5, 0.0)
    return place * stretch.pace


@helper
def step_before(stretch, place):
    """The step at a place or before it. What is nearest is found as PyTorch finds it, in
    float32."""
    if stretch.mode == 0:
        return min(int(np.float32(place) * np.float32(stretch.pace)), stretch.steps - 1)
    return min(int(point_of(stretch, place)), stretch.steps - 1)


@helper
def share_after(stretch, place, before):
    """What the step after the one before it counts at a place."""
    if stretch.mode == 0 or before >= stretch.steps - 1:
        return 0.0
    return point_of(stretch, place) - before


@helper
def first_place(stretch, step):
    """The first place that lies at `step` or after it, of all places the number if none does."""
    low, high = 0, stretch.places
    while low < high:
        middle = (low + high) // 2
        if step_before(stretch, middle) >= step:
            high = middle
        else:
            low = middle + 1
    return low
