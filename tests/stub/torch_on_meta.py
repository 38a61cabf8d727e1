"""PyTorch as if it had a GPU that computes nothing, for rehearsals of the session's benchmark.

Tensors "on cuda" lie on PyTorch's device "meta": they have shapes, element types and gradients, but
no contents; what comes back from them is zero. Streams, events and captured graphs of `torch.cuda`
do nothing. A call that PyTorch does not have, or would refuse for its shapes, types or options,
fails here as it would there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


def _moved(value: Any) -> Any:
    """A name or a device of CUDA's, as that of the stand-in; whatever else as it is."""
    if isinstance(value, str) and value.split(":")[0] == "cuda":
        return "meta"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("meta")
    return value


def _walked(x: torch.Tensor, *operands: Any) -> tuple[torch.Tensor, ...]:
    """What a recurrent net of one direction gives (PyTorch would go step by step on "meta"): its
    outputs and its last states have the right shapes, and gradients reach all that they should."""
    weights = next(o for o in operands if isinstance(o, (list, tuple)) and len(o) % 4 == 0)
    batch_first, layers, hidden = operands[-1] is True, len(weights) // 4, weights[1].shape[1]
    assert all(w.is_meta for w in weights)
    touched = sum((w.sum() for w in weights), x.sum())
    last = x.new_zeros(layers, x.shape[0 if batch_first else 1], hidden)
    return x.new_zeros(*x.shape[:-1], hidden) + touched, last, last


class _OnMeta(TorchFunctionMode):
    #: functions of recurrent nets
    walks = ("lstm", "gru", "rnn_tanh")

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(_moved, (args, kwargs or {}))
        if function is torch.Tensor.cpu and args[0].is_meta:
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if getattr(function, "__name__", "") in self.walks and args[0].is_meta:
            found = _walked(*args)
            return found if function.__name__ == "lstm" else found[:2]
        if getattr(function, "__name__", "") == "ctc_loss" and args[0].is_meta:
            assert args[0].requires_grad  # PyTorch has none for "meta"
            return args[0].sum()
        return function(*args, **kwargs)


class _Event:
    def __init__(self, enable_timing: bool = False):
        self.timing = enable_timing

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _Event) -> float:
        assert self.timing
        assert end.timing
        return 1.0


class _Stream:
    def wait_stream(self, other: _Stream) -> None:
        assert isinstance(other, _Stream)


class _Graph:
    """What is captured is made once; a replay needs a capture."""

    captured = False

    def replay(self) -> None:
        assert self.captured


@contextlib.contextmanager
def _capture(graph: _Graph) -> Iterator[None]:
    yield
    graph.captured = True


class _Adam(torch.optim.Adam):
    """Its options are checked; a fused update of tensors without contents would be refused."""

    def __init__(self, parameters: Any, fused: bool = False, capturable: bool = False, **more: Any):
        assert fused
        self.capturable = capturable
        super().__init__(parameters, **more)


class _Scaler:
    def __init__(self, device: str, enabled: bool):
        assert device == "cuda"

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def step(self, update: Any) -> None:
        update.step()

    def update(self) -> None:
        pass


def _autocast(device: str, dtype: Any, enabled: bool, cache_enabled: bool) -> Any:
    assert device == "cuda"
    assert enabled == (dtype in (torch.float16, torch.bfloat16))
    return contextlib.nullcontext()


@contextlib.contextmanager
def rehearsed(compiled: list[str]) -> Iterator[None]:
    """As long as it lasts PyTorch has such a GPU. What `torch.compile` is asked for is noted, and
    runs as it is."""

    def compile_(function: Any, mode: str = "default") -> Any:
        compiled.append(mode)
        return function

    stands = {
        "is_available": lambda: True, "synchronize": lambda: None, "Event": _Event,
        "Stream": _Stream, "current_stream": _Stream, "stream": contextlib.nullcontext,
        "CUDAGraph": _Graph, "graph": _capture, "get_device_name": lambda: "stand-in",
    }  # fmt: skip
    assert all(hasattr(torch.cuda, name) for name in stands)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **stands))
        stack.enter_context(mock.patch.object(torch, "compile", compile_))
        stack.enter_context(mock.patch.object(torch.optim, "Adam", _Adam))
        stack.enter_context(mock.patch.object(torch, "autocast", _autocast))
        stack.enter_context(mock.patch.object(torch.amp, "GradScaler", _Scaler))
        stack.enter_context(mock.patch.object(torch.version, "cuda", "13.0"))
        stack.enter_context(mock.patch.object(torch.backends.cudnn, "version", return_value=91000))
        stack.enter_context(_OnMeta())
        yield
