"""Text that comes token by token equals the text decoded whole."""

import pytest
import torch

from luthier.serve.text import TextStream


def characters(tokens):
    return "".join(tokens)


def utf8(tokens):
    return bytes(tokens).decode("utf-8", "replace")


def feed(decode, tokens, stop=(), size=1):
    stream = TextStream(decode, stop)
    pieces = [stream.push(tokens[at : at + size]) for at in range(0, len(tokens), size)]
    return [*pieces, stream.flush()], stream


@pytest.mark.parametrize("size", [1, 2, 5])
def test_characters_of_several_tokens_come_whole(size):
    text = "Geige 🎻, ñandú und 日本"
    pieces, _ = feed(utf8, list(text.encode()), size=size)
    assert "".join(pieces) == text and not any("�" in piece for piece in pieces)


def test_bytes_that_never_become_a_character_are_given_in_the_end():
    tokens = [0x41, 0xF0, 0x9F]
    pieces, _ = feed(utf8, tokens)
    assert pieces[0] == "A" and "".join(pieces) == utf8(tokens)


def test_random_bytes_give_the_whole_decoding_and_do_not_stall():
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(128, 256, (200,), generator=random).tolist()
    pieces, _ = feed(utf8, tokens)
    assert len("".join(pieces)) > 100
    assert max(len(piece) for piece in pieces) <= 2 * 16


def test_a_stop_string_over_several_pieces_ends_the_text_before_it():
    pieces, stream = feed(characters, list("one two END three"), stop=("END",))
    assert "".join(pieces) == "one two " and stream.stopped
    assert stream.push(["x"]) == "" and stream.flush() == ""


def test_only_what_may_become_a_stop_string_is_held_back():
    stream = TextStream(characters, ("abc",))
    assert [stream.push([c]) for c in "xabab"] == ["x", "", "", "ab", ""]
    assert stream.push(["d"]) == "abd" and stream.flush() == ""


def test_what_was_held_back_comes_at_the_end():
    pieces, stream = feed(characters, list("almost EN"), stop=("END",))
    assert "".join(pieces) == "almost EN" and pieces[-1] == "EN" and not stream.stopped


def test_the_earliest_of_several_stops_counts_and_empty_ones_do_not():
    pieces, _ = feed(characters, ["a STOP b END"], stop=("END", "STOP", ""))
    assert "".join(pieces) == "a "


def test_the_starter_s_tokenizer_streams_exactly_what_it_decodes(tmp_path):
    from transformers import AutoTokenizer

    from luthier.errors import LuthierError
    from luthier.models.generate import decode_answer
    from luthier.models.sources import resolve

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve("starter:chat").folder)
    except LuthierError as error:
        pytest.skip(f"the starter model is not installed: {error}")
    ids = tokenizer("Hello , world! 🎻 ñ — 12,000 kg.\n\n1. First\n2. Second  (two spaces)")["input_ids"]
    pieces, _ = feed(lambda tokens: decode_answer(tokenizer, tokens), ids)
    assert "".join(pieces) == decode_answer(tokenizer, ids)
