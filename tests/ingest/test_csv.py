"""CSV: any delimiter, quotes and line breaks in cells; blocks of rows that each carry the header."""

import pytest

from luthier.ingest.csv import find_delimiter, spans_of


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter):
    rows = [["name", "text", "price"], ["Pump, small", "good; cheap", "1"], ["Seal", 'say "hi"', "2"]]
    import csv
    import io

    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    assert find_delimiter(out.getvalue()) == delimiter
    (span,) = spans_of(out.getvalue())
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    assert span.text.split("\n")[2:] == ["| " + " | ".join(row) + " |" for row in escaped[1:]]


def test_blocks_lines_and_missing_header(tmp_path, read):
    (tmp_path / "a.csv").write_text("id,note\n" + "".join(f'{i},"line {i}\nmore"\n' for i in range(60)))
    spans = read(tmp_path / "a.csv", rows_per_block=30).spans
    assert [span.line for span in spans] == [2, 62]  # each row takes two lines of the file
    assert all(span.text.startswith("| id | note |\n|---|---|\n") for span in spans)
    assert "| 59 | line 59<br>more |" in spans[1].text
    assert spans_of("1,2\n3,4\n")[0].text == "| column 1 | column 2 |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
    assert spans_of("") == []


def test_a_delimiter_of_the_user_wins(tmp_path, read):
    (tmp_path / "a.csv").write_text("a,b:c,d\n1,2:3,4\n")
    assert read(tmp_path / "a.csv", delimiter=":").text.startswith("| a,b | c,d |")
