"""How long questions and answers may be: shared by the makers that quote documents."""

from __future__ import annotations

from luthier.prepare.makers._text import ends_well, is_item, trim

MIN_ANSWER, MAX_ANSWER = 20, 900


def usable(answer: str, *, least: int, most: int) -> tuple[str, str]:
    """(answer cut to `most` characters at the end of a sentence, "") or ("", reason) when it cannot be used."""
    answer = answer.strip()
    if not answer:
        return "", "no-answer"
    if len(answer) < least:
        return "", "answer-too-short"
    cut = trim(answer, most)
    if len(cut) < least:
        return "", "answer-too-long"
    if not ends_well(cut) and cut.endswith(":"):
        return "", "answer-incomplete"
    if cut.endswith((",", ";", "–", "-")) and not is_item(cut.rsplit("\n", 1)[-1]):
        return "", "answer-incomplete"
    return cut, ""
