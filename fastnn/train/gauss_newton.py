"""Iterations of Levenberg-Marquardt and of Hessian-free optimisation.

Loss, gradient and products with the Gauss-Newton matrix are programs over blocks of the data; what
lies between them is a compiled kernel over flat memory (`fastnn/kernels/descent`), which says which
of the two it needs next. Python comes in only where they take turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.engine.builder import Built
from fastnn.engine.session import segments_for
from fastnn.errors import OptionError
from fastnn.kernels import control_block
from fastnn.kernels.descent import gauss_newton, search
from fastnn.ops import totals
from fastnn.runtime.interface import Bound
from fastnn.train.full_batch import FullFeed, place_of
from fastnn.train.products import PRODUCTS


class GaussNewtonFeed(FullFeed):
    """Runs the iterations over arrays."""

    most = 64  # products are many

    def _bind_more(self) -> None:
        if self.trainer.penalties:
            raise OptionError(
                f"penalties: {self.name} uses the curvature of the loss with respect to the "
                "outputs, which penalties do not have; leave them out, or use optim.LBFGS"
            )
        session, places = self.trainer.session, self._places()
        most = self.optimizer.options.get("max_parameters")
        if most is not None and len(places) > most:
            raise OptionError(
                f"{self.name}: expected at most {most} parameters, got {len(places)}, because "
                "it writes out a square matrix; take optim.HessianFree or optim.LBFGS"
            )
        full = session.bind(self._product(self.block).program)
        left = self.samples % self.block
        rest: Bound | None = session.bind(self._product(left).program) if left else None
        self.own = self.optimizer.working(places, session.memory["params"])
        for name, array in self.own.items():
            session.set(f"data/{name} of the search", array)
        super()._bind_more()
        self.turns = {
            what: [*segments_for(*programs, self.samples, self.block), (self.search, 1)]
            for what, programs in (
                (gauss_newton.EVALUATION, (self.full, self.rest)),
                (gauss_newton.PRODUCT, (full, rest)),
            )
        }

    def _operands(self, graph: Any) -> dict[str, Any]:
        return {
            name: graph.leaf(
                (name, "of the search"), array.shape, f"data/{name} of the search",
                dtype=self.optimizer.kinds[name], offset=0, name=name,
            )
            for name, array in self.own.items()
        }  # fmt: skip

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
        if all(value is None for value in found):
            raise OptionError(
                f"{self.name}: expected a loss with second derivatives with respect to the "
                "outputs, such as mse or cross_entropy, got one without, so there is no "
                "curvature; use one of these, or optim.LBFGS"
            )
        for leaf, value in zip(leaves, found, strict=True):
            if value is not None:
                view = graph.view(value, leaf.shape, batched=False)
                target = place_of(leaf, "product")
                totals.add_scaled(view, count, target, factor)
        return builder.finish()

    def _places(self) -> np.ndarray:
        """Where the trained parameters are in flat memory."""
        found = [np.arange(p.offset or 0, (p.offset or 0) + p.size)
                 for p in self.trainer.trained.values()]  # fmt: skip
        return np.concatenate(found)

    # ---------------------------------------------------------------- iterations

    def _run(self, state: np.ndarray, poll: Any) -> int:
        """Let the programs take turns until the iteration is over, or cut off: why, or 0."""
        session = self.trainer.session
        while state[search.OUTCOME] == search.GOING:
            session.control[control_block.CURSOR] = 0
            turn = self.turns[int(state[gauss_newton.WANTED])]
            reason = session.run(turn * self.ahead, poll)
            if reason not in (0, control_block.REQUESTED):
                return reason
        return 0

    def _take_up(self, state: np.ndarray) -> None:
        """Each iteration begins with loss and gradient where the parameters are."""
        session = self.trainer.session
        state[search.PHASE] = gauss_newton.BEGIN
        state[gauss_newton.WANTED] = gauss_newton.EVALUATION
        state[search.LOSS : search.COUNT + 1] = 0.0
        if not state[gauss_newton.DAMPING]:
            state[gauss_newton.DAMPING] = self.optimizer.options["damping"]
        session.totals[: self._offset] = 0.0
        if not self.known and "slots/direction" in session.memory:  # what is frozen does not move
            direction = session.memory["slots/direction"]
            kept = direction[self._places()].copy()
            direction.fill(0.0)
            direction[self._places()] = kept

    def _put_back(self, state: np.ndarray, begun: np.ndarray) -> None:
        """An iteration was cut off: the parameters are where it began."""
        session = self.trainer.session
        session.synchronize()
        if state[search.PHASE] != gauss_newton.BEGIN:
            session.memory["params"][:] = session.memory["slots/origin"]
