"""Beam search: which hypotheses go on."""
