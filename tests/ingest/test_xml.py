"""XML of any vocabulary; entities are refused; MedQuAD's pages keep every question with its answer."""

from pathlib import Path

import pytest

from luthier.ingest.base import Refused

MEDQUAD = Path(__file__).parents[2].parent / "shared" / "data" / "medquad" / "raw_xml"


def test_any_vocabulary(tmp_path, read):
    (tmp_path / "a.xml").write_text("""<?xml version="1.0"?><!-- c --><book id="7" xmlns="urn:x"><title>Pumps</title>
      <code>P-1</code><lang>en</lang><section><title>Use</title><para>Open the <b>valve</b> slowly and wait for
      it.</para><ul><li>one</li><li>two</li></ul><image file="a.png"/></section></book>""")
    document = read(tmp_path / "a.xml")
    assert [(s.kind, s.level, s.text) for s in document.spans] == [
        ("heading", 1, "Pumps"), ("row", 0, "code: P-1\nlang: en"), ("heading", 2, "Use"),
        ("paragraph", 0, "Open the valve slowly and wait for it."), ("list", 0, "- one\n- two"),
        ("row", 0, "image: file: a.png")]
    assert document.title == "Pumps" and document.meta == {"id": "7"}


LAUGHS = ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">'
          '<!ENTITY z "&y;&y;&y;&y;&y;&y;&y;&y;&y;&y;">]><a>&z;</a>')
FILE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'


@pytest.mark.parametrize("text", [LAUGHS, FILE])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path, read, text, encoding):
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    with pytest.raises(Refused) as refused:
        read(tmp_path / "a.xml")
    assert refused.value.reason == "unsafe-xml"


def test_broken_files_are_refused(tmp_path, read):
    (tmp_path / "a.xml").write_text("<?xml version='1.0'?><a><b></a>")
    with pytest.raises(Refused) as refused:
        read(tmp_path / "a.xml")
    assert refused.value.reason == "corrupt"


@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="shared/data/medquad is not on this machine")
@pytest.mark.parametrize("path", sorted(MEDQUAD.glob("*.xml")), ids=lambda path: path.stem)
def test_medquad_questions_head_their_answers(path, read):
    from lxml import etree

    document = read(path)
    root = etree.parse(str(path)).getroot()
    assert document.title == root.findtext("Focus").strip()
    pairs = {" ".join(pair.findtext("Question").split()): pair.findtext("Answer") or ""
             for pair in root.iter("QAPair")}
    found, question = {}, ""
    for span in document.spans:
        if span.kind == "heading" and span.level == 2:
            question = span.text
        elif question:
            found[question] = found.get(question, "") + " " + span.text
    assert [*found] == [*pairs]
    for question, answer in pairs.items():
        assert _letters(found[question]) == _letters(answer)


def _letters(text):
    return "".join(c for c in text if c.isalnum())
