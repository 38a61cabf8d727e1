"""Decoding of class scores for frames on CUDA, a thread for each sequence."""

from ..cuda.device import cast, flat_index
from ..declare import ceil_div, cuda_kernel
from ..vector_math import NAN
from . import cpu_decode as cpu
from .best_path import align, greedy
from .decode import Guide, search
from .language import Model
from .shared import frame_count, label_count


def launch(s):
    """Blocks of a warp: sequences take long, and different times."""
    return ceil_div(s["B"], 32), 32


@cuda_kernel(like=cpu.ctc_greedy, launch=launch)
def ctc_greedy(x, lengths, labels, counts, blank):
    b = flat_index()
    if b < x.shape[0]:
        greedy(x, lengths, labels, counts, b, blank)


@cuda_kernel(like=cpu.ctc_align, launch=launch)
def ctc_align(y, target, lengths, target_lengths, places, score, best, back, blank):
    b = flat_index()
    if b >= y.shape[0]:
        return
    frames = frame_count(lengths, b, y.shape[1])
    L = label_count(target, target_lengths, b, y.shape[2], blank)
    if frames < 0 or L < 0:
        score[b] = cast(y, NAN)
        for t in range(y.shape[1]):
            places[b, t] = -1
        return
    align(y, target, places, score, best, back, b, frames, L, blank)


@cuda_kernel(like=cpu.ctc_beam, launch=launch)
def ctc_beam(
    y, lengths, child, words, first, arcs, arc_scores, arc_next, backoff, backoff_scores, labels,
    counts, score, nodes, scores, states, blank, space, end, weight, bonus, most,
):  # fmt: skip
    model = Model(first, arcs, arc_scores, arc_next, backoff, backoff_scores)
    guide = Guide(child, words, model, space, end, weight, bonus, most)
    b = flat_index()
    if b < y.shape[0]:
        search(y, lengths, guide, labels, counts, score, nodes, scores, states, b, blank)
