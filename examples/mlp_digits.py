"""Handwritten digits with the trainer: the shortest way from data to a trained model.

python examples/mlp_digits.py --epochs 30
"""

from __future__ import annotations

import argparse

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)

    (x_train, y_train), (x_test, y_test) = load_digits()
    model = nn.Sequential(
        nn.Linear(64, options.hidden),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(options.hidden, 10),
    )
    trainer = fnn.Trainer(
        model,
        loss=nn.CrossEntropyLoss(label_smoothing=0.05),
        optimizer=optim.AdamW(lr=3e-3),
        metrics=["accuracy"],
        seed=options.seed,
    )
    trainer.fit(
        x_train,
        y_train,
        epochs=options.epochs,
        batch_size=32,
        validation=0.1,
        verbose=not options.quiet,
    )
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    print(f"test accuracy {accuracy:.4f} with {model.parameter_count} parameters")
    return accuracy


if __name__ == "__main__":
    main()
