"""BLEU and chrF: what translations have in common with references."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastnn.data import libraries
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
#: characters of chrF's longest stretches, and how many times as much recall counts as precision
CHARACTERS, RECALL = 6, 2.0


def _tokens(text: str, lower: bool) -> list[str]:
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text.lower() if lower else text} "
    for pattern, by in _RULES:
        text = pattern.sub(by, text)
    return text.split()


def bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, lower: bool = False,
    library: str = "own",
) -> float:  # fmt: skip
    """BLEU of a set of translations, from 0 to 100 (Papineni et al. 2002), as sacrebleu's
    `corpus_bleu` computes it by default (Post 2018): stretches of one to four tokens, tokens of the
    script mteval-v13a, exponential smoothing.

    Args:
        hypotheses: the translations.
        references: the right ones, in the same order.
        lower: whether case does not count.
        library: "own", "sacrebleu", or "auto": the latter where it is installed. Both give the same
            number, to the bit.

    Raises:
        OptionError: another library. ImportError: one that is not installed.
        DataError: there are none, they are no strings, or there are not as many references as
            translations.

    >>> round(bleu(["the cat sat on the mat"], ["the cat is on the mat"]), 2)
    37.99
    """
    _check("bleu", hypotheses, references)
    theirs = libraries.choose(library, "sacrebleu", "sacrebleu")
    if theirs is not None:
        found = theirs.corpus_bleu(hypotheses, [references], lowercase=lower, force=True)
        return float(found.score)
    right, total, written, wanted = [0] * LONGEST, [0] * LONGEST, 0, 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        found, expected = _tokens(hypothesis, lower), _tokens(reference, lower)
        written, wanted = written + len(found), wanted + len(expected)
        for n in range(LONGEST):
            own, others = _stretches(found, n + 1), _stretches(expected, n + 1)
            right[n] += (own & others).total()
            total[n] += own.total()
    if right[0] == 0 or total[-1] == 0:
        return 0.0
    # in the order of sacrebleu's sums and products, which give the same bits
    logs, smooth = 0.0, 1.0
    for same, count in zip(right, total, strict=True):
        smooth *= 1.0 if same else 2.0
        logs += math.log(100.0 * same / count if same else 100.0 / (smooth * count))
    brevity = math.exp(1 - wanted / written) if written < wanted else 1.0
    return brevity * math.exp(logs / LONGEST)


def chrf(
    hypotheses: Sequence[str], references: Sequence[str], *, lower: bool = False,
    library: str = "own",
) -> float:  # fmt: skip
    """chrF of a set of translations, from 0 to 100 (Popović 2015, "chrF: character n-gram F-score
    for automatic MT evaluation"), as sacrebleu's `corpus_chrf` computes it by default: stretches of
    one to six characters without spaces, recall counting twice as much as precision (chrF2).

    Args:
        hypotheses, references, lower, library: as of `bleu`.

    Raises:
        OptionError: another library. ImportError: one that is not installed.
        DataError: there are none, they are no strings, or there are not as many references as
            translations.

    >>> round(chrf(["the cat sat on the mat"], ["the cat is on the mat"]), 2)
    64.58
    """
    _check("chrf", hypotheses, references)
    theirs = libraries.choose(library, "sacrebleu", "sacrebleu")
    if theirs is not None:
        scorer = theirs.CHRF(lowercase=lower)
        return float(scorer.corpus_score(hypotheses, [references]).score)
    right, written, wanted = [0] * CHARACTERS, [0] * CHARACTERS, [0] * CHARACTERS
    for pair in zip(hypotheses, references, strict=True):
        found, expected = ("".join((t.lower() if lower else t).split()) for t in pair)
        for n in range(CHARACTERS):
            own, others = _stretches(found, n + 1), _stretches(expected, n + 1)
            right[n] += (own & others).total()
            written[n] += own.total() if others else 0
            wanted[n] += others.total()
    there = [n for n in range(CHARACTERS) if written[n] and wanted[n]]
    if not there:
        return 0.0
    precision = sum(right[n] / written[n] for n in there) / len(there)
    recall = sum(right[n] / wanted[n] for n in there) / len(there)
    if precision + recall == 0.0:
        return 0.0
    weight = RECALL**2
    return 100 * ((1 + weight) * precision * recall / (weight * precision + recall))


def _check(name: str, hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise DataError(f"{name}: expected lists of translations and references, got a string")
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"{name}: expected as many references as translations, at least one, got "
            f"{len(references)} and {len(hypotheses)}"
        )
    for one in (*hypotheses, *references):
        if not isinstance(one, str):
            raise DataError(
                f"{name}: expected translations and references as strings, got "
                f"{type(one).__name__}; give one reference for each, not a list"
            )


def _stretches(tokens: Sequence[str], n: int) -> Counter[Any]:
    return Counter(tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1))
