"""Training without labels: restricted Boltzmann machines, deep belief nets, denoising autoencoders.

Each starts the weights of an ordinary `nn.Sequential` (`to_mlp`), which is then trained with
labels.
"""

from fastnn.pretrain.partition import Partition
from fastnn.pretrain.rbm import RBM

__all__ = ["RBM", "Partition"]
