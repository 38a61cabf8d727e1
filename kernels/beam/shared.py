"""How hypotheses are ordered."""

from ..declare import helper

#: the score of a hypothesis that there is not
NEVER = -1e30


@helper
def is_there(score: float) -> bool:
    """Whether there is a hypothesis with this score (NaN counts)."""
    return not score < NEVER * 0.5


@helper
def worse(value: float, than: float) -> bool:
    """Whether a value is worse than another one; none is worse than NaN."""
    return value < than
