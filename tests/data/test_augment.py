"""Rates, speeds and augmentation: each by the property it is for; refusals; in training."""

import tracemalloc

import numpy as np
import pytest

import fastnn as fnn
from fastnn import data, nn, ops
from fastnn.data import augment
from fastnn.data.bucketing import Buckets
from fastnn.data.signals import as_signal, check_rate, power
from fastnn.errors import DataError, OptionError

RATE = 8000


def tone(frequency, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def loudest(signal, rate=RATE):
    """The frequency with the most power, in Hz."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 1 << 16))
    return spectrum.argmax() * rate / (1 << 16)


def rng(seed=0):
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- what is no signal


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_by_name(bad):
    x = tone(440)
    x[[17, 90]] = bad
    for function in (
        as_signal, lambda s: data.mfcc(s, RATE), lambda s: data.log_mel(s, RATE),
        lambda s: data.frames(s, 200, 80), lambda s: data.resample(s, 8000, 16000),
        lambda s: data.with_noise(s, tone(1), 3.0), data.AddNoise(3.0, [tone(1)]),
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"at sample 17 \(2 of 4,000 .*leave the recording out"):
            function(x, rng()) if isinstance(function, augment.Augmentation) else function(x)
    with pytest.raises(DataError, match="AddNoise: noise 1: expected finite"):
        data.AddNoise(3.0, [tone(1), x])


def test_another_rate_is_refused_with_the_remedy(tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.zeros(160, "<i2").tobytes())
    assert data.read_audio(tmp_path / "a.wav", rate=16000)[1] == 16000
    with pytest.raises(DataError, match=r"a\.wav: expected 8000 samples a second, got 16000; .*"
                                        r"resample\(samples, 16000, 8000\)"):  # fmt: skip
        data.read_audio(tmp_path / "a.wav", rate=8000)
    with pytest.raises(DataError, match="expected 44100 samples a second, got 16000"):
        data.read_audio(tmp_path / "a.wav", rate=44100)
    check_rate(8000, 8000)


def test_a_file_with_samples_that_are_not_finite_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    x = tone(440).astype(np.float32)
    x[5] = np.nan
    soundfile.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: expected finite samples, got nan at sample 5"):
        data.read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("shape", "message"), [((0,), "got none"), ((10, 2), "one channel"), ((), "one channel")]
)
def test_other_shapes_are_refused(shape, message):
    with pytest.raises(DataError, match=message):
        as_signal(np.zeros(shape))


# ---------------------------------------------------------------- rates and speeds


@pytest.mark.parametrize(("rate", "new"), [(8000, 16000), (16000, 8000), (44100, 16000), (8, 8)])
def test_resampling_keeps_tones_where_they_are(rate, new):
    x = tone(0.05 * min(rate, new), 3000 / rate, rate)
    y = data.resample(x, rate, new)
    assert len(y) == -(-len(x) * new // rate)
    want = np.sin(2 * np.pi * 0.05 * min(rate, new) * np.arange(len(y)) / new)
    inner = slice(len(y) // 8, -len(y) // 8)
    np.testing.assert_allclose(y[inner], want[inner], atol=2e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    x = tone(5000, rate=16000)
    assert power(data.resample(x, 16000, 8000)[200:-200]) < 1e-5 * power(x)
    assert data.resample(x.astype(np.float32), 16000, 8000).dtype == np.float32


def test_memory_grows_with_the_result_not_with_its_windows():
    tracemalloc.start()
    y = data.resample(np.ones(100, np.float32), 1, 8000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < y.nbytes + 2**24
    np.testing.assert_allclose(y[100_000:-100_000], 1, atol=1e-5)


def test_a_signal_is_resampled_in_pieces_that_fit_together(monkeypatch):
    x = tone(440)
    whole = data.resample(x, 8000, 11025)
    monkeypatch.setattr("fastnn.data.signals.PIECE", 100)
    np.testing.assert_allclose(data.resample(x, 8000, 11025), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("samples", [4000, 3999, 1])
def test_speed_changes_length_and_pitch(factor, samples):
    x = tone(500)[:samples]
    y = data.change_speed(x, factor)
    assert len(y) == pytest.approx(samples / factor, abs=1)
    if samples > 1:
        assert loudest(y) == pytest.approx(500 * factor, rel=2e-3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: data.resample(tone(1), 0, 8000), lambda: data.resample(tone(1), 8000, 8000.5),
        lambda: data.change_speed(tone(1), 0), lambda: data.Speed((1.2, 0.9)),
        lambda: data.Speed((0.9, 11)), lambda: data.AddNoise((20, 5)), lambda: data.AddNoise(5, []),
        lambda: data.Gain((1, 2, 3)), lambda: data.Gain(np.nan), lambda: data.Room(0),
        lambda: data.Room(8000, (-1, 1)), lambda: data.Room(8000, chance=1.5),
        lambda: data.room_response(8000, 0, rng()), lambda: data.Augment(3),
    ],
)  # fmt: skip
def test_bad_options_are_refused(call):
    with pytest.raises(OptionError, match="expected"):
        call()


# ---------------------------------------------------------------- noise, loudness, rooms


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5, 40.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_measured_ratio_is_the_given_one(snr, dtype):
    x, noise = tone(440).astype(dtype), rng().standard_normal(5000)
    noisy = data.with_noise(x, noise, snr)
    added = noisy.astype(np.float64) - x
    assert noisy.dtype == dtype
    assert 10 * np.log10(power(x) / power(added)) == pytest.approx(snr, abs=2e-3)
    np.testing.assert_allclose(added / added.std(), noise[:4000] / noise[:4000].std(), atol=2e-2)


def test_noise_at_random_ratios_is_within_them():
    x, change = tone(440), data.AddNoise((5, 20), [rng(1).standard_normal(300), tone(90)])
    ratios = [10 * np.log10(power(x) / power(change(x, rng(k)) - x)) for k in range(40)]
    assert 5 <= min(ratios) < 8
    assert 17 < max(ratios) <= 20


def test_a_random_piece_of_recorded_noise_is_added_and_a_short_one_repeated():
    noise = np.arange(1.0, 8.0)
    begins = set()
    for seed in range(20):
        changed = data.AddNoise(3.0, [noise])(np.ones(10), np.random.default_rng(seed))
        added = (changed - 1) / (changed - 1).max() * 7
        begins.add(first := round(added[0]))
        np.testing.assert_allclose(added, np.roll(np.tile(noise, 2), 1 - first)[:10])
    assert len(begins) > 4


def test_silence_stays_silence():
    silence = np.zeros(100)
    np.testing.assert_array_equal(data.AddNoise(3.0)(silence, rng()), silence)
    np.testing.assert_array_equal(data.with_noise(tone(440)[:100], silence, 3.0), tone(440)[:100])


def test_too_little_noise_is_refused():
    with pytest.raises(DataError, match=r"at least 4,000 samples, got 10; repeat it"):
        data.with_noise(tone(440), np.ones(10), 3.0)


def test_gain_is_in_decibels():
    x = tone(440)
    assert 10 * np.log10(power(data.change_gain(x, -6.0)) / power(x)) == pytest.approx(-6)
    assert data.Gain((-6, 6))(x.astype(np.float32), rng()).dtype == np.float32


@pytest.mark.parametrize("seconds", [0.1, 0.4])
def test_a_room_fades_by_60_decibels_in_its_time(seconds):
    """The slope of the energy that is still to come (Schroeder 1965)."""
    h = data.room_response(RATE, seconds, rng(), direct=-30.0)
    assert np.sum(h**2) == pytest.approx(1)
    rest = 10 * np.log10(np.cumsum(h[:0:-1] ** 2)[::-1])
    begin, end = len(rest) // 10, len(rest) // 2
    slope = np.polyfit(np.arange(begin, end) / RATE, rest[begin:end], 1)[0]
    assert -60 / slope == pytest.approx(seconds, rel=0.15)


@pytest.mark.parametrize("direct", [-3.0, 0.0, 10.0])
def test_the_direct_sound_has_its_share(direct):
    h = data.room_response(RATE, 0.3, rng(), direct=direct)
    assert 10 * np.log10(h[0] ** 2 / np.sum(h[1:] ** 2)) == pytest.approx(direct)


def test_a_room_is_a_convolution_that_keeps_length_and_energy():
    h = data.room_response(RATE, 0.2, rng(), direct=3.0)
    x = rng(1).standard_normal(4000)
    y = data.reverberate(x, h)
    np.testing.assert_allclose(y, np.convolve(x, h)[:4000], atol=1e-10)
    assert power(y) == pytest.approx(power(x), rel=0.1)


# ---------------------------------------------------------------- in training


def signals(count=12):
    return [tone(300 + 40 * k, 0.05 + 0.005 * k).astype(np.float32) for k in range(count)]


CHANGES = data.Augment(
    data.Speed((0.8, 1.2)), data.Room(RATE, chance=0.5), data.AddNoise((5, 20)), data.Gain()
)


def test_the_same_generator_gives_the_same_bits():
    x = tone(440)
    first, again, other = CHANGES(x, rng(1)), CHANGES(x, rng(1)), CHANGES(x, rng(2))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_change_that_has_no_chance_is_never_made():
    for change in (data.Speed(2.0, 0), data.Gain(6, 0), data.AddNoise(3, chance=0)):
        np.testing.assert_array_equal(change(tone(440), rng()), tone(440))


def batches_of(epoch, **options):
    batches = Buckets(signals(), np.arange(12), 3, multiple=16, **options)
    batches.set_epoch(epoch)
    return {int(k): row[:n] for (x, ns), y in batches for row, n, k in zip(x, ns, y, strict=True)}


def test_batches_are_changed_anew_in_each_epoch_and_follow_from_the_seed():
    found = batches_of(3, transform=CHANGES)
    assert {k: x.tobytes() for k, x in found.items()} == {
        k: x.tobytes() for k, x in batches_of(3, transform=CHANGES).items()
    }
    for k, x in found.items():
        want = CHANGES(signals()[k], np.random.default_rng([0, 3, k])).astype(np.float32)
        np.testing.assert_array_equal(x, want)
        assert x.tobytes() != batches_of(4, transform=CHANGES)[k].tobytes()
        assert x.tobytes() != signals()[k].tobytes()


class Spectral(nn.Module):
    def __init__(self):
        self.front, self.out = nn.Conv1d(1, 4, 16, stride=4), nn.Linear(4, 12)

    def forward(self, x, lengths):
        y, ends = self.front(ops.reshape(x, x.shape[0], 1, -1), lengths)
        return self.out(ops.global_avg_pool(ops.absolute(y), lengths=ends))


def test_training_with_changes_has_the_same_bits_on_any_number_of_workers():
    def trained(workers):
        model = Spectral()
        trainer = fnn.Trainer(model, "cross_entropy", "adam", workers=workers, seed=3)
        batches = Buckets(signals(), np.arange(12), 3, multiple=16, transform=CHANGES)
        trainer.fit(batches, epochs=2, verbose=False)
        return [p.value.tobytes() for p in model.parameters()]

    assert trained(1) == trained(2) == trained(3)


def test_a_transform_that_does_not_fit_is_refused():
    with pytest.raises(OptionError, match="one input and one target"):
        Buckets((signals(), signals()), np.arange(12), 3, transform=CHANGES)
    with pytest.raises(DataError, match=r"the transform to return .* got \(2, 2\)"):
        next(iter(Buckets(signals(), np.arange(12), 3, transform=lambda x, r: np.zeros((2, 2)))))
