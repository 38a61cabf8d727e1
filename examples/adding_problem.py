"""What an LSTM learns and a plain RNN cannot: the sum of two numbers far apart in a sequence.

    python examples/adding_problem.py --steps 100 400 --updates 5000

RNN, IRNN, LSTM and GRU; the errors are drawn to adding-problem.png.
"""

from __future__ import annotations

import argparse
import time

from fastnn.tasks.adding import GUESS, NETS, SOLVED, draw_adding, train_adding


def main(arguments: list[str] | None = None) -> dict[tuple[str, int], list[float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--every", type=int, default=100, help="updates between measurements")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=lambda n: n if n == "auto" else int(n), default="auto")
    parser.add_argument("--picture", default="adding-problem.png", help='"" for none')
    options = parser.parse_args(arguments)

    print(f"mean squared error of the answer 1: {GUESS:.4f}")
    curves = {}
    for steps in options.steps:
        for net in options.nets:
            begin = time.perf_counter()
            errors = train_adding(
                net, steps, hidden=options.hidden, updates=options.updates, every=options.every,
                seed=options.seed, workers=options.workers,
            )  # fmt: skip
            curves[net, steps] = errors
            word = "solved" if errors[-1] < SOLVED else "not solved"
            print(
                f"T={steps:<4} {net:<5} {word} after {options.every * len(errors)} updates: "
                f"error {errors[-1]:.4f}, {time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    if options.picture:
        draw_adding(curves, options.every, options.picture)
        print(f"picture: {options.picture}")
    return curves


if __name__ == "__main__":
    main()
