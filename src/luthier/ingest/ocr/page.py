"""One page from picture to lines and pieces: turned upright, read, judged. Runs in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from luthier.ingest._quality import judge_text
from luthier.ingest.ocr._doubt import word_share
from luthier.ingest.ocr._hand import handwritten
from luthier.ingest.ocr._image import cleaned, upright
from luthier.ingest.ocr._layout import pieces_of
from luthier.ingest.ocr.base import Box, EngineFailed, Ocr, Picture, Reading, TextLine, mean_confidence

if TYPE_CHECKING:
    import numpy as np

LIKELY = 0.75
"""A page read with less mean confidence may stand on its head: that is tried before it is believed."""
SPECK = 0.5
"""Up to three characters read with less certainty are taken for specks of dirt."""
WORDS = 0.8
"""Share of word-like text below which a page is flagged as garbled."""


@dataclass(frozen=True)
class Read:
    """A page that was read, as it is cached: `lines` with boxes in the document's units, `pieces` naming them."""

    lines: list[dict[str, Any]]
    pieces: list[dict[str, Any]]
    about: dict[str, Any]
    """Engine, mean confidence, what was done to the image."""


def read_page(picture: Picture, ocr: Ocr) -> Read:
    """Read one page. Raises EngineFailed."""
    reading, page = _best_turn(picture.image, ocr)
    lines = [line for line in reading.lines if line.confidence >= SPECK or len(line.text) > 3 or not line.text]
    specks = len(reading.lines) - len(lines)
    hands = handwritten(page.image, [line.box for line in lines])
    about: dict[str, Any] = {"engine": reading.engine, **reading.notes}
    if ocr.handwriting is not None and any(hands):
        lines, again = _read_hands(page.image, lines, hands, ocr)
        about |= again
    about |= {"confidence": round(mean_confidence(lines), 3),
              "words": round(word_share(" ".join(line.text for line in lines)), 3),
              "turned": page.quarter_turns * 90 or None, "skew": page.skew or None, "specks": specks or None}
    scale = 1 / picture.per_unit

    def place(box: Box | None) -> list[float] | None:
        return None if box is None else [round(value * scale, 1) for value in page.original(box)]

    found = [{"text": line.text, "box": place(line.box), "confidence": round(line.confidence, 3), "hand": hand}
             for line, hand in zip(lines, hands)]
    return Read(found, [asdict(piece) for piece in pieces_of(lines)],
                {name: value for name, value in about.items() if value is not None})


def warnings_of(read: Read, min_confidence: float) -> list[dict[str, Any]]:
    """What is wrong, or likely wrong, with a page that was read."""
    texts = [line for line in read.lines if line["text"]]
    chars = sum(len(line["text"]) for line in texts)
    if not chars:
        return []
    found = []
    low = sum(len(line["text"]) for line in texts if line["confidence"] < min_confidence) / chars
    hand = sum(len(line["text"]) for line in texts if line["hand"]) / chars
    if low > 0.1 or read.about["confidence"] < min_confidence:
        found.append({"warning": "ocr-low-confidence", "value": round(low, 3)})
    if hand > 0:
        found.append({"warning": "handwriting", "value": round(hand, 3)})
    words = read.about["words"]
    if chars >= 40 and (words < WORDS or judge_text("\n".join(line["text"] for line in texts))):
        found.append({"warning": "ocr-garbled", "value": words})
    return found


def _best_turn(image: np.ndarray, ocr: Ocr) -> tuple[Reading, Any]:
    """The reading of the page the right way up. Where the engine found tall boxes, the page is tried on its side; one
    that is read with doubt is tried upside down: on a strip of its longest lines first, since a page takes seconds."""
    page = upright(image)
    reading = _read(page.image, ocr)
    if not reading.lines or reading.lines[0].box is None:
        return reading, page
    if _lies(reading.lines):
        other = upright(image, (page.quarter_turns + 1) % 4)
        again = _read(other.image, ocr)
        if not _lies(again.lines):
            reading, page = again, other
    if mean_confidence(reading.lines) >= LIKELY:
        return reading, page
    strip, before = _strip(page.image, reading.lines)
    try:
        turned = mean_confidence(_read(strip, ocr).lines)
    except EngineFailed:
        return reading, page
    if turned < max(before + 0.1, LIKELY):
        return reading, page
    other = upright(image, (page.quarter_turns + 2) % 4)
    again = _read(other.image, ocr)
    return (again, other) if mean_confidence(again.lines) > mean_confidence(reading.lines) else (reading, page)


def _lies(lines: Sequence[TextLine]) -> bool:
    """Whether most of the text stands in boxes that are higher than wide."""
    boxes = [(line.box, len(line.text)) for line in lines if line.box is not None and len(line.text) > 2]
    tall = sum(chars for box, chars in boxes if box[3] - box[1] > 1.3 * (box[2] - box[0]))
    return tall > 0.5 * sum(chars for _, chars in boxes) > 0


def _strip(image: np.ndarray, lines: Sequence[TextLine]) -> tuple[np.ndarray, float]:
    """The five longest lines, cut out, turned by 180 degrees and stacked; and how surely they were read upright."""
    import numpy as np

    longest = sorted((line for line in lines if line.box is not None), key=lambda line: -len(line.text))[:5]
    cuts = []
    for line in longest:
        x0, top, x1, bottom = (max(int(value), 0) for value in line.box or ())
        if bottom - top > 4 and x1 - x0 > 4:
            cuts.append(np.rot90(image[top:bottom, x0:x1], 2))
    if not cuts:
        return image, 1.0
    wide = max(cut.shape[1] for cut in cuts) + 40
    high = sum(cut.shape[0] + 20 for cut in cuts) + 20
    paper = np.median(image.reshape(-1, *image.shape[2:]), axis=0)
    strip = np.empty((high, wide, *image.shape[2:]), image.dtype)
    strip[:] = paper
    at = 20
    for cut in cuts:
        strip[at:at + cut.shape[0], 20:20 + cut.shape[1]] = cut
        at += cut.shape[0] + 20
    return strip, mean_confidence(longest)


def _read(image: np.ndarray, ocr: Ocr) -> Reading:
    return ocr.engine.read(cleaned(image) if ocr.engine.cleans else image)


def _read_hands(image: np.ndarray, lines: Sequence[TextLine], hands: Sequence[bool], ocr: Ocr
                ) -> tuple[list[TextLine], dict[str, Any]]:
    """The handwritten lines as the engine for handwriting reads them, each cut out of the page with some margin.

    A line that it cannot read, or reads as nothing, stays as it was.
    """
    engine = ocr.handwriting
    assert engine is not None
    found = list(lines)
    failed = ""
    for at, (line, hand) in enumerate(zip(lines, hands)):
        if not hand or line.box is None or failed:
            continue
        x0, top, x1, bottom = line.box
        pad = 0.15 * (bottom - top)
        cut = image[max(int(top - pad), 0):int(bottom + pad), max(int(x0 - pad), 0):int(x1 + pad)]
        try:
            read = [one for one in engine.read(cut).lines if one.text]
        except EngineFailed as error:
            failed = str(error)
            continue
        if read:
            found[at] = replace(line, text=" ".join(one.text for one in read), confidence=mean_confidence(read))
    return found, {"handwriting_engine": engine.kind, "handwriting_failed": failed or None}
