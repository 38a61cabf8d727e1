"""How many workers a run takes: by measurement, while it goes on.

A run is made in *spells*: so many steps on so many workers. `decide` says what the next spell is,
`learn` takes up how long it took. The bits of a step do not depend on the number of workers, so the
clock decides about nothing but time. The numbers that are candidates are the rungs of a ladder (1,
2, 3, 4, 6, ...), of which one is *current*. Now and then a neighbour of it is tried, and becomes
current if it was quicker by 3 % or more.

A trial is as long as it promises something: spells of 1, 1, 2, 4 and 8 ms. The first of them does
not count, as a core that has slept is slow at first. The trial ends when it is clearly worse: twice
the current number's time after 1 ms, 1.4 times after 2, 1.1 times after 4, and no better after 8.
A number that is better has cost nothing meanwhile, and after 16 ms the slices of time have passed
in which a busy machine shares its cores out.

What trials cost beyond the current number's time is at most 1/128 of the time that all steps have
taken and that the run is expected to take. So a number that is bad is seldom tried. For a number
that has not been measured the limit is 1/16, and what it will cost is halfway from the current
number's time to an estimate. So it isn't tried in a run of a few steps. A number that has
disappointed is left alone for a time, which doubles each time that this happens, unless it was
much quicker than the current one is now.

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
    CANDIDATE_FAILED,
    CANDIDATE_HOLD,
    CANDIDATE_MEAN,
    CANDIDATE_SEEN,
    CANDIDATE_UNTIL,
    CANDIDATE_WORDS,
    CANDIDATE_WORKERS,
    CHOICE_BEFORE,
    CHOICE_COUNT,
    CHOICE_CURRENT,
    CHOICE_DUE,
    CHOICE_ELAPSED,
    CHOICE_LAST,
    CHOICE_SIDE,
    CHOICE_SINCE,
    CHOICE_SPENT,
    CHOICE_TIME,
    CHOICE_TRIAL,
    CHOICE_TRIED,
    CHOICE_WORDS,
    CHOICE_WORK,
)

recorded.record()

#: how long a spell is meant to be: one in which threads wake and caches fill, which is not counted;
#: the first that measures; and one of a number that is settled
WARM, TRIAL, SPELL = 100_000, 1_000_000, 10_000_000
#: how long a trial has to be for its number to become current; what counts as worse before that,
#: in percent of the current number's time, by how many `TRIAL`s the trial has taken
LONG = 12 * TRIAL
FIRST_LIMIT, SECOND_LIMIT, THIRD_LIMIT, LIMIT = 200, 140, 110, 97
#: what the mean of the current number goes back to
WINDOW = 50_000_000
#: time between two trials, and for which a number that has disappointed is left alone
REST, HOLD, LONGEST_HOLD = 20_000_000, 50_000_000, 2_000_000_000
#: of so many trials one is long unless it is clearly worse
THOROUGH = 4
#: the next trial comes when this many times the cost of the last one has passed
PATIENCE = 64
#: the share of the time that trials may cost, one in so many: of numbers that have been measured
#: already, and of others
SHARE, FIRST_SHARE = 128, 16
#: measurements before a number is compared
ENOUGH = 3
#: in percent of another number's time: from here on the current one may be left at any time
MUCH = 120


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


def trial_time(c: Any, number: int, other: int, mine: int) -> int:
    """How long a trial of a candidate will be, if it takes these times of a unit."""
    for k in range(4):
        if 100 * other > mine * limit_at(c, number, TRIAL << k):
            return TRIAL << k
    return 16 * TRIAL


def limit_at(c: Any, number: int, time: int) -> int:
    """What counts as worse when the trial of a candidate has taken so long, in percent."""
    if time < 3 * TRIAL // 2:
        return FIRST_LIMIT
    if c[candidate(number) + CANDIDATE_FAILED] % THOROUGH == THOROUGH - 1 and time < LONG:
        return FIRST_LIMIT
    if time < 3 * TRIAL:
        return SECOND_LIMIT
    return THIRD_LIMIT if time < 6 * TRIAL else LIMIT


def affordable(c: Any, number: int, left: int, unit: int) -> bool:
    """Whether a number may be tried now, before so many steps."""
    at, current = candidate(number), candidate(c[CHOICE_CURRENT])
    mine, other = c[current + CANDIDATE_MEAN], mean_of(c, number)
    if c[at + CANDIDATE_SEEN] < ENOUGH or 100 * mine <= MUCH * other:
        if c[CHOICE_ELAPSED] < c[at + CANDIDATE_UNTIL]:
            return False
        if c[CHOICE_ELAPSED] < c[CHOICE_DUE] and c[at + CANDIDATE_SEEN] >= ENOUGH:
            return False
    steps = steps_in(trial_time(c, number, other, mine), other, unit)
    cost = steps * unit * max(other - mine, 0) // 1024
    whole = c[CHOICE_ELAPSED] + left * unit * mine // 1024
    share = SHARE if c[at + CANDIDATE_SEEN] >= ENOUGH else FIRST_SHARE
    return c[CHOICE_SPENT] + cost <= whole // share


def arrive(c: Any, left: int, unit: int) -> None:
    """A run of so many steps begins: its threads have to wake first. Where that is much of the
    run's time it counts, or runs of a step each would measure nothing."""
    mean = c[candidate(c[CHOICE_CURRENT]) + CANDIDATE_MEAN]
    if left >= 16 and left * unit * mean // 1024 >= 16 * WARM:
        c[CHOICE_LAST] = 0


def meant(c: Any, use: int) -> int:
    """How long the measurement of a candidate is meant to be."""
    if use != c[CHOICE_CURRENT]:
        return max(TRIAL, c[CHOICE_TRIAL])
    seen = c[candidate(use) + CANDIDATE_SEEN]
    return TRIAL << seen if seen < ENOUGH else SPELL


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
                c[CHOICE_TRIAL] = c[CHOICE_TIME] = c[CHOICE_WORK] = 0
                c[CHOICE_BEFORE] = c[CHOICE_SPENT]
                c[candidate(use) + CANDIDATE_BUSY] = c[candidate(use) + CANDIDATE_DONE] = 0
            else:
                c[CHOICE_SIDE] = -c[CHOICE_SIDE]
    mean = mean_of(c, use)
    warm = c[CHOICE_LAST] != c[candidate(use) + CANDIDATE_WORKERS] and mean * unit < 1024 * TRIAL
    if c[candidate(use) + CANDIDATE_MEAN] == 0:
        return use, 1, int(warm)
    time = WARM if warm else meant(c, use)
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
    if c[at + CANDIDATE_BUSY] < meant(c, use) // 2:
        return
    time, work = c[at + CANDIDATE_BUSY], c[at + CANDIDATE_DONE]
    c[at + CANDIDATE_BUSY] = c[at + CANDIDATE_DONE] = 0
    before, seen = c[at + CANDIDATE_MEAN], c[at + CANDIDATE_SEEN]
    mean = max(1024 * time // work, 1)
    if seen > 0:
        mean = min(mean, 8 * before)  # the machine was doing something else
    c[at + CANDIDATE_SEEN] = seen + 1
    if use != c[CHOICE_CURRENT]:
        c[at + CANDIDATE_MEAN] = mean if seen == 0 else (before + mean) // 2
        compare(c, use, time, work, mean)
    elif seen < ENOUGH:
        c[at + CANDIDATE_MEAN] = mean  # the longer, the better
        if time >= 4 * TRIAL:
            c[at + CANDIDATE_SEEN] = ENOUGH
    else:
        part = 1024 * time // (time + WINDOW)
        c[at + CANDIDATE_MEAN] = max(before + part * (mean - before) // 1024, 1)


def compare(c: Any, use: int, time: int, work: int, mean: int) -> None:
    """A trial's spell is over: does the trial go on, or is its number current from now on?

    What earlier trials have found counts, too: where a step takes as long as a whole trial, two of
    them may be quick by chance.
    """
    remembered = c[candidate(use) + CANDIDATE_MEAN]
    c[CHOICE_TRIAL] += time
    if c[CHOICE_TRIAL] >= 3 * TRIAL // 2:
        c[CHOICE_TIME] += time
        c[CHOICE_WORK] += work
        mean = max(1024 * c[CHOICE_TIME] // c[CHOICE_WORK], 1)
    mine = c[candidate(c[CHOICE_CURRENT]) + CANDIDATE_MEAN]
    if 100 * mean >= limit_at(c, use, c[CHOICE_TRIAL]) * mine:
        c[CHOICE_TRIED] = -1
        c[candidate(use) + CANDIDATE_FAILED] += 1
        rest = max(REST, PATIENCE * (c[CHOICE_SPENT] - c[CHOICE_BEFORE]))
        c[CHOICE_DUE] = c[CHOICE_ELAPSED] + min(rest, 5 * REST)
    elif (
        c[CHOICE_TRIAL] >= LONG and 100 * max(mean, remembered) < LIMIT * mine
        and c[CHOICE_TIME] > time
    ):  # fmt: skip
        c[CHOICE_TRIED] = -1
        c[candidate(use) + CANDIDATE_MEAN] = mean
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
    c[candidate(use) + CANDIDATE_SEEN] = max(c[candidate(use) + CANDIDATE_SEEN], ENOUGH)


#: what `handover` calls, and what those call: all are compiled
FUNCTIONS = (
    candidate, mean_of, steps_in, limit_at, trial_time, affordable, arrive, meant, decide, switch,
    compare, learn,
)  # fmt: skip
