"""Programs that run once at a time, with inputs from the caller: steps and single predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastnn.interrupts import uninterrupted
from fastnn.kernels import control_block
from fastnn.runtime.cuda.bound import CudaProgram

if TYPE_CHECKING:
    from fastnn.runtime.cuda.execute import CudaRuntime


class CudaSingle:
    """Programs that run once at a time: inputs to the device, launches, the loss back."""

    def __init__(self, runtime: CudaRuntime, bounds: Sequence[CudaProgram], names: Sequence[str]):
        self.runtime, self.bounds, self.names = runtime, bounds, names
        main = bounds[-1]
        self.place = main.place(main.program.places["loss"])
        self.raw = runtime.gpu.pinned(self.place.nbytes)
        self.loss = self.raw.view(self.place.dtype)

    def run(self, arrays: Sequence[Any]) -> None:
        runtime, device_control = self.runtime, self.runtime.device_control
        main = self.bounds[-1]
        for name, array in zip(self.names, arrays, strict=True):
            main.write(name, array)
        if main.hosts:
            self._run_with_host()
            return
        runtime.acquire(self.bounds)
        with uninterrupted():
            for bound in self.bounds:
                bound.launch()
                answer = device_control.ask()
                if bound is main:
                    runtime.gpu.start_download(self.place.piece, self.raw, self.place.offset)
                runtime.gpu.sync()
                device_control.take(answer)
                # before integers out of range are used as indices
                if device_control.control[control_block.STOP]:
                    main.put_back()
                    return

    def _run_with_host(self) -> None:
        """Run where functions of the host are called, which Ctrl-C may end."""
        for bound in self.bounds:
            self.runtime.run([(bound, 1)], lambda: None)
            if self.runtime.control[control_block.STOP]:
                return
        self.loss[...] = self.bounds[-1].view("loss")
