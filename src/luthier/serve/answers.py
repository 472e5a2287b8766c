"""The local log of answers that `luthier trace answer:ID` walks: one JSON object a line, bounded, for the owner."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any, Literal

from luthier.store import write_text

log = logging.getLogger("luthier.serve")


class AnswerLog:
    """Appends a row an answer; when there are twice as many as wanted, the older half goes."""

    def __init__(self, file: Path, *, rows: int, questions: Literal["hash", "text", "none"]):
        self.file, self.rows, self.questions = file, rows, questions
        self._lock = threading.Lock()
        self._count: int | None = None

    def add(self, *, id: str, question: str | bytes, **facts: Any) -> None:
        """Write one row; of an image (bytes) never more than the hash. A log that cannot be written (full disk) is
        reported once a row and stops no answer."""
        if not self.rows:
            return
        row: dict[str, Any] = {"id": id, **facts}
        if self.questions == "text" and isinstance(question, str):
            row["question"] = question
        elif self.questions != "none":
            content = question.encode("utf-8", "surrogatepass") if isinstance(question, str) else question
            row["question_sha256"] = hashlib.sha256(content).hexdigest()
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self._lock:
            try:
                self._append(line)
            except OSError as error:
                log.warning("the answer log %s cannot be written: %s", self.file, error)

    def _append(self, line: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self._count is None:
            self._count = len(self._lines())
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8", errors="surrogatepass") as file:
            file.write(line)
        self._count += 1
        if self._count >= 2 * self.rows:
            kept = self._lines()[-self.rows :]
            write_text(self.file, "".join(f"{text}\n" for text in kept))
            self.file.chmod(0o600)
            self._count = len(kept)

    def _lines(self) -> list[str]:
        try:
            return self.file.read_text("utf-8", errors="surrogatepass").splitlines()
        except FileNotFoundError:
            return []
