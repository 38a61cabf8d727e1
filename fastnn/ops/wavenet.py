"""Drawing samples from a WaveNet."""

from __future__ import annotations

from fastnn.graph.op import batched_like
from fastnn.graph.value import Value
from fastnn.kernels.wavenet.shared import room
from fastnn.ops.declare import floats, op, output, outputs


@op(
    saves=("room",), forward="wavenet_sample", backward=(),
    placement=batched_like("y", "room", like="given"),
)  # fmt: skip
def _wavenet_sample(
    given: Value, table: Value, gate: Value, gate_bias: Value, each: Value | None,
    frames: Value | None, residual: Value | None, residual_bias: Value | None, skip: Value,
    skip_bias: Value, hidden: Value, hidden_bias: Value, last: Value, last_bias: Value,
    control: Value, samples: int = 1, temperature: float = 1.0, cycle: int = 10,
    levels: int = 256, mixtures: int = 0, hop: int = 1, stream: int = 0,
) -> Value:  # fmt: skip
    """`samples` drawn after the given ones, (N, samples): the kernel says what the arrays are."""
    channels, layers = table.shape[1], gate_bias.shape[0]
    taps = gate.shape[0] // (layers * channels)
    size = room(layers, cycle, taps, channels, skip_bias.size, last_bias.size)
    count = given.shape[0]
    return outputs(y=output((count, samples), "i"), room=floats(count, size))
