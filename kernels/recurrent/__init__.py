"""What the recurrent kernels share."""
