"""Models that make data like those they were trained on: autoencoders, VAE, GAN, WaveNet.

Each is a module; `fit` trains it by an ordinary trainer, so a whole epoch is one compiled run.
"""

from fastnn.generative.autoencoder import Autoencoder
from fastnn.generative.clusters import clusters
from fastnn.generative.convolutional import conv_decoder, conv_encoder
from fastnn.generative.gan import GAN
from fastnn.generative.joined import Joined
from fastnn.generative.latent import interpolate, manifold
from fastnn.generative.pieces import pieces
from fastnn.generative.vae import VAE
from fastnn.generative.wavenet import WaveNet

__all__ = [
    "GAN", "VAE", "Autoencoder", "Joined", "WaveNet", "clusters", "conv_decoder", "conv_encoder",
    "interpolate", "manifold", "pieces",
]  # fmt: skip
