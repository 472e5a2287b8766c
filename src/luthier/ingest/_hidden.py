"""Text that a page or a document holds and that a person does not see: told, because instructions are hidden so."""

from __future__ import annotations

import re
from typing import Any

from luthier.ingest._blocks import clean

MAX_HIDDEN = 20
"""Pieces that are kept for the data card."""
_STYLE = re.compile(
    r"(?P<none>display\s*:\s*none)|(?P<invisible>visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0*)?\s*(?:;|$))"
    r"|(?P<tiny>font-size\s*:\s*(?:0(?:\.\d+)?|1)(?:px|pt|em|rem|%)?\s*(?:;|$))"
    r"|(?P<away>(?:left|top|text-indent|margin-left)\s*:\s*-\d{4,}px)"
    r"|(?P<white>(?<![-\w])color\s*:\s*(?:#fff(?:fff)?\b|white\b|rgba?\(\s*255\s*,\s*255\s*,\s*255|transparent))",
    re.IGNORECASE)
_WHITE_SEEN = re.compile(r"background", re.IGNORECASE)
_ORDER = re.compile(r"\b(?:ignore|disregard|you are|you must|instruction|prompt|assistant|system)\b", re.IGNORECASE)


def of_html(root: Any) -> list[dict[str, Any]]:
    """{line, how, text} of elements hidden by their own attributes, and of comments that speak of instructions.

    Pages fold texts away with the same means, so this is no verdict. Style sheets are not read: what they hide is not
    seen here. White text counts where the element itself names no background.
    """
    found: list[dict[str, Any]] = []
    for element in root.iter():
        if len(found) >= MAX_HIDDEN:
            break
        how = text = ""
        if not isinstance(element.tag, str):
            said = clean(element.text or "") if element.tag.__name__ == "Comment" else ""
            if _ORDER.search(said):
                how, text = "comment", said
        elif element.get("hidden") is not None:
            how = "hidden"
        elif style := element.get("style"):
            match = _STYLE.search(style)
            if match and not (match.lastgroup == "white" and _WHITE_SEEN.search(style)):
                how = match.lastgroup or ""
        if how and how != "comment":
            text = clean(" ".join(part for part in element.itertext() if isinstance(part, str)))
        if text:
            found.append({"line": element.sourceline, "how": how, "text": text[:400]})
    return found


def of_word(body: Any, w: str) -> list[dict[str, Any]]:
    """{how, text} of runs that are marked hidden (`vanish`), white without a shade behind, or smaller than 2 points."""
    found: list[dict[str, Any]] = []
    for run in body.iter(w + "r"):
        about = run.find(w + "rPr")
        if about is None:
            continue
        how = ""
        vanish, colour, size = about.find(w + "vanish"), about.find(w + "color"), about.find(w + "sz")
        if vanish is not None and vanish.get(w + "val") not in ("0", "false"):
            how = "vanish"
        elif colour is not None and (colour.get(w + "val") or "").upper() == "FFFFFF":
            shaded = about.find(w + "shd") is not None or about.find(w + "highlight") is not None or any(
                parent.find(f"{w}{kind}/{w}shd") is not None for parent in run.iterancestors()
                for kind in ("pPr", "tcPr", "tblPr"))
            how = "" if shaded else "white"
        elif size is not None and (size.get(w + "val") or "").isdigit() and int(size.get(w + "val")) < 4:
            how = "tiny"  # in half points
        text = clean("".join(part.text or "" for part in run.iter(w + "t"))) if how else ""
        if not text:
            continue
        if found and found[-1]["how"] == how and len(found[-1]["text"]) < 300:
            found[-1]["text"] = f"{found[-1]['text']} {text}"[:400]
        elif len(found) < MAX_HIDDEN:
            found.append({"how": how, "text": text[:400]})
    return found
