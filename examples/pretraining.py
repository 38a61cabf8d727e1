"""A deep sigmoid net on MNIST, with and without pre-training, in the same processor time.

With pre-training, restricted Boltzmann machines (or denoising autoencoders) learn one layer after
the other from the images alone; the net that they start is then trained with the labels. Without,
the net is trained with labels from the beginning, for as many processor seconds as the other took.
Both may have dropout while they learn labels (Hinton et al. 2012).

    python examples/pretraining.py --pretrain-epochs 10 --epochs 15 --dropout 0.5
    python examples/pretraining.py --layers 400,400,400,400 --init torch_linear --validation
    python examples/pretraining.py --data digits --layers 100,100,50 --batch-size 20  # seconds
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim, pretrain
from fastnn.data import load_digits, load_mnist
from fastnn.optim import schedules


def images(name: str, validation: bool = False) -> tuple[Any, Any]:
    """Training and test sets, images as rows within 0..1; with `validation`, the last sixth of the
    training set (10,000 digits of MNIST) in place of the test set."""
    train, test = load_mnist() if name == "mnist" else load_digits()
    if validation:
        kept = len(train[0]) - len(train[0]) // 6
        train, test = (train[0][:kept], train[1][:kept]), (train[0][kept:], train[1][kept:])
    top = max(float(train[0].max()), 1.0)
    return tuple((x.reshape(len(x), -1).astype(np.float32) / top, y) for x, y in (train, test))


def plain_net(sizes: list[int], classes: int, init: str) -> nn.Sequential:
    """The net that is not pre-trained."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, weight_init=init), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def pretrained_net(
    kind: str,
    sizes: list[int],
    classes: int,
    x: np.ndarray,
    epochs: int,
    batch: int,
    seed: int,
    quiet: bool,
) -> nn.Sequential:
    """The net whose weights a stack has learned from images without labels."""
    if kind == "rbm":
        stack: Any = pretrain.DeepBeliefNet(sizes)
        options: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 2e-4}
    else:
        stack, options = pretrain.StackedDenoisingAutoencoder(sizes, 0.25), {"lr": 1e-3}
    histories = stack.fit(x, epochs=epochs, batch_size=batch, seed=seed, verbose=False, **options)
    if not quiet:
        for k, history in enumerate(histories):
            errors = history["reconstruction_error"]
            print(f"  layer {k}: reconstruction error {errors[0]:.4f} -> {errors[-1]:.4f}")
    net: nn.Sequential = stack.to_mlp(classes)
    return net


def with_dropout(net: nn.Sequential, rate: float) -> nn.Sequential:
    """The same layers with dropout of hidden units, and less of inputs."""
    layers: list[nn.Module] = []
    for layer in net:
        if rate and isinstance(layer, nn.Linear):
            layers.append(nn.Dropout(rate if layers else 0.4 * rate))
        layers.append(layer)
    return nn.Sequential(*layers)


def train(
    net: nn.Sequential, data: Any, epochs: int, lr: float, batch: int, seed: int, method: str
) -> float:
    """Train with labels; the error on the test set, in percent."""
    (x, y), test = data
    falling = schedules.Polynomial(epochs, unit="epoch")
    optimizer: optim.Optimizer = optim.Adam(lr=lr, schedule=falling)
    if method == "momentum":
        optimizer = optim.SGD(lr=lr, momentum=0.9, schedule=falling)
    trainer = fnn.Trainer(net, "cross_entropy", optimizer, ["accuracy"], seed=seed)
    trainer.fit(x, y, epochs=epochs, batch_size=batch, verbose=False)
    return 100 * (1 - trainer.evaluate(*test)["accuracy"])


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--kind", choices=("rbm", "autoencoder"), default="rbm")
    parser.add_argument("--layers", default="500,500,2000", help="sizes of the hidden layers")
    parser.add_argument("--pretrain-epochs", type=int, default=10, help="for each layer")
    parser.add_argument("--epochs", type=int, default=15, help="with labels")
    parser.add_argument("--dropout", type=float, default=0.0, help="rate, while labels are learned")
    parser.add_argument(
        "--plain-dropout", type=float, help="of the net without pre-training: --dropout"
    )
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3, help="with labels, at the beginning")
    parser.add_argument("--optimizer", choices=("adam", "momentum"), default="adam")
    parser.add_argument("--plain-lr", type=float, help="of the net without pre-training: --lr")
    parser.add_argument(
        "--init",
        default="glorot_uniform",
        choices=("glorot_uniform", "torch_linear"),
        help="weights without pre-training: Glorot & Bengio's (2010) or, before them, uniform in "
        "±1 / √inputs",
    )
    parser.add_argument(
        "--validation", action="store_true", help="hold a sixth of the training set out, for tests"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)

    data = images(options.data, options.validation)
    x, classes = data[0][0], int(data[0][1].max()) + 1
    sizes = [x.shape[1], *map(int, options.layers.split(","))]
    plain_lr = options.lr if options.plain_lr is None else options.plain_lr
    plain_dropout = options.dropout if options.plain_dropout is None else options.plain_dropout
    errors: dict[str, list[float]] = {"with": [], "without": []}
    for seed in range(options.first, options.first + options.seeds):
        first = options.pretrain_epochs, options.batch_size, seed, options.quiet
        rest = options.batch_size, seed, options.optimizer
        begin = time.process_time()
        net = pretrained_net(options.kind, sizes, classes, x, *first)
        middle = time.process_time()
        net = with_dropout(net, options.dropout)
        errors["with"].append(train(net, data, options.epochs, options.lr, *rest))
        before, after = middle - begin, time.process_time() - middle

        epochs = round(options.epochs * (before + after) / after)  # in the same time
        begin = time.process_time()
        plain = with_dropout(plain_net(sizes, classes, options.init), plain_dropout)
        errors["without"].append(train(plain, data, epochs, plain_lr, *rest))
        alone = time.process_time() - begin
        print(
            f"seed {seed}: with pre-training {errors['with'][-1]:.2f} % test error "
            f"({before:.0f} s + {after:.0f} s), without {errors['without'][-1]:.2f} % "
            f"({epochs} epochs, {alone:.0f} s)",
            flush=True,
        )
    for name, found in errors.items():
        print(f"{name} pre-training: {np.mean(found):.2f} % test error, {len(found)} seeds")
    return errors


if __name__ == "__main__":
    main()
