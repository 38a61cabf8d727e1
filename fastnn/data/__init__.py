"""Data sets, and functions that turn text and sound into arrays.

Importing it is cheap: each part is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

#: public name -> module that has it
_PUBLIC = {
    "Buckets": "bucketing",
    "Normaliser": "audio",
    "Vocabulary": "text",
    "batchify": "text",
    "bucket_batches": "text",
    "convert_tags": "conll2003",
    "deltas": "audio",
    "entities": "metrics",
    "entity_scores": "metrics",
    "load_conll2003": "conll2003",
    "load_digits": "digits",
    "load_mnist": "mnist",
    "load_ptb": "ptb",
    "load_shakespeare": "shakespeare",
    "load_spoken_digits": "spoken_digits",
    "log_mel": "audio",
    "mfcc": "audio",
    "normalise": "audio",
    "pack": "sequences",
    "pad": "sequences",
    "predict_sequences": "bucketing",
    "read_audio": "audio",
    "unpack": "sequences",
    "unpad": "sequences",
    "windows": "text",
    "with_deltas": "audio",
}

if TYPE_CHECKING:
    from fastnn.data.audio import (
        Normaliser,
        deltas,
        log_mel,
        mfcc,
        normalise,
        read_audio,
        with_deltas,
    )
    from fastnn.data.bucketing import Buckets, predict_sequences
    from fastnn.data.conll2003 import convert_tags, load_conll2003
    from fastnn.data.digits import load_digits
    from fastnn.data.metrics import entities, entity_scores
    from fastnn.data.mnist import load_mnist
    from fastnn.data.ptb import load_ptb
    from fastnn.data.sequences import pack, pad, unpack, unpad
    from fastnn.data.shakespeare import load_shakespeare
    from fastnn.data.spoken_digits import load_spoken_digits
    from fastnn.data.text import Vocabulary, batchify, bucket_batches, windows

__all__ = [
    "Buckets", "Normaliser", "Vocabulary", "batchify", "bucket_batches", "convert_tags", "deltas",
    "entities", "entity_scores", "load_conll2003", "load_digits", "load_mnist", "load_ptb",
    "load_shakespeare", "load_spoken_digits", "log_mel", "mfcc", "normalise", "pack",
    "pad", "predict_sequences", "read_audio", "unpack", "unpad", "windows", "with_deltas",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fastnn.data' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"fastnn.data.{_PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
