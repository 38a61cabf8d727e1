"""Drawing samples from a WaveNet, one after the other."""
