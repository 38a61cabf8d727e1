"""Numbers that follow from sizes: as plain ones at the sizes at hand, and right where all holds."""

from __future__ import annotations

import operator
import random
from typing import Any

import numpy as np
import pytest

from fastnn.graph.assumptions import Assumptions
from fastnn.graph.constants import SymbolicArray
from fastnn.graph.memo import Memo
from fastnn.graph.sizes import at, canonical, compute, distinct, gcd, most, now, root, whole

OPERATIONS = [
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv,
    operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge, max, min,
    divmod, operator.neg, abs,
]  # fmt: skip


def steps_of(rng: random.Random, numbers: list[Any], plan: list[Any] | None = None) -> list[Any]:
    """What a few operations give, on numbers and what came before; `plan` notes which they are, or
    says it."""
    found, given = [], list(numbers)
    for k in range(7):
        if plan is not None and len(plan) > k:
            operation, i, j = plan[k]
        else:
            operation = rng.choice(OPERATIONS)
            i, j = rng.randrange(len(given)), rng.randrange(len(given))
            if plan is not None:
                plan.append((operation, i, j))
        one = operation in (operator.neg, abs)
        result = operation(given[i]) if one else operation(given[i], given[j])
        parts = result if type(result) is tuple else (result,)
        found += parts
        given += [part for part in parts if type(part) is not bool]
    return found


def test_as_plain_numbers_and_at_other_sizes():
    """Any operations give what they give of plain numbers; where all that was assumed holds of
    other sizes, the formulas give what these would."""
    rng, held = random.Random(0), 0
    for _ in range(4000):
        sizes = rng.randint(1, 30), rng.randint(1, 9)
        rest = [rng.choice([1, 2, 3, 8, 16, 50])]
        assumed, plan = Assumptions(sizes), []
        try:
            expected = steps_of(rng, [*sizes, *rest], plan)
        except (ZeroDivisionError, OverflowError):
            continue
        found = steps_of(rng, [*assumed.sizes, *rest], plan)
        for one, other in zip(found, expected, strict=True):
            assert (now(one), isinstance(one, type(other))) == (other, True)
        for _ in range(4):
            others = rng.randint(1, 40), rng.randint(1, 12)
            if assumed.plain is None and assumed.holds(others):
                held += 1
                values = assumed.all_at(others)
                assert [at(n, values) for n in found] == steps_of(rng, [*others, *rest], plan)
    assert held > 3000


@pytest.mark.parametrize(
    "take",
    [
        int, float, hash, str, repr, range, np.zeros, lambda n: f"{n}", lambda n: [0] * n,
        lambda n: [0][:n], lambda n: n << 1, lambda n: 2**n, lambda n: n.bit_length(), round,
        lambda n: np.array([n, 1], np.int64), lambda n: {n: 1}, lambda n: int(1 / n), bin,
        lambda n: n % 2.5, lambda n: (n * 0.5) ** 2,
    ],
)  # fmt: skip
def test_taken_for_a_plain_number(take):
    """Then all is right for the sizes at hand alone."""
    assumed = Assumptions((12,))
    expected = take(12)
    found = take(assumed.sizes[0])
    if take is not np.zeros:
        assert np.all(found == expected)
    assert assumed.plain is not None
    assert assumed.holds((12,))
    assert not assumed.holds((13,))


def test_what_no_size_changes_is_not_assumed():
    assumed = Assumptions((12, 5))
    n, m = assumed.sizes
    assert n >= 1
    assert n * m + n > 1
    assert 2 * n != 2 * m + 1  # odd
    assert (6 * n) % 3 == 0
    assert (n * m) // n is not n
    assert n - n == 0
    assert gcd(6 * n, 4 * n) == 2 * n
    assert now(most(n, 1, 3 * m)) == 15
    assert assumed.plain is None
    assert Assumptions((3,)).holds((1,))
    assert not Assumptions((3,)).holds((0,))


def test_rules_words_and_keys():
    assumed = Assumptions((12,))
    (n,) = assumed.sizes
    block = compute(lambda size, room: min(size, room) // 4 * 4, 3 * n, 50)
    share = root(1.0 / n)
    words, filled = SymbolicArray([[1, n], [n * n, 4]], (2, 2), np.array([[1, 12], [144, 4]])), None
    filled = SymbolicArray(share, (n,), np.full(12, 0.5))
    values = assumed.all_at((5,))
    assert (at(block, values), at(share, values)) == (12, (1 / 5) ** 0.5)
    assert words.at(values).tolist() == [[1, 5], [25, 4]]
    assert filled.at(values).tolist() == [(1 / 5) ** 0.5] * 5
    assert distinct([(n, 1), (n, 1), (12, 1)]) == [(n, 1), (12, 1)]
    assert canonical((n, 2)) == canonical((whole(n), 2))
    assert assumed.plain is None
    assert np.asarray(words).tolist() == [[1, 12], [144, 4]]
    assert assumed.plain is not None


def test_a_memo_compares_numbers():
    """Keys that are equal at some sizes only are the same key there alone."""
    assumed = Assumptions((12,))
    (n,) = assumed.sizes
    memo = Memo()
    memo["rows", n] = "first"
    assert ("rows", 12) in memo
    assert ("rows", 13) not in memo
    assert ("columns", n) not in memo
    assert memo["rows", n + 0] == "first"
    assert not assumed.holds((13,))
    memo["other", 1] = "second"
    memo.keep(lambda key, value: key[0] == "other" and value == "second")
    assert memo.values() == ["second"]
    assert len(memo) == 1


def test_what_is_kept_from_another_look_is_a_plain_number():
    (old,) = Assumptions((12,)).sizes
    for operation in (operator.add, operator.mul, operator.sub, operator.floordiv, operator.eq):
        assumed = Assumptions((6,))
        (new,) = assumed.sizes
        assert now(operation(new, old)) == operation(6, 12)
        assert assumed.plain is not None
