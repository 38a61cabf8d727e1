"""Structured mutations of checkpoints: nothing but fastnn's errors, no change by a failed load.

    python -m tests.fuzz.checkpoints --count 100000

Half of them are made of valid parts with a right checksum (other metadata, names, shapes, types,
arrays), a quarter are changes of a file's bytes, a quarter changes of safetensors' header.
"""

from __future__ import annotations

import json
import random
import struct
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from fastnn import nn, optim
from fastnn.engine.container import checksum
from fastnn.train.callbacks import Callback, EarlyStopping, LearningRateScheduler, ReduceLROnPlateau
from fastnn.train.checkpoint import Loaded
from fastnn.train.hooks import CallbackList
from fastnn.train.trainer import Trainer
from tests.fuzz.common import Watcher, fresh, main, mutate

#: values of JSON that are wrong nearly everywhere
ODD = (
    "null", "true", "-1", "0", "1", "3.5", "1e999", "-1e999", "NaN", "99999999999999999999", '""',
    '"x"', "[]", "[1]", "{}", '{"a":1}', "[[[[]]]]", "[" * 100000, "9" * 5000, "", "nul", "\x00",
    '"\\ud800"', "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    '{"kind":1}', '{"kind":"Adam","options":{}}', '{"__array__":3}', '["loss"]', "1e308", "5e-324",
)  # fmt: skip


def trainer() -> Trainer:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm(3), nn.Linear(3, 2))
    return Trainer(model, "cross_entropy", optim.Adam(lr=0.1), metrics=["accuracy"], workers=1)


def hooks(owner: Trainer) -> CallbackList:
    found = CallbackList(
        [EarlyStopping("loss", patience=9), ReduceLROnPlateau("loss"),
         LearningRateScheduler(lambda epoch, rate: rate)]
    )  # fmt: skip
    found.set_model(owner.model)
    return found


class CtrlC(Callback):
    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if self.trainer.epoch == 1 and batch == 1:
            raise KeyboardInterrupt


@cache
def originals(folder: Path) -> list[bytes]:
    """A file between epochs, one within an epoch, one of a model."""
    x, y = np.ones((16, 4), np.float32), np.zeros(16, np.int64)
    found = []
    for more in ([], [CtrlC()]):
        owner = trainer()
        owner.fit(x, y, epochs=2, batch_size=4, verbose=False, callbacks=[*hooks(owner), *more])
        owner.save(folder / "original")
        found.append((folder / "original").read_bytes())
    owner.model.save(folder / "original")
    return [*found, (folder / "original").read_bytes()]


def parts(content: bytes, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(fresh(folder / "parts", content), "numpy") as file:
        texts = dict(file.metadata())
        return {name: file.get_tensor(name) for name in file.keys()}, texts  # noqa: SIM118


def rebuilt(content: bytes, chance: random.Random, folder: Path) -> bytes:
    """Other parts, with a right checksum."""
    arrays, texts = parts(content, folder)
    texts.pop("checksum")
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = chance.randrange(7)
        key, name = chance.choice(sorted(texts)), chance.choice(sorted(arrays))
        if kind == 0:
            texts.pop(key)
            texts.setdefault("format_version", "1")
        elif kind == 1:
            texts[key] = chance.choice(ODD).replace("\x00", "\\u0000")
        elif kind == 2:
            with suppress(ValueError, RecursionError):  # one that was replaced before
                texts[key] = json.dumps(changed(json.loads(texts[key]), chance))
        elif kind == 3:
            arrays[chance.choice(("x", "", "totals", "model.", "callback.x", name + ".y"))] = (
                arrays.pop(name) if chance.random() < 0.5 else arrays[name]
            )
        elif kind == 4:
            shape = chance.choice(((), (0,), (1,), (3, 4), (4, 3), (0, 2**40), (2, 2, 2)))
            arrays[name] = np.zeros(shape, arrays[name].dtype)
        elif kind == 5:
            other = chance.choice(("f2", "f4", "f8", "i1", "i8", "u2", "bool"))
            with np.errstate(all="ignore"):
                arrays[name] = np.nan_to_num(arrays[name]).astype(other)
                arrays[name] = np.asarray(arrays[name])
        else:
            array = arrays[name]
            arrays[name] = np.full_like(array, np.nan if array.dtype.kind == "f" else 1)
    texts["checksum"] = checksum(arrays, texts)
    return bytes(save(arrays, texts))


def changed(value: Any, chance: random.Random) -> Any:
    """A value of JSON with something of it replaced, somewhere inside."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], changed(value[place], chance), *value[place + 1 :]]
    return chance.choice(
        (None, True, -1, 0, 2**63, -(2**63) - 1, 10**400, 0.5, float("inf"), float("nan"), "", "x",
         [], {}, [None], {"__array__": "x"}, {"a": []}, "loss", 1e308)
    )  # fmt: skip


def header(content: bytes, chance: random.Random) -> bytes:
    """Another header of safetensors before the same bytes."""
    (size,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + size])
    kind = chance.randrange(4)
    name = chance.choice(sorted(head))
    if kind == 0:
        head = changed(head, chance)
    elif kind == 1 and name != "__metadata__":
        head[name]["shape"] = chance.choice(([2**62, 4], [-1], [0], [1] * 70, [2**31, 2**31], []))
    elif kind == 2 and name != "__metadata__":
        head[name]["dtype"] = chance.choice(("F64", "BF16", "F8_E4M3", "C64", "I64", "X", ""))
    elif name != "__metadata__":
        head[name]["data_offsets"] = [chance.choice((0, 2**60, 7)), chance.choice((4, 2**62, 0))]
    text = json.dumps(head).encode()
    length = len(text) if chance.random() < 0.8 else chance.choice((0, 2**63, 2**31, len(text) - 1))
    return struct.pack("<Q", length) + text + content[8 + size :]


def state(owner: Trainer) -> list[bytes]:
    """Every byte that training depends on."""
    session = owner.session
    arrays = [session.memory[name] for name in sorted(session.memory) if name != "grads"]
    place = (
        f"{owner.place} {owner.seed} {owner.rate_factor} {owner.hook_call} {owner.pending is None}"
    )
    return [place.encode(), *(array.tobytes() for array in arrays)]


def resume(owner: Trainer, callbacks: CallbackList, path: Path) -> None:
    loaded = Loaded(owner, path)
    loaded.check_callbacks(callbacks)
    loaded.apply()


def run(count: int, seed: int, folder: Path) -> Watcher:
    """Load so many mutations, as a trainer's and as a model's."""
    files = originals(folder)
    owner, watcher = trainer(), Watcher("checkpoints")
    callbacks, model = hooks(owner), trainer().model
    model.store()
    before, arrays = state(owner), {n: a.tobytes() for n, a in model.state_dict().items()}
    for number in range(count):
        chance = random.Random(seed * 10**9 + number)
        content = chance.choice(files)
        kind = chance.randrange(4)
        content = (
            mutate(content, chance) if kind == 0
            else header(content, chance) if kind == 1
            else rebuilt(content, chance, folder)
        )  # fmt: skip
        path = fresh(folder / "mutant", content)

        if watcher.run(partial(resume, owner, callbacks, path), number):
            owner = trainer()
            callbacks = hooks(owner)
        elif state(owner) != before:
            watcher.faults.append(f"{number}: a load that failed has changed the trainer")
            owner = trainer()
            callbacks = hooks(owner)
        if number % 4 == 0:
            if watcher.run(partial(model.load, path), number):
                model = trainer().model
                model.store()
            elif {n: a.tobytes() for n, a in model.state_dict().items()} != arrays:
                watcher.faults.append(f"{number}: a load that failed has changed the model")
    watcher.finish()
    return watcher


if __name__ == "__main__":
    main({"checkpoints": run}, 100_000)
