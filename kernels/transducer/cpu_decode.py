"""A step of the transducer's beam search on the CPU.

B sequences of T frames, D features; W hypotheses with room for S labels, C = W*V continuations,
H = W*S; R complete hypotheses, Q = R*S.
"""

from ..declare import kernel
from .decode import Complete, Found, Hypotheses, frames_of, select


@kernel(slow_to_compile=True)
def transducer_select(
    logits: "in rows f[B,C]",  # log-probabilities of the next symbols, [W,V]
    lengths: "in rows i[B]",
    score: "in rows f[B,W]",
    frame: "in rows f[B,W]",
    count: "in rows f[B,W]",  # labels
    history: "in rows f[B,H]",  # the labels, [W,S]
    old_score: "in rows f[B,R]",  # of the complete ones
    old_count: "in rows f[B,R]",
    old_history: "in rows f[B,Q]",
    parent: "out rows i[B,W]",  # which hypothesis goes on
    symbol: "out rows i[B,W]",
    new_score: "out rows f[B,W]",
    new_frame: "out rows f[B,W]",
    new_count: "out rows f[B,W]",
    new_history: "out rows f[B,H]",
    done_score: "out rows f[B,R]",
    done_count: "out rows f[B,R]",
    done_history: "out rows f[B,Q]",
    best: "scratch rows r[B,W]",
    which: "scratch rows i[B,W]",
    mates: "scratch rows i[B,W]",
    blank: "int",
    lo: "begin",
    hi: "end",
):
    """The W best of all continuations, the same labels once; what is complete joins the R best."""
    for b in range(lo, hi):
        select(
            logits, lengths, Hypotheses(score, frame, count, history),
            Complete(old_score, old_count, old_history), parent, symbol,
            Hypotheses(new_score, new_frame, new_count, new_history),
            Complete(done_score, done_count, done_history), Found(best, which, mates), b, blank,
        )  # fmt: skip


@kernel
def transducer_frames(
    x: "in rows f[B,T,D]", frame: "in rows f[B,W]", y: "out rows f[B,W,D]", lo: "begin", hi: "end"
):
    """y[b, w] = x[b, frame[b, w]]: the frame that each hypothesis is at."""
    for b in range(lo, hi):
        frames_of(x, frame, y, b)
