"""A digit that a WaveNet says beside one that a person said: waveforms and spectra.

    fastnn train wavenet
    python examples/wavenet_picture.py runs/wavenet --digits 3 7 --picture said.png

The recording is the first test recording of the digit (and speaker), the same for each net.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.data import frames, load_spoken_digits
from fastnn.data.audio import power_spectrum
from fastnn.data.spoken_digits import RATE, SpokenDigits
from fastnn.files import new_figure, save_figure
from fastnn.tasks.wavenet import load_wavenet, spoken

#: samples of a spectrum's window, and from one window to the next: 32 and 4 ms
WINDOW, STEP = 256, 32
#: the quietest that is shown, below the loudest
DECIBELS = 60.0


def spectra(waveform: np.ndarray) -> np.ndarray:
    """Power in dB relative to the loudest, (frequencies, windows), each window around its time."""
    around = np.pad(waveform, WINDOW // 2)
    power = power_spectrum(frames(around, WINDOW, STEP) * np.hanning(WINDOW))
    level = 10 * np.log10(np.maximum(power, 1e-12))
    return np.asarray(level - level.max()).T


def draw(digits: list[int], said: dict[int, list[tuple[str, np.ndarray]]]) -> Any:
    """For each digit a row of waveforms and one of spectra, on one scale of time."""
    across = len(said[digits[0]])
    figure = new_figure(4.2 * across, 3.6 * len(digits))
    axes = figure.subplots(2 * len(digits), across, squeeze=False)
    longest = max(len(waveform) for pairs in said.values() for _, waveform in pairs) / RATE
    shown = None
    for row, digit in enumerate(digits):
        for column, (name, waveform) in enumerate(said[digit]):
            wave, spectrum = axes[2 * row][column], axes[2 * row + 1][column]
            loudest = float(np.abs(waveform).max()) or 1.0
            wave.plot(np.arange(len(waveform)) / RATE, waveform / loudest, linewidth=0.4)
            wave.set(xlim=(0, longest), ylim=(-1.1, 1.1), xticklabels=[])
            wave.set_title(f"{digit}, {name}", fontsize=10)
            seconds = len(waveform) / RATE
            shown = spectrum.imshow(
                spectra(waveform), origin="lower", aspect="auto", cmap="magma",
                extent=(0, seconds, 0, RATE / 2000), vmin=-DECIBELS, vmax=0,
            )  # fmt: skip
            spectrum.set(xlim=(0, longest), xlabel="seconds", facecolor="black")
            if column == 0:
                wave.set_ylabel("amplitude")
                spectrum.set_ylabel("kHz")
    figure.colorbar(shown, ax=axes[1::2].ravel().tolist(), label="dB below the loudest", pad=0.01)
    return figure


def main(
    arguments: list[str] | None = None, recordings: SpokenDigits | None = None
) -> dict[int, list[tuple[str, np.ndarray]]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("runs/wavenet"))
    parser.add_argument("--digits", type=int, nargs="+", default=[7], choices=range(10))
    parser.add_argument("--speaker", help="whose recording; by default anybody's")
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("said.png"))
    options = parser.parse_args(arguments)

    net = load_wavenet(options.checkpoint)
    test = recordings or load_spoken_digits().official_split()[1]
    if options.speaker:
        test = test.take(test.speakers == options.speaker)
    made = spoken(
        net, options.digits, options.seconds, temperature=options.temperature, seed=options.seed
    )
    said = {}
    for digit, waveform in zip(options.digits, made, strict=True):
        place = int(np.flatnonzero(test.labels == digit)[0])
        said[digit] = [
            (f"recorded ({test.speakers[place]})", test.waveforms[place]),
            ("drawn by the net", waveform),
        ]
    save_figure(draw(options.digits, said), options.picture)
    print(f"picture         {options.picture}")
    return said


if __name__ == "__main__":
    main()
