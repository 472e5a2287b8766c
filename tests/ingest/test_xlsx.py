"""XLSX: what the cells show, sheet by sheet; big sheets in blocks that each carry the header."""

import datetime

import openpyxl


def test_values_titles_and_blocks(tmp_path, read):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in (["Price list 2026"], ["Item", "Price", "From", "Discount", "Active"],
                ["Pump", 12.5, datetime.datetime(2026, 1, 2), 0.15, True]):
        sheet.append(row)
    sheet["D3"].number_format = "0%"
    sheet.append([])
    sheet.append(["A remark below the table."])
    big = book.create_sheet("Stock")
    big.append(["Number", "Count"])
    for i in range(60):
        big.append([f"N{i}", i])
    hidden = book.create_sheet("Internal")
    hidden.append(["secret"])
    hidden.sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")
    document = read(tmp_path / "a.xlsx")
    assert [(s.page, s.kind, s.line, s.text) for s in document.spans[:4]] == [
        (1, "heading", None, "Prices"), (1, "paragraph", 1, "Price list 2026"),
        (1, "table", 2, "| Item | Price | From | Discount | Active |\n|---|---|---|---|---|\n"
                        "| Pump | 12.5 | 2026-01-02 | 15% | TRUE |"),
        (1, "paragraph", 5, "A remark below the table.")]
    blocks = [s for s in document.spans if s.page == 2 and s.kind == "table"]
    assert [len(b.text.split("\n")) - 2 for b in blocks] == [25, 25, 10]
    assert all(b.text.startswith("| Number | Count |") for b in blocks)
    assert [b.line for b in blocks] == [1, 27, 52] and "| N25 | 25 |" in blocks[1].text
    assert "secret" not in document.text and document.meta["hidden_sheets"] == ["Internal"]
    assert "secret" in read(tmp_path / "a.xlsx", hidden_sheets=True).text
    assert len([s for s in read(tmp_path / "a.xlsx", rows_per_block=60).spans if s.page == 2]) == 2


def test_a_formula_that_was_never_calculated_is_shown_as_itself(tmp_path, read):
    book = openpyxl.Workbook()
    for row in (["a", "b", "sum"], [1, 2, "=A2+B2"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert "| 1 | 2 | =A2+B2 |" in read(tmp_path / "a.xlsx").text
