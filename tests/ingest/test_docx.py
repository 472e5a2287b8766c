"""DOCX: body order, heading levels, lists with numbers and depth, tables, notes, text boxes; damage is told."""

import zipfile

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from luthier.ingest.base import Refused


@pytest.fixture
def handbook(tmp_path):
    d = docx.Document()
    d.core_properties.author, d.core_properties.title = "Ann Smith", "Handbook"
    d.add_heading("Handbook", 0)
    d.add_heading("Travel", 1)
    d.add_paragraph("Employees book their own travel.")
    d.add_paragraph("Hotels", style="List Bullet")
    d.add_paragraph("Trains", style="List Bullet")
    d.add_paragraph("first class above five hours", style="List Bullet 2")
    d.add_heading("Costs", 2)
    table = d.add_table(rows=3, cols=3)
    for r, row in enumerate((("Country", "Day rate", "Night"), ("France", "40 €", "120 €"), ("Spain", "35 €", "90 €"))):
        for c, text in enumerate(row):
            table.cell(r, c).text = text
    d.add_paragraph("Step one", style="List Number")
    d.add_paragraph("Step two", style="List Number")
    d.save(tmp_path / "handbook.docx")
    return tmp_path / "handbook.docx"


def test_structure_in_order(handbook, read, shape):
    document = read(handbook)
    assert shape(document) == [
        ("heading", 1, "Handbook"), ("heading", 1, "Travel"), ("paragraph", 0, "Employees book their own travel."),
        ("list", 0, "- Hotels\n- Trains\n- first class above five hours"), ("heading", 2, "Costs"),
        ("table", 0, "| Country | Day rate | Night |\n|---|---|---|\n| France | 40 € | 120 € |\n"
                     "| Spain | 35 € | 90 € |"),
        ("list", 0, "1. Step one\n2. Step two")]
    assert (document.title, document.meta["author"]) == ("Handbook", "Ann Smith")


def test_depth_and_restart_of_numbered_lists(tmp_path, read):
    d = docx.Document()
    root = d.part.numbering_part.element
    root.insert(0, parse_xml(
        f'<w:abstractNum {nsdecls("w")} w:abstractNumId="77"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:numFmt w:val="lowerLetter"/></w:lvl></w:abstractNum>'))
    root.append(parse_xml(f'<w:num {nsdecls("w")} w:numId="88"><w:abstractNumId w:val="77"/></w:num>'))
    for text, depth in (("one", 0), ("under one", 1), ("also under one", 1), ("two", 0), ("under two", 1)):
        d.add_paragraph(text)._p.get_or_add_pPr().append(parse_xml(
            f'<w:numPr {nsdecls("w")}><w:ilvl w:val="{depth}"/><w:numId w:val="88"/></w:numPr>'))
    d.save(tmp_path / "a.docx")
    assert read(tmp_path / "a.docx").spans[0].text.split("\n") == [
        "1. one", "  1. under one", "  2. also under one", "2. two", "  1. under two"]


def test_merged_cells_stand_in_each_place_and_frames_are_text(tmp_path, read, shape):
    d = docx.Document()
    table = d.add_table(rows=3, cols=2)
    for r, row in enumerate((("Pump", "Speed"), ("A", "10"), ("A", "20"))):
        for c, text in enumerate(row):
            table.cell(r, c).text = text if (r, c) != (2, 0) else ""
    table.cell(1, 0).merge(table.cell(2, 0))
    d.add_table(rows=1, cols=1).cell(0, 0).text = "A framed remark."
    d.save(tmp_path / "a.docx")
    assert shape(read(tmp_path / "a.docx")) == [
        ("table", 0, "| Pump | Speed |\n|---|---|\n| A | 10 |\n| A | 20 |"), ("paragraph", 0, "A framed remark.")]


def test_tracked_changes_content_controls_and_text_boxes(tmp_path, read):
    d = docx.Document()
    body = d.element.body
    w = nsdecls("w")
    for xml in (
        f'<w:p {w}><w:r><w:t xml:space="preserve">We deliver </w:t></w:r><w:del w:id="1"><w:r>'
        '<w:delText>never</w:delText></w:r></w:del><w:ins w:id="2"><w:r><w:t>daily</w:t></w:r></w:ins></w:p>',
        f'<w:sdt {w}><w:sdtContent><w:p><w:r><w:t>Inside a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>',
        f'<w:p {w} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:r><mc:AlternateContent>'
        '<mc:Choice Requires="wps"><w:txbxContent><w:p><w:r><w:t>In a box.</w:t></w:r></w:p></w:txbxContent>'
        '</mc:Choice><mc:Fallback><w:txbxContent><w:p><w:r><w:t>In a box.</w:t></w:r></w:p></w:txbxContent>'
        '</mc:Fallback></mc:AlternateContent></w:r></w:p>'):
        body.insert(len(body) - 1, parse_xml(xml))
    d.save(tmp_path / "a.docx")
    assert [span.text for span in read(tmp_path / "a.docx").spans] == [
        "We deliver daily", "Inside a control.", "In a box."]


def test_footnotes_follow_their_paragraph(tmp_path, read):
    d = docx.Document()
    paragraph = d.add_paragraph("The rate is fixed.")
    paragraph._p.append(parse_xml(f'<w:r {nsdecls("w")}><w:footnoteReference w:id="2"/></w:r>'))
    d.save(tmp_path / "plain.docx")
    note = (f'<w:footnotes {nsdecls("w")}><w:footnote w:id="2"><w:p><w:r><w:t>Until May.</w:t></w:r></w:p></w:footnote>'
            '</w:footnotes>')
    with zipfile.ZipFile(tmp_path / "plain.docx") as old, zipfile.ZipFile(tmp_path / "a.docx", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "word/_rels/document.xml.rels":
                data = data.replace(b"</Relationships>", b'<Relationship Id="rId99" Target="footnotes.xml" Type="http://'
                                    b'schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"/>'
                                    b"</Relationships>")
            if name == "[Content_Types].xml":
                data = data.replace(b"</Types>", b'<Override PartName="/word/footnotes.xml" ContentType="application/'
                                    b'vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"/></Types>')
            new.writestr(name, data)
        new.writestr("word/footnotes.xml", note)
    assert [s.text for s in read(tmp_path / "a.docx").spans] == ["The rate is fixed.[2]", "[2] Until May."]
    assert [s.text for s in read(tmp_path / "a.docx", notes=False).spans] == ["The rate is fixed.[2]"]


def test_bold_lines_are_headings_only_where_no_heading_style_is_used(tmp_path, read):
    def write(styled):
        d = docx.Document()
        if styled:
            d.add_heading("Real", 1)
        d.add_paragraph().add_run("Opening hours").bold = True
        d.add_paragraph("We are open from nine to five.")
        d.save(tmp_path / "a.docx")
        return [span.kind for span in read(tmp_path / "a.docx").spans]

    assert write(False) == ["heading", "paragraph"]
    assert write(True) == ["heading", "paragraph", "paragraph"]


def test_damage_and_bombs_are_refused_before_anything_is_unpacked(handbook, tmp_path, read):
    whole = handbook.read_bytes()
    (tmp_path / "cut.docx").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(handbook) as old, zipfile.ZipFile(tmp_path / "broken.docx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: 500 if name == "word/document.xml" else None])
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/document.xml", b"<w>" + b" " * 120_000_000)
    for name, reason in (("cut.docx", "corrupt"), ("broken.docx", "corrupt"), ("bomb.docx", "zip-bomb")):
        with pytest.raises(Refused) as refused:
            read(tmp_path / name)
        assert refused.value.reason == reason, name
    with pytest.raises(Refused) as refused:
        read(handbook, max_unpacked_mb=0.01)
    assert refused.value.reason == "zip-bomb"
