"""Compares what is kept with what is, or keeps it anew; see `tests/golden/__init__.py`."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from tests.golden import bits, programs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("names", nargs="*", help="cases of models.py; all by default")
    parser.add_argument("--write", action="store_true", help="keep programs and bits as they are")
    parser.add_argument("--show", action="store_true", help="print programs")
    parser.add_argument(
        "--code", type=Path, metavar="FILE", help="write kernel -> hash of its code"
    )
    parser.add_argument("--cuda", action="store_true", help="with --code: of CUDA's PTX, too")
    parser.add_argument("--against", type=Path, metavar="OLD", help="with --code: compare with OLD")
    chosen = parser.parse_args()
    if chosen.code is not None:
        from tests.golden import code

        return code.main(chosen.code, chosen.against, chosen.names, chosen.cuda)
    if chosen.show:
        for name, text in programs.plan(chosen.names).items():
            sys.stdout.write(f"---- {name}\n{text}\n")
        return 0
    changed = _programs(chosen.names, chosen.write)
    if not chosen.names:
        changed += _bits(chosen.write)
    return 0 if chosen.write else int(changed > 0)


def _programs(names: list[str], write: bool) -> int:
    now, before = programs.plan(names), programs.kept()
    changed = [name for name, text in now.items() if before.get(name) != text]
    if not names:
        changed += [name for name in before if name not in now]
    for name in changed:
        sys.stdout.write(difference(before.get(name, ""), now.get(name, ""), name) + "\n")
    sys.stdout.write(f"{len(changed)} of {len(now)} programs differ\n")
    if write:
        programs.write(now, whole=not names)
    return len(changed)


def _bits(write: bool) -> int:
    changed, under = 0, bits.target()
    for width in bits.widths():
        now, before = bits.train(1, width), bits.kept().get(under, {})
        different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        sys.stdout.write(
            f"bits of {under}, width {width or 'own'}: {len(different)} differ {different or ''}\n"
        )
        changed += len(different)
        if write and width is None:
            bits.write(under, now)
    return changed


def difference(before: str, now: str, name: str) -> str:
    """What has changed in a text, for people."""
    lines = difflib.unified_diff(
        before.splitlines(), now.splitlines(), f"{name} (kept)", f"{name} (now)", "", "", 2, ""
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
