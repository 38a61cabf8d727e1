"""Kernels: functions of arrays and numbers that know nothing of layers."""
