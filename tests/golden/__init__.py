"""What the library makes of about forty models, kept as it is: the net under refactorings.

Three things are kept, each for what the one before can't see:

- **Programs** (`programs/*.txt`): the planned steps of the models in `models.py`, for both devices,
  as text: phases, groups, calls of kernels with their operands' places and sizes. They are planned
  for a CPU with 256-bit vectors and for an H200, whatever this machine has, by a runtime that
  computes nothing (`fastnn.testing.null`).
- **Bits** (`bits.json`): hashes of losses and parameters after ten steps of real training
  (`bits.py`), the same on every CPU with fused multiply-adds; the test compares them with the CPU's
  own width of vectors and with 256 bits. On other CPUs it compares runs with different numbers of
  workers instead.
- **Code**: hashes of the machine code of all CPU kernels. They depend on the versions of Numba and
  LLVM, so nothing is kept here; two commits are compared by hand.

A refactoring leaves all of them as they are, or explains the difference in its commit.

    python -m pytest tests/golden                  compares programs and bits
    python -m tests.golden                         says which programs and bits differ, and how
    python -m tests.golden --write [name ...]      keeps them as they are now
    python -m tests.golden --show name             prints a model's programs
    python -m tests.golden --code FILE             writes kernel -> hash of its code
    python -m tests.golden --code FILE --against OLD   says which kernels' code differs from OLD's

A line of a program is ``kernel operands  # layer``; an operand is ``segment+offset[sizes]``, with
the element type before the sizes where it is not the program's float. See `text.py`.
"""
