"""Training without labels: restricted Boltzmann machines, deep belief nets, denoising autoencoders.

Stacks of them start the weights of an ordinary `nn.Sequential` (`to_mlp`), which is then trained
with labels.
"""

from fastnn.pretrain.belief import DeepBeliefNet, UpDown
from fastnn.pretrain.denoising import DenoisingAutoencoder, StackedDenoisingAutoencoder
from fastnn.pretrain.partition import Partition
from fastnn.pretrain.rbm import RBM

__all__ = [
    "RBM", "DeepBeliefNet", "DenoisingAutoencoder", "Partition", "StackedDenoisingAutoencoder",
    "UpDown",
]  # fmt: skip
