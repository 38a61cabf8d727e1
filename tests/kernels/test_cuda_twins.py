"""The two devices' kernels: the same files, the same kernels, each signature written once.

Needs no CUDA package: kernels are declared without one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fastnn.kernels
from fastnn import optim
from fastnn.kernels import topics
from fastnn.kernels.arithmetic import add
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS

FOLDER = Path(fastnn.kernels.__file__).parent

#: modules that one device has alone, and why
ONLY_CPU = {
    "attention.blocks": "declares no kernel: blocks of scores for the CPU's caches",
    "ctc.plain": "declares no kernel: sums in plain scaled numbers; on CUDA pairs with an exponent",
    "ctc.frames": "declares no kernel: frames side by side in vectors; on CUDA threads are",
    "crf.lanes": "declares no kernel: sequences side by side in vectors; on CUDA blocks are",
    "crf.near": "declares no kernel: sums in plain numbers; on CUDA always pairs with an exponent",
    "convolution.winograd": "3x3 by tiles; CUDA has a thread for each element",
    "elementwise.added": "terms of sums added where they are computed, a rule of the CPU's plans",
    "matmul.added": "likewise",
    "matmul.blocked": "blocks for the CPU's caches",
    "matmul.columns": "items are columns, for small batches; CUDA always splits both",
    "matmul.own": "copies for the CPU's caches",
    "matmul.panels": "declares no kernel: the loops over the CPU's tile",
    "matmul.row": "declares no kernel: one row by w in the order in which it lies",
    "matmul.sparse": "zeros left out row by row; on CUDA all threads of a tile go together",
    "matmul.sparse_gradients": "likewise",
    "norm.columns": "declares no kernel: sums down the columns in the order of rows",
    "pooling.apart": "declares no kernel: windows that lie side by side, all inside",
    "matmul.turned": "for the CPU's tile, whose right factor lies by rows",
    "matmul.unit": "the CPU's tile unit; tensor cores have kernels of their own",
    "recurrent.row": "one row by weights beyond L2, in the order in which they lie",
    "recurrent.unit": "the CPU's tile unit",
}
#: modules of the CPU whose kernels CUDA has in a module of more: that one
PARTS_ON_CPU = {"norm.batch": "norm", "convolution.depthwise_weight": "convolution.depthwise"}
ONLY_CUDA = {
    "convolution.tile": "by the tile of the matrix products",
    "convolution.tile_weight": "likewise",
    "convolution.windows": "declares no kernel: how its slices of windows are copied",
    "convolution.choice": "declares no kernel: which tile",
    "matmul.slices": "declares no kernel: how slices of a product's factors are copied",
    "convolution.elements": "a thread for each element of an image, sums over samples",
    "matmul.few": "products of a few rows",
    "matmul.product": "the product's loop over tiles; the CPU's is in matmul/cpu_panels.py",
    "matmul.joined_sums": "how a block's groups and columns join their sums; declares no kernel",
    "loss.half": "cross entropy with a gradient in 16 bits",
    "matmul.parts": "long sums in parts over a grid's third dimension",
    "matmul.half": "factors of 16 bits, for tensor cores",
    "matmul.half_parts": "likewise, over a grid's third dimension",
    "recurrent.layout": "who computes what of a recurrent net; on the CPU workers share rows",
    "recurrent.products": "a block's products by its slice of recurrent weights",
    "recurrent.ways": "how those kernels are declared",
    "recurrent.steps": "a recurrent net a launch for each turn, where it does not fit in one",
    "rnn.steps": "likewise",
    "lstm.steps": "likewise",
    "gru.steps": "likewise",
    "gru.units": "what a unit computes and leaves in a turn",
    "descent.vectors": "declares no kernel: sums by one block for the steps of full-batch methods",
}
#: kernels that one side has alone in a module that both have, each by its whole name, and why
KERNELS_ONLY_CPU = {
    "pack_panels": "CUDA's products read weights as they are",
    "pack_panels_transposed": "likewise",
    "linear_backward_input": "of packed weights; CUDA has linear_backward_input_unpacked",
    "linear_forward_columns": "items are columns, for small batches; CUDA always splits both",
    "linear_forward_taking": "takes a weight from the caches of other cores",
    "gru_forward": "one worker walks its sequences; on CUDA blocks walk together, or turn by turn",
    "gru_backward": "likewise",
    "lstm_forward": "likewise",
    "lstm_backward": "likewise",
    "rnn_forward": "likewise",
    "rnn_backward": "likewise",
    **{
        f"{call}_add": "a term of a sum, added where it is computed"
        for call in (
            "multiply_forward",
            "multiply_backward_a",
            "multiply_backward_b",
            "square_backward",
        )
    },
    "check_columns": "CUDA looks at gradients themselves",
    "transpose_weights": "transposed recurrent weights for single rows on the CPU",
    "sequence_backward_input": "on CUDA plain products over all steps",
    "sequence_backward_weight": "likewise",
}
#: CUDA's products, and with what follows in the same launch
PRODUCTS = (
    "linear_forward", "linear_forward_activated", "linear_backward_input_unpacked",
    "linear_backward_input_activated", "linear_backward_weight", "linear_backward_weight_bias",
)  # fmt: skip
KERNELS_ONLY_CUDA = {
    "embedding_backward_occurring": "for tables of more rows than there are ids",
    "cross_entropy_scaled": "the loss and its gradient at once, where the mean's is known",
    **{
        f"{product}_{tile}": "tiles of other shapes, TF32"
        for product in PRODUCTS
        for tile in ("tiny", "middle", "large", "tf32", "tf32x3")
    },
    "gather_rows_bf16": "its result in 16 bits as well",
    "gather_rows_fp16": "likewise",
    "gather_ids_few": "by one block, joined with the factor of loss scaling",
    "unscale_checked": "two passes over gradients in one",
    "mean_backward_few": "by one block, joined with what comes before",
    "linear_forward_activated": "the activation in the product's end",
    "linear_backward_input_activated": "its gradient",
    "linear_backward_weight_bias": "the sums for the bias, too",
    **{
        f"{net}_{how}{weights}_{way}": "one launch walks all turns"
        for net in ("rnn", "lstm", "gru")
        for how in ("persistent", "cluster")
        for weights in ("", "_held", "_half")
        for way in ("forward", "backward")
    },
    **{
        f"gru_{how}{weights}_{way}_early": "likewise, with the reset gate before the product"
        for how in ("persistent", "cluster")
        for weights in ("", "_held", "_half")
        for way in ("forward", "backward")
    },
    "sequence_order": "sequences by length, for blocks that walk together",
    "clear_words": "what these blocks exchange, before the launch",
    "next_step": "a loop's body launched again moves its own words",
    "valid_steps": "which rows of the padded steps count in products over all steps",
}


#: ends the name of an update that copies what it changes in a doubtful step; the CPU has safeguard
SAVING = "_saving"
#: ends the name of one that also writes the parameters in 16 bits
HALVES = "_halves"


def modules(device: str) -> set[str]:
    """Modules with kernels for a device: "softmax", "loss.pairs" for loss/cpu_pairs.py."""
    found = set()
    for name in topics.modules(device):
        topic, module = name.removeprefix("fastnn.kernels.").split(".")
        found.add(f"{topic}.{module}".replace(f".{device}_", ".").removesuffix(f".{device}"))
    return found - set(PARTS_ON_CPU if device == "cpu" else ())


#: modules that both devices have
SHARED = sorted(modules("cpu") & modules("cuda"))


def test_file_names() -> None:
    cpu, cuda = modules("cpu"), modules("cuda")
    assert cpu - cuda == set(ONLY_CPU)
    assert cuda - cpu == set(ONLY_CUDA)


def test_every_module_is_of_a_device_or_shared() -> None:
    """A topic's modules are found by their names; what both devices share declares no kernel."""
    for folder in FOLDER.iterdir():
        if folder.is_dir() and folder.name not in (*topics.BUILDING_BLOCKS, "__pycache__"):
            for path in folder.glob("*.py"):
                text = path.read_text(encoding="utf-8")
                declares = "@kernel" in text or "@cuda_kernel" in text
                assert not declares or path.stem.split("_")[0] in ("cpu", "cuda"), path
                cpu = re.search(r"^from .*\bcuda", text, re.MULTILINE)
                assert cpu is None or path.stem.startswith("cuda"), f"{path} imports CUDA's"


def names(kernels: dict, device: str, module: str) -> set[str]:
    """Names of the kernels that a module declares."""
    topics.load(device)
    topic, _, part = module.partition(".")
    full = {f"fastnn.kernels.{topic}.{device}" + (f"_{part}" if part else "")}
    if device == "cpu":
        apart = [part for part, whole in PARTS_ON_CPU.items() if whole == module]
        full |= {f"fastnn.kernels.{name.replace('.', '.cpu_')}" for name in apart}
    if module == "update":  # made for each optimiser, on both sides
        for made in (optim.SGD(), optim.Adam()):
            made.kernels()
        topics.load(device)
        found = {n for n in kernels if n.endswith(("_update", "_prepare", SAVING, HALVES))}
        alone = {name.removesuffix(HALVES).removesuffix(SAVING) for name in found}
        assert alone <= set(kernels)
        return alone
    return {name for name, k in kernels.items() if k.function.__module__ in full}


@pytest.mark.parametrize("module", SHARED)
def test_the_same_kernels(module: str) -> None:
    cpu, cuda = names(KERNELS, "cpu", module), names(CUDA_KERNELS, "cuda", module)
    assert cpu - cuda - set(KERNELS_ONLY_CPU) == set()
    assert cuda - cpu - set(KERNELS_ONLY_CUDA) == set()
    for name in cpu & cuda:
        assert CUDA_KERNELS[name].like is KERNELS[name], f"{name} has a signature of its own"


def test_exceptions_are_in_use() -> None:
    both = [(names(KERNELS, "cpu", m), names(CUDA_KERNELS, "cuda", m)) for m in SHARED]
    assert set(KERNELS_ONLY_CPU) - set().union(*(cpu - cuda for cpu, cuda in both)) == set()
    assert set(KERNELS_ONLY_CUDA) - set().union(*(cuda - cpu for cpu, cuda in both)) == set()


def test_optimisers_have_both() -> None:
    for optimizer in (optim.SGD(), optim.Adam(), optim.Adadelta()):
        for name in optimizer.kernels():
            assert CUDA_KERNELS[name].like is KERNELS[name]


def test_a_changed_rule_has_kernels_of_its_own() -> None:
    class Other(optim.Adagrad):
        @staticmethod
        def rule(p, g, state_sum, rate, eps):  # type: ignore[no-untyped-def, override]
            return add(p, g * rate), state_sum

    ours, others = optim.Adagrad().kernels(), Other().kernels()
    assert ours[1] != others[1]
    made = CUDA_KERNELS[others[1]].function.__globals__["rule"]
    assert made is KERNELS[others[1]].function.__globals__["rule"] is Other.rule


def test_launches_are_numbers_of_blocks_and_threads() -> None:
    """For small and for large sizes; blocks have whole warps (those that work together need not)
    and not more than 1024 threads."""
    topics.load("cuda")
    for name, kernel in CUDA_KERNELS.items():
        if not kernel.function.__module__.startswith("fastnn."):
            continue
        letters = {d for p in kernel.arrays.values() for d in p.dims}
        integers = {n for n, p in kernel.params.items() if getattr(p, "kind", "") == "int"}
        for size in (1, 33, 1000):
            sizes = dict.fromkeys(letters, size) | dict.fromkeys(integers, 1)
            grid, threads = kernel.launch(sizes)
            count = 1
            for n in (threads,) if isinstance(threads, int) else threads:
                count *= n
            assert count % 32 == 0 or kernel.cooperative or kernel.cluster, f"{name}: {threads}"
            assert 1 <= count <= 1024, f"{name}: {threads}"
            for n in (grid,) if isinstance(grid, int) else grid:
                assert isinstance(n, int), f"{name}: {grid}"
                assert n >= 1, f"{name}: {grid}"


def test_every_kernel_says_what_it_computes() -> None:
    for name, kernel in CUDA_KERNELS.items():
        if (kernel.function.__module__ or "").startswith("fastnn.kernels."):
            assert kernel.doc, name
    assert CUDA_KERNELS["gelu_forward"].doc


def test_the_launch_is_the_same_for_all_streams() -> None:
    """In a loop each step draws numbers of its own, and all steps have one launch."""
    topics.load("cuda")
    drawing = {n: k for n, k in CUDA_KERNELS.items() if "stream" in k.params}
    assert "dropout" in drawing
    for kernel in drawing.values():
        letters = {letter for array in kernel.arrays.values() for letter in array.dims}
        others = {n for n in kernel.params if n not in kernel.arrays} - {"stream"}
        sizes = dict.fromkeys(letters, 8) | dict.fromkeys(others, 1)
        assert kernel.launch(sizes), kernel.name  # an error if it asks for the stream
        assert kernel.shared is None or kernel.shared({**sizes, "shared_limit": 1 << 14}) >= 0
