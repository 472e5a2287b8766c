"""The data card of labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.store import write_json, write_text


def write_label_card(folder: Path, summary: Any, **facts: Any) -> None:
    """Write `card.json` and `card.html`."""
    write_json(folder / "card.json", {"summary": dict(summary)})
    write_text(folder / "card.html", "")
