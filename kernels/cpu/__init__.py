"""What kernels for the CPU are built on: register tiles, rows in parts, code generators."""
