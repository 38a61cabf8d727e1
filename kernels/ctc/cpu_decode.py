"""Decoding of class scores for frames on the CPU.

B sequences of T frames, C classes; K prefixes are kept, of which R are given; a word list has Q
places, a language model G - 1 = H states and A arcs.
"""

from ..declare import kernel
from ..vector_math import NAN
from .best_path import align, greedy
from .decode import Guide, search
from .language import Model
from .shared import frame_count, label_count


@kernel
def ctc_greedy(
    x: "in rows f[B,T,C]",
    lengths: "in rows i[B]",  # absent: all T
    labels: "out rows i[B,T]",  # -1 past the end
    counts: "out rows i[B]",
    blank: "int",
    lo: "begin",
    hi: "end",
):
    """The labels of the likeliest path: repeated classes once, then no blanks."""
    for b in range(lo, hi):
        greedy(x, lengths, labels, counts, b, blank)


@kernel
def ctc_align(
    y: "in rows f[B,T,C]",  # log-probabilities
    target: "in rows i[B,L]",
    lengths: "in rows i[B]",
    target_lengths: "in rows i[B]",
    places: "out rows i[B,T]",
    score: "out rows f[B]",
    best: "scratch rows r[B,S]",  # S = 2L + 1
    back: "scratch rows i[B,T,S]",
    blank: "int",
    lo: "begin",
    hi: "end",
):
    """Forced alignment (Viterbi): which label each frame of the likeliest path has, -1 for the
    blank, and the path's log-probability (-inf where there is none)."""
    for b in range(lo, hi):
        frames = frame_count(lengths, b, y.shape[1])
        L = label_count(target, target_lengths, b, y.shape[2], blank)
        if frames < 0 or L < 0:
            score[b] = NAN
            for t in range(y.shape[1]):
                places[b, t] = -1
            continue
        align(y, target, places, score, best, back, b, frames, L, blank)


@kernel(slow_to_compile=True)
def ctc_beam(
    y: "in rows f[B,T,C]",  # log-probabilities
    lengths: "in rows i[B]",
    child: "in whole i[Q,C]",  # word list: the place after a label, or -1; absent: none
    words: "in whole i[Q]",  # the token of the word that ends here, or -1
    first: "in whole i[G]",  # language model: each state's first arc; absent: none
    arcs: "in whole i[A]",  # tokens
    arc_scores: "in whole f[A]",
    arc_next: "in whole i[A]",
    backoff: "in whole i[H]",  # the state with a word less, or -1
    backoff_scores: "in whole f[H]",
    labels: "out rows i[B,R,T]",  # -1 past the end
    counts: "out rows i[B,R]",  # -1: there are not so many
    score: "out rows f[B,R]",
    nodes: "scratch rows i[B,T,N]",  # N = 4K
    scores: "scratch rows r[B,S]",
    states: "scratch rows i[B,P]",
    blank: "int",
    space: "int",
    end: "int",
    weight: "real",
    bonus: "real",
    most: "real",  # that a label can add
    lo: "begin",
    hi: "end",
):
    """Prefix beam search (Graves and Jaitly 2014; Hannun et al. 2014) with a word list and a
    language model by shallow fusion: log p + weight log p_model + bonus for each token."""
    model = Model(first, arcs, arc_scores, arc_next, backoff, backoff_scores)
    guide = Guide(child, words, model, space, end, weight, bonus, most)
    for b in range(lo, hi):
        search(y, lengths, guide, labels, counts, score, nodes, scores, states, b, blank)
