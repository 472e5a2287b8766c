"""Tesseract, the program, where it is installed (https://github.com/tesseract-ocr/tesseract).

A seventh of the embedded engine's time on clean print. It needs a clean image: our preprocessing divides the background
away and removes specks (word recall on dirty scans .25 without, .97 with; shared facts §7).
"""

from __future__ import annotations

import csv
import functools
import io
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from luthier.ingest.ocr.base import OCR_ENGINES, EngineFailed, Reading, TextLine
from luthier.plugins import register
from luthier.spec import Spec

if TYPE_CHECKING:
    import numpy as np


@register(OCR_ENGINES, "tesseract")
class Tesseract(Spec):
    """The program `tesseract` with its language data, installed by you: about 1 CPU second and 80 MB for a page."""

    command: str = "tesseract"
    """Name or path of the program."""
    languages: str = "eng"
    """Language data to read with, as Tesseract names them: `eng`, `deu+eng`."""
    layout: int = Field(default=3, ge=0, le=13)
    """Tesseract's page segmentation mode; 3 finds columns, 11 finds scattered text."""

    cleans: ClassVar[bool] = True

    def identity(self) -> str:
        path = shutil.which(self.command)
        return _version(path, os.stat(path).st_mtime_ns) if path else ""

    def read(self, image: np.ndarray) -> Reading:
        import cv2

        path = shutil.which(self.command)
        if path is None:
            raise EngineFailed(f"there is no program '{self.command}': install Tesseract, or set ocr.engine: rapidocr")
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}  # its threads wait for each other: slower with them
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(cv2.imencode(".png", image)[1].tobytes())
            file.flush()
            done = subprocess.run([path, file.name, "-", "-l", self.languages, "--psm", str(self.layout), "tsv"],
                                  stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False)
        if done.returncode:
            said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
            raise EngineFailed(f"tesseract: {said[-1] if said else f'exit code {done.returncode}'}")
        return Reading(tuple(read_tsv(done.stdout.decode("utf-8", "replace"))), self.kind)


def read_tsv(text: str) -> list[TextLine]:
    """Lines of Tesseract's TSV output: words joined, confidence as the mean over characters.

    A gap wider than two line heights parts a line, so that cells of a table stay apart.
    """
    words: dict[tuple[str, ...], list[tuple[float, float, float, float, float, str]]] = {}
    for row in csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row.get("level") != "5" or not (row.get("text") or "").strip():
            continue
        key = tuple(row[name] or "" for name in ("page_num", "block_num", "par_num", "line_num"))
        x, top, wide, high = (float(row[name] or 0) for name in ("left", "top", "width", "height"))
        words.setdefault(key, []).append((x, top, x + wide, top + high, max(float(row["conf"] or 0), 0) / 100,
                                          (row["text"] or "").strip()))
    found = []
    for line in words.values():
        line.sort()
        tall = sorted(word[3] - word[1] for word in line)[len(line) // 2]
        piece = [line[0]]
        for word in line[1:]:
            if word[0] - piece[-1][2] > 2 * tall:
                found.append(_line(piece))
                piece = []
            piece.append(word)
        found.append(_line(piece))
    return found


def _line(words: list[tuple[float, float, float, float, float, str]]) -> TextLine:
    chars = sum(len(word[5]) for word in words)
    return TextLine(" ".join(word[5] for word in words),
                    (min(w[0] for w in words), min(w[1] for w in words), max(w[2] for w in words),
                     max(w[3] for w in words)), sum(word[4] * len(word[5]) for word in words) / chars)


@functools.cache
def _version(path: str, changed: int) -> str:
    """`tesseract 5.3.0`; "" for a program that does not start."""
    try:
        said = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                              check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    first = (said.stdout or said.stderr).decode("utf-8", "replace").split("\n", 1)[0].strip()
    return first[:80] if said.returncode == 0 else ""
