"""How many workers a run takes: by measurement, while it goes on.

A run is made in *spells*: so many steps on so many workers. `decide` says what the next spell is,
`learn` takes up how long it took. The bits of a step do not depend on the number of workers, so the
clock decides about nothing but time. The numbers that are candidates are the rungs of a ladder (1,
2, 3, 4, 6, ...), of which one is *current*. Now and then a neighbour of it is tried, and becomes
current if it was quicker by 3 % or more, on average and when it was tried last.

What trials cost beyond the current number's time is at most 1/128 of the time that all steps have
taken and that the run is expected to take. So a number that is bad is seldom tried. For a number
that has not been measured the limit is 1/32, and what it will cost is halfway from the current
number's time to an estimate. So it isn't tried in a run of a few steps. A number that has
disappointed is left alone for a time, which doubles each time that this happens.

These functions are compiled into what leads a run (`handover`), and are plain functions of a list
of integers (`layout.CHOICE_...`) until then. Times are nanoseconds; the time of a unit of work
(`unit` of them are in a step) is in 1/1024 of one.
"""

from __future__ import annotations

from typing import Any

from fastnn.kernels import recorded
from fastnn.runtime.cpu.layout import (
    CANDIDATE_BUSY,
    CANDIDATE_DONE,
    CANDIDATE_ESTIMATE,
    CANDIDATE_HOLD,
    CANDIDATE_MEAN,
    CANDIDATE_SEEN,
    CANDIDATE_UNTIL,
    CANDIDATE_WORDS,
    CANDIDATE_WORKERS,
    CHOICE_COUNT,
    CHOICE_CURRENT,
    CHOICE_DUE,
    CHOICE_ELAPSED,
    CHOICE_LAST,
    CHOICE_SIDE,
    CHOICE_SINCE,
    CHOICE_SPENT,
    CHOICE_TRIED,
    CHOICE_WORDS,
)

recorded.record()

#: how long a spell is meant to be: one in which threads wake and caches fill, which is not counted;
#: one that measures; and one of a number that is settled
WARM, TRIAL, SPELL = 100_000, 1_000_000, 10_000_000
#: what the mean of the current number goes back to
WINDOW = 50_000_000
#: time between two trials, and for which a number that has disappointed is left alone
REST, HOLD, LONGEST_HOLD = 20_000_000, 50_000_000, 2_000_000_000
#: the share of the time that trials may cost, one in so many: of numbers that have been measured
#: already, and of others
SHARE, FIRST_SHARE = 128, 32
#: measurements before a number is compared
ENOUGH = 3


def candidate(number: int) -> int:
    """Where a candidate's words begin."""
    return CHOICE_WORDS + CANDIDATE_WORDS * number


def mean_of(c: Any, number: int) -> int:
    """The time of a unit on so many workers: as measured, or by estimate."""
    at, current = candidate(number), candidate(c[CHOICE_CURRENT])
    if c[at + CANDIDATE_MEAN] > 0:
        return c[at + CANDIDATE_MEAN]
    estimate, mine = max(c[current + CANDIDATE_ESTIMATE], 1), c[current + CANDIDATE_MEAN]
    ratio = c[at + CANDIDATE_ESTIMATE] / estimate  # a product of times would overflow
    return max((mine + int(mine * ratio)) // 2, 1)


def steps_in(time: int, mean: int, unit: int) -> int:
    """How many steps take so long: one at least."""
    return max(1024 * time // max(mean * unit, 1), 1)


def affordable(c: Any, number: int, left: int, unit: int) -> bool:
    """Whether a number may be tried now, before so many steps."""
    at, current = candidate(number), candidate(c[CHOICE_CURRENT])
    if c[CHOICE_ELAPSED] < c[at + CANDIDATE_UNTIL]:
        return False
    if c[CHOICE_ELAPSED] < c[CHOICE_DUE] and c[at + CANDIDATE_SEEN] >= ENOUGH:
        return False
    mine, other = c[current + CANDIDATE_MEAN], mean_of(c, number)
    cost = steps_in(TRIAL, other, unit) * unit * max(other - mine, 0) // 1024
    whole = c[CHOICE_ELAPSED] + left * unit * mine // 1024
    share = SHARE if c[at + CANDIDATE_SEEN] >= ENOUGH else FIRST_SHARE
    return c[CHOICE_SPENT] + cost <= whole // share


def decide(c: Any, left: int, unit: int, most: int) -> tuple[int, int, int]:
    """What comes next of a run of which so many steps are left: the number of a candidate (`most`
    at most), steps, and whether this only gets them going."""
    use = min(c[CHOICE_CURRENT], most)
    at = candidate(use)
    if c[CHOICE_TRIED] >= 0 and c[CHOICE_TRIED] <= most:
        use = c[CHOICE_TRIED]
    elif use == c[CHOICE_CURRENT] and c[at + CANDIDATE_SEEN] >= ENOUGH:
        other = use + c[CHOICE_SIDE]
        if other < 0 or other > most or other >= c[CHOICE_COUNT]:
            other = use - c[CHOICE_SIDE]
        if other >= 0 and other <= most and other < c[CHOICE_COUNT]:
            if affordable(c, other, left, unit):
                c[CHOICE_TRIED] = use = other
            else:
                c[CHOICE_SIDE] = -c[CHOICE_SIDE]
    mean = mean_of(c, use)
    warm = c[CHOICE_LAST] != c[candidate(use) + CANDIDATE_WORKERS] and mean * unit < 1024 * TRIAL
    if c[at + CANDIDATE_MEAN] == 0:
        return use, 1, int(warm)
    time = SPELL
    if warm:
        time = WARM
    elif use != c[CHOICE_CURRENT] or c[at + CANDIDATE_SEEN] < ENOUGH:
        time = TRIAL
    return use, min(steps_in(time, mean, unit), left), int(warm)


def learn(c: Any, use: int, warm: int, steps: int, unit: int, time: int) -> None:
    """So many steps on a candidate's workers took so long."""
    at, current = candidate(use), candidate(c[CHOICE_CURRENT])
    work = max(steps * unit, 1)
    if c[at + CANDIDATE_SEEN] > 0:  # a process that is halted for an hour has not worked meanwhile
        time = min(time, 16 * max(work * c[at + CANDIDATE_MEAN] // 1024, TRIAL))
    time = max(time, 0)  # somebody has set the clock
    mean = max(1024 * time // work, 1)
    c[CHOICE_ELAPSED] += time
    c[CHOICE_LAST] = c[at + CANDIDATE_WORKERS]
    if use != c[CHOICE_CURRENT]:
        c[CHOICE_SPENT] += max(time - work * c[current + CANDIDATE_MEAN] // 1024, 0)
    if warm != 0:
        if c[at + CANDIDATE_SEEN] == 0:
            c[at + CANDIDATE_MEAN] = mean  # how long a spell has to be
        return
    c[at + CANDIDATE_BUSY] += time
    c[at + CANDIDATE_DONE] += work
    if c[at + CANDIDATE_BUSY] < TRIAL // 2:
        return
    time, work = c[at + CANDIDATE_BUSY], c[at + CANDIDATE_DONE]
    c[at + CANDIDATE_BUSY] = c[at + CANDIDATE_DONE] = 0
    before, seen = c[at + CANDIDATE_MEAN], c[at + CANDIDATE_SEEN]
    mean = max(1024 * time // work, 1)
    if seen > 0:
        mean = min(mean, 8 * before)  # the machine was doing something else
    c[at + CANDIDATE_SEEN] = seen + 1
    if use == c[CHOICE_CURRENT]:
        if seen < ENOUGH:
            c[at + CANDIDATE_MEAN] = before + (mean - before) // (seen + 1)
        else:
            part = 1024 * time // (time + WINDOW)
            c[at + CANDIDATE_MEAN] = max(before + part * (mean - before) // 1024, 1)
        return
    c[CHOICE_TRIED] = -1
    c[at + CANDIDATE_MEAN] = before + (mean - before) // min(seen + 1, 4)
    mine = c[current + CANDIDATE_MEAN]
    quicker = 103 * mean < 100 * mine
    c[CHOICE_DUE] = c[CHOICE_ELAPSED] + (0 if quicker else REST)
    if quicker and seen + 1 >= ENOUGH and 103 * c[at + CANDIDATE_MEAN] < 100 * mine:
        switch(c, use)


def switch(c: Any, use: int) -> None:
    """Another number is current from now on."""
    left = candidate(c[CHOICE_CURRENT])
    now, hold = c[CHOICE_ELAPSED], c[left + CANDIDATE_HOLD]
    if now - c[CHOICE_SINCE] < 4 * hold:  # it has disappointed
        c[left + CANDIDATE_HOLD] = min(2 * hold, LONGEST_HOLD)
    else:
        c[left + CANDIDATE_HOLD] = HOLD
    c[left + CANDIDATE_UNTIL] = now + c[left + CANDIDATE_HOLD]
    c[CHOICE_SINCE], c[CHOICE_DUE] = now, now + REST
    c[CHOICE_CURRENT] = use


#: what `handover` calls, and what those call: all are compiled
FUNCTIONS = candidate, mean_of, steps_in, affordable, decide, switch, learn
