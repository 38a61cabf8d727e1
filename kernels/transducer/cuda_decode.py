"""A step of the transducer's beam search on CUDA, a thread for each sequence."""

from ..cuda.device import flat_index
from ..declare import ceil_div, cuda_kernel
from . import cpu_decode as cpu
from .decode import Complete, Found, Hypotheses, frames_of, select


def launch(s):
    """Blocks of a warp."""
    return ceil_div(s["B"], 32), 32


@cuda_kernel(like=cpu.transducer_select, launch=launch)
def transducer_select(
    logits, lengths, score, frame, count, history, old_score, old_count, old_history, parent,
    symbol, new_score, new_frame, new_count, new_history, done_score, done_count, done_history,
    best, which, mates, blank,
):  # fmt: skip
    b = flat_index()
    if b < logits.shape[0]:
        select(
            logits, lengths, Hypotheses(score, frame, count, history),
            Complete(old_score, old_count, old_history), parent, symbol,
            Hypotheses(new_score, new_frame, new_count, new_history),
            Complete(done_score, done_count, done_history), Found(best, which, mates), b, blank,
        )  # fmt: skip


@cuda_kernel(like=cpu.transducer_frames, launch=launch)
def transducer_frames(x, frame, y):
    b = flat_index()
    if b < x.shape[0]:
        frames_of(x, frame, y, b)
