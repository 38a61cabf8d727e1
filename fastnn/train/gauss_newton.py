"""Iterations of Levenberg-Marquardt and of Hessian-free optimisation.

Loss, gradient and products with the Gauss-Newton matrix are programs over blocks of the data; the
few vectors and scalars between them are the host's, summed in float64 in one fixed order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.engine.builder import Built
from fastnn.engine.session import segments_for
from fastnn.errors import OptionError
from fastnn.kernels import control_block
from fastnn.kernels.descent import search
from fastnn.optim.gauss_newton import LevenbergMarquardt
from fastnn.runtime.interface import Bound
from fastnn.train.full_batch import REASONS, FullFeed, place_of
from fastnn.train.products import PRODUCTS

#: where the damping is among the numbers that training goes on from
DAMPING = 30


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(np.multiply(a, b, dtype=np.float64)))


class GaussNewtonFeed(FullFeed):
    """Runs the iterations over arrays."""

    def _bind_more(self) -> None:
        if self.trainer.penalties:
            raise OptionError(
                f"penalties: {self.name} takes the curvature of the loss by the outputs, where "
                "penalties have none; leave them out, or take optim.LBFGS"
            )
        session = self.trainer.session
        self.product_full = session.bind(self._product(self.block).program)
        left = self.samples % self.block
        self.product_rest: Bound | None = (
            session.bind(self._product(left).program) if left else None
        )
        self.places = self._places()
        most = self.optimizer.options.get("max_parameters")
        if most is not None and len(self.places) > most:
            raise OptionError(
                f"{self.name}: expected at most {most} parameters, got {len(self.places)}, because "
                "it writes out a square matrix; take optim.HessianFree or optim.LBFGS"
            )

    def _product(self, size: int) -> Built:
        """The product of a block's Gauss-Newton matrix with the vector, added to a sum."""
        builder = self._steady(size)
        graph, loss = builder.graph, builder.places["loss"]
        count, factor = self._scale(builder)
        leaves = [
            leaf for p in self.trainer.trained.values() if (leaf := graph.leaves.get(p)) is not None
        ]
        vectors = [place_of(leaf, "vector") for leaf in leaves]
        found = PRODUCTS["gnvp"](graph, builder.output_values, loss, leaves, vectors)
        for leaf, value in zip(leaves, found, strict=True):
            if value is not None:
                view = graph.view(value, leaf.shape, batched=False)
                target = place_of(leaf, "product")
                graph.call("add_scaled", x=view, count=count, y=target, factor=factor)
        return builder.finish()

    def _places(self) -> np.ndarray:
        """Where the trained parameters are in flat memory."""
        found = [np.arange(p.offset or 0, (p.offset or 0) + p.size)
                 for p in self.trainer.trained.values()]  # fmt: skip
        return np.concatenate(found)

    # ---------------------------------------------------------------- loss, gradient, products

    def _run(self, full: Bound, rest: Bound | None) -> None:
        session = self.trainer.session
        session.control[control_block.CURSOR] = 0
        session.run(segments_for(full, rest, self.samples, self.block), lambda: None)

    def evaluate(self, p: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss and gradient at p, where the parameters are then."""
        memory, totals = self.trainer.session.memory, self.trainer.session.totals
        memory["params"][:] = p
        memory["slots/gradient"].fill(0.0)
        totals[: self._offset + 2] = 0.0
        self._run(self.full, self.rest)
        loss, count = totals[self._offset : self._offset + 2]
        self.count = 1.0 if self._is_sum else count
        self.trainer.search[search.EVALUATIONS] += 1
        gradient = memory["slots/gradient"] / memory["params"].dtype.type(self.count)
        return float(loss) / self.count, gradient

    def multiply(self, v: np.ndarray) -> np.ndarray:
        """The product of the Gauss-Newton matrix where the parameters are with v."""
        memory = self.trainer.session.memory
        memory["slots/vector"][:] = v
        memory["slots/product"].fill(0.0)
        self._run(self.product_full, self.product_rest)
        return memory["slots/product"] / memory["params"].dtype.type(self.count)

    # ---------------------------------------------------------------- iterations

    def run_epoch(self, epoch: int, poll: Any, batches: Any) -> int:
        """Make one iteration; returns why it stopped early, or 0."""
        self._begin(batches)
        trainer, session, state = self.trainer, self.trainer.session, self.trainer.search
        self._is_sum = self._summed()
        if not state[DAMPING]:
            state[DAMPING] = self.optimizer.options["damping"]
        begin = session.memory["params"].copy()
        done = False
        step = self._marquardt if isinstance(self.optimizer, LevenbergMarquardt) else self._free
        try:
            loss, gradient = self.evaluate(begin)
            if not (np.isfinite(loss) and np.isfinite(gradient).all()):
                session.control[control_block.STOP] = control_block.NOT_FINITE
                return control_block.NOT_FINITE
            outcome, done = self._iterate(step, begin, loss, gradient), True
        finally:
            if not done:
                session.synchronize()
                session.memory["params"][:] = begin
            session.control[control_block.CURSOR] = 0
            session.control[control_block.STEP] = int(state[search.ITERATIONS])
        self.stopped = REASONS.get(outcome, "")
        trainer.stop_training = trainer.stop_training or bool(self.stopped)
        return 0

    def _iterate(self, step: Any, begin: np.ndarray, loss: float, gradient: np.ndarray) -> int:
        state, options = self.trainer.search, self.optimizer.options
        state[search.LARGEST] = np.abs(gradient).max(initial=0.0)
        if state[search.LARGEST] <= options["tolerance_gradient"]:
            return search.SMALL_GRADIENT
        found = step(begin, loss, gradient)
        if found is None:
            self.evaluate(begin)  # what is reported is of where the parameters are
            return search.STUCK
        state[search.ITERATIONS] += 1
        state[search.ENDED] = found[0]
        state[search.LARGEST] = np.abs(found[1]).max(initial=0.0)
        if state[search.LARGEST] <= options["tolerance_gradient"]:
            return search.SMALL_GRADIENT
        fall, limit = loss - found[0], options["tolerance_change"] * max(abs(loss), abs(found[0]))
        return search.SMALL_CHANGE if limit > 0 and fall <= limit else search.DONE

    def _marquardt(
        self, begin: np.ndarray, loss: float, gradient: np.ndarray
    ) -> tuple[float, np.ndarray] | None:
        """Solve with the whole matrix; loss and gradient after the step, or None."""
        places, state, options = self.places, self.trainer.search, self.optimizer.options
        matrix, unit = np.empty((len(places), len(places))), np.zeros_like(begin)
        for k, place in enumerate(places):
            unit[place] = 1.0
            matrix[k] = self.multiply(unit)[places]
            unit[place] = 0.0
        matrix = (matrix + matrix.T) / 2
        diagonal = np.maximum(np.diag(matrix), 1e-12 * max(np.diag(matrix).max(), 1e-300))
        right = -gradient[places].astype(np.float64)
        for _ in range(int(options["max_evaluations"])):
            step = np.linalg.solve(matrix + np.diag(state[DAMPING] * diagonal), right)
            trial = begin.copy()
            trial[places] += step.astype(begin.dtype)
            after, slope = self.evaluate(trial)
            if np.isfinite(after) and after < loss and np.isfinite(slope).all():
                state[DAMPING] = max(state[DAMPING] / options["factor"], 1e-15)
                return after, slope
            state[DAMPING] = min(state[DAMPING] * options["factor"], 1e15)
        return None

    def _free(
        self, begin: np.ndarray, loss: float, gradient: np.ndarray
    ) -> tuple[float, np.ndarray] | None:
        """Conjugate gradients on products, then back along them and along the line."""
        state, options = self.trainer.search, self.optimizer.options
        kept = self.trainer.session.memory["slots/direction"]
        trained = np.zeros_like(begin)
        trained[self.places] = 1.0
        steps = self._solve(gradient, kept * trained * options["decay"])
        step, model = steps.pop()
        kept[:] = step
        best = self.evaluate(begin + step)[0]
        while steps:
            earlier, value = steps.pop()
            other = self.evaluate(begin + earlier)[0]
            if not other < best and np.isfinite(best):
                break
            best, step, model = other, earlier, value
        ratio = (best - loss) / model if model < 0 and np.isfinite(best) else -1.0
        if ratio < 0.25:
            state[DAMPING] *= 1.5
        elif ratio > 0.75:
            state[DAMPING] /= 1.5
        slope, rate = dot(gradient, step), 1.0
        for _ in range(60):
            after, gradient_after = self.evaluate(begin + begin.dtype.type(rate) * step)
            enough = loss + 1e-2 * rate * min(slope, 0.0)
            if np.isfinite(after) and after <= enough and after < loss:
                return after, gradient_after
            rate *= 0.8
        if kept.any():  # what it began with may be wrong: without it once more
            kept.fill(0.0)
            self.evaluate(begin)
            return self._free(begin, loss, gradient) if state[DAMPING] < 1e15 else None
        return None

    def _solve(self, gradient: np.ndarray, start: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Iterates of conjugate gradients, ever further apart, and the model's values there."""
        damping = gradient.dtype.type(self.trainer.search[DAMPING])
        x = start
        product = self.multiply(x) + damping * x if x.any() else np.zeros_like(x)
        r = product + gradient  # of 1/2 x.A x + g.x
        d, rr = -r, dot(r, r)
        kept, values, after = [], [0.5 * (dot(x, r) + dot(x, gradient))], 1
        for i in range(1, int(self.optimizer.options["max_iterations"]) + 1):
            product = self.multiply(d) + damping * d
            bent = dot(d, product)
            if not bent > 0 or rr == 0.0:
                break
            a = gradient.dtype.type(rr / bent)
            x = x + a * d
            r = r + a * product
            values.append(0.5 * (dot(x, r) + dot(x, gradient)))
            if i >= after:
                kept.append((x, values[-1]))
                after = int(np.ceil(after * 1.3 + 1e-9))
            k = max(10, i // 10)
            if i > k and values[-1] < 0 and values[-1] - values[-1 - k] > values[-1] * k * 0.0005:
                break
            before, rr = rr, dot(r, r)
            d = gradient.dtype.type(rr / before) * d - r
        if not kept or kept[-1][0] is not x:
            kept.append((x, values[-1]))
        return kept
