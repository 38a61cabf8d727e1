"""Speech features against plain formulas, known properties, and another library."""

import doctest
import math
import sys
import wave

import numpy as np
import pytest

import fastnn as fnn
from fastnn.data import audio
from fastnn.data.audio import (
    dct_matrix,
    deltas,
    frames,
    from_mel,
    lifter,
    log_mel,
    mel_filters,
    mfcc,
    power_spectrum,
    pre_emphasis,
    read_audio,
    to_mel,
)
from fastnn.errors import DataError, OptionError

RATE = 8000


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.1, 1000)


def tone(frequency, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path, samples, width, rate=RATE, channels=1):
    """`samples`: integers."""
    signed = width > 1
    content = b"".join(int(s).to_bytes(width, "little", signed=signed) for s in samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_read_wav(tmp_path, width):
    full = 2 ** (8 * width - 1)
    values = np.array([-1, -0.5, 0, 0.25, 1 - 1 / 128])
    write(tmp_path / "a.wav", values * full + (full if width == 1 else 0), width, 11025)
    samples, rate = read_audio(tmp_path / "a.wav")
    assert rate == 11025
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, values.astype(np.float32))


def test_read_channels(tmp_path):
    write(tmp_path / "a.wav", [0, 16384, -16384, 8192], 2, channels=2)
    samples, _ = read_audio(tmp_path / "a.wav")
    assert samples.tolist() == [[0, 0.5], [-0.5, 0.25]]


def test_read_truncated(tmp_path):
    write(tmp_path / "a.wav", range(100), 2)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-50])
    with pytest.raises(DataError, match="expected 100 samples, got 75; is it truncated"):
        read_audio(tmp_path / "a.wav")


def test_read_something_else(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(DataError, match=r"a\.flac: not a WAV .* pip install soundfile$"):
        read_audio(tmp_path / "a.flac")


def test_read_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    samples = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    found, rate = read_audio(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_array_equal(found, samples)
    (tmp_path / "b.wav").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.wav: Format not recognised; is it an audio file\?$"):
        read_audio(tmp_path / "b.wav")
    # both readers agree
    soundfile.write(tmp_path / "c.wav", samples, RATE, subtype="PCM_24")
    np.testing.assert_array_equal(
        read_audio(tmp_path / "c.wav")[0], soundfile.read(tmp_path / "c.wav", dtype="float32")[0]
    )


# each step and the whole, written once more without any of the functions under test


def plain_mel(f):
    return 2595 * math.log10(1 + f / 700)


def plain_hertz(m):
    return 700 * (10 ** (m / 2595) - 1)


def plain_spectrum(piece, size):
    n = np.arange(len(piece))
    return [
        abs(np.sum(piece * np.exp(-2j * np.pi * k * n / size))) ** 2 / size
        for k in range(size // 2 + 1)
    ]


def plain_filters(count, size, rate, low, high):
    edges = [
        plain_hertz(plain_mel(low) + (plain_mel(high) - plain_mel(low)) * i / (count + 1))
        for i in range(count + 2)
    ]
    filters = np.zeros((count, size // 2 + 1))
    for i in range(count):
        left, centre, right = edges[i : i + 3]
        for k in range(size // 2 + 1):
            f = k * rate / size
            if left < f <= centre:
                filters[i, k] = (f - left) / (centre - left)
            elif centre < f < right:
                filters[i, k] = (right - f) / (right - centre)
    return filters


def plain_log_mel(signal, rate, filters, size, low=0.0, high=None):
    length, step = round(0.025 * rate), round(0.010 * rate)
    y = np.array([signal[0]] + [signal[n] - 0.97 * signal[n - 1] for n in range(1, len(signal))])
    window = [0.54 - 0.46 * math.cos(2 * math.pi * n / (length - 1)) for n in range(length)]
    bank = plain_filters(filters, size, rate, low, rate / 2 if high is None else high)
    rows = []
    for start in range(0, len(signal) - length + 1, step):
        power = plain_spectrum(y[start : start + length] * window, size)
        rows.append(np.log(np.maximum(bank @ power, 1e-10)))
    return np.array(rows)


def plain_mfcc(signal, rate, filters, size, coefficients, lift):
    logs = plain_log_mel(signal, rate, filters, size)
    out = np.zeros((len(logs), coefficients))
    for t, row in enumerate(logs):
        for k in range(coefficients):
            total = sum(
                row[n] * math.cos(math.pi * k * (n + 0.5) / filters) for n in range(filters)
            )
            scale = math.sqrt((1 if k == 0 else 2) / filters)
            lifted = 1 + lift / 2 * math.sin(math.pi * k / lift) if lift else 1
            out[t, k] = scale * total * lifted
    return out


def test_log_mel(noise):
    found = log_mel(noise, RATE, filters=20, low=100, high=3500)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, plain_log_mel(noise, RATE, 20, 256, 100, 3500), rtol=2e-7, atol=1e-6
    )


@pytest.mark.parametrize("lift", [0, 22])
def test_mfcc(noise, lift):
    found = mfcc(noise, RATE, lift=lift)
    assert found.dtype == np.float32
    assert found.shape == (11, 13)
    np.testing.assert_allclose(
        found, plain_mfcc(noise, RATE, 26, 256, 13, lift), rtol=1e-6, atol=1e-5
    )


def test_mfcc_at_another_rate(noise):
    found = mfcc(noise, 16000, coefficients=20, filters=26)
    np.testing.assert_allclose(
        found, plain_mfcc(noise, 16000, 26, 512, 20, 22), rtol=1e-6, atol=1e-5
    )


def test_float32_is_enough(noise):
    # single precision costs a millionth of a coefficient
    np.testing.assert_allclose(
        mfcc(noise.astype(np.float32), RATE), mfcc(noise, RATE), rtol=1e-4, atol=1e-4
    )


def test_energy_as_first_coefficient(noise):
    found = mfcc(noise, RATE, energy=True, window="none", emphasis=0)
    pieces = noise[: 80 * 10 + 200]
    expected = [np.sum(pieces[t * 80 : t * 80 + 200] ** 2) for t in range(11)]
    # half of the spectrum: the inner bins count once, the outer ones whole
    assert np.exp(found[:, 0]) == pytest.approx(np.array(expected) / 2, rel=0.05)
    np.testing.assert_array_equal(found[:, 1:], mfcc(noise, RATE, window="none", emphasis=0)[:, 1:])


def test_silence_is_finite():
    assert log_mel(np.zeros(800), RATE).max() == pytest.approx(math.log(1e-10))


def test_short_signal():
    assert mfcc([0.5], RATE).shape == (1, 13)
    short = tone(500)[:150]
    np.testing.assert_array_equal(
        mfcc(short, RATE, emphasis=0), mfcc(np.pad(short, (0, 50)), RATE, emphasis=0)
    )


@pytest.mark.parametrize("frequency", [150, 440, 1000, 2500, 3600])
@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_tone_is_in_its_filter(frequency, scale):
    found = log_mel(tone(frequency), RATE, filters=24, scale=scale)
    ends = to_mel([0, RATE / 2], scale)
    centres = from_mel(np.linspace(*ends, 26)[1:-1], scale)
    nearest = np.argmin(abs(to_mel(centres, scale) - to_mel(frequency, scale)))
    assert (found.argmax(axis=1) == nearest).all()


def test_pre_emphasis():
    assert pre_emphasis([1.0, 2.0, 3.0], 0.5).tolist() == [1, 1.5, 2]
    x = np.ones(4, np.float32)
    assert pre_emphasis(x).dtype == np.float32
    assert x.tolist() == [1] * 4


@pytest.mark.parametrize("samples", [1, 4, 5, 6, 7, 8, 9, 10, 11])
@pytest.mark.parametrize("padded", [False, True])
def test_frames(samples, padded):
    x = np.arange(1.0, samples + 1)
    found = frames(x, 5, 2, pad=padded)
    room = np.concatenate([x, np.zeros(20)])
    starts = [0]
    while starts[-1] + (5 if padded else 7) < samples + (0 if padded else 1):
        starts.append(starts[-1] + 2)
    np.testing.assert_array_equal(found, [room[s : s + 5] for s in starts])
    assert np.shares_memory(found, x) == (starts[-1] + 5 <= samples)


def test_parseval(noise):
    pieces = frames(noise, 200, 80)
    power = power_spectrum(pieces)
    assert power.shape == (11, 129)
    both = power[:, 0] + power[:, -1] + 2 * power[:, 1:-1].sum(axis=1)
    np.testing.assert_allclose(both, np.square(pieces).sum(axis=1), rtol=1e-12)
    assert power_spectrum(pieces.astype(np.float32)).dtype == np.float32
    with pytest.raises(OptionError, match="fft_size: expected 200 or more, got 128"):
        power_spectrum(pieces, 128)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (13, 26), (26, 26)])
def test_dct_is_orthonormal(count, size):
    rows = dct_matrix(count, size)
    np.testing.assert_allclose(rows @ rows.T, np.eye(count), atol=1e-14)


def test_dct_against_scipy(noise):
    fft = pytest.importorskip("scipy.fft", reason="SciPy is not installed")
    np.testing.assert_allclose(
        dct_matrix(7, 26) @ noise[:26], fft.dct(noise[:26], norm="ortho")[:7], rtol=1e-12
    )


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_scale(scale):
    f = np.linspace(0, 8000, 101)
    np.testing.assert_allclose(from_mel(to_mel(f, scale), scale), f, atol=1e-9)
    assert (np.diff(to_mel(f, scale)) > 0).all()
    # the anchors of each scale
    assert to_mel(1000, scale) == pytest.approx({"htk": 999.9855, "slaney": 15}[scale])
    assert to_mel(6400, "slaney") == pytest.approx(42)


def test_mel_filters():
    bank = mel_filters(20, 512, 16000, low=50, high=7000)
    np.testing.assert_allclose(bank, plain_filters(20, 512, 16000, 50, 7000), atol=1e-12)
    inner = bank[:, 20:170]  # neighbouring triangles add up to 1
    np.testing.assert_allclose(inner.sum(axis=0), 1, atol=1e-12)
    fine = mel_filters(20, 8192, 16000, area=True)
    np.testing.assert_allclose(fine.sum(axis=1) * 16000 / 8192, 1, rtol=1e-3)


@pytest.fixture(scope="module")
def librosa_mel():
    """Its function, without having Numba compile what comes with it: 20 seconds, once a machine."""

    def plain(*given, **options):
        return given[0] if given and callable(given[0]) else plain

    import numba

    with pytest.MonkeyPatch.context() as patch:
        for name in ("jit", "njit", "vectorize", "guvectorize", "stencil"):
            patch.setattr(numba, name, plain)
        librosa = pytest.importorskip("librosa", reason="librosa is not installed")
        librosa.filters.mel(sr=RATE, n_fft=512, norm=None)  # loads the modules that it uses
    return librosa.filters.mel


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("area", [False, True])
def test_mel_filters_against_librosa(scale, area, librosa_mel):
    expected = librosa_mel(
        sr=RATE, n_fft=512, n_mels=30, htk=scale == "htk", norm="slaney" if area else None,
        dtype=np.float64,
    )  # fmt: skip
    np.testing.assert_allclose(
        mel_filters(30, 512, RATE, scale=scale, area=area), expected, atol=1e-10
    )


def test_against_python_speech_features(noise):
    peer = pytest.importorskip(
        "python_speech_features", reason="python_speech_features is not installed"
    )
    np.testing.assert_allclose(
        frames(noise, 200, 80, pad=True), peer.sigproc.framesig(noise, 200, 80), rtol=1e-12
    )
    np.testing.assert_allclose(
        pre_emphasis(noise), peer.sigproc.preemphasis(noise, 0.97), rtol=1e-12
    )
    pieces = frames(noise, 200, 80)
    np.testing.assert_allclose(power_spectrum(pieces), peer.sigproc.powspec(pieces, 256))
    cepstra = noise[:260].reshape(20, 13)
    np.testing.assert_allclose(lifter(cepstra), peer.lifter(cepstra, 22), rtol=1e-12)
    np.testing.assert_allclose(deltas(cepstra), peer.delta(cepstra, 2), rtol=1e-5, atol=1e-8)
    # their filters begin and end at whole bins: with many bins that is near the frequencies
    ours = mfcc(noise, RATE, fft_size=65536, pad=True)
    theirs = peer.mfcc(noise, RATE, nfft=65536, winfunc=np.hamming, appendEnergy=False)
    np.testing.assert_allclose(ours, theirs, atol=0.02 * abs(theirs).max())


def test_too_many_filters():
    with pytest.raises(OptionError, match="lies between two of the 33 frequencies"):
        mel_filters(60, 64, RATE)
    with pytest.raises(OptionError, match=r"0 <= low < high <= 4000"):
        mel_filters(20, 256, RATE, high=5000)
    with pytest.raises(OptionError, match="lies between"):
        log_mel(tone(500), RATE, filters=100, fft_size=256)
    assert log_mel(tone(500), RATE, filters=100).shape == (48, 100)  # takes more points


def test_wrong_arguments():
    with pytest.raises(DataError, match=r"one channel, shape \(samples,\), got shape \(4, 2\)"):
        mfcc(np.zeros((4, 2)), RATE)
    with pytest.raises(DataError, match="expected samples, got none"):
        mfcc([], RATE)
    with pytest.raises(OptionError, match="window: expected one of hamming, hann, none"):
        mfcc(tone(500), RATE, window="hanning")
    with pytest.raises(OptionError, match="scale: expected 'htk' or 'slaney'"):
        mfcc(tone(500), RATE, scale="mel")
    with pytest.raises(OptionError, match=r"expected 1\.\.26 coefficients, got 27"):
        mfcc(tone(500), RATE, coefficients=27)
    with pytest.raises(OptionError, match="length and step of 1 or more"):
        frames(tone(500), 10, 0)
    with pytest.raises(DataError, match="deltas: expected"):
        deltas(np.zeros(3))


def test_examples():
    result = doctest.testmod(audio, globs={**vars(audio), "np": np, "fnn": fnn})
    assert result.attempted > 0
    assert result.failed == 0
