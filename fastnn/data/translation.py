"""BLEU: how many stretches of words a translation has in common with a reference."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from fastnn.errors import DataError

#: the tokens of the NIST's script mteval-v13a, in its order
_RULES = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
LONGEST = 4


def _tokens(text: str, lower: bool) -> list[str]:
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text.lower() if lower else text} "
    for pattern, by in _RULES:
        text = pattern.sub(by, text)
    return text.split()


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, lower: bool = False) -> float:
    """BLEU of a set of translations, from 0 to 100 (Papineni et al. 2002), as sacrebleu's
    `corpus_bleu` computes it by default (Post 2018): stretches of one to four tokens, tokens of the
    script mteval-v13a, exponential smoothing.

    Args:
        hypotheses: the translations.
        references: the right ones, in the same order.
        lower: whether case does not count.

    Raises:
        DataError: there are none, or not as many references as translations.

    >>> round(bleu(["the cat sat on the mat"], ["the cat is on the mat"]), 2)
    37.99
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"bleu: expected as many references as translations, at least one, got "
            f"{len(references)} and {len(hypotheses)}"
        )
    right, total, written, wanted = [0] * LONGEST, [0] * LONGEST, 0, 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        found, expected = _tokens(hypothesis, lower), _tokens(reference, lower)
        written, wanted = written + len(found), wanted + len(expected)
        for n in range(LONGEST):
            own, others = _stretches(found, n + 1), _stretches(expected, n + 1)
            right[n] += (own & others).total()
            total[n] += own.total()
    logs, smooth = 0.0, 1.0
    for n in range(LONGEST):
        if total[n] == 0:
            return 0.0
        if right[n] == 0:
            smooth *= 2.0
            logs += math.log(1.0 / (smooth * total[n]))
        else:
            logs += math.log(right[n] / total[n])
    if right[0] == 0:
        return 0.0
    brevity = min(0.0, 1.0 - wanted / written)
    return 100.0 * math.exp(logs / LONGEST + brevity)


def _stretches(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1))
