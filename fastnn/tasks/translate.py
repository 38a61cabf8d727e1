"""Translation: a recurrent encoder and decoder with attention, or a Transformer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn
from fastnn.data.multi30k import Sentences
from fastnn.data.sequences import pad
from fastnn.data.subwords import Subwords, join_words, split_words
from fastnn.data.text import Vocabulary, bucket_batches
from fastnn.data.translation import bleu
from fastnn.errors import DataError, OptionError
from fastnn.graph.value import Value
from fastnn.optim.schedules import Trapezoid
from fastnn.tasks import description, training
from fastnn.tasks.translators import RecurrentTranslator, TransformerTranslator
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

START, STOP, UNKNOWN = "<s>", "</s>", "<unk>"
#: target of the places past a sentence's end
IGNORED = -1
#: steps of a mini-batch are rounded up to a multiple of it, so that few programs are planned
MULTIPLE = 4
KINDS = ("gru", "transformer")
#: pieces of the longest translation that is looked for
LONGEST = 60


class _Writer(nn.Module):
    """What a translator writes, by beam search."""

    def __init__(self, model: nn.Module, **options: Any):
        self.model, self.options = model, options

    def forward(self, ids: Value, lengths: Value) -> Any:
        model: Any = self.model
        return model.write(ids, lengths, **self.options)


class _Aligned(nn.Module):
    def __init__(self, model: RecurrentTranslator):
        self.model = model

    def forward(self, ids: Value, lengths: Value, targets: Value) -> Value:
        return self.model.alignments(ids, lengths, targets)


class Translation(NamedTuple):
    """A sentence's translation: the text, its log-probability, and the pieces of both."""

    text: str
    score: float
    source: list[str]
    target: list[str]


class Translator:
    """A trained model with what cuts sentences into pieces and joins them again.

    Args:
        model: a `RecurrentTranslator` or `TransformerTranslator`.
        vocabulary: the pieces of both languages; those of the start, the stop and unknown ones come
            first.
        subwords: what cuts words into pieces.
    """

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, subwords: Subwords):
        self.model, self.vocabulary, self.subwords = model, vocabulary, subwords
        self._writers: dict[tuple[Any, ...], _Writer] = {}

    def encode(self, text: str) -> NDArray[np.int64]:
        """A sentence's ids."""
        return self.vocabulary.encode(self.subwords.split(split_words(text)))

    def __call__(
        self, sentences: Sequence[str], *, width: int = 5, length_penalty: float = 0.6,
        batch_size: int = 32,
    ) -> list[Translation]:  # fmt: skip
        """Translate sentences, in lower case.

        Args:
            sentences: the texts; an empty one stays empty.
            width, length_penalty: as of `ops.beam_search`.
            batch_size: sentences, of similar length, at a time.
        """
        if isinstance(sentences, str) or not all(isinstance(s, str) for s in sentences):
            raise DataError(f"translate: expected a list of sentences, got {sentences!r}")
        ids = [self.encode(text) for text in sentences]
        found: list[Translation | None] = [None] * len(ids)
        full = [k for k in range(len(ids)) if len(ids[k])]
        for k in range(len(ids)):
            if not len(ids[k]):
                found[k] = Translation("", 0.0, [], [])
        order = sorted(full, key=lambda k: len(ids[k]))
        options = {"steps": LONGEST, "width": width, "length_penalty": length_penalty}
        writer = self._writers.setdefault(
            tuple(options.values()), _Writer(self.model, n_best=1, **options)
        )
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            given, lengths = _padded([ids[k] for k in rows])
            symbols, counts, scores = writer.predict(given, lengths, batch_size=batch_size)
            for place, k in enumerate(rows):
                written = symbols[place, 0, : counts[place, 0]]
                pieces = self.vocabulary.decode(written[written != 1])
                text = join_words(self.subwords.join(pieces))
                source = self.vocabulary.decode(ids[k])
                found[k] = Translation(text, float(scores[place, 0]), source, pieces)
        return [one for one in found if one is not None]

    def alignment(self, translation: Translation) -> NDArray[Any]:
        """The attention's weights for a translation, (pieces and the stop symbol, pieces of the
        source); of a recurrent model."""
        model = self.model
        if not isinstance(model, RecurrentTranslator) or model.decoder.attention is None:
            without = "" if not isinstance(model, RecurrentTranslator) else " without attention"
            raise OptionError(
                "alignment: expected a recurrent model, whose attention has one set of weights, "
                f"got {type(model).__name__}{without}"
            )
        if not translation.source:
            raise DataError(
                "alignment: expected a sentence with words, got an empty one; there is nothing to "
                "look at"
            )
        source, target = (
            self.vocabulary.encode(p) for p in (translation.source, translation.target)
        )
        given, lengths = _padded([source])
        weights = _Aligned(model).predict(given, lengths, np.append(target, 1)[None])
        found: NDArray[Any] = weights[0, :, : len(source)]
        return found


def _padded(ids: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    longest = max(len(one) for one in ids)
    return pad(ids, 0, -(-longest // MULTIPLE) * MULTIPLE)


class Pairs:
    """Mini-batches of sentences and translations of similar length, for `Trainer.fit`: ((ids,
    lengths, translations), targets).

    Args:
        sources, targets: ids of each sentence; those of translations end with the stop symbol.
        batch_size: pairs of a mini-batch.
        seed: of the order, which is another one in each epoch.
    """

    def __init__(
        self, sources: Sequence[NDArray[np.int64]], targets: Sequence[NDArray[np.int64]],
        batch_size: int, seed: int = 0,
    ):  # fmt: skip
        if not 1 <= batch_size <= len(sources):
            raise OptionError(
                f"batch_size: expected 1..{len(sources)}, the number of pairs, got {batch_size}"
            )
        self.sources, self.targets = sources, targets
        self.lengths = np.array(
            [len(t) + 0.01 * len(s) for s, t in zip(sources, targets, strict=True)]
        )
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the order for this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sources) // self.batch_size

    def __iter__(self) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
        batches = bucket_batches(
            self.lengths, self.batch_size, self.seed, self.epoch, drop_last=True
        )
        for rows in batches:
            given, lengths = _padded([self.sources[k] for k in rows])
            wanted = [self.targets[k] for k in rows]
            steps = -(-max(len(one) for one in wanted) // MULTIPLE) * MULTIPLE
            yield (given, lengths, pad(wanted, 1, steps)[0]), pad(wanted, IGNORED, steps)[0]


def learn_pieces(
    sentences: Sequence[str], merges: int, library: str = "own"
) -> tuple[Vocabulary, Subwords]:
    """The pieces of sentences of all languages, and their vocabulary."""
    words = [word for text in sentences for word in split_words(text)]
    subwords = Subwords.learn(words, merges, library=library)
    vocabulary = Vocabulary.build(
        subwords.split(words), unknown=UNKNOWN, special=(START, STOP, UNKNOWN)
    )
    return vocabulary, subwords


def make_model(kind: str, symbols: int, **options: Any) -> nn.Module:
    """A model of a kind, "gru" or "transformer"."""
    if kind not in KINDS:
        raise OptionError(f"model: expected one of {', '.join(KINDS)}, got {kind!r}")
    made = RecurrentTranslator if kind == "gru" else TransformerTranslator
    return made(symbols, **options)


def train_translator(
    data: Sentences, *, model: str = "gru", size: int = 256, layers: int = 3,
    attention: bool = True, merges: int = 6000, subwords: str = "own", dropout: float = 0.3,
    batch_size: int = 64, epochs: int = 10, lr: float = 1e-3, clip: float = 1.0,
    smoothing: float = 0.1, width: int = 5,
    seed: int = 0, device: str = "auto", workers: int | str = "auto", precision: str = "highest",
    resume: str | Path | None = None, verbose: bool = True, callbacks: Sequence[Callback] = (),
) -> tuple[Trainer, History, Translator, dict[str, float]]:  # fmt: skip
    """Train with Adam on the first part, in lower case, and translate the others by beam search.

    Args:
        data: see `load_multi30k`.
        model: "gru" or "transformer".
        size: of vectors, units and steps.
        layers: of the Transformer's encoder and decoder, each.
        attention: whether the GRU's decoder looks back at the sentence; else it knows the mean of
            the encoder's outputs alone.
        merges: pieces that are learnt from both languages together.
        subwords: what learns them, the library of `Subwords.learn`.
        dropout: see the models.
        batch_size, epochs, lr: pairs of a step, passes over the data, the highest learning rate: it
            rises in the first twentieth of the steps and falls to 0 in a straight line.
        clip: limit of the norm of all gradients together.
        smoothing: of the targets (Szegedy et al. 2016).
        width: of the beam search.
        seed, device, workers, precision, resume, verbose, callbacks: see `Trainer`.

    Returns the trainer, the history, the translator, and BLEU of "valid" and "test"; after Ctrl-C
    nothing is translated, and there are no scores.

    Raises DataError for a part without sentences.
    """
    for part, (given, _) in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        if not any(split_words(text) for text in given):
            raise DataError(
                f"train_translator: expected sentences in the part {part!r}, got "
                f"{'lines without words' if given else 'none'}"
            )
    vocabulary, pieces = learn_pieces([*data.train[0], *data.train[1]], merges, subwords)
    options: dict[str, Any] = {"dropout": dropout}
    options |= (
        {"embedding": size, "hidden": size, "attention": attention}
        if model == "gru"
        else {"size": size, "layers": layers, "feedforward": 2 * size}
    )
    net = make_model(model, len(vocabulary), **options)
    translator = Translator(net, vocabulary, pieces)
    description.mark(net, described(translator, data))

    def pairs(part: tuple[list[str], list[str]]) -> Pairs:
        sources, targets = ([translator.encode(text) for text in side] for side in part)
        there = [k for k in range(len(sources)) if len(sources[k])]
        return Pairs(
            [sources[k] for k in there], [np.append(targets[k], 1) for k in there],
            min(batch_size, len(there)), seed,
        )  # fmt: skip

    batches, valid = pairs(data.train), pairs(data.valid)
    steps = len(batches) * epochs
    trainer, history = training.train(
        net, nn.CrossEntropyLoss(ignore_index=IGNORED, label_smoothing=smoothing), batches,
        schedule=Trapezoid(steps, warmup=steps // 20, cooldown=steps - steps // 20), lr=lr,
        clip=clip, validation=valid, precision=precision,
        epochs=epochs, callbacks=callbacks, seed=seed, device=device, workers=workers,
        resume=resume, verbose=verbose,
    )  # fmt: skip
    scores = {
        name: bleu([t.text for t in translator(part[0], width=width)], part[1], lower=True)
        for name, part in (("valid", data.valid), ("test", data.test))
        if not training.interrupted(history)
    }
    return trainer, history, translator, scores


# -------------------------------------------------------------------- beside a checkpoint


def save_description(translator: Translator, data: Sentences, checkpoint: Path) -> Path:
    """Write what is needed to make the translator again, as JSON beside a checkpoint."""
    return description.write(checkpoint, described(translator, data), translator.model)


def described(translator: Translator, data: Sentences) -> dict[str, Any]:
    """What `save_description` writes."""
    model: Any = translator.model
    kind = "gru" if isinstance(model, RecurrentTranslator) else "transformer"
    if kind == "gru":
        options = {
            "embedding": model.vectors.embedding_dim, "hidden": model.decoder.hidden,
            "attention": model.decoder.attention is not None,
        }  # fmt: skip
    else:
        layer = model.net.encoder.layers[0]
        options = {
            "size": model.size, "heads": layer.self_attn.num_heads,
            "layers": len(model.net.encoder.layers), "feedforward": layer.linear1.out_features,
        }  # fmt: skip
    return {
        "translator": kind, "options": options, "source": data.source, "target": data.target,
        "symbols": list(translator.vocabulary), "merges": translator.subwords.merges,
    }  # fmt: skip


def load_translator(path: str | os.PathLike[str]) -> Translator:
    """A trained translator.

    Args:
        path: a checkpoint with its description beside it (`model.json` for `model.safetensors`), or
            the folder that `fastnn train translate` wrote.

    Raises DataError where there is no description, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "translate") as (checkpoint, state):
        if not files.strings(state["symbols"]) or state["symbols"][:3] != [START, STOP, UNKNOWN]:
            raise ValueError("symbols are not pieces with those of start, stop and unknown first")
        files.check_options(state["options"])
        vocabulary = Vocabulary(state["symbols"], unknown=UNKNOWN)
        subwords = Subwords((a, b) for a, b in state["merges"])
        model = make_model(state["translator"], len(vocabulary), **state["options"])
    model.load(checkpoint)
    return Translator(model, vocabulary, subwords)
