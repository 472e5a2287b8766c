"""Laws of fields by rules: every value is a quoted piece of the document with its place, and nothing is made up."""

import pytest

from luthier.errors import SpecError
from luthier.spec import parse
from luthier.triage.base import Field, Triage
from luthier.triage.fields import find, number_of, quoted
from luthier.types import Document, Span


def document(*texts: str, **span) -> Document:
    spans = (Span(text=text, **{"page": at + 1, "line": 10, **span}) for at, text in enumerate(texts))
    return Document(id="1", path="a.pdf", sha256="1", media="", reader="", title="", spans=tuple(spans))


@pytest.mark.parametrize(("text", "settings", "value"), [
    ("Invoice no: A-17/9 \nx", {"labels": ["invoice no"]}, "A-17/9"),
    ("INVOICE  NO.  A-17", {"labels": ["invoice no"]}, "A-17"),
    ("Invoice no A-17", {"labels": ["invoice no"]}, None),  # no sign between: perhaps a sentence
    ("our invoice no: A-17", {"labels": ["invoice no"]}, None),  # free text: the label begins the line
    ("DATE:\n25/12/2018 8:13 PM", {"labels": ["date"], "type": "date"}, "25/12/2018"),
    ("due 3 March 2024", {"labels": ["due"], "type": "date"}, "3 March 2024"),
    ("paid on 2024-03-01.", {"type": "date"}, "2024-03-01"),
    ("TOTAL QTY:\n7\nTOTAL (RM):\n9.00", {"labels": ["total"], "type": "amount"}, None),
    ("TOTAL QTY:\n7\nTOTAL (RM):\n9.00", {"labels": ["total (rm)"], "type": "amount"}, "9.00"),
    ("Total EUR 1.234,50 incl.", {"labels": ["total"], "type": "amount"}, "EUR 1.234,50"),
    ("Total 5.00\nTotal 12.50\nTotal 7.00", {"labels": ["total"], "type": "amount", "take": "largest"}, "12.50"),
    ("Total 5.00\nTotal 12.50\nTotal 7.00", {"labels": ["total"], "type": "amount", "take": "last"}, "7.00"),
    ("Grand total 8.00\nTotal 5.00", {"labels": ["grand total", "total"], "type": "amount"}, "8.00"),
    ("| Order no | X1 |\n| Total | 12.50 |", {"labels": ["total"], "type": "amount"}, "12.50"),
    ("| Item | Total |\n|---|---|\n| pen | 3.00 |", {"labels": ["total"], "type": "amount"}, "3.00"),
    ("Total: -3.00", {"labels": ["total"], "type": "amount"}, "-3.00"),
    ("Total - 3.00", {"labels": ["total"], "type": "amount"}, "3.00"),
    ("write to a.b@example.org, please", {"type": "email"}, "a.b@example.org"),
    ("to DE89 3704 0044 0532 0130 00", {"type": "iban"}, "DE89 3704 0044 0532 0130 00"),
    ("Ref 77 of ACME SDN BHD", {"pattern": r"ref (\d+)"}, "77"),
    ("one\nACME Trading 12\ntwo", {"pattern": "^.*trading.*$"}, "ACME Trading 12"),
    ("nothing here", {"labels": ["date"], "type": "date"}, None),
])
def test_what_is_found(text, settings, value):
    found = find(document("first", text), Field(name="f", **settings))
    assert (found.value if found else None) == value
    if found:
        assert text[found.start : found.end] == found.quote and found.span == 1 and found.page == 2


def test_a_value_has_its_line_its_box_and_the_readers_certainty():
    found = find(document("a\nb\nTotal: 5.00", box=(1, 2, 3, 4), confidence=0.8), Field(name="f", labels=("total",),
                                                                                         type="amount"))
    assert found is not None
    assert (found.line, found.box, found.read, found.method) == (12, (1, 2, 3, 4), 0.8, "label")


def test_what_a_model_made_up_is_no_value():
    text = document("The buyer is\nAcme  Ltd of Leeds.")
    assert quoted(text, "acme ltd", Field(name="buyer", pattern="x"), "chat").quote == "Acme  Ltd"
    assert quoted(text, "Acme Limited", Field(name="buyer", pattern="x"), "chat") is None
    assert quoted(text, "Acme Ltd", Field(name="when", type="date"), "chat") is None
    assert quoted(text, " ", Field(name="buyer", pattern="x"), "chat") is None


@pytest.mark.parametrize(("text", "number"), [("1,234.50", 1234.5), ("1.234,50", 1234.5), ("1,234", 1234),
                                              ("12,5", 12.5), ("$8.20", 8.2), ("-3.00", -3), ("RM 1.234.567", 1234567)])
def test_written_numbers_are_read_in_both_styles(text, number):
    assert number_of(text) == number


@pytest.mark.parametrize(("section", "said"), [
    ({"fields": [{"name": "x"}]}, "can be found by nothing"),
    ({"fields": [{"name": "x", "pattern": "("}]}, "not a regular expression"),
    ({"fields": [{"name": "x", "type": "date", "take": "largest"}]}, "for the types number and amount"),
    ({"fields": [{"name": "x", "type": "date", "classes": ["bill"]}]}, "which classes does not name"),
    ({"classes": [{"name": "a"}]}, "one class alone"),
    ({"classes": [{"name": "a"}, {"name": "a"}]}, "name twice"),
    ({"fields": [{"name": "x", "type": "date", "required": True}]}, "name classes, or leave required out"),
    ({"base_url": "http://x/v1"}, "name its model as `chat`")])
def test_settings_that_cannot_be_honoured_are_refused(section, said):
    with pytest.raises(SpecError, match=said):
        parse(Triage, section)
