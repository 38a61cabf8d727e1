"""WaveNet: sound as a sequence of samples, each drawn after those before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn import nn, ops, optim
from fastnn.data.companding import mu_law_decode, mu_law_encode
from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, ShapeError, check_whole, where
from fastnn.generative.latent import stacked
from fastnn.generative.logistics import mixture_nats
from fastnn.generative.pieces import IGNORED
from fastnn.graph.value import Value
from fastnn.nn.method import draw
from fastnn.nn.module import Module
from fastnn.ops.operands import as_value
from fastnn.ops.wavenet import _wavenet_sample
from fastnn.optim.names import given_or_default
from fastnn.train.trainer import Trainer

if TYPE_CHECKING:
    from fastnn.train.history import History


class WaveNet(Module):
    """A net that says how each sample of a sound is distributed, given all before it (van den Oord
    et al. 2016): causal convolutions whose dilation doubles from layer to layer, with gated units::

        u = tanh(W_f * h + V_f c) sigmoid(W_g * h + V_g c)
        h' = h + W_r u,   what is said = net(sum over layers of W_s u)

    A sample is a whole number below `levels`: mu-law's (`fastnn.data.mu_law_encode`) for
    ``output="softmax"``; for ``output="logistics"`` a value within -1..1, in equal steps.

    As a layer it returns what the distribution of each sample is made of; that of sample t follows
    from the samples before t alone.

    Args:
        levels: how many values a sample may have.
        channels: C, of the residual stack.
        skip: S, units of the two layers after it.
        layers: of dilated convolutions.
        cycle: after so many layers dilations begin at 1 again: 1, 2, 4, ..., 2^(cycle - 1), 1, ...
        kernel_size: taps of a convolution.
        output: "softmax", a logit for each level, or "logistics", a mixture of logistic
            distributions (Salimans et al. 2017), for many levels.
        mixtures: components of the mixture.
        classes: K > 0: sounds are of K classes, whose numbers, shape (N,), are the second input.
        features: F > 0: a local signal, shape (N, frames, F), is the last input.
        hop: samples in a frame of the local signal; the frames have to cover all samples.

    Attributes:
        receptive_field: samples before a sample that its distribution depends on.

    Shapes: integers (N, T); (N, T, levels) logits, or (N, T, 3 mixtures): logits of the components,
    their means, logarithms of their scales.

    Raises OptionError for options that do not fit, ShapeError for inputs of other shapes. Training
    and `bits` raise DataError for samples that are not levels, and for a missing or needless `y`
    or `local`.

    >>> import numpy as np
    >>> from fastnn.generative import WaveNet
    >>> x = np.tile([3, 1, 0, 2], (8, 16))
    >>> net = WaveNet(levels=4, channels=8, skip=16, layers=3)
    >>> history = net.fit(x, epochs=60, batch_size=8, lr=0.01, verbose=False)
    >>> net.sample(8, given=[[3, 1, 0]], temperature=0.0)
    array([[2, 3, 1, 0, 2, 3, 1, 0]])
    """

    _own_layout = True

    def __init__(
        self, levels: int = 256, channels: int = 32, skip: int = 64, layers: int = 10,
        cycle: int = 10, kernel_size: int = 2, output: str = "softmax", mixtures: int = 10,
        classes: int = 0, features: int = 0, hop: int = 1,
    ):  # fmt: skip
        check_whole("WaveNet", 1, channels=channels, skip=skip, layers=layers, cycle=cycle,
                    mixtures=mixtures, hop=hop)  # fmt: skip
        check_whole("WaveNet", 2, levels=levels, kernel_size=kernel_size)
        check_whole("WaveNet", 0, classes=classes, features=features)
        if output not in ("softmax", "logistics"):
            raise OptionError(f"WaveNet: expected output 'softmax' or 'logistics', got {output!r}")
        if cycle > 24:
            raise OptionError(f"WaveNet: expected cycle up to 24, got {cycle}")
        self.levels, self.channels, self.layers, self.cycle = levels, channels, layers, cycle
        self.kernel_size, self.output, self.hop = kernel_size, output, hop
        self.mixtures = mixtures if output == "logistics" else 0
        self.classes, self.features = classes, features
        self.receptive_field = 1 + sum((kernel_size - 1) * d for d in self._dilations())
        wide = layers * 2 * channels
        if self.mixtures:
            self.input: Any = nn.Linear(1, channels)
        else:
            self.input = nn.Embedding(levels, channels)
        self.class_gates = nn.Embedding(
            classes, wide, weight_init=nn.init.get("normal", std=0.1)
        ) if classes else None  # fmt: skip
        self.local_gates = nn.Linear(features, wide, bias=False) if features else None
        self.gates = nn.ModuleList([
            nn.Conv1d(channels, 2 * channels, kernel_size, padding="causal", dilation=d,
                      channels="last")
            for d in self._dilations()
        ])  # fmt: skip
        self.residuals = nn.ModuleList([nn.Linear(channels, channels) for _ in range(layers - 1)])
        self.skip = nn.Linear(layers * channels, skip)
        self.hidden = nn.Linear(skip, skip)
        self.last = nn.Linear(skip, 3 * mixtures if self.mixtures else levels)

    def _dilations(self) -> list[int]:
        return [2 ** (layer % self.cycle) for layer in range(self.layers)]

    # ---------------------------------------------------------------- of symbolic values

    def forward(self, x: Value, *conditions: Value) -> Value:
        batch, steps = self._checked(x)
        each, frames = self._conditions(x, conditions)
        # nothing precedes the first sample: zeros
        h = ops.pad(self._embedded(x), ((0, 0), (1, 0), (0, 0)))[:, :steps]
        width, units = 2 * self.channels, []
        for layer in range(self.layers):
            z = self.gates[layer](h)
            part = slice(layer * width, (layer + 1) * width)
            if each is not None:
                z = ops.add(z, ops.reshape(each[:, part], (batch, 1, width)))
            if frames is not None:
                z = ops.add(z, self._spread(frames[:, :, part], steps))
            units.append(ops.gtu(z))
            if layer < self.layers - 1:
                h = ops.add(h, self.residuals[layer](units[-1]))
        joined = ops.concatenate(*units, axis=-1) if len(units) > 1 else units[0]
        hidden = ops.relu(self.hidden(ops.relu(self.skip(joined))))
        result: Value = self.last(hidden)
        return result

    def _checked(self, x: Value) -> tuple[int, int]:
        if x.ndim != 2 or x.dtype != "i":
            raise ShapeError(
                f"{where(x.graph.scope)}WaveNet: expected samples as whole numbers of shape "
                f"(batch, samples), got {x}; see `WaveNet.encode`"
            )
        x.graph.limit(x, 0, self.levels)
        return x.shape[0], x.shape[1]

    def _embedded(self, x: Value) -> Value:
        if not self.mixtures:
            found: Value = self.input(x)
            return found
        value = ops.affine(ops.astype(x, "float32"), 2.0 / (self.levels - 1), -1.0)
        result: Value = self.input(ops.reshape(value, (*x.shape, 1)))
        return result

    def _conditions(self, x: Value, given: tuple[Value, ...]) -> tuple[Value | None, Value | None]:
        """What a sequence, and each of its frames, adds to the gates of all layers."""
        wanted = [name for name, size in (("class numbers (batch,)", self.classes),
                  (f"a local signal (batch, frames, {self.features})", self.features))
                  if size]  # fmt: skip
        if len(given) != len(wanted):
            raise ShapeError(
                f"{where(x.graph.scope)}WaveNet: expected {' and '.join(wanted) or 'nothing'} "
                f"beside the samples, got {len(given)} inputs"
            )
        each = self.class_gates(given[0]) if self.class_gates is not None else None
        if self.local_gates is None:
            return each, None
        local = given[-1]
        if local.ndim != 3 or local.shape[0] != x.shape[0] or local.shape[2] != self.features:
            raise ShapeError(
                f"{where(x.graph.scope)}WaveNet: expected a local signal of shape ({x.shape[0]}, "
                f"frames, {self.features}), got {local.shape}"
            )
        return each, self.local_gates(local)

    def _spread(self, frames: Value, steps: int) -> Value:
        """Each frame for its `hop` samples."""
        batch, count, width = frames.shape
        if count * self.hop < steps:
            raise ShapeError(
                f"{where(frames.graph.scope)}WaveNet: expected frames for {steps} samples, "
                f"{-(-steps // self.hop)} of {self.hop} samples each, got {count}"
            )
        if self.hop == 1:
            return frames[:, :steps]
        tall = ops.expand(
            ops.reshape(frames, (batch, count, 1, width)), (batch, count, self.hop, width)
        )
        return ops.reshape(tall, (batch, count * self.hop, width))[:, :steps]

    def nats(self, output: Value, level: Value) -> Value:
        """-log p of levels under what the net returned, shape (batch, samples); 0 for those that
        are `IGNORED`."""
        if self.mixtures:
            level = ops.astype(level, "float32")
            apart = mixture_nats(output, ops.maximum(level, 0.0), self.levels)
            return ops.where(ops.greater_equal(level, 0.0), apart, 0.0)
        loss = nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="none")
        return loss(output, level)

    def _loss(self, output: Value, target: Any) -> Value:
        if not self.mixtures:
            loss: Value = nn.CrossEntropyLoss(ignore_index=IGNORED)(output, target)
            return loss
        known = ops.greater_equal(ops.astype(target, "float32"), 0.0)
        total = ops.maximum(ops.sum(known), 1.0)
        return ops.divide(ops.sum(self.nats(output, target)), total)

    # ---------------------------------------------------------------- samples and levels

    def encode(self, waveform: Any) -> NDArray[np.int64]:
        """Samples within -1..1 (`waveform`) as levels; NaN and infinity raise DataError."""
        if not self.mixtures:
            return mu_law_encode(waveform, self.levels)
        x = numbers(waveform, "encode").astype(np.float64)
        if not np.isfinite(x).all():
            raise DataError("encode: expected finite samples, got NaN or infinity")
        top = self.levels - 1
        return np.floor((np.clip(x, -1.0, 1.0) + 1.0) / 2.0 * top + 0.5).astype(np.int64)

    def decode(self, levels: Any) -> NDArray[np.float32]:
        """The samples within -1..1 that levels stand for."""
        if not self.mixtures:
            return mu_law_decode(levels, self.levels)
        return (np.asarray(levels) * (2.0 / (self.levels - 1)) - 1.0).astype(np.float32)

    # ---------------------------------------------------------------- training

    def trainer(self, *, optimizer: Any = None, lr: Any = None, **options: Any) -> Trainer:
        """The trainer of -log p, in nats a sample.

        Args:
            optimizer, options: as for `Trainer`; without an optimizer it is Adam with `lr`.
            lr: its learning rate; None is 1e-3. Another optimizer has its own.
        """
        optimizer = given_or_default(f"{type(self).__name__}.trainer", optimizer, optim.Adam, lr=lr)
        return Trainer(self, self._loss, optimizer, **options)

    def fit(
        self, x: Any, y: Any = None, local: Any = None, *, targets: Any = None, epochs: int = 10,
        batch_size: int = 8, verbose: bool = True, callbacks: Any = (), validation: Any = None,
        resume: Any = None, **options: Any,
    ) -> History:  # fmt: skip
        """Learn from sequences of samples.

        Args:
            x: levels, shape (N, T).
            y: class numbers, shape (N,), of a net with classes.
            local: the local signal, shape (N, frames, F), of a net with features.
            targets: shape (N, T): x with -1 where a sample is not to be learned (past the end of a
                sequence, or what only leads up to a piece of it: see `pieces`); None: all are.
            epochs, batch_size, verbose, callbacks, validation, resume: as for `Trainer.fit`.
            options: as for `trainer`.

        Returns:
            The history; "loss" is in nats a sample.
        """
        given = self._given(x, y, local)
        targets = given[0] if targets is None else targets
        return self.trainer(**options).fit(
            given if len(given) > 1 else given[0], targets, epochs=epochs, batch_size=batch_size,
            verbose=verbose, callbacks=callbacks, validation=validation, resume=resume,
        )  # fmt: skip

    def bits(
        self, x: Any, y: Any = None, local: Any = None, *, targets: Any = None, batch_size: int = 8
    ) -> float:
        """-log2 p of a sample of data, on average; `targets`, the rest and errors as of `fit`."""
        given = self._given(x, y, local)
        wanted = np.asarray(given[0] if targets is None else targets)
        trainer = self.trainer(optimizer=optim.SGD(lr=0.0), dtype=self.store().dtype)
        total, count = 0.0, 0
        for begin in range(0, len(wanted), batch_size):
            part = [a[begin : begin + batch_size] for a in given]
            target = wanted[begin : begin + batch_size]
            known = int((target >= 0).sum())
            if known:
                x_part = tuple(part) if len(part) > 1 else part[0]
                total += known * trainer.evaluate(x_part, target, batch_size=batch_size)["loss"]
                count += known
        if not count:
            raise DataError("bits: expected samples, got none whose target is a level")
        return total / count / math.log(2.0)

    def _given(self, x: Any, y: Any, local: Any) -> tuple[Any, ...]:
        samples = np.asarray(x)
        if samples.ndim != 2 or samples.dtype.kind not in "iu":
            raise DataError(
                f"x: expected levels, whole numbers of shape (N, T), got {samples.dtype} of shape "
                f"{samples.shape}; see `WaveNet.encode`"
            )
        for name, value, size in (("y", y, self.classes), ("local", local, self.features)):
            if (value is not None) != bool(size):
                raise DataError(
                    f"{name}: expected {'it' if size else 'none'} for this net, got "
                    f"{'none' if value is None else 'some'}"
                )
        return (samples, *(np.asarray(a) for a in (y, local) if a is not None))

    # ---------------------------------------------------------------- drawing samples

    def sample(
        self, samples: int, count: int = 1, y: Any = None, local: Any = None, *,
        given: Any = None, temperature: float = 1.0, seed: int = 0,
    ) -> NDArray[np.int64]:  # fmt: skip
        """Draw samples, each after those before it.

        What a layer has computed of past samples is kept, so that a sample costs one step of each
        layer (Paine et al. 2016), in compiled code.

        Args:
            samples: T, how many of each sequence.
            count: N, sequences.
            y: of a net with classes, a class number or N of them.
            local: of a net with features, shape (N, frames, F), for the given samples, too.
            given: levels that the sequences begin with, shape (N, P), or (1, P) for all.
            temperature: divides the logits (of "logistics" it multiplies scales, too): below 1
                likely samples become more likely; 0 takes the likeliest.
            seed: the samples follow from it; those of a sequence not from how many there are.

        Returns:
            Levels, shape (N, T), without the given ones; `decode` makes a waveform of them.

        Raises:
            OptionError, DataError: arguments that don't fit, or parameters that are not finite.
        """
        check_whole("sample", 1, samples=samples, count=count)
        check_whole("sample", 0, seed=seed)
        if not (math.isfinite(temperature) and temperature >= 0):
            raise OptionError(f"sample: expected a temperature >= 0, got {temperature}")
        start = np.full((count, 1), IGNORED, np.int64)
        if given is not None:
            known = np.asarray(given)
            fits = known.ndim == 2 and len(known) in (1, count) and known.dtype.kind in "iu"
            if not fits or (known.size and not 0 <= known.min() <= known.max() < self.levels):
                raise DataError(
                    f"given: expected levels within 0..{self.levels - 1} of shape ({count}, "
                    f"samples), got {known.dtype} of shape {known.shape}"
                )
            start = np.concatenate([start, np.broadcast_to(known, (count, known.shape[1]))], 1)
        inputs = [start]
        if self.classes and y is not None:
            y = stacked(y, count)
        inputs += self._given(start, y, local)[1:]
        if local is not None:
            frames, need = inputs[-1], -(-(start.shape[1] - 1 + samples) // self.hop)
            fits = frames.ndim == 3 and (len(frames), frames.shape[-1]) == (count, self.features)
            if not fits or frames.shape[1] < need:
                raise DataError(
                    f"local: expected shape ({count}, {need} or more, {self.features}), got "
                    f"{frames.shape}"
                )
        drawn: NDArray[np.int64] = draw(
            self, "_drawn", *inputs, seed=seed, samples=samples, temperature=float(temperature)
        )
        if (drawn < 0).any():
            raise DataError(
                "sample: the net's outputs are not finite; load or train finite parameters"
            )
        return drawn

    def _drawn(self, given: Value, *conditions: Value, samples: int, temperature: float) -> Value:
        graph = given.graph
        each, frames = self._conditions(given, conditions)

        def memory(p: Any, *shape: int) -> Value:
            value = as_value(graph, p)
            return ops.reshape(value, shape) if shape else value

        def rows(parts: list[Value]) -> Value:
            return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=0)

        c, width = self.channels, 2 * self.channels
        weight = memory(self.input.weight)
        if self.mixtures:
            weight = rows([weight, memory(self.input.bias, 1, c)])
        gates: list[Any] = [*self.gates]
        inner: list[Any] = [*self.residuals]
        result: Value = _wavenet_sample(
            given, weight, rows([memory(g.weight, self.kernel_size * c, width) for g in gates]),
            rows([memory(g.bias, 1, width) for g in gates]),
            each, frames,
            rows([memory(r.weight) for r in inner]) if inner else None,
            rows([memory(r.bias, 1, c) for r in inner]) if inner else None,
            memory(self.skip.weight), memory(self.skip.bias), memory(self.hidden.weight),
            memory(self.hidden.bias), memory(self.last.weight), memory(self.last.bias),
            graph.control(), samples=samples, temperature=temperature, cycle=self.cycle,
            levels=self.levels, mixtures=self.mixtures, hop=self.hop, stream=graph.stream(),
        )  # fmt: skip
        return result

    def extra(self) -> str:
        return f"{self.levels}, {self.layers} layers of {self.channels}, {self.output}"
