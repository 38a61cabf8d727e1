"""WaveNet on recordings: bits beside a linear predictor's, what is written and read again."""

import wave

import numpy as np
import pytest

from fastnn.errors import DataError, OptionError
from fastnn.generative import WaveNet
from fastnn.tasks import wavenet as task
from tests.tasks.foreign import refused

SMALL = dict(channels=4, skip=6, layers=5, length=600, batch_size=4, workers=1, verbose=False)


def test_tones_are_learned(tones, tmp_path):
    train, test = (part.take(slice(0, 40, 4)) for part in tones.official_split())
    net, trainer, history, bits = task.train_wavenet(train, test, epochs=6, lr=0.01, **SMALL)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert 0 < bits < np.log2(net.levels)
    path = tmp_path / "model.safetensors"
    trainer.save(path)
    task.save_description(path, net)
    refused(task.load_wavenet, tmp_path, lambda state: state["sound"].update(cycle=3))
    again = task.load_wavenet(tmp_path)
    said = task.spoken(net, [3, 1], 0.01, seed=4)
    np.testing.assert_array_equal(task.spoken(again, [3, 1], 0.01, seed=4), said)
    assert said.shape == (2, 80)
    share = task.recognised(net, lambda waves: [w % 10 for w in range(len(waves))], 30, 0.001)
    assert share == 1.0


@pytest.mark.parametrize("output", ["softmax", "logistics"])
def test_a_linear_predictor_has_the_bits_of_its_own_process(tones, output):
    """An autoregressive process with logistic steps, whose bits are known."""
    rng = np.random.default_rng(0)

    def made(count):
        waves = []
        for _ in range(count):
            x, steps = np.zeros(3000), rng.logistic(scale=0.02, size=3000)
            for t in range(2, 3000):
                x[t] = 1.2 * x[t - 1] - 0.5 * x[t - 2] + steps[t]
            x[-1] = 1.0  # the loudest, so that none is changed
            assert np.abs(x).max() == 1.0
            waves.append(x.astype(np.float32))
        return waves

    part = tones.take(slice(0, 4))
    train, test = (type(part)(made(4), part.labels, part.speakers, part.indices) for _ in "ab")
    net = WaveNet(levels=1024, layers=1, output=output, mixtures=1)
    found = task.linear_predictor_bits(net, train, test, order=4)
    if output == "logistics":  # equal steps: the process's entropy beside the width of a level
        expected = (np.log(0.02) + 2) / np.log(2) - np.log2(2 / 1023)
        assert found == pytest.approx(expected, abs=0.04)
    else:  # finer steps where sound is soft
        assert 4 < found < 9


def test_levels_of_each_recording_go_up_to_the_loudest(tones):
    net = WaveNet(layers=1)
    for levels in task.levels_of(net, tones.take(slice(0, 5))):
        assert max(abs(levels - 127.5)) == 127.5


def test_a_digit_is_recognised_as_itself():
    net = WaveNet(levels=4, channels=2, skip=2, layers=1, classes=10)
    for shift, wanted in ((0, 1.0), (3, 0.0), (-1000, 0.0)):
        share = task.recognised(net, lambda w, s=shift: np.arange(len(w)) % 10 + s, 20, 0.01)
        assert share == wanted


def test_sound_files(tmp_path):
    path = tmp_path / "new" / "a.wav"
    waveform = np.array([0.0, 0.5, -1.0, 2.0], np.float32)
    task.write_sound(waveform, path)
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1)
        samples = np.frombuffer(file.readframes(4), "<i2")
    np.testing.assert_array_equal(samples, [0, 16384, -32767, 32767])
    with pytest.raises(OptionError, match="cannot be written"):
        task.write_sound(waveform, tmp_path)


def test_wrong_files_and_lengths_are_refused(tmp_path):
    with pytest.raises(DataError, match="WaveNet"):
        task.load_wavenet(tmp_path)
    (tmp_path / "model.json").write_text('{"sound": {"levels": 1}}')
    with pytest.raises((DataError, OptionError), match="levels"):
        task.load_wavenet(tmp_path)
    with pytest.raises(OptionError, match="seconds"):
        task.spoken(WaveNet(layers=1, classes=10), [1], 0.0)
