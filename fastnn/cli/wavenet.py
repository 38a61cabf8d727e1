"""`fastnn train wavenet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli import options
from fastnn.cli.ranges import Whole


@click.command()
@options.count("--channels", 32, "Channels of the residual stack.")
@options.count("--skip", 64, "Units of the two layers after it.")
@options.count("--layers", 12, "Dilated convolutions: 1, 2, 4, ... samples.")
@options.count("--cycle", 12, "Layers after which dilations begin at 1 again.")
@click.option("--levels", default=256, show_default=True, type=Whole(2),
              help="Values that a sample may have.")  # fmt: skip
@click.option("--distribution", default="softmax", show_default=True,
              type=click.Choice(["softmax", "logistics"]),
              help="Of a sample: of all levels, or a mixture of logistic ones.")  # fmt: skip
@options.count("--length", 8192, "Longer recordings are cut into pieces of so many samples.")
@click.option("--judge", type=click.Path(path_type=Path),
              help="What `fastnn train speech-commands` wrote: says which digits it "
                   "recognises.")  # fmt: skip
@options.running(
    output="runs/wavenet",
    epochs=10,
    batch_size=2,
    lr=5e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
)
@click.pass_context
def wavenet(ctx: click.Context, /, distribution: str, judge: Path | None, output: Path,
            quiet: bool, **more: Any) -> None:  # fmt: skip
    """A WaveNet that says digits, sample by sample: 3,000 recordings, 16 MB to download.

    Beside its bits for a sample of test recordings stand those of a linear predictor. Hear it with
    `fastnn sample`. Set FASTNN_DATA to use a folder that has the data.
    """
    from fastnn.data import load_spoken_digits
    from fastnn.tasks import wavenet as task

    heard = task.listener(judge) if judge is not None else None
    train, test = load_spoken_digits().official_split()
    net, trainer, history, bits = task.train_wavenet(
        train, test, output=distribution, verbose=not quiet,
        callbacks=[options.KeepCheckpoint(output)], **more,
    )  # fmt: skip
    written = options.write(trainer, history, output)
    task.save_description(written[0][1], net)
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    linear = task.linear_predictor_bits(net, train, test)
    measures = [
        ("test bits", f"{bits:.3f} a sample; a linear predictor of 32 samples has {linear:.3f}")
    ]
    if heard is not None:
        share = task.recognised(net, heard)
        measures.append(("recognised", f"{100 * share:.1f} % of 200 digits that it says"))
    options.conclude(ctx, trainer, history, written, measures)
