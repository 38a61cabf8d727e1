"""What a tagger has learnt, and what it confuses, as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastnn import files, nn, plot
from fastnn.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: what stands for no entity
NONE = "O"


def draw_transitions(crf: nn.CRF, path: str | os.PathLike[str] | None = None) -> Figure:
    """The scores that a conditional random field gives to a tag (row) before another one (column),
    to the first tag (first row) and to the last (last column); what may not be is grey.

    Args:
        crf: with names of its tags.
        path: where the picture is saved.

    Raises ImportError if matplotlib is missing, OptionError for tags without names.
    """
    if crf.names is None:
        raise OptionError(
            f"draw_transitions: expected a CRF with names of its tags, got {crf.tags} tags without"
        )
    count = crf.tags
    table = np.full((count + 1, count + 1), np.nan)
    table[1:, :count] = crf.transitions.value
    table[0, :count], table[1:, count] = crf.start_transitions.value, crf.end_transitions.value
    if crf.allowed is not None:
        pairs, first, last = crf.allowed
        table[1:, :count][~pairs] = np.nan
        table[0, :count][~first], table[1:, count][~last] = np.nan, np.nan
    most = float(np.nanmax(np.abs(table)))
    side = min(3.0 + 0.3 * count, 12.0)
    figure = files.new_figure(side + 0.8, side)
    ax = figure.subplots()
    ax.set_facecolor("0.85")
    image = ax.imshow(table, cmap="RdBu", vmin=-most, vmax=most)
    figure.colorbar(image, ax=ax, fraction=0.045, label="score")
    ax.set_xticks(range(count + 1), [*crf.names, "end"], rotation=90)
    ax.set_yticks(range(count + 1), ["start", *crf.names])
    ax.set(xlabel="tag", ylabel="tag before it")
    if path is not None:
        files.save_figure(figure, path)
    return figure


def draw_types(
    wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]],
    path: str | os.PathLike[str] | None = None,
) -> Figure:  # fmt: skip
    """Which types of entities words are taken for, as shares of the words of each true type.

    Args:
        wanted: the right tags of each sentence, such as B-PER. found: those of the tagger.
        path: where the picture is saved.

    Raises ImportError if matplotlib is missing.
    """
    rows = [[tag.partition("-")[2] or NONE for s in part for tag in s] for part in (wanted, found)]
    types = [NONE, *sorted({kind for row in rows for kind in row} - {NONE})]
    numbers = {kind: k for k, kind in enumerate(types)}
    right, predicted = ([numbers[kind] for kind in row] for row in rows)
    return plot.confusion_matrix(right, predicted, types, normalize=True, path=path)
