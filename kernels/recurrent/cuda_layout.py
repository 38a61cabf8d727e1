"""How a recurrent net is laid out on a GPU: groups, blocks, units of a block, shared memory.

See `cuda.py` for what these are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cuda.near import place_near
from ..declare import ceil_div

TILE = 4  # rows of sequences
THREADS = 256  # of kernels that go through elements
MOST_THREADS = 512  # of blocks that work together: 16 for each unit, if they have no more than 32
FLOAT64_THREADS = 256  # likewise in float64, whose numbers take two registers each
MOST_UNITS = 64  # of a block: each has four threads of its own, one for every row of a tile
#: sequences of a group, whose lengths lie in shared memory
MOST_ROWS = 256
#: weights that a thread holds are four times so many, where blocks have no more than so many units
HELD_TERMS, HELD_UNITS = 16, 16
SPARE_BYTES = 4096  # of shared memory: lengths of sequences, what the driver takes
#: over how many threads the depth of a product is split, by the number of gates
FORWARD_SPLITS = {1: 64, 3: 16, 4: 16}
BACKWARD_SPLITS = 64
#: the same over warps, of products on tensor cores (there is room for as many parts as above)
HALF_FORWARD_SPLITS = {1: 8, 3: 4, 4: 4}
HALF_BACKWARD_SPLITS = 8
CHAIN = 16  # parts that one thread adds; splits are 1 or 4 times as many


@dataclass(frozen=True)
class Layout:
    """How a sequence's work is laid out on a device; the integer parameters of the kernels."""

    groups: int
    blocks: int  # of each group
    units: int  # of each block
    near: bool = False  # the blocks of a group are a cluster
    held: bool = False  # threads hold their weights in registers
    half: bool = False  # factors of products are of 16 bits

    @property
    def how(self) -> str:
        """What kernels are called that work so."""
        weights = "_half" if self.half else "_held" if self.held else ""
        return ("cluster" if self.near else "persistent") + weights

    def rows(self, batch: int) -> int:
        """Sequences of a group, filled up to whole tiles."""
        return ceil_div(ceil_div(batch, self.groups), TILE) * TILE


def packed_elements(depth: int, columns: int) -> int:
    """Words of a slice of the weights of 16 bits: pieces of 16 terms by 16 columns."""
    return (depth + 15) // 16 * ((columns + 15) // 16) * 128


def shared_elements(depth: int, columns: int, splits: int, state: int, half: bool) -> int:
    """Shared memory of a block: weights, inputs of a tile, parts of the sums, state."""
    weights = packed_elements(depth, columns) if half else depth * columns
    return weights + TILE * depth + splits * TILE * columns + state


def forward_elements(
    sizes: dict[str, int], gates: int, near_slots: int = 0, half: bool = False
) -> int:
    """Shared memory of a cell's forward kernel; `near_slots`: of words that lie there, too;
    `half`: weights are of 16 bits."""
    layout = Layout(sizes["groups"], sizes["blocks"], sizes["units"])
    rows, splits = layout.rows(sizes["B"]), FORWARD_SPLITS[gates]
    elements = shared_elements(sizes["H"], gates * layout.units, splits, rows * layout.units, half)
    more = packed_elements(sizes["H"], layout.units) if half and gates == 3 else 0
    return elements + more + place_near(near_slots * rows * sizes["H"])


def backward_elements(
    sizes: dict[str, int], gates: int, near_slots: int = 0, half: bool = False
) -> int:
    """Shared memory of a cell's backward kernel; likewise."""
    layout = Layout(sizes["groups"], sizes["blocks"], sizes["units"])
    rows, depth = layout.rows(sizes["B"]), gates * sizes["H"]
    elements = shared_elements(depth, layout.units, BACKWARD_SPLITS, rows * layout.units, half)
    more = packed_elements(16, layout.units) if half and gates == 3 else 0
    return elements + more + place_near(near_slots * rows * depth)


def exchange_words(batch: int, depth: int, slots: int, layout: Layout, itemsize: int) -> int:
    """Words of the exchange: `depth` numbers for each sequence, in so many slots."""
    return slots * layout.groups * layout.rows(batch) * depth * itemsize // 4


def launch_cooperative(sizes: dict[str, int], most: int = MOST_THREADS) -> tuple[int, int]:
    """Sixteen threads for each unit, as far as a block may have so many."""
    return sizes["groups"] * sizes["blocks"], min(16 * sizes["units"], most)


def fits(
    batch: int, hidden: int, gates: int, itemsize: int, processors: int, shared_bytes: int,
    half: bool = False,
) -> Layout | None:  # fmt: skip
    """The layout for a device with so many multiprocessors, whose blocks may have so much shared
    memory; None where the weights don't fit (then the kernels for single turns are used). `half`:
    factors of products are of 16 bits.

    As many groups as there are tiles, as far as processors and shared memory go: a group of few
    blocks waits less and exchanges less. Blocks share a group's units evenly, four at a time.
    """
    for groups in range(min(ceil_div(batch, TILE), processors), 0, -1):
        most = min(processors // groups, ceil_div(hidden, TILE))
        units = ceil_div(ceil_div(hidden, most), TILE) * TILE
        layout = Layout(groups, ceil_div(hidden, units), units, half=half)
        sizes = {"B": batch, "H": hidden, "groups": groups, "blocks": layout.blocks, "units": units}
        elements = max(
            forward_elements(sizes, gates, half=half), backward_elements(sizes, gates, half=half)
        )
        bytes_needed = elements * itemsize + SPARE_BYTES
        if units <= MOST_UNITS and layout.rows(batch) <= MOST_ROWS and bytes_needed <= shared_bytes:
            return layout
    return None


#: estimates, not measured: multiply-adds that a multiprocessor does in a cycle here, in float32 or
#: on tensor cores, and cycles of a turn in which a number is handed on, through the L2 cache or
#: within a cluster
RATE, HALF_RATE, FAR_TURN, NEAR_TURN = 64, 200, 2000, 800

#: blocks of a cluster that runs anywhere; a larger one takes that many multiprocessors, all that
#: lie near each other, where nobody has asked how many such clusters run at once
PORTABLE, NEIGHBOURS = 8, 18


def best(
    far: Layout, batch: int, hidden: int, gates: int, itemsize: int, limits: tuple[int, ...],
    slots: int, backward: bool, half: bool = False,
) -> Layout:  # fmt: skip
    """The layout of a cell's kernel, from the one without clusters: with them where it fits and a
    turn is shorter, and with weights in registers where they fit. `limits` as of `Lowering`;
    `slots` of words; `half`: factors of products are of 16 bits."""
    processors, shared_bytes, cluster = (*limits, 1)[:3]
    at_once = limits[3] if len(limits) > 3 else processors // NEIGHBOURS
    elements = backward_elements if backward else forward_elements

    def turn(layout: Layout) -> float:
        tiles = layout.rows(batch) // TILE
        work = tiles * TILE * gates * hidden * layout.units
        return work / (HALF_RATE if half else RATE) + (NEAR_TURN if layout.near else FAR_TURN)

    found = [far]
    for groups in range(min(ceil_div(batch, TILE), processors), 0, -1):
        side_by_side = cluster if groups <= at_once else min(cluster, PORTABLE)
        most = min(side_by_side, processors // groups, ceil_div(hidden, TILE))
        units = ceil_div(ceil_div(hidden, most), TILE) * TILE
        layout = Layout(groups, ceil_div(hidden, units), units, near=True, half=half)
        sizes = {"B": batch, "H": hidden, "groups": groups, "blocks": layout.blocks, "units": units}
        needed = elements(sizes, gates, slots, half) * itemsize + SPARE_BYTES
        fitting = units <= MOST_UNITS and layout.rows(batch) <= MOST_ROWS
        if cluster > 1 and fitting and needed <= shared_bytes:
            found.append(layout)
    chosen = min(found, key=turn)
    depth = gates * hidden if backward else hidden
    splits = BACKWARD_SPLITS if backward else FORWARD_SPLITS[gates]
    few = itemsize == 4 and chosen.units <= HELD_UNITS and depth <= splits * HELD_TERMS
    return replace(chosen, held=few and not half)
