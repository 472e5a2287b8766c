"""From lines with boxes to pieces in reading order, and back to text when a line is corrected. No engine runs here."""

import numpy as np
import pytest

from luthier.ingest.ocr._doubt import is_wordlike, word_share
from luthier.ingest.ocr._image import cleaned, noise, upright
from luthier.ingest.ocr._layout import pieces_of, render, word_counts
from luthier.ingest.ocr.base import TextLine
from luthier.ingest.ocr.tesseract import read_tsv


def line(text, x, y, *, high=30, confidence=0.99, pitch=14):
    return TextLine(text, (x, y, x + pitch * len(text), y + high), confidence)


def texts(lines):
    found = [one.text for one in lines]
    counts = word_counts(found)
    return [(piece.kind, render(piece, found, counts)) for piece in pieces_of(lines)]


def column(name, x, rows, y=200):
    return [line(f"{name} column has running text {row}", x, y + 40 * row) for row in range(rows)]


def test_columns_are_read_one_after_the_other_below_a_title_across_both():
    left, right = column("left", 100, 8), column("right", 700, 8)
    title = line("A title that stands across", 300, 60, high=60, pitch=24)
    mixed = [one for pair in zip(right, left) for one in pair]
    found = texts([*mixed, title])
    assert found[0] == ("heading", "A title that stands across")
    assert [text for _, text in found[1:]] == [" ".join(one.text for one in side) for side in (left, right)]


def test_a_caption_that_both_columns_flow_around_interrupts_neither():
    def side(name, x, flowing_x):
        return [line(f"the {name} column flows around it {row}", flowing_x, 200 + 40 * row, pitch=8)
                if 3 <= row < 6 else line(f"{name} column has running text {row}", x, 200 + 40 * row)
                for row in range(10)]

    left, right = side("left", 100, 100), side("right", 620, 760)
    caption = [line("A caption that", 460, 325), line("stands between", 460, 365)]
    found = texts([*(one for pair in zip(right, left) for one in pair), *caption])
    assert " ".join(text for _, text in found).split() == " ".join(
        one.text for one in (*left, *right, *caption)).split()


def test_a_box_a_little_too_wide_stays_in_its_column():
    left, right = column("left", 100, 8), column("right", 560, 8)
    left[3] = TextLine(left[3].text, (100, left[3].box[1], 562, left[3].box[3]), 0.99)
    found = texts([one for pair in zip(right, left) for one in pair])
    assert " ".join(text for _, text in found).split() == " ".join(one.text for one in (*left, *right)).split()


def test_cells_in_common_columns_become_a_table_also_with_a_cell_of_two_lines():
    rows = [("Part", "Number", "Price"), ("Valve", "4711", "12.50"), ("Seal kit", "0815", "3.00")]
    lines = [line(cell, 100 + 400 * at, 100 + 45 * row) for row, cells in enumerate(rows)
             for at, cell in enumerate(cells)]
    lines.append(line("spare", 500, 100 + 45 * 2 + 34))
    lines.append(line("Motor", 100, 280))
    lines += [line("99", 500, 280), line("7.00", 900, 280)]
    (kind, text), = texts(lines)
    assert kind == "table"
    assert text.split("\n") == ["| Part | Number | Price |", "|---|---|---|", "| Valve | 4711 | 12.50 |",
                                "| Seal kit | 0815<br>spare | 3.00 |", "| Motor | 99 | 7.00 |"]


def test_a_word_cut_at_a_line_end_is_whole_and_short_lines_stay_lines():
    lines = [line("The manage-", 100, 100), line("ment of valves is explained in this long line here", 100, 140)]
    assert texts(lines) == [("paragraph", "The management of valves is explained in this long line here")]
    address = [line("A long line that shows how wide the letter is in all", 100, 20), line("Mr. John Garber", 100, 60),
               line("Franklin Street 1100", 100, 100)]
    assert texts(address)[0][1].endswith("Mr. John Garber\nFranklin Street 1100")


def test_numbered_lines_are_a_list():
    said = ("1. Open the valve", "2. Wait for the gauge", "3. Close it")
    lines = [line(text, 100, 100 + 50 * at) for at, text in enumerate(said)]
    assert texts(lines) == [("list", "1. Open the valve\n2. Wait for the gauge\n3. Close it")]


def test_lines_without_places_keep_the_engines_markdown():
    given = ["# Report", "First line", "second line", "", "| a | b |", "|---|---|", "| 1 | 2 |", "", "- one", "- two"]
    assert texts([TextLine(text, None, 0.9) for text in given]) == [
        ("heading", "Report"), ("paragraph", "First line second line"), ("markdown", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("list", "- one\n- two")]


def test_a_corrected_line_takes_its_place_in_the_text():
    lines = [line("The qvick brown", 100, 100), line("fox jumps over the lazy dog and more", 100, 140)]
    (piece,) = pieces_of(lines)
    said = ["The quick brown", "fox jumps over the lazy dog and more"]
    assert render(piece, said, word_counts(said)) == " ".join(said)
    assert render(piece, ["", said[1]], word_counts(said)) == said[1]


@pytest.mark.parametrize("text", ["The gauge shows 4.17 bar.", "Dr. J.C. Branner, A4, 3rd floor", "info@example.org",
                                  "Angstschweiß und Rechtsschutzversicherung", "日本語のテキスト", "$12.50 (VAT 7 %)"])
def test_text_of_many_kinds_is_wordlike(text):
    assert word_share(text) == 1.0


def test_mechanical_garbage_is_not_wordlike():
    assert word_share("tI1e r|ni 1i0o vvvt{ xqzt lmnkptrs~ q p b l") < 0.5
    assert not is_wordlike("wh!telew") and not is_wordlike("re^d")


# ------------------------------------------------------------------------------------------------------------ images


def page(rows=24, wide=700, high=900):
    """A page of bars that stand for words, in lines."""
    image, rng = np.full((high, wide), 255, np.uint8), np.random.default_rng(0)
    for row in range(rows):
        x = 60
        while x < wide - 120:
            size = int(rng.integers(8, 16))
            for _ in range(int(rng.integers(2, 8))):
                image[60 + 32 * row:60 + 32 * row + int(rng.integers(9, 16)), x:x + size - 3] = 20
                x += size
            x += 10
    return image


@pytest.mark.parametrize("skew", [-4.0, 0.0, 1.5])
def test_a_skewed_page_is_levelled_and_boxes_find_their_way_back(skew):
    import cv2

    image = page()
    high, wide = image.shape
    turned = cv2.warpAffine(image, cv2.getRotationMatrix2D((wide / 2, high / 2), -skew, 1.0), (wide, high),
                            borderValue=255)
    found = upright(turned)
    assert found.quarter_turns == 0 and found.skew == pytest.approx(skew, abs=0.2)
    centre = found.original((wide / 2 - 5, high / 2 - 5, wide / 2 + 5, high / 2 + 5))
    assert (centre[0] + centre[2]) / 2 == pytest.approx(wide / 2, abs=1)


def test_a_page_on_its_side_is_turned_and_boxes_find_their_way_back():
    image = page()
    side = np.ascontiguousarray(np.rot90(image))  # the top is left now
    found = upright(side)
    assert found.quarter_turns == 1 and found.image.shape == image.shape
    ys, xs = np.nonzero(found.image < 128)
    x0, top, x1, bottom = found.original((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    there = np.argwhere(side < 128)
    assert (top, x0) == pytest.approx(tuple(there.min(0)), abs=2)
    assert (bottom, x1) == pytest.approx(tuple(there.max(0) + 1), abs=2)


def test_cleaning_takes_noise_and_shadow_and_leaves_a_clean_page():
    image = page()
    assert np.abs(cleaned(image).astype(int) - image).mean() < 3
    rng = np.random.default_rng(1)
    shadow = np.linspace(1, 0.5, image.shape[1])[None, :]
    dirty = np.clip(image * shadow * 0.9 + rng.normal(0, 18, image.shape), 0, 255).astype(np.uint8)
    clean = cleaned(dirty)
    assert noise(clean) < 0.35 * noise(dirty)
    paper = clean[:40]
    assert abs(float(paper[:, :200].mean()) - float(paper[:, -200:].mean())) < 6


def test_tesseracts_table_of_words_becomes_lines_parted_at_wide_gaps():
    head = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"
    rows = ["4\t1\t1\t1\t1\t0\t10\t10\t600\t20\t-1\t", "5\t1\t1\t1\t1\t1\t10\t10\t40\t20\t90\tTotal",
            '5\t1\t1\t1\t1\t2\t60\t10\t40\t20\t70\t"due', "5\t1\t1\t1\t1\t3\t500\t10\t60\t20\t96.5\t12.50"]
    found = read_tsv("\n".join([head, *rows]) + "\n")
    assert [(one.text, one.box) for one in found] == [('Total "due', (10, 10, 100, 30)), ("12.50", (500, 10, 560, 30))]
    assert found[0].confidence == pytest.approx((0.9 * 5 + 0.7 * 4) / 9) and found[1].confidence == pytest.approx(0.965)
