"""What kernels for NVIDIA GPUs are built on: threads and blocks, tiles, rows."""
