"""Named entities: how words become numbers, and that the tagger learns."""

import numpy as np
import pytest
from click.testing import CliRunner

from fastnn import nn
from fastnn.cli.tag import tag
from fastnn.data import load_conll2003
from fastnn.data.conll2003 import Conll2003, Sentences
from fastnn.errors import DataError, OptionError
from fastnn.tasks import ner, tagger
from fastnn.tasks.tag_pictures import draw_transitions, draw_types
from tests.tasks.foreign import another_order, refused


def sentences(count, seed):
    """Towns end in -ton and are capitalised, persons follow 'mr'; the names are new each time."""
    rng = np.random.default_rng(seed)

    def name():
        return "".join(rng.choice(list("abdeilmorstu"), 5)).capitalize()

    words, tags = [], []
    for _ in range(count):
        if rng.random() < 0.5:
            words.append(["mr", name(), name(), "went", "to", name() + "ton", "."])
            tags.append(["O", "B-PER", "I-PER", "O", "O", "B-LOC", "O"])
        else:
            words.append([name() + "ton", "is", "in", "1996", "."])
            tags.append(["B-LOC", "O", "O", "O", "O"])
    return Sentences(words, tags, tags, tags, [0] * count, "IOB2")


@pytest.fixture(scope="module")
def news():
    return Conll2003(sentences(200, 0), sentences(40, 1), sentences(40, 2))


def test_words_as_numbers(news):
    encoder = tagger.Encoder.fit(news.train)
    long = "Abcdefgh" + "x" * 9 + "stuvwzyz"
    words, shapes, characters, lengths = encoder.inputs([["mr", "MR", "Zzz"], [long]])
    assert words[0].tolist() == [encoder.words["mr"]] * 2 + [encoder.words[tagger.UNKNOWN]]
    assert [tagger.SHAPES[k] for k in shapes[0]] == ["lower", "UPPER", "First"]
    assert characters[0].shape == (3, tagger.CHARACTERS)
    assert lengths[0].tolist() == [2, 2, 3]
    assert lengths[1].tolist() == [tagger.CHARACTERS]
    assert characters[0][0].tolist() == [*encoder.characters.encode("mr"), *[0] * 14]
    assert characters[1][0].tolist() == encoder.characters.encode("Abcdefghstuvwzyz").tolist()


def test_it_learns_names_that_it_has_never_seen(news, tmp_path):
    trainer, history, scores, encoder = ner.train_ner(
        news, embedding=8, hidden=12, dropout=0.2, batch_size=10, epochs=6, lr=0.02, workers=1,
        verbose=False,
    )  # fmt: skip
    assert scores["test"].f1 > 0.9
    assert scores["valid"].f1 == history["val_f1"][-1]
    trainer.save(tmp_path / "model.safetensors")
    ner.save_description(trainer.model, encoder, tmp_path / "model.safetensors")
    model, loaded = ner.load_tagger(tmp_path)
    assert loaded == encoder
    refused(ner.load_tagger, tmp_path, another_order("words"))
    refused(ner.load_tagger, tmp_path, another_order("characters"))
    assert ner.score(model, loaded, news.test) == scores["test"]
    text = tmp_path / "text.txt"
    text.write_text("mr Tolu Esmir went to Badeeton.\n\nRosimton is in 1996 .\n")
    runner, given = CliRunner(), ["--checkpoint", str(tmp_path)]
    shown = runner.invoke(tag, [str(text), *given])
    assert shown.output == (
        "mr [PER Tolu Esmir] went to [LOC Badeeton] .\n\n[LOC Rosimton] is in 1996 .\n"
    )
    columns = runner.invoke(
        tag, ["--columns", "--spaces", *given], input="\nRosimton is in 1996 .\n\n"
    )
    assert columns.output.split("\n") == ["Rosimton B-LOC", "is O", "in O", "1996 O", ". O", "", ""]


def test_bad_descriptions_are_refused(news, tmp_path):
    encoder = tagger.Encoder.fit(news.train)
    path = ner.save_description(encoder.model(hidden=4), encoder, tmp_path / "model.safetensors")
    for old, new in (('"ner"', '"asr"'), ('"IOB2"', '"IOB7"'), ('"B-LOC"', '"X-LOC"')):
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(DataError, match="expected the description of a tagger"):
            ner.load_tagger(tmp_path)
        path.write_text(path.read_text().replace(new, old))


def test_a_tagger_without_description(tmp_path):
    with pytest.raises(DataError, match="expected the description"):
        ner.load_tagger(tmp_path)


def test_tags_depend_on_the_sentence_alone(news):
    encoder = tagger.Encoder.fit(news.train)
    model = encoder.model(hidden=8)
    together = tagger.predict_tags(model, encoder, news.test.words)
    alone = [tagger.predict_tags(model, encoder, [s])[0] for s in news.test.words[:5]]
    assert together[:5] == alone
    assert [len(t) for t in together] == [len(s) for s in news.test.words]


def test_some_words_that_occur_once_are_hidden(news):
    encoder = tagger.Encoder.fit(news.train)
    inputs, targets = encoder.inputs(news.train.words), encoder.targets(news.train)
    times = np.bincount(np.concatenate(inputs[0]), minlength=len(encoder.words))
    unknown = encoder.words[tagger.UNKNOWN]

    def hidden(epoch):
        batches = ner.HiddenWords(0.5 * (times == 1), unknown, inputs, targets, 50)
        batches.set_epoch(epoch)
        return [int((words == unknown).sum()) for (words, *_), _ in batches]

    names = sum(len(s) == 7 for s in news.train.words) * 3 + sum(
        len(s) == 5 for s in news.train.words
    )
    assert 0.4 * names < sum(hidden(0)) < 0.6 * names
    assert hidden(1) == hidden(1) != hidden(2)


def test_the_public_set(real_data):
    news = load_conll2003()

    def first(part, count):
        fields = (part.words, part.pos, part.chunks, part.tags, part.documents)
        return Sentences(*(f[:count] for f in fields), part.scheme)

    few = Conll2003(first(news.train, 400), first(news.valid, 100), first(news.test, 100))
    _, _, scores, _ = ner.train_ner(few, hidden=32, epochs=3, lr=0.01, workers=1, verbose=False)
    assert scores["test"].f1 > 0.2


def test_pictures_show_what_may_follow_what_and_what_is_confused(tmp_path):
    crf = nn.CRF(["O", "B-X", "I-X"], "IOB2")
    crf.transitions.value = np.arange(9.0).reshape(3, 3)
    crf.start_transitions.value, crf.end_transitions.value = [10, 11, 12], [13, 14, 15]
    figure = draw_transitions(crf, tmp_path / "transitions.png")
    assert (tmp_path / "transitions.png").stat().st_size > 1000
    table = figure.axes[0].images[0].get_array().filled(-1).tolist()
    # I- neither first nor after O; nothing after the end
    assert table == [[10, 11, -1, -1], [0, 1, -1, 13], [3, 4, 5, 14], [6, 7, 8, 15]]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["start", *crf.names]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == [*crf.names, "end"]
    free = draw_transitions(nn.CRF(["a", "b"])).axes[0].images[0].get_array()
    assert free.mask.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    with pytest.raises(OptionError, match="names of its tags, got 4 tags without"):
        draw_transitions(nn.CRF(4))
    wanted, found = [["B-X", "I-X", "O"], ["B-Y"]], [["B-X", "O", "O"], ["S-X"]]
    figure = draw_types(wanted, found, tmp_path / "types.png")
    assert (tmp_path / "types.png").stat().st_size > 1000
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1.00", "0.00", "0.00", "0.50", "0.50", "0.00", "0.00", "1.00", "0.00"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["O", "X", "Y"]
