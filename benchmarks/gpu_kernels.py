"""Single kernels on a GPU beside those of cuBLAS and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu_timing import MOST, Ours, Side, Timer, apart, chosen, finish
from fastnn import nn, optim
from fastnn.engine.update import Objective, add_updates
from fastnn.nn.parameter import Parameter
from fastnn.runtime import devices
from fastnn.train.build import StepBuilder


def program(
    device: str, fill: Callable[[StepBuilder], None], size: int = 1, precision: str = "highest"
) -> Ours:
    """A program of the calls that `fill` adds."""
    from fastnn.engine.session import Session

    class Flat(nn.Module):
        def __init__(self) -> None:
            self.w = Parameter((size,))

    model = Flat()
    store = model.store()
    session = Session(store, ("exp_avg", "exp_avg_sq"), 1, "auto", devices.choose(device))
    session.set("schedule", np.full((MOST, 1), 1e-4))
    builder = StepBuilder(model, store, 1, True, "direct", session.runtime.kind, precision)
    fill(builder)
    return Ours(session, session.bind(builder.finish().program))


def sgemm(n: int, options: Any, timer: Timer) -> dict[str, Any]:
    """y = x w, all of n by n."""
    import torch

    from fastnn import ops

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n, n)).astype(np.float32)

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        x = graph.value((n, n), segment="input", name="x")
        w = graph.value((n, n), segment="input", name="w")
        builder.places.update({"x": x, "w": w, "y": ops.linear(x, w)})

    side = program(options.device, fill, precision=options.precision)
    side.bound.write("x", a)
    side.bound.write("w", b)
    side.run(1)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
    x, w = (torch.from_numpy(v).to(options.device, half) for v in (a, b))
    want = (x @ w).float().cpu().numpy()
    worst = apart(side.bound.view("y"), want)
    limit = {"medium": 1e-2, "bf16": 3e-2, "fp16": 1e-2}.get(options.precision, 1e-5)
    assert worst < limit, f"sgemm {n}: {worst}"
    sides = {"fastnn": side, "cuBLAS": Side(lambda: torch.matmul(x, w))}
    row = finish(f"sgemm {n}", sides, {"cuBLAS": 0.75}, options, timer, difference=worst)
    row["tflops"] = 2 * n**3 / row["seconds"]["fastnn"]["median"] / 1e12
    return row


def adam(count: int, options: Any, timer: Timer) -> dict[str, Any]:
    """One update of so many parameters, beside `fused=True` and beside a copy."""
    import torch

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        (parameter,) = builder.store.parameters.values()
        leaf = graph.leaf(parameter, (count,), "params", offset=0, name="w")
        gradient = graph.value((count,), segment="input", name="dw")
        update = optim.Adam(lr=1e-4)
        objective = Objective(leaf, {"w": parameter}, update)
        add_updates(builder.lowered, builder.store, objective, {"w": leaf}, {"w": gradient}, False)

    side = program(options.device, fill, count)
    weight = torch.zeros(count, device=options.device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    update = torch.optim.Adam([weight], lr=1e-4, fused=True)
    source, target = torch.zeros((2, count), device=options.device)
    sides = {
        "fastnn": side, "fused=True": Side(update.step), "copy": Side(lambda: target.copy_(source)),
    }  # fmt: skip
    row = finish(f"Adam {count:,}", sides, {"fused=True": 1.0}, options, timer)
    seconds = row["seconds"]
    row["bandwidth"] = 28.0 * count / seconds["fastnn"]["median"]
    row["of_copy"] = row["bandwidth"] / (8.0 * count / seconds["copy"]["median"])
    return row


def cross_entropy(classes: int, options: Any, timer: Timer) -> dict[str, Any]:
    """Softmax, cross-entropy and the gradient to the scores."""
    import torch
    from torch.nn import functional

    from fastnn.graph.gradient import differentiate

    rows = 4096
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((rows, classes)).astype(np.float32)
    targets = rng.integers(0, classes, rows)

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        x = graph.value((rows, classes), segment="input", name="x")
        y = graph.value((rows,), "i", segment="input", name="y")
        loss = builder.loss(nn.CrossEntropyLoss(), (x,), (y,))
        (dx,) = differentiate(graph, loss, [x])
        assert dx is not None
        builder.places.update({"x": x, "y": y, "dx": dx})

    side = program(options.device, fill)
    side.bound.write("x", scores)
    side.bound.write("y", targets)
    side.run(1)
    x = torch.from_numpy(scores).to(options.device).requires_grad_()
    y = torch.from_numpy(targets).to(options.device)

    def both() -> None:
        x.grad = None
        functional.cross_entropy(x, y).backward()

    both()
    want = x.grad.cpu().numpy()
    worst = apart(side.bound.view("dx"), want)
    assert worst < 1e-5, f"cross-entropy {classes}: {worst}"
    sides: dict[str, Side] = {"fastnn": side}
    if "eager" in chosen(("eager", "compile"), options):
        sides["eager"] = Side(both)
    if "compile" in chosen(("eager", "compile"), options):
        compiled = torch.compile(both) if options.device != "cpu" else both
        compiled()
        sides["compile"] = Side(compiled)
    name = f"softmax + cross-entropy, {rows} rows, V={classes}"
    return finish(name, sides, {"eager": 1.5}, options, timer, difference=worst)


def ctc(batch: int, steps: int, classes: int, options: Any, timer: Timer) -> dict[str, Any]:
    """CTC's loss of logits, and its gradient; labels are an eighth of the steps."""
    import torch
    from torch.nn import functional

    from fastnn.graph.gradient import differentiate

    rng = np.random.default_rng(0)
    scores = rng.standard_normal((batch, steps, classes)).astype(np.float32)
    labels = rng.integers(1, classes, (batch, steps // 8))

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        x = graph.value(scores.shape, segment="input", name="x")
        y = graph.value(labels.shape, "i", segment="input", name="y")
        loss = builder.loss(nn.CTCLoss(), (x,), (y,))
        (dx,) = differentiate(graph, loss, [x])
        assert dx is not None
        builder.places.update({"x": x, "y": y, "dx": dx})

    side = program(options.device, fill)
    side.bound.write("x", scores)
    side.bound.write("y", labels)
    side.run(1)
    x = torch.from_numpy(scores).to(options.device).requires_grad_()
    y = torch.from_numpy(labels).to(options.device)
    lengths, counts = torch.full((batch,), steps), torch.full((batch,), steps // 8)

    def both() -> None:
        x.grad = None
        logs = functional.log_softmax(x, 2).transpose(0, 1)
        functional.ctc_loss(logs, y, lengths, counts).backward()

    both()
    want = x.grad.cpu().numpy()
    worst = apart(side.bound.view("dx"), want)
    assert worst < 1e-4, f"CTC {classes}: {worst}"
    sides: dict[str, Side] = {"fastnn": side, "eager": Side(both)}
    name = f"CTC B{batch} T{steps} V={classes}"
    return finish(name, sides, {"eager": 1.0}, options, timer, difference=worst)


class Convolution(NamedTuple):
    """A convolution of square images, with padding that keeps them (but for the stride)."""

    channels: int
    outputs: int
    side: int
    kernel: int = 3
    stride: int = 1
    batch: int = 32

    @property
    def name(self) -> str:
        c, k, side, kernel, stride, batch = self
        steps = f"/{stride}" if stride > 1 else ""
        return f"convolution {kernel}x{kernel}{steps} {c}-{k} {side}x{side} B{batch}"


def convolution(case: Convolution, options: Any, timer: Timer) -> dict[str, Any]:
    """The forward pass and both gradients, beside cuDNN with channels last."""
    import torch
    from torch.nn import functional

    from fastnn import ops
    from fastnn.graph.gradient import differentiate

    c, k, side, kernel, stride, batch = case
    before, places = kernel // 2, (side + 2 * (kernel // 2) - kernel) // stride + 1
    rng = np.random.default_rng(0)
    image, weight, given = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((batch, side, side, c), (kernel, kernel, c, k), (batch, places, places, k))
    )

    def fill(builder: StepBuilder) -> None:
        graph = builder.graph
        x, w, dy = (
            graph.value(array.shape, segment="input", name=name)
            for name, array in (("x", image), ("w", weight), ("dy", given))
        )
        turned = ops.transpose(w, (3, 2, 0, 1))  # PyTorch's order; nothing is moved
        y = ops.conv2d(x, turned, stride=stride, padding=before, channels="last")
        dx, dw = differentiate(graph, y, [x, w], seed=dy)
        assert dx is not None
        assert dw is not None
        builder.places.update({"x": x, "w": w, "dy": dy, "y": y, "dx": dx, "dw": dw})

    ours = program(options.device, fill, precision=options.precision)
    for name, array in (("x", image), ("w", weight), ("dy", given)):
        ours.bound.write(name, array)
    ours.run(1)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
    x, w, dy = (
        torch.from_numpy(array).permute(order).to(options.device, half)
        for array, order in ((image, (0, 3, 1, 2)), (weight, (3, 2, 0, 1)), (given, (0, 3, 1, 2)))
    )
    x, w = x.requires_grad_(), w.contiguous(memory_format=torch.channels_last).requires_grad_()

    def all_three() -> tuple[Any, ...]:
        y = functional.conv2d(x, w, stride=stride, padding=before)
        return y, *torch.autograd.grad(y, (x, w), dy)

    orders = {"y": (0, 2, 3, 1), "dx": (0, 2, 3, 1), "dw": (2, 3, 1, 0)}
    worst = max(
        apart(ours.bound.view(name), value.detach().permute(order).float().cpu().numpy())
        for (name, order), value in zip(orders.items(), all_three(), strict=True)
    )
    limit = {"medium": 1e-2, "bf16": 3e-2, "fp16": 1e-2}.get(options.precision, 1e-4)
    assert worst < limit, f"{case.name}: {worst}"
    sides = {"fastnn": ours, "cuDNN": Side(all_three)}
    row = finish(case.name, sides, {"cuDNN": 0.75}, options, timer, difference=worst)
    work = 3 * batch * places**2 * kernel**2 * c * k
    row["tflops"] = 2 * work / row["seconds"]["fastnn"]["median"] / 1e12
    return row
