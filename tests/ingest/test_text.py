"""Plain text: any common encoding; headings only where little doubt is left; questions keep their answers apart."""

import pytest

from luthier.ingest.text import decode, looks_like_text, spans_of


def kinds(text):
    return [(span.kind, span.level, span.text) for span in spans_of(text)]


def test_paragraphs_are_joined_again_and_short_lines_stay():
    wrapped = "This paragraph was wrapped by an editor at seventy characters, which is\nwhat most of them do, with a " \
              "word cut by a hyphen at the end of the mar-\ngin."
    joined = kinds(wrapped)[0][2]
    assert "which is what most" in joined and joined.endswith("the margin.") and "\n" not in joined
    address = f"{wrapped}\n\nACME Ltd\n1 Mill Lane\nLeeds"
    assert kinds(address)[-1] == ("paragraph", 0, "ACME Ltd\n1 Mill Lane\nLeeds")


def test_headings():
    text = ("Title\n=====\n\nIntro text.\n\nPart\n----\nText right below.\n\n2.1 Cleaning the filter\n\nTake it "
            "out.\n\nWARRANTY TERMS\n\nTwo years.\n\nThis is a sentence\n\nAnother one.\n")
    assert [(level, text) for kind, level, text in kinds(text) if kind == "heading"] == [
        (1, "Title"), (2, "Part"), (2, "2.1 Cleaning the filter"), (1, "WARRANTY TERMS")]


def test_steps_are_no_headings():
    assert kinds("1. Open the lid.\n\n2. Take it out.\n\n3. Close it.")[0][0] == "paragraph"
    assert kinds("1. Open the lid\n2. Take it out\n3. Close it") == [
        ("list", 0, "1. Open the lid\n2. Take it out\n3. Close it")]


def test_lists_with_depth_and_wrapped_items():
    text = "You need:\n- a key that fits the lock of the\n  cabinet\n  - spare\n* a lamp\n"
    assert kinds(text) == [("paragraph", 0, "You need:"),
                           ("list", 0, "- a key that fits the lock of the cabinet\n  - spare\n- a lamp")]


def test_questions_and_answers_are_spans_of_their_own():
    text = "Q: How long does delivery take?\nA: Two days.\nQ: And abroad?\nA: Up to\nten days.\n"
    assert [t for _, _, t in kinds(text)] == [
        "Q: How long does delivery take?", "A: Two days.", "Q: And abroad?", "A: Up to ten days."]


def test_tables():
    pipes = "| a | b |\n|---|---|\n| 1 | 2 |"
    assert kinds(pipes) == [("table", 0, pipes)]
    columns = "Name      Price   Stock\nPump      12.50   4\nSeal      0.80    120\n"
    assert kinds(columns) == [("table", 0, "| Name | Price | Stock |\n|---|---|---|\n| Pump | 12.50 | 4 |\n"
                                           "| Seal | 0.80 | 120 |")]


def test_lines_are_counted_from_one():
    assert [span.line for span in spans_of("\n\nfirst\n\nsecond\nmore\n\nthird")] == [3, 5, 8]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings(encoding):
    text = "Die Größe der Straße beträgt 5 €.\nZweite Zeile, damit es genug Text zum Erkennen gibt.\n" * 5
    data = text.replace("\n", "\r\n").encode(encoding)
    assert looks_like_text(data[:100])
    assert decode(data)[0] == text


def test_noise_is_not_text():
    import random

    assert not looks_like_text(random.Random(0).randbytes(4000))
    assert not looks_like_text(b"")
    assert looks_like_text("日本語のテキスト".encode()[:-1])  # cut inside a character
