"""Mutations of every kind of file that fastnn reads: nothing but its own errors.

    python -m tests.fuzz.formats --count 20000

Names choose formats: idx gzip wav flac text words conll vocabulary language tagger tar table
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fastnn.data.audio import read_audio
from fastnn.data.conll2003 import read_conll
from fastnn.data.mnist import read_idx
from fastnn.data.ptb import load_ptb
from fastnn.data.shakespeare import load_shakespeare
from fastnn.data.sources import Tree
from fastnn.data.text import Vocabulary
from fastnn.train.callbacks import CSVLogger
from tests.fuzz.common import Watcher, fresh, main, mutate

Reader = Callable[[Path], object]
IDX = b"\0\0\x08\3" + struct.pack(">3I", 5, 4, 3) + bytes(range(60))


def waves() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(400, dtype="<i2").tobytes())
    return stream.getvalue()


def flac() -> bytes:
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.sin(np.arange(4000) / 9), 8000, format="FLAC")
    return stream.getvalue()


def tars(kind: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{kind}") as tar:
        for k in range(3):
            member = tarfile.TarInfo(f"set/recordings/{k}.wav")
            member.size = 300
            tar.addfile(member, io.BytesIO(bytes([k]) * 300))
    return stream.getvalue()


def read_tar(path: Path) -> None:
    import shutil

    folder = path.with_name("unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Tree("recordings", ".wav", 3, "", ()).unpack(path, folder)


def read_table(path: Path) -> None:
    logger = CSVLogger(path, append=True)
    logger.on_train_begin({})
    logger.on_epoch_end(9, {"loss": 1.0, "new": 2.0})
    logger.on_train_end({})


def read_words(path: Path) -> None:
    for part in ("train", "valid", "test"):
        fresh(path.with_name(f"ptb.{part}.txt"), path.read_bytes())
    load_ptb(folder=path.parent)


def read_plays(path: Path) -> None:
    fresh(path.with_name("input.txt"), path.read_bytes())
    load_shakespeare(folder=path.parent)


def read_language(path: Path) -> None:
    from fastnn.tasks.language import load_language_model

    load_language_model(path.with_suffix(".safetensors"))


def read_tagger(path: Path) -> None:
    from fastnn.tasks.ner import load_tagger

    load_tagger(path.with_suffix(".safetensors"))


def language() -> bytes:
    options = {"embedding": 3, "hidden": 4, "layers": 1, "dropout": 0.0}
    return json.dumps(
        {"unit": "character", "streams": 2, "options": options, "symbols": list("abc"),
         "unknown": None}
    ).encode()  # fmt: skip


def tagger() -> bytes:
    return json.dumps(
        {"options": {"hidden": 4}, "words": ["<pad>", "<unk>", "a"],
         "characters": ["<pad>", "<unk>", "a"], "tags": ["O", "B-PER"]}
    ).encode()  # fmt: skip


CONLL = (
    b"-DOCSTART- -X- O O\n\nPeter NNP B-NP B-PER\nBlackburn NNP I-NP I-PER\n. . O O\n\nx y z O\n"
)
VOCABULARY = b'{"unknown":"a","padding":null,"symbols":["a","b","c"]}'

#: name -> what files are made of, and what reads them
FORMATS: dict[str, tuple[Callable[[], list[bytes]], Reader]] = {
    "idx": (lambda: [IDX], read_idx),
    "gzip": (lambda: [gzip.compress(IDX), gzip.compress(IDX * 50)], read_idx),
    "wav": (lambda: [waves()], read_audio),
    "flac": (lambda: [flac()], read_audio),
    "text": (lambda: [b"First Citizen:\nBefore we proceed\n" * 9], read_plays),
    "words": (lambda: [b" the cat sat \n on the mat \n" * 9], read_words),
    "conll": (lambda: [CONLL], read_conll),
    "vocabulary": (lambda: [VOCABULARY], Vocabulary.load),
    "language": (lambda: [language()], read_language),
    "tagger": (lambda: [tagger()], read_tagger),
    "tar": (lambda: [tars(kind) for kind in ("", "gz", "bz2", "xz")], read_tar),
    "table": (lambda: [b"epoch,loss\r\n0,1.5\r\n1,0.5\r\n"], read_table),
}


def run(name: str, count: int, seed: int, folder: Path) -> Watcher:
    """Read so many mutations of a format."""
    make, read = FORMATS[name]
    originals, watcher = make(), Watcher(name)
    path = folder / "mutant.json"
    for number in range(count):
        chance = random.Random(seed * 10**9 + number)
        content = chance.choice(originals)
        if name == "gzip" and number % 2:  # a whole archive of something damaged
            content = gzip.compress(mutate(IDX, chance), 1)
        else:
            content = mutate(content, chance)
        fresh(path, content)
        watcher.run(lambda: read(path), number)
    watcher.finish()
    return watcher


RUNS = {name: partial(run, name) for name in FORMATS}

if __name__ == "__main__":
    main(RUNS, 20_000)
