"""What belongs to a word in any script.

Marks do, which Python's `\\w` has no place for: vowel signs of Devanagari or Thai, points of Hebrew
and Arabic, accents that stand alone behind their letter. So do the joiners of Persian and of
Indian scripts, which look like nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

#: zero width non-joiner and joiner
_JOINERS = "\u200c\u200d"
#: where scripts with marks are, and the selectors of variants
_PLACES = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))


@lru_cache(maxsize=1)
def marks() -> str:
    """Marks and joiners, as what stands between the brackets of a regular expression."""
    found = [n for place in _PLACES for n in place if _is_mark(chr(n))]
    runs = [list(run) for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign) in ("Mn", "Mc", "Me") or sign in _JOINERS


@lru_cache(maxsize=8)
def words(joined_by: str, before: str = "") -> re.Pattern[str]:
    """A regular expression that finds words and other signs, each with its marks.

    Args:
        joined_by: signs that may stand between two parts of a word.
        before: what is looked for first, or nothing.

    >>> words("-").findall("नमस्ते T-shirt!")
    ['नमस्ते', 'T-shirt', '!']
    """
    part = rf"\w[\w{marks()}]*"
    sign = rf"[^\w\s][{marks()}]*"
    first = f"{before}|" if before else ""
    joined = rf"(?:[{re.escape(joined_by)}]{part})*"
    return re.compile(f"{first}{part}{joined}|{sign}")
