"""Connectionist temporal classification: labels whose places in time nobody has marked."""
