"""Random numbers: dropout, uniform, normal."""
