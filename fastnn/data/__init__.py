"""Data sets, and functions that turn text and sound into arrays.

Importing it is cheap: each part is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

#: public name -> module that has it
_PUBLIC = {
    "AddNoise": "augment",
    "Augment": "augment",
    "Buckets": "bucketing",
    "Gain": "augment",
    "NGram": "ngram",
    "Normaliser": "audio",
    "Recordings": "audio_folder",
    "Room": "augment",
    "Speed": "augment",
    "Subwords": "subwords",
    "Transcribed": "transcribed",
    "Vocabulary": "text",
    "align_symbols": "error_rates",
    "batchify": "text",
    "bleu": "translation",
    "bucket_batches": "text",
    "change_gain": "augment",
    "change_speed": "signals",
    "character_error_rate": "error_rates",
    "chrf": "translation",
    "convert_tags": "conll2003",
    "deltas": "audio",
    "entities": "metrics",
    "entity_scores": "metrics",
    "frames": "audio",
    "join_words": "subwords",
    "load_an4": "transcribed",
    "load_conll2003": "conll2003",
    "load_digits": "digits",
    "load_mnist": "mnist",
    "load_multi30k": "multi30k",
    "load_ptb": "ptb",
    "load_recordings": "audio_folder",
    "load_shakespeare": "shakespeare",
    "load_speech_commands": "speech_commands",
    "load_spoken_digits": "spoken_digits",
    "load_transcribed": "transcribed",
    "log_mel": "audio",
    "mfcc": "audio",
    "mu_law_decode": "companding",
    "mu_law_encode": "companding",
    "normalise": "audio",
    "pack": "sequences",
    "pad": "sequences",
    "predict_sequences": "bucketing",
    "read_audio": "audio",
    "resample": "signals",
    "reverberate": "augment",
    "room_response": "augment",
    "split_words": "subwords",
    "unpack": "sequences",
    "unpad": "sequences",
    "windows": "text",
    "with_deltas": "audio",
    "with_noise": "augment",
    "word_error_rate": "error_rates",
}

if TYPE_CHECKING:
    from fastnn.data.audio import (
        Normaliser,
        deltas,
        frames,
        log_mel,
        mfcc,
        normalise,
        read_audio,
        with_deltas,
    )
    from fastnn.data.audio_folder import Recordings, load_recordings
    from fastnn.data.augment import (
        AddNoise,
        Augment,
        Gain,
        Room,
        Speed,
        change_gain,
        reverberate,
        room_response,
        with_noise,
    )
    from fastnn.data.bucketing import Buckets, predict_sequences
    from fastnn.data.companding import mu_law_decode, mu_law_encode
    from fastnn.data.conll2003 import convert_tags, load_conll2003
    from fastnn.data.digits import load_digits
    from fastnn.data.error_rates import align_symbols, character_error_rate, word_error_rate
    from fastnn.data.metrics import entities, entity_scores
    from fastnn.data.mnist import load_mnist
    from fastnn.data.multi30k import load_multi30k
    from fastnn.data.ngram import NGram
    from fastnn.data.ptb import load_ptb
    from fastnn.data.sequences import pack, pad, unpack, unpad
    from fastnn.data.shakespeare import load_shakespeare
    from fastnn.data.signals import change_speed, resample
    from fastnn.data.speech_commands import load_speech_commands
    from fastnn.data.spoken_digits import load_spoken_digits
    from fastnn.data.subwords import Subwords, join_words, split_words
    from fastnn.data.text import Vocabulary, batchify, bucket_batches, windows
    from fastnn.data.transcribed import Transcribed, load_an4, load_transcribed
    from fastnn.data.translation import bleu, chrf

__all__ = [
    "AddNoise", "Augment", "Buckets", "Gain", "NGram", "Normaliser", "Recordings", "Room", "Speed",
    "Subwords", "Transcribed", "Vocabulary", "align_symbols", "batchify", "bleu", "bucket_batches",
    "change_gain", "change_speed", "character_error_rate", "chrf", "convert_tags", "deltas",
    "entities", "entity_scores", "frames", "join_words", "load_an4", "load_conll2003",
    "load_digits", "load_mnist", "load_multi30k", "load_ptb", "load_recordings", "load_shakespeare",
    "load_speech_commands", "load_spoken_digits", "load_transcribed", "log_mel", "mfcc",
    "mu_law_decode", "mu_law_encode", "normalise", "pack", "pad", "predict_sequences", "read_audio",
    "resample", "reverberate", "room_response", "split_words", "unpack", "unpad", "windows",
    "with_deltas", "with_noise", "word_error_rate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fastnn.data' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"fastnn.data.{_PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
