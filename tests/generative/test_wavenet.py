"""WaveNet: what it says beside PyTorch, its samples beside what it says, its mixtures exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, testing
from fastnn.engine.plans import Plans
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.generative import WaveNet, pieces

RNG = np.random.default_rng(7)


def small(**options: Any) -> WaveNet:
    """A net of odd sizes whose parameters are large enough to be seen, in float64."""
    options = {"levels": 11, "channels": 5, "skip": 7, "layers": 4, "cycle": 3} | options
    net = WaveNet(**options).to("float64")
    for parameter in net.named_parameters().values():
        parameter.value = RNG.normal(size=parameter.shape) * 0.4
    return net


def conditions(net: WaveNet, count: int, steps: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if net.classes:
        found["y"] = RNG.integers(0, net.classes, count)
    if net.features:
        found["local"] = RNG.normal(size=(count, -(-steps // net.hop), net.features))
    return found


def said(net: WaveNet, x: np.ndarray, **given: Any) -> np.ndarray:
    result: np.ndarray = net.predict(x, *given.values())
    return result


NETS: list[dict[str, Any]] = [
    {},
    {"kernel_size": 3, "layers": 5},
    {"layers": 1, "channels": 1, "skip": 1, "levels": 2},
    {"classes": 3},
    {"features": 2, "hop": 3},
    {"classes": 2, "features": 1, "channels": 17, "skip": 33, "levels": 70},
    {"output": "logistics", "mixtures": 3, "levels": 1000},
    {"output": "logistics", "mixtures": 1, "levels": 4, "classes": 2},
]


@pytest.mark.parametrize("options", NETS, ids=str)
def test_a_sample_is_what_the_net_says_is_likeliest(options: dict[str, Any]) -> None:
    net, steps = small(**options), 21
    known = RNG.integers(0, net.levels, (3, 4))
    given = conditions(net, 3, steps)
    drawn = net.sample(steps - 4, 3, given=known, temperature=0.0, **given)
    output = said(net, np.concatenate([known, drawn], axis=1), **given)
    np.testing.assert_array_equal(_likeliest(net, output[:, 4:]), drawn)


def _likeliest(net: WaveNet, output: np.ndarray) -> np.ndarray:
    if not net.mixtures:
        return output.argmax(axis=-1)
    m, top = net.mixtures, net.levels - 1
    which = output[..., :m].argmax(axis=-1)[..., None]
    mean = np.take_along_axis(output[..., m : 2 * m], which, -1)[..., 0]
    return np.floor((np.clip(mean, -1, 1) + 1) / 2 * top + 0.5).astype(np.int64)


@pytest.mark.parametrize("options", [{}, {"output": "logistics", "mixtures": 3}], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_are_distributed_as_the_net_says(
    options: dict[str, Any], temperature: float
) -> None:
    net = small(levels=6, **options)
    count = 20000
    drawn = net.sample(2, count, given=[[4, 1]], temperature=temperature, seed=3)
    found = np.bincount(drawn[:, 0], minlength=6) / count
    if net.mixtures:
        if temperature != 1.0:
            return  # its scales are another distribution's
        targets = np.full((6, 3), -1)
        targets[:, 2] = np.arange(6)
        x = np.array([[4, 1, k] for k in range(6)])
        rows = [net.bits(x[k : k + 1], targets=targets[k : k + 1]) for k in range(6)]
        expected = 2.0 ** -np.array(rows)
        assert expected.sum() == pytest.approx(1.0, rel=1e-9)
    else:
        logits = said(net, np.array([[4, 1, 0]]))[0, 2] / temperature
        expected = np.exp(logits - logits.max())
        expected /= expected.sum()
    spread = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(found - expected) < 4.5 * spread + 1e-6).all()


def test_samples_depend_on_the_seed_and_on_nothing_else() -> None:
    net = small(classes=2)
    y = np.array([0, 1, 0])
    first = net.sample(12, 3, y, seed=5)
    np.testing.assert_array_equal(net.sample(12, 3, y, seed=5), first)
    np.testing.assert_array_equal(net.sample(7, 2, y[:2], seed=5), first[:2, :7])
    assert (net.sample(12, 3, y, seed=6) != first).any()
    assert (first[0] != first[2]).any()


def test_samples_of_one_precision_are_near_the_others() -> None:
    net = small(levels=9)
    exact = net.sample(30, 4, temperature=0.0)
    np.testing.assert_array_equal(net.to("float32").sample(30, 4, temperature=0.0), exact)


def test_what_comes_later_changes_nothing() -> None:
    net = small(classes=2)
    x, y = RNG.integers(0, net.levels, (2, 40)), np.array([1, 0])
    before = net.predict(x, y)
    for t in (0, 1, 17, 39):
        other = x.copy()
        other[:, t:] = RNG.integers(0, net.levels, (2, 40 - t))
        np.testing.assert_array_equal(net.predict(other, y)[:, : t + 1], before[:, : t + 1])
    field = net.receptive_field
    other = x.copy()
    other[:, : 39 - field] = RNG.integers(0, net.levels, (2, 39 - field))
    np.testing.assert_allclose(net.predict(other, y)[:, 39], before[:, 39], rtol=1e-12)
    other[:, 39 - field] = (x[:, 39 - field] + 1) % net.levels
    assert field == 1 + 1 + 2 + 4 + 1
    assert np.abs(net.predict(other, y)[:, 39] - before[:, 39]).max() > 0


class Scored(nn.Module):
    """-log p of each sample and their mean, as the trainer has it."""

    def __init__(self, net: WaveNet):
        self.net = net

    def forward(self, x: Any, targets: Any, *given: Any) -> Any:
        output = self.net(x, *given)
        return self.net.nats(output, targets), self.net._loss(output, targets)


@pytest.mark.parametrize("options", NETS[:2] + NETS[3:], ids=str)
def test_gradients(options: dict[str, Any]) -> None:
    net = small(**options)
    x = RNG.integers(0, net.levels, (2, 9))
    given = conditions(net, 2, 9)
    targets = x.copy()
    targets[1, 5:] = -1
    testing.gradcheck(Scored(net), x, targets, *given.values())


@pytest.mark.parametrize("levels", [2, 6, 65536])
def test_levels_have_the_probabilities_of_their_ranges(levels: int) -> None:
    """The mixture's, beside distribution functions in long double."""
    net = small(levels=levels, output="logistics", mixtures=2, layers=1)
    chosen = np.unique(np.linspace(0, levels - 1, 5).astype(np.int64))
    x = np.concatenate([np.zeros((len(chosen), 1), np.int64), chosen[:, None]], axis=1)
    z = said(net, x).astype(np.longdouble)[:, 1]
    weight = np.exp(z[:, :2]) / np.exp(z[:, :2]).sum(axis=1, keepdims=True)
    mean, scale = z[:, 2:4], np.exp(z[:, 4:])
    half = np.longdouble(1) / (levels - 1)
    centre = (np.longdouble(2) * chosen / (levels - 1) - 1)[:, None]

    def below(edge: np.ndarray) -> np.ndarray:
        found: np.ndarray = 1 / (1 + np.exp(-(edge - mean) / scale))
        return found

    upper = np.where(chosen[:, None] == levels - 1, 1, below(centre + half))
    lower = np.where(chosen[:, None] == 0, 0, below(centre - half))
    expected = -np.log2((weight * (upper - lower)).sum(axis=1))
    targets = np.where(np.arange(2) == 1, x, -1)
    found = [net.bits(x[k : k + 1], targets=targets[k : k + 1]) for k in range(len(x))]
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=1e-7)


def test_narrow_levels_keep_their_digits_in_float32() -> None:
    net = small(levels=65536, output="logistics", mixtures=2, layers=2)
    x = RNG.integers(0, 65536, (3, 20))
    exact = net.bits(x)
    assert net.to("float32").bits(x) == pytest.approx(exact, rel=2e-6)


def test_bits_are_those_of_the_samples_that_count() -> None:
    net = small()
    x = RNG.integers(0, net.levels, (5, 13))
    targets = x.copy()
    targets[0, 3:], targets[2:] = -1, -1
    logits = net.predict(x)
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    nats = -np.log(np.take_along_axis(chances, x[..., None], -1)[..., 0])
    assert net.bits(x, batch_size=2) == pytest.approx(nats.mean() / np.log(2))
    known = np.concatenate([nats[0, :3], nats[1]])
    assert net.bits(x, targets=targets, batch_size=2) == pytest.approx(known.mean() / np.log(2))


def test_bits_do_not_depend_on_workers() -> None:
    x = RNG.integers(0, 11, (6, 30))
    found = []
    for workers in (1, 3):
        net = WaveNet(11, 5, 7, 4, 3)
        net.fit(x, epochs=2, batch_size=4, verbose=False, workers=workers, seed=2)
        found.append(net.state_dict())
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


def test_a_pattern_is_learned_and_goes_on() -> None:
    x = np.tile([5, 5, 0, 9, 2], (8, 12))
    net = WaveNet(10, 8, 16, 3)
    history = net.fit(x, epochs=80, batch_size=8, lr=0.01, verbose=False)
    assert history["loss"][-1] < 0.2
    drawn = net.sample(10, given=[[5, 0, 9]], temperature=0.0)
    np.testing.assert_array_equal(drawn, [[2, 5, 5, 0, 9, 2, 5, 5, 0, 9]])


def test_pieces_have_each_sample_once() -> None:
    sequences = [np.arange(n) for n in (1, 4, 5, 23)]
    x, targets, of = pieces(sequences, 5, context=2)
    for number, sequence in enumerate(sequences):
        known = targets[of == number]
        np.testing.assert_array_equal(known[known >= 0], sequence)
    np.testing.assert_array_equal(x[targets >= 0], targets[targets >= 0])


def test_sound_goes_to_levels_and_back() -> None:
    wave = np.array([-1.0, -0.3, 0.0, 0.001, 1.0])
    for net, apart in ((WaveNet(layers=1), 0.01), (WaveNet(65536, layers=1, output="logistics"),
                                                   2e-5)):  # fmt: skip
        levels = net.encode(wave)
        assert (levels[0], levels[-1]) == (0, net.levels - 1)
        np.testing.assert_allclose(net.decode(levels), wave, atol=apart)
        np.testing.assert_array_equal(net.encode(net.decode(levels)), levels)
        assert net.encode([-1.5, 7.0]).tolist() == [0, net.levels - 1]  # too loud
        with pytest.raises(DataError, match="finite"):
            net.encode([0.0, np.nan])


def test_parameters_that_are_not_finite_are_told_of() -> None:
    net = small()
    net.last.bias.value = np.full(11, np.nan)
    with pytest.raises(DataError, match="not finite"):
        net.sample(5, temperature=1.0)
    with pytest.raises(DataError, match="not finite"):
        net.sample(5, temperature=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels"),
        ({"output": "gauss"}, "'softmax' or 'logistics'"),
        ({"kernel_size": 1}, "kernel_size"),
        ({"layers": 0}, "layers"),
        ({"cycle": 40}, "cycle"),
        ({"classes": -1}, "classes"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        WaveNet(**options)


def test_bad_input_is_refused() -> None:
    net, both = small(), small(classes=2, features=2, hop=4)
    x = np.zeros((2, 8), np.int64)
    with pytest.raises(ShapeError, match="whole numbers"):
        net.predict(np.zeros((2, 8)))
    with pytest.raises(DataError, match="11"):
        net.predict(x + 11)
    with pytest.raises(DataError, match="levels, whole numbers"):
        net.fit(np.zeros((2, 8)), verbose=False)
    with pytest.raises(DataError, match=r"y: expected none"):
        net.fit(x, np.zeros(2, np.int64), verbose=False)
    with pytest.raises(DataError, match=r"local: expected it"):
        both.fit(x, np.zeros(2, np.int64), verbose=False)
    with pytest.raises(ShapeError, match="local signal"):
        both.predict(x, np.zeros(2, np.int64), np.zeros((2, 2, 3)))
    with pytest.raises(ShapeError, match="2 of 4 samples"):
        both.predict(x, np.zeros(2, np.int64), np.zeros((2, 1, 2)))
    with pytest.raises(DataError, match="given"):
        net.sample(3, 2, given=np.full((3, 4), 1))
    with pytest.raises(DataError, match="given"):
        net.sample(3, given=[[11]])
    with pytest.raises(DataError, match="local"):
        both.sample(9, 2, y=1, local=np.zeros((2, 2, 2)))
    with pytest.raises(OptionError, match="temperature"):
        net.sample(3, temperature=-1.0)
    with pytest.raises(OptionError, match="samples"):
        net.sample(0)
    with pytest.raises(DataError, match="got none"):
        net.bits(x, targets=np.full_like(x, -1))
    with pytest.raises(OptionError, match="context"):
        pieces([np.arange(4)], 3, context=3)
    with pytest.raises(DataError, match="whole numbers"):
        pieces([np.zeros(4)], 3)


def test_a_plan_serves_again_and_nothing_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as of a net that has drawn nothing, whatever was drawn or changed before; one
    program is kept at a time."""
    options: dict[str, Any] = {"levels": 6, "channels": 4, "skip": 4, "layers": 2, "cycle": 2}
    net, planned = WaveNet(**options), []
    before = Plans.build

    def build(self: Any, *args: Any, **more: Any) -> Any:
        planned.append(args[0])
        return before(self, *args, **more)

    monkeypatch.setattr(Plans, "build", build)

    def fresh(**more: Any) -> Any:
        other = WaveNet(**options)
        other.load_state_dict(net.state_dict())
        return other.sample(12, 3, **more)

    for number, more in enumerate([{"seed": 4}, {"seed": 5}, {"seed": 4, "temperature": 0.5}]):
        planned.clear()
        drawn = net.sample(12, 3, **more)
        assert len(planned) == [1, 0, 1][number]  # another temperature is another program
        np.testing.assert_array_equal(drawn, fresh(**more))
        assert len(vars(net)["_methods"]) == 1
    net.last.weight.value = -3.0 * net.last.weight.value
    planned.clear()
    drawn = net.sample(12, 3, seed=4, temperature=0.5)
    assert not planned
    np.testing.assert_array_equal(drawn, fresh(seed=4, temperature=0.5))
    start = [[1, 2, 3]]
    np.testing.assert_array_equal(
        net.sample(12, 3, given=start, temperature=0.5), fresh(given=start, temperature=0.5)
    )
    last = net.last.weight
    net.last.weight = nn.Parameter(last.shape, 0.1, transposed=last.transposed)
    other = net.sample(12, 3, seed=4, temperature=0.5)
    np.testing.assert_array_equal(other, fresh(seed=4, temperature=0.5))
    assert not np.array_equal(other, drawn)
