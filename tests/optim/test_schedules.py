"""Schedules: values from their formulas, units, composition, errors, PyTorch's values."""

import doctest
import math
import pickle

import numpy as np
import pytest

from fastnn import optim
from fastnn.optim import schedules
from fastnn.optim.schedules import (
    Constant,
    CosineAnnealing,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    InverseTime,
    LinearWarmup,
    MultiStep,
    OneCycle,
    Piecewise,
    Polynomial,
    Sequential,
    StepDecay,
    Trapezoid,
)

ALL = [
    Constant(0.5),
    StepDecay(3, gamma=0.5),
    MultiStep([2, 5, 6], gamma=0.3),
    Piecewise([2, 5], [1, 0.5, 0.1]),
    Exponential(0.9),
    Polynomial(10, power=2),
    LinearWarmup(4),
    CosineAnnealing(10, final=0.1),
    CosineRestarts(3, growth=2, final=0.05),
    InverseSqrt(4),
    InverseTime(0.5),
    Trapezoid(16, warmup=4, cooldown=5, final=0.1),
    Trapezoid(16, warmup=4),
    Cyclic(3, 5),
    Cyclic(4, mode="triangular2"),
    OneCycle(20),
    OneCycle(20, anneal="linear"),
    Sequential([LinearWarmup(4), CosineAnnealing(6)], [4]),
    LinearWarmup(4) * Exponential(0.9),
]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_arrays_scalars_and_ranges_agree(schedule):
    steps = np.arange(20)
    values = schedule(steps, 0.3)
    assert values.dtype == np.float64
    assert values.shape == (20,)
    assert isinstance(schedule(7, 0.3), float)
    np.testing.assert_array_equal(values, [schedule(int(s), 0.3) for s in steps])
    np.testing.assert_array_equal(schedule.rates(0.3, 5, 10), values[5:15])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(schedule))(steps, 0.3), values)


def test_values():
    assert Constant(0.5)(9, 2.0) == 1.0
    np.testing.assert_allclose(InverseSqrt(4).rates(1, 0, 8)[[0, 1, 3]], [0.25, 0.5, 1])
    assert InverseSqrt(4)(15) == pytest.approx(0.5)
    np.testing.assert_allclose(
        Polynomial(4, final=0.2).rates(1, 0, 6), [1, 0.8, 0.6, 0.4, 0.2, 0.2]
    )
    np.testing.assert_allclose(CosineAnnealing(2).rates(1, 0, 5), [1, 0.5, 0, 0, 0], atol=1e-15)
    np.testing.assert_array_equal(Piecewise([2], [1, 3]).rates(1, 0, 4), [1, 1, 3, 3])


def test_restarts_of_equal_length():
    rates = CosineRestarts(4).rates(1, 0, 12)
    np.testing.assert_array_equal(rates, np.tile(CosineAnnealing(4).rates(1, 0, 4), 3))


def test_noam_is_the_papers():
    width, warmup = 512, 4000
    step = np.arange(1, 20_000)
    paper = width**-0.5 * np.minimum(step**-0.5, step * warmup**-1.5)
    rates = InverseSqrt(warmup).rates((width * warmup) ** -0.5, 0, len(step))
    np.testing.assert_allclose(rates, paper, rtol=1e-12)


def test_epochs_change_the_rate_between_epochs_only():
    schedule = StepDecay(2, gamma=0.5, unit="epoch")
    rates = schedule.rates(1.0, 0, 15, steps_per_epoch=3)
    np.testing.assert_array_equal(rates, [1] * 6 + [0.5] * 6 + [0.25] * 3)
    assert schedule(6, steps_per_epoch=3) == 0.5


def test_product_mixes_units():
    schedule = LinearWarmup(4, start=0) * StepDecay(1, gamma=0.5, unit="epoch")
    np.testing.assert_allclose(
        schedule.rates(2.0, 0, 6, steps_per_epoch=3), [0, 0.5, 1, 0.75, 1, 1]
    )


def test_sequential_starts_each_part_at_its_own_zero():
    schedule = Sequential([LinearWarmup(2, start=0), StepDecay(2, gamma=0.5), Constant(9)], [2, 7])
    np.testing.assert_array_equal(schedule.rates(1, 0, 9), [0, 0.5, 1, 1, 0.5, 0.5, 0.25, 9, 9])
    epochs = Sequential([Constant(2, unit="epoch"), Constant(3, unit="epoch")], [1])
    assert epochs.unit == "epoch"
    np.testing.assert_array_equal(epochs.rates(1, 0, 4, steps_per_epoch=2), [2, 2, 3, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(unit="day"), "Constant: unit must be 'step' or 'epoch', got 'day'"),
        (lambda: StepDecay(0), "StepDecay: every must be above 0"),
        (lambda: StepDecay(1, gamma=-1), "gamma must be at least 0"),
        (lambda: MultiStep([1], gamma=-1), "gamma must be at least 0"),
        (lambda: Exponential(math.nan), "expected gamma to be a number, got nan"),
        (lambda: Polynomial(5, power=0), "power must be above 0"),
        (lambda: LinearWarmup(0), "duration must be above 0"),
        (lambda: CosineAnnealing(5, final=-1), "final must be at least 0"),
        (lambda: CosineRestarts(5, growth=0), "growth to be a whole number >= 1"),
        (lambda: InverseSqrt(0), "warmup must be above 0"),
        (lambda: Piecewise([1, 2], [1, 2]), "2 boundaries need 3 factors, got 2"),
        (lambda: Piecewise([2, 2], [1, 2, 3]), "boundaries must increase"),
        (lambda: InverseTime(-1), "decay must be at least 0"),
        (lambda: Trapezoid(5, warmup=3, cooldown=3), "must fit into duration 5, got 3 and 3"),
        (lambda: Cyclic(0), "up must be above 0"),
        (lambda: Cyclic(2, mode="square"), "mode must be 'triangular'"),
        (lambda: Cyclic(2, low=2), "low must be at most 1"),
        (lambda: OneCycle(2), "leaves no step to rise"),
        (lambda: OneCycle(20, pct_start=1), "pct_start must lie between 0 and 1"),
        (lambda: OneCycle(20, anneal="root"), "anneal must be"),
        (lambda: OneCycle(20, div_factor=0), "div_factor must be above 0"),
        (lambda: Sequential([], []), "0 schedules need one milestone fewer"),
        (lambda: Sequential([Constant(), Constant(), Constant()], [5, 3]), "must increase"),
        (lambda: Sequential([Constant(), Constant(unit="epoch")], [5]), "in one unit"),
        (
            lambda: Sequential([Constant() * Constant(unit="epoch"), Constant()], [5]),
            "multiply schedules",
        ),
        (lambda: Constant()(-1), "steps count from 0, got -1"),
        (lambda: Constant()(1, steps_per_epoch=0), "steps_per_epoch must be at least 1"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_products_follow_one_another():
    product = LinearWarmup(2, start=0) * StepDecay(2, gamma=0.5)
    schedule = Sequential([product, Constant(3)], [5])
    np.testing.assert_array_equal(schedule(np.arange(7)), [0, 0.5, 0.5, 0.5, 0.25, 3, 3])
    epochs = StepDecay(1, gamma=0.5, unit="epoch") * Constant(2, unit="epoch")
    by_epoch = Sequential([Constant(1, unit="epoch"), epochs], [1])
    assert by_epoch.counts_epochs
    np.testing.assert_array_equal(by_epoch(np.arange(6), steps_per_epoch=2), [1, 1, 2, 2, 1, 1])


def test_own_schedule_needs_a_factor():
    with pytest.raises(NotImplementedError, match=r"Schedule has to define factor\(time\)"):
        schedules.Schedule()(0)


def test_examples():
    result = doctest.testmod(schedules, extraglobs={"np": np, "optim": optim})
    assert result.attempted > 0
    assert result.failed == 0


BASE = 0.3
PAIRS = {
    "StepLR": (StepDecay(3, gamma=0.5), dict(step_size=3, gamma=0.5)),
    "MultiStepLR": (MultiStep([5, 2, 6], gamma=0.3), dict(milestones=[5, 2, 6], gamma=0.3)),
    "ExponentialLR": (Exponential(0.9), dict(gamma=0.9)),
    "PolynomialLR": (Polynomial(20, power=1.5), dict(total_iters=20, power=1.5)),
    "LinearLR": (LinearWarmup(5), dict(total_iters=5)),
    "CosineAnnealingLR": (
        CosineAnnealing(30, final=0.1),
        dict(T_max=30, eta_min=0.1 * BASE),
    ),
    "CosineAnnealingWarmRestarts": (
        CosineRestarts(4, growth=2, final=0.05),
        dict(T_0=4, T_mult=2, eta_min=0.05 * BASE),
    ),
    "CyclicLR": (
        Cyclic(3, 5, low=0.2),
        dict(
            base_lr=0.2 * BASE, max_lr=BASE, step_size_up=3, step_size_down=5, cycle_momentum=False
        ),
    ),
    "OneCycleLR": (OneCycle(30), dict(max_lr=BASE, total_steps=30)),
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def torch_rates(torch, name, n_steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    rates = []
    for step in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < n_steps - 1:
            scheduler.step()
    return rates


@pytest.mark.peers
@pytest.mark.parametrize("name", PAIRS)
def test_rates_are_pytorchs(name, torch):
    schedule, options = PAIRS[name]
    expected = torch_rates(torch, name, 30, **options)
    np.testing.assert_allclose(schedule.rates(BASE, 0, 30), expected, rtol=1e-10)


@pytest.mark.peers
def test_linear_one_cycle_is_pytorchs(torch):
    expected = torch_rates(
        torch, "OneCycleLR", 40, max_lr=BASE, total_steps=40, anneal_strategy="linear"
    )
    rates = OneCycle(40, anneal="linear").rates(BASE, 0, 40)
    np.testing.assert_allclose(rates, expected, rtol=1e-10)


@pytest.mark.peers
@pytest.mark.parametrize("mode", ["triangular2", "exp_range"])
def test_cycles_are_pytorchs(mode, torch):
    schedule = Cyclic(4, 2, low=0.1, mode=mode, gamma=0.9)
    expected = torch_rates(
        torch, "CyclicLR", 30, base_lr=0.1 * BASE, max_lr=BASE, step_size_up=4, step_size_down=2,
        mode=mode, gamma=0.9, cycle_momentum=False,
    )  # fmt: skip
    np.testing.assert_allclose(schedule.rates(BASE, 0, 30), expected, rtol=1e-10)


def test_inverse_time_and_trapezoid():
    np.testing.assert_allclose(InverseTime(0.5).rates(1, 0, 4), [1, 1 / 1.5, 1 / 2, 1 / 2.5])
    np.testing.assert_allclose(
        Trapezoid(8, warmup=2, cooldown=4, final=0.2).rates(1, 0, 10),
        [0.5, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2],
    )
