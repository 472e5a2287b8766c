"""How questions and answers are worded: English in full, German in forms that need no gender.

A maker that must word a question itself (table, section, definition) asks `phrases(language)`; for a language without
phrases it drops its items with the reason `language`. Makers that take questions over as they are work in any.
"""

from __future__ import annotations

import re
from typing import Protocol

from luthier.prepare.makers._words import word_set

_VERBS = word_set(
    "activate add adjust apply approve assemble assign back book build calibrate cancel change charge check "
    "choose claim clean clear close configure connect contact create deactivate delete deploy disable "
    "disconnect dispose download enable enrol enroll escalate export file find fix get handle hand import "
    "install invite join lock log make manage measure mount move open order pair pay place prepare print raise "
    "receive record recover register remove renew replace report request reset restart restore return run scan "
    "schedule select send set share sign start stop store submit swap switch test track transfer troubleshoot "
    "turn unlock unpack update upgrade upload use verify view wake bleed tension put take give keep write read fill "
    "drain wash fold unfold carry pack ship cut wire wind tighten loosen lubricate sharpen tune park pump patch fit "
    "insert attach detach dismantle recharge defrost dry sync merge split publish edit draft sign change repair")
_SURE = word_set(  # these are never nouns in a heading, so no article is needed to know them for verbs
    "activate add adjust assemble calibrate choose configure connect create deactivate delete disable "
    "disconnect enable enrol enroll install invite prepare reactivate recover remove renew replace restart "
    "restore select submit troubleshoot unlock unpack verify")
_DOUBLED = word_set(
    "get log run scan set stop swap submit transfer reset cancel enrol put cut fit split")
_PHRASAL = word_set("in on out off up down for of with from into")
_AFTER = word_set("a an the your my our all any new another")
_MINE = {"your": "my", "you": "I", "yourself": "myself", "yours": "mine"}


def _gerund(verb: str) -> str:
    if verb in _DOUBLED and verb not in ("cancel", "transfer", "enrol"):
        return f"{verb}{verb[-1]}ing"
    if verb in ("cancel", "transfer", "enrol"):
        return f"{verb}{'l' if verb != 'transfer' else 'r'}ing"
    return f"{verb[:-1]}ing" if verb.endswith("e") and not verb.endswith("ee") else f"{verb}ing"


_GERUNDS = {_gerund(verb): verb for verb in _VERBS} | {"canceling": "cancel", "enroling": "enrol"}
_PERSONS = word_set(
    "owner contact manager lead leader approver author supervisor head deputy person sponsor assignee "
    "coordinator director representative instructor trainer")
_OF = word_set(
    "size length width height depth weight mass volume capacity colour color population capital area diameter "
    "speed meaning purpose title role location address temperature thickness density symbol material capacity "
    "voltage manufacturer")
_VALUE = word_set(
    "value values detail details information info data setting settings amount figure wert werte angabe "
    "angaben einzelheiten")
_MEANING = word_set(
    "description meaning definition explanation beschreibung bedeutung erklärung erläuterung")
_ATTRIBUTES = word_set(
    "price cost fee rate charge amount sum discount surcharge deposit salary budget limit allowance threshold target "
    "quota share number count quantity total maximum minimum average range interval period duration time date deadline "
    "day hour week month year term age notice delay response resolution phase stage status state level grade class "
    "category type kind group format version release size length width height depth weight mass volume area distance "
    "speed power torque force pressure voltage current frequency temperature humidity noise energy consumption "
    "capacity "
    "memory storage battery charger motor engine display sensor tyre tire frame brake gear part material colour color "
    "shape name title code id symbol key address phone telephone fax email e-mail website location place site room "
    "building floor city country region zone department team unit office role position rank job task step action "
    "measure remedy solution fix cause reason effect symptom error fault message warning rule condition criterion "
    "requirement standard method tool service plan package product model option feature benefit warranty guarantee "
    "insurance tax vat penalty fine reward bonus payment invoice currency account contract supplier vendor "
    "manufacturer "
    "brand customer client partner language channel port address protocol password credential permission right access "
    "priority severity risk probability impact frequency goal objective result outcome score value answer dose dosage "
    "ingredient calorie nutrient torque setting mode speed tariff quarter expiry validity availability delivery "
    "shipping route schedule opening-hours season"
)
_SINGULAR_S = ("ss", "us", "is", "news", "series", "gas", "analysis", "basis", "ics")


class Phrases(Protocol):
    """What a language must be able to say. Titles come ready for use in a sentence; so do columns and headings."""

    def cell_question(self, column: str, row: str, where: str, variant: int) -> str: ...
    def cell_answer(self, column: str, row: str, cell: str) -> str: ...
    def row_question(self, row: str, where: str, variant: int) -> str: ...
    def about(self, heading: str, title: str, parent: str, variant: int) -> str: ...
    def whole(self, title: str) -> str: ...
    def how_to(self, heading: str) -> str | None: ...
    def listing(self, heading: str, title: str) -> str | None: ...
    def meaning(self, term: str, title: str, variant: int) -> str: ...
    def stands_for(self, short: str, title: str) -> tuple[str, str]: ...
    def place(self, title: str, heading: str) -> str: ...


class English:
    def place(self, title: str, heading: str) -> str:
        return f'"{heading}" in {title}' if heading else title

    def cell_question(self, column: str, row: str, where: str, variant: int) -> str:
        word = column.split()[-1].lower()
        if word in _VALUE:
            return _pick(variant, f"What is the {row}, according to {where}?",
                         f"According to {where}, what is the {row}?", f"What does {where} give as the {row}?")
        if word in _MEANING:
            return _pick(variant, f"How does {where} describe {row}?", f"What does {where} say about {row}?",
                         f"How is {row} described in {where}?")
        if re.fullmatch(r"(19|20)\d\d", column):
            return _pick(variant, f"What figure does {where} give for {row} in {column}?",
                         f"What is the {column} figure for {row}, according to {where}?")
        if not says_attribute(column):
            return _pick(variant, f'What does {where} give for {row} under "{column}"?',
                         f'What is listed under "{column}" for {row} in {where}?')
        who = "Who" if word in _PERSONS else "What"
        verb, link = ("are" if plural(column) else "is"), ("of" if word in _OF else "for")
        return _pick(variant, f"{who} {verb} the {column} {link} {row}, according to {where}?",
                     f"According to {where}, {who.lower()} {verb} the {column} {link} {row}?",
                     f"Which {column} does {where} give for {row}?" if who == "What"
                     else f"Who does {where} name as the {column} for {row}?")

    def cell_answer(self, column: str, row: str, cell: str) -> str:
        word = column.split()[-1].lower()
        bare = cell.rstrip(". ")
        if word in _VALUE:
            return f"The {row} is {bare}."
        if word in _MEANING:
            return _stop(f"{_capital(row)}: {cell}")
        if re.fullmatch(r"(19|20)\d\d", column):
            return f"The figure for {row} in {column} is {bare}."
        if not says_attribute(column):
            return _stop(f'For {row}, the entry under "{column}" is: {cell}')
        verb, link = ("are" if plural(column) else "is"), ("of" if word in _OF else "for")
        if re.search(r"[.!?;]\s", cell) or len(cell.split()) > 14:
            return _stop(f"The {column} {link} {row} {verb} as follows: {cell}")
        return f"The {column} {link} {row} {verb} {bare}."

    def row_question(self, row: str, where: str, variant: int) -> str:
        return _pick(variant, f"What does {where} list for {row}?", f"What details does {where} give for {row}?",
                     f"What does {where} say about {row}?")

    def about(self, heading: str, title: str, parent: str, variant: int) -> str:
        under = f' under "{parent}"' if parent else ""
        if len(heading.split()) > 7 or re.search(r"[:;!?]|\. ", heading):
            return f'What does {title} say under "{heading}"?'
        return _pick(variant, f"What does {title} say about {heading}{under}?",
                     f"According to {title}, what should I know about {heading}{under}?",
                     f"What information does {title} give on {heading}{under}?")

    def whole(self, title: str) -> str:
        return f"What is {title} about?"

    def how_to(self, heading: str) -> str | None:
        found = re.match(r"^how (?:to|do (?:i|you)|can (?:i|you)) (.+)$", heading, re.IGNORECASE)
        rest = found[1] if found else ""
        if not rest:
            head, *tail = heading.split()
            first, second = head.lower(), (tail[0].lower() if tail else "")
            verb = _GERUNDS.get(first) or (first if first in _VERBS else "")
            if not verb or not tail or not (second in _AFTER or (verb in _SURE and first == verb)
                                            or (second in _PHRASAL and len(tail) > (second != "in"))):
                return None
            rest = " ".join([verb, *tail])
        asked = " ".join(_MINE.get(word.lower(), word) for word in rest.rstrip("?. ").split())
        return f"How do I {asked[:1].lower()}{asked[1:]}?"

    def listing(self, heading: str, title: str) -> str | None:
        if (
            not plural(heading)
            or len(heading.split()) > 6
            or re.search(r"[,:;&/()]| (?:and|or|for|of|to|if|when) ", heading)
        ):
            return None
        if heading.split()[0].lower() in (
            "what",
            "who",
            "when",
            "where",
            "how",
            "why",
            "which",
            "if",
            "your",
            "our",
            "my",
        ):
            return None
        return f"What are the {heading}, according to {title}?"

    def meaning(self, term: str, title: str, variant: int) -> str:
        return _pick(variant, f'What does "{term}" mean in {title}?', f'How does {title} define "{term}"?',
                     f'What is meant by "{term}" in {title}?')

    def stands_for(self, short: str, title: str) -> tuple[str, str]:
        return f"What does {short} stand for in {title}?", f"{short} stands for {{}}."


class German:
    """Forms without articles before a column or a heading, because their gender is not known."""

    def place(self, title: str, heading: str) -> str:
        return f"{title}, Abschnitt „{heading}“" if heading else title

    def cell_question(self, column: str, row: str, where: str, variant: int) -> str:
        return _pick(
            variant,
            f"Was gibt {where} für {row} als „{column}“ an?",
            f"{column} für {row}: Was steht in {where}?",
            f"Welche Angabe zu „{column}“ gilt laut {where} für {row}?",
        )

    def cell_answer(self, column: str, row: str, cell: str) -> str:
        return _stop(f"Für {row} gilt: {column}: {cell}")

    def row_question(self, row: str, where: str, variant: int) -> str:
        return _pick(variant, f"Was steht in {where} über {row}?", f"Welche Angaben macht {where} zu {row}?")

    def about(self, heading: str, title: str, parent: str, variant: int) -> str:
        under = f" unter „{parent}“" if parent else ""
        return _pick(
            variant, f"Was steht in {title}{under} zu „{heading}“?", f"Was sagt {title}{under} zu „{heading}“?"
        )

    def whole(self, title: str) -> str:
        return f"Worum geht es in {title}?"

    def how_to(self, heading: str) -> str | None:
        found = re.match(r"^(?:so|wie)\s+(.+\s(?:ich|sie|du)\s.+)$", heading, re.IGNORECASE)
        return f"Wie {found[1].rstrip('?. ')}?" if found and heading.lower().startswith("wie") else None

    def listing(self, heading: str, title: str) -> str | None:
        return f"Was führt {title} unter „{heading}“ auf?"

    def meaning(self, term: str, title: str, variant: int) -> str:
        return _pick(variant, f"Was bedeutet „{term}“ in {title}?", f"Was versteht {title} unter „{term}“?")

    def stands_for(self, short: str, title: str) -> tuple[str, str]:
        return f"Wofür steht die Abkürzung {short} in {title}?", f"{short} steht für {{}}."


LANGUAGES: dict[str, Phrases] = {"en": English(), "de": German()}


def phrases(language: str) -> Phrases | None:
    """The language's wording, or None."""
    return LANGUAGES.get(language.split("-")[0].lower())


def plural(phrase: str) -> bool:
    """Whether an English noun phrase is plural, by the head noun's ending (the word before "of", "for", "per"…)."""
    head = re.split(r"\s+(?:of|for|per|in|to|from|by|with|on|at|under)\s+", phrase.strip(), maxsplit=1)[0]
    word = re.sub(r"\W+$", "", head).split()[-1].lower() if head.split() else ""
    if word in ("people", "children", "criteria", "data", "media", "staff", "men", "women"):
        return word not in ("data", "media", "staff")
    return len(word) > 3 and word.endswith("s") and not word.endswith(_SINGULAR_S) and not word.endswith("'s")


def says_attribute(column: str) -> bool:
    """Whether "the <column> for <row>" is English: the column's head is a noun that things have."""
    head = re.split(r"\s+(?:of|for|per|in|to|from|by|with|on|at|under)\s+", column.strip(), maxsplit=1)[0]
    word = re.sub(r"\W+$", "", head).split()[-1].lower() if head.split() else ""
    one = (
        word[:-3] + "y"
        if word.endswith("ies")
        else word[:-1]
        if word.endswith("s") and not word.endswith("ss")
        else word
    )
    return bool({word, one} & (_ATTRIBUTES | _PERSONS | _OF)) or bool(
        len(word) > 6 and re.search(r"(?:tion|sion|ment|ity|ness|ance|ence|ure|ency|ancy|ship|dure)s?$", word))


def _pick(variant: int, *forms: str) -> str:
    return forms[variant % len(forms)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stop(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."
