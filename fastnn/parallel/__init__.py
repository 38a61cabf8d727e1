"""One model trained by several processes, each on its share of the data.

Every process has the same model from the same seed. Between the gradients and the update of each
step the processes exchange their gradients, and each goes on with the mean over all of them. It is
summed in the order of the processes (through memory and MPI alike), so all models stay the same to
the last bit, and two runs with as many processes give the same bits.

    def work(group):
        trainer = fnn.Trainer(net(), "cross_entropy", on_gradients=group.average, workers=1)
        mine = group.share(len(x))
        trainer.fit(x[mine], y[mine], epochs=5, batch_size=32 // group.size)
        return trainer.get_parameters() if group.rank == 0 else None

    parameters, *_ = fnn.parallel.run(work, processes=4)     # on this machine

On a machine with several GPUs ``run(work, processes=4, device="cuda")`` gives each process one of
its own: with ``Trainer(..., device=group.device)`` the gradients go from GPU to GPU, by NCCL,
within the step. All models are the same to the last bit there, too; the order of the sums is
NCCL's.

Between machines the same `work` runs under MPI (``pip install mpi4py``, and Open MPI or MPICH):

    mpirun -n 4 python program.py          # which calls work(fnn.parallel.mpi())

The mean of the processes' gradients is that of the whole batch where each has as many samples in a
step, which `Group.share` sees to (with `drop_last`, or a batch size that divides the share). What a
layer computes over its batch (batch normalisation) is that of the process's own samples.
"""

from __future__ import annotations

from fastnn.parallel.communicator import mpi
from fastnn.parallel.group import Group
from fastnn.parallel.processes import run

__all__ = ["Group", "mpi", "run"]
