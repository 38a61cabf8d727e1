"""A long run by hand: `python -m tests.fuzz --count 5000 --seed 0`."""

from __future__ import annotations

import argparse
import sys
import traceback

from tests.fuzz.cases import Case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many cases")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    options = parser.parse_args()
    failed = []
    for seed in range(options.seed, options.seed + options.count):
        try:
            Case(seed).check()
        except Exception as error:
            failed.append(seed)
            where = traceback.extract_tb(error.__traceback__)[-1]
            sys.stdout.write(f"{Case(seed)}: {type(error).__name__} in {where.name}: {error}\n")
        if (seed - options.seed) % 100 == 99:
            sys.stdout.write(f"{seed - options.seed + 1} cases, {len(failed)} failed\n")
        sys.stdout.flush()
    sys.stdout.write(f"{options.count} cases, {len(failed)} failed: {failed}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
