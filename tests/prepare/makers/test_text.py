"""Domain text: everything is kept once, in order, and never across a split."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.prepare.makers.text import Text

SENTENCES = [
    f"Rule number {n} of the workshop says that tool {n} is returned to shelf {n} every evening." for n in range(40)
]


def pages(doc):
    return doc("# Workshop rules", "## Tools", *SENTENCES[:20], "## Shelves", *SENTENCES[20:], title="Workshop rules")


def test_every_sentence_stands_in_exactly_one_piece(context, run, doc):
    examples, dropped = run(Text(max_chars=900), context(pages(doc), split="train"))
    assert not dropped and len(examples) > 3
    for sentence in SENTENCES:
        assert sum(sentence in example.input for example in examples) == 1
    assert all(example.target is None and len(example.input) <= 1200 for example in examples)


def test_pieces_never_join_passages_of_two_splits(context, run, doc):
    found = context(pages(doc), max_tokens=60, split=lambda id: "test" if int(id, 16) % 3 == 0 else "train")
    examples, _ = run(Text(max_chars=5000, min_chars=1), found)
    for example in examples:
        assert len({found.split_of(passage) for passage in example.origin.passages}) == 1
    used = [passage for example in examples for passage in example.origin.passages]
    assert used == [passage.id for passage in found.passages]


def test_headings_stand_once_where_they_begin(context, run, doc):
    examples, _ = run(Text(max_chars=9000), context(pages(doc), split="train"))
    assert len(examples) == 1
    text = examples[0].input
    assert text.startswith("Workshop rules") and text.count("Shelves") == 1
    assert text.index("Tools") < text.index(SENTENCES[0]) < text.index("Shelves") < text.index(SENTENCES[20])


def test_overlap_between_passages_is_learned_once(context, run, doc):
    from luthier.prepare.chunk import Chunk
    from luthier.prepare.steps import StepContext

    found = context(doc("# Rules", " ".join(SENTENCES)), split="train")
    chunks = [
        kept.item for kept in Chunk(max_tokens=80, overlap=30).apply(found.documents, StepContext(task=found.task))
    ]
    repeated = [sentence for sentence in SENTENCES if sum(sentence in chunk.text for chunk in chunks) == 2]
    assert len(repeated) > 5, "the chunker repeats sentences, else this proves nothing"
    examples, _ = run(Text(max_chars=9000), type(found)(**{**found.__dict__, "passages": chunks}))
    assert all("".join(example.input for example in examples).count(sentence) == 1 for sentence in SENTENCES)


def test_scraps_are_dropped_with_a_reason(context, run, doc):
    examples, dropped = run(Text(min_chars=100), context(doc("Page 7", title="")))
    assert not examples and [drop.reason for drop in dropped] == ["too-short"]


def test_limits_must_make_sense():
    with pytest.raises(ValidationError, match="must be below max_chars"):
        Text(min_chars=500, max_chars=400)
