"""CPU kernels, written on the SIMD layer in `simd`."""
