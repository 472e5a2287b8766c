"""Markdown tables as the readers write them: header, rows, units, and which column names the rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from luthier.prepare.makers._text import one_line
from luthier.prepare.makers._words import word_set

_EMPTY = frozenset(
    {"", "-", "–", "—", "n/a", "na", "none", "tbd", "tba", ".", "..", "...", "…", "x", "k.a.", "entfällt"}
)


@dataclass(frozen=True)
class Table:
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def read_table(text: str) -> Table | None:
    """A Markdown table's cells as plain text, rows as wide as the header; None for what is no table with a header."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    rule = next(
        (i for i, line in enumerate(lines) if re.fullmatch(r"\|?[\s:|-]*-[\s:|-]*\|?", line) and "|" in line), None
    )
    if rule != 1:
        return None
    header = tuple(one_line(cell) for cell in _cells(lines[0]))
    rows = []
    for line in lines[2:]:
        if "|" not in line:
            break
        cells = [one_line(cell) for cell in _cells(line)]
        rows.append(tuple((cells + [""] * len(header))[:len(header)]))
    return Table(header, tuple(rows)) if len(header) >= 2 and rows else None


def _cells(line: str) -> list[str]:
    line = line.strip()
    line = line[1:] if line.startswith("|") else line
    line = line[:-1] if line.endswith("|") and not line.endswith("\\|") else line
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)]


def empty(cell: str) -> bool:
    """Whether a cell holds nothing that could be an answer."""
    return cell.strip().lower() in _EMPTY


def is_number(cell: str) -> bool:
    """Whether a cell is a bare number (a sign, separators, a percent or currency sign may stand with it)."""
    return bool(re.fullmatch(r"[~≈<>≤≥±+-]?\s*[€$£¥]?\s*\d[\d.,'’\s]*\s*[%€$£¥]?", cell.strip()))


_UNIT = re.compile(
    r"^(?P<name>.+?)\s*(?:[\[(]\s*(?:in\s+)?(?P<a>[^\])]{1,20})[\])]|,?\s+in\s+(?P<b>[€$£%°µ]?[A-Za-z€$£%°µ²³/]{0,10}))$")
_UNITS = word_set(
    "mm cm m km in inch inches ft mi kg g mg µg t lb lbs oz l ml µl cl hl s sec seconds min minutes h hr hrs "
    "hours d days day weeks months years year ms µs ns v mv kv a ma w kw mw kwh wh hz khz mhz ghz pa kpa hpa "
    "bar mbar psi n nm j kj kcal cal k °c °f c f % ‰ € $ £ eur usd gbp chf jpy b kb mb gb tb kib mib gib "
    "mbit/s gbit/s kbit/s mbps gbps m² m³ cm² cm³ km/h m/s mph rpm 1/min l/min l/h db db(a) dba ppm px dpi pt "
    "pages lux lm lm/w ω ohm kω mol mmol/l mg/l mg/dl euro euros dollar dollars cents percent pounds francs "
    "stunden tage minuten sekunden wochen monate jahre stück "
    "pcs pieces people persons users"
)


def split_unit(header: str) -> tuple[str, str]:
    """("Weight", "kg") from "Weight (kg)", "Weight [kg]" or "Weight in kg"; (header, "") where there is no unit."""
    found = _UNIT.match(header)
    unit = (found["a"] or found["b"] or "").strip() if found else ""
    if not found or (
        unit.lower().removeprefix("per ") not in _UNITS
        and not re.fullmatch(
            r"(?:{})\s*(?:/|per)\s*\w+".format("|".join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))),
            unit.lower(),
        )
    ):
        return header, ""
    return found["name"].strip(" ,:"), unit


def with_unit(cell: str, unit: str) -> str:
    """A number with its column's unit; a cell that already names one stays as it is."""
    if not unit or not is_number(cell) or re.search(r"[%€$£¥]", cell):
        return cell
    return f"{cell} {unit}"


def key_column(table: Table) -> int | None:
    """The column whose cells name the rows: distinct, filled, short, not plain figures; None when there is none.

    Only the first two columns are looked at (a running number may stand first).
    """
    rows = table.rows
    for column in range(min(2, len(table.header) - 1)):
        cells = [row[column] for row in rows]
        name = table.header[column]
        if not name or any(empty(cell) or len(cell) > 60 or len(cell.split()) > 8 for cell in cells):
            continue
        if len({cell.casefold() for cell in cells}) < len(cells):
            continue
        if any(re.search(r"[.!?]\s+\S|[?!]$", cell) for cell in cells):
            continue
        counted = re.sub(r"\W", "", name).lower() in (
            "",
            "no",
            "nr",
            "num",
            "number",
            "pos",
            "position",
            "id",
            "row",
            "idx",
        )
        bare = [cell for cell in cells if is_number(cell)]
        if bare and (counted or (len(bare) * 2 > len(cells) and not key_noun(name))):
            continue
        return column
    return None


_CODED = word_set(
    "grade level tier class step stage year quarter month week day room floor building zone line channel port "
    "version release priority severity phase module chapter section size model type code category band group "
    "stufe klasse raum zimmer jahr monat quartal woche etage gebäude zone port version priorität phase modul "
    "größe modell typ code kategorie")


def key_noun(header: str) -> str:
    """The noun with which a bare code is named ("grade 3", "room 101"); empty where the header is none."""
    word = re.sub(r"\W", "", header.split()[-1]).lower() if header.split() else ""
    return header if word in _CODED or word.rstrip("s") in _CODED else ""


def shaped(table: Table) -> bool:
    """Whether headers are names (short, distinct, no figures) so that "the <column> of <row>" can be said."""
    names = [name for name in table.header if name]
    return (len(names) == len(table.header) and len({n.casefold() for n in names}) == len(names)
            and all(len(n) <= 40 and len(n.split()) <= 6 for n in names)
            and not any(is_number(n) and not re.fullmatch(r"(19|20)\d\d", n) for n in names)
            and not any(re.search(r"[.!?]\s+\S", n) for n in names))
