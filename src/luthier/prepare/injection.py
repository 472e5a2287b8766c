"""Prompt injection: text inside documents that speaks to the model instead of to the reader.

Found by rules, told in the data card with place and excerpt, and left out where the user asks for it. This is the
second line of defence. The first needs no detection: whatever a document says, it stands as quoted data in every
prompt, and cannot form a control token of a chat template (`luthier.index.rag.neutralise`), also not in training rows
(`defused`). Rules see known wording only; a new wording passes, so no clean report proves a clean document.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from luthier.index.rag import CONTROL_TOKEN, defuse
from luthier.prepare.clean import INVISIBLE
from luthier.shelf import Memory
from luthier.spec import Spec
from luthier.types import Document, Dropped, Example, Span

STEP = "injection"
MAX_FINDINGS = 200
"""Findings that the card lists; all are counted."""
_FOLDED = ("none", "hidden")
"""Ways of hiding that honest pages use to fold text away: told only where a rule finds an instruction in it."""

_WHAT = r"(?:instructions?|prompts?|rules?|guidelines?|directions?|commands?|context|polic(?:y|ies)|training|messages?)"
_AI = (r"(?:ai|a\.i\.|llms?|(?:large )?language models?|chat ?bots?|chatgpt|gpt(?:-?\d\w*)?|claude|gemini|copilot"
       r"|(?:ai|virtual|digital) (?:assistants?|agents?|models?|systems?|reviewers?))")

_RULES: tuple[tuple[str, bool, str], ...] = (  # name, strong, pattern over text in lower case with single spaces
    ("override", True, rf"\b(?:ignore|disregard|forget|override|bypass|skip"
     rf"|drop)\b (?:[\w'’,]+ ){{0,5}}?(?:previous|prior"
     rf"|above|earlier|preceding|former|all|any|your|system|original|initial|existing) (?:[\w'’,]+ ){{0,4}}?{_WHAT}\b"),
    ("override", True, r"\b(?:ignorier\w*|vergiss|vergessen sie|missacht\w*|übergeh\w*) (?:[\w,]+ ){0,4}?(?:vorherig\w*"
     r"|bisherig\w*|obig\w*|vorigen|früher\w*|alle\w*|deine\w*|ihre\w*) (?:\w+ ){0,3}?(?:anweisung\w*|instruktion\w*"
     r"|regeln?|vorgaben?|befehle?|prompts?)\b"),
    ("override", True, r"\b(?:ignore[zr]?|oublie[zr]?|ignora|olvid[ae]|dimentica|ignorad"
     r"|haz caso omiso de) (?:[\w'’,]+ )"
     r"{0,4}?(?:instructions?|consignes|instrucciones|istruzioni|règles|reglas|regole) (?:\w+ ){0,2}?(?:précédentes?"
     r"|ci-dessus|antérieures|anteriores|previas|precedenti|sopra)\b"),
    ("override", True, r"\bnew (?:system )?(?:instructions?|prompt|directives?) ?: ?\S"),
    ("persona", True, r"\byou are now (?:(?:an?|the|my|our|called|named|known as"
     r"|acting as) (?:[\w-]+ ){0,3}?(?:assistant"
     r"|ai|model|bot|chatbot|agent|persona|hacker|terminal|interpreter|expert|pirate)\b"
     r"|in (?:[\w-]+ )?(?:developer|debug"
     r"|god|jailbreak|dan|admin|unrestricted) mode|no longer (?:bound|restricted|an? |required)|free (?:of"
     r"|from) (?:all |any"
     r" )?(?:rules|restrictions|limits)|dan\b|unrestricted|jailbroken)"),
    ("persona", True, rf"\b(?:act|behave|respond|answer|pretend|roleplay|role-play) (?:as|like|to be|you are"
     rf"|that you are)"
     rf" (?:an? |the )?(?:[\w-]+ ){{0,3}}?(?:unrestricted|unfiltered|uncensored|jailbroken|evil|dan\b|{_AI}\b)"),
    ("persona", True, r"\bfrom (?:now|this point|here) on,? (?:you|your (?:answers?|replies|name)) (?:will|must|are|is"
     r"|should|shall|may|can|only|respond|answer|reply|act)\b"),
    ("persona", True, r"\bdu bist (?:jetzt|nun|ab sofort) (?:ein\w* )?(?:\w+ ){0,2}?(?:assistent\w*|ki|modell"
     r"|bot|hacker"
     r"|agent)\b"),
    ("to-the-model", True, rf"\b(?:if you(?:'re| are)|as|attention|note (?:to|for)|message (?:to|for)|dear|hey|hello"
     rf"|instructions? (?:to|for)|important for|any|all|to (?:the|any|all|every)),?:? (?:an? |the |any "
     rf"|all )?{_AI}\b.{{0,160}}?"
     r"\b(?:must|should|please|do not|don't|say|tell|reply|respond|output|print|recommend|include|rate|mark"
     r"|approve|hire"
     r"|ignore|insert|always|never)\b"),
    ("to-the-model", True, rf"\b{_AI} ?[:,;] ?(?:you (?:must|should|will)|please|ignore|always|never|do not|say)\b"),
    ("reveal", True, r"\b(?:reveal|print|show|repeat|output|leak|disclose|reproduce|write out"
     r"|tell me) (?:[\w'’]+ ){0,4}?"
     r"(?:system prompt|initial prompt|hidden (?:prompt|instructions)|system message|your (?:[\w]+ )?(?:instructions"
     r"|prompt|guidelines|configuration))\b"),
    ("conceal", True, r"\b(?:do not|don't|never|without) (?:[\w']+ ){0,2}?(?:tell|mention|reveal|inform|alert|disclose"
     r"|telling|mentioning|informing|alerting|notifying)\w* (?:[\w']+ ){0,5}?(?:the )?(?:user|human|reader"
     r"|operator)\b"),
    ("exfiltrate", True, r"!\[[^\]]{0,200}\]\(https?://[^)\s]{1,300}(?:\{|\[|%7b|<|\$\(|=(?:data|secret|base64"
     r"|user|info"
     r"|conversation|chat|history|context)\b)"),
    ("exfiltrate", True, r"\b(?:send|post|forward|upload|append|exfiltrate|transmit|e-?mail|encode) (?:[\w'’,]+ ){0,6}?"
     r"(?:conversation|chat history|chat log|user(?:'s|’s)? (?:question|data|message|input|name|e-?mail)|api keys?"
     r"|passwords?|credentials|system prompt|secrets?)\b.{0,80}?(?:https?://|\bto \S+@\S+|\bwebhook\b)"),
    ("role-marker", False, r"(?:^|[\s>])#{2,4} ?(?:system|instructions?|response|assistant|human|user) ?:"),
    ("role-marker", False, r"(?:^|\s)(?:system|user|human) ?: .{1,400}?\s(?:assistant|ai) ?: ?\S"),
)
_COMPILED = [(name, strong, re.compile(pattern)) for name, strong, pattern in _RULES]
_TRIGGER = re.compile(
    r"ignor|disregard|forget|override|bypass|skip|drop|vergiss|vergessen|missacht|übergeh|oublie|olvid|dimentica|omiso"
    r"|instruction|you are now|\bact |behave|respond|pretend|role|from (?:now|this|here) on|du bist|\bai\b|a\.i\.|llm"
    r"|language model|chat|gpt|claude|gemini|copilot|assistant|agent|prompt|reveal|system|user|human|reader"
     r"|operator|!\[")
_BLOB = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{80,}={0,2}(?![A-Za-z0-9+/=])")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_SELECTORS = re.compile("[\U000e0100-\U000e01ef]{4,}")
_TURN = re.compile("[\u202a-\u202e\u2066-\u2069]")
_RUN = re.compile("[\u200b-\u200d\u2060-\u2064\ufeff\u180e]{8,}")


@dataclass(frozen=True)
class Hit:
    """One rule's find in a text."""

    rule: str
    """override, persona, to-the-model, reveal, conceal, exfiltrate, control-token, encoded, invisible-characters,
    role-marker."""
    strong: bool
    """Wording that has hardly another use than to steer a model; weak hits are told and never dropped."""
    excerpt: str


class Injection(Spec):
    """Instructions to the model that stand in documents: found, told in the data card, and left out on request."""

    mode: Literal["flag", "drop", "off"] = "flag"
    """`flag` tells them in the data card and keeps the text; `drop` also leaves out paragraphs that address the model
    and text that a reader cannot see; `off` does not look."""
    allow: tuple[str, ...] = ()
    """Documents that may speak of such things, by path or pattern (`security/*`): they are not looked at."""

    def judge(self, documents: Sequence[Document], memory: Memory | None = None
              ) -> tuple[Sequence[Document], list[dict[str, Any]], list[Dropped]]:
        """(documents, findings, dropped spans). Documents keep the number of their spans: what is left out is empty.

        A finding has path, place, rule, strong, how (the way a text was hidden, or ""), excerpt and dropped.
        """
        if self.mode == "off":
            return documents, [], []
        kept = (memory or Memory()).documents()
        findings: list[dict[str, Any]] = []
        dropped: list[Dropped] = []
        for document in documents:
            if any(_matches(document.path, pattern) for pattern in self.allow):
                kept.append(document)
                continue
            document, found, gone = self._document(document)
            kept.append(document)
            findings += found
            dropped += gone
        return kept, findings, dropped

    def _document(self, document: Document) -> tuple[Document, list[dict[str, Any]], list[Dropped]]:
        findings: list[dict[str, Any]] = []
        dropped: list[Dropped] = []
        spans = list(document.spans)
        drop = self.mode == "drop"

        def tell(place: str, hit: Hit, how: str = "", *, gone: bool = False) -> None:
            findings.append({"path": document.path, "place": place, "rule": hit.rule, "strong": hit.strong, "how": how,
                             "excerpt": hit.excerpt, "dropped": gone})

        for piece in _hidden(document):
            text, how = str(piece["text"]), str(piece["how"])
            hits = find(text)
            if not hits and how in _FOLDED:
                continue
            hit = hits[0] if hits else Hit("hidden-text", how not in (*_FOLDED, "comment"), text[:160])
            gone = drop and hit.strong and _cut(spans, text, piece.get("page"), document, hit, dropped)
            tell(_place(piece.get("page"), piece.get("line")), hit, how, gone=gone)
        for at, span in enumerate(spans):
            hits = find(span.text)
            told = {one["excerpt"] for one in findings}
            strong = next((hit for hit in hits if hit.strong), None)
            for hit in hits:
                if hit.excerpt not in told:
                    tell(_place(span.page, span.line), hit, gone=drop and hit.strong)
            if drop and strong is not None:
                dropped.append(_dropped(document, at, strong, span.text))
                spans[at] = replace(span, text="")
        title = document.title
        for hit in find(title):
            tell("title", hit, gone=drop and hit.strong)
            title = document.path.rpartition("/")[2] if drop and hit.strong else title
        return replace(document, spans=tuple(spans), title=title) if drop else document, findings, dropped


def find(text: str) -> list[Hit]:
    """What in a text speaks to the model; at most one hit for a rule. Case, white space, invisible characters and
    compatibility forms (full width, mathematical letters) make no difference."""
    found: dict[str, Hit] = {}
    for hit in _characters(text):
        found.setdefault(hit.rule, hit)
    plain = text if text.isascii() else unicodedata.normalize("NFKC", INVISIBLE.sub("", text))
    if "<" in plain or "[" in plain:
        match = CONTROL_TOKEN.search(plain)
        if match:
            found.setdefault("control-token", Hit("control-token", True, _around(plain, match.start(), match.end())))
    for match in _BLOB.finditer(plain):
        said = _decoded(match.group())
        if said and (inner := find(said)):
            found.setdefault("encoded", Hit("encoded", inner[0].strong, f"base64: {inner[0].excerpt}"))
    flat = " ".join(plain.lower().split())
    if _TRIGGER.search(flat):
        for name, strong, pattern in _COMPILED:
            if name not in found and (match := pattern.search(flat)):
                found[name] = Hit(name, strong, _around(flat, match.start(), match.end()))
    return list(found.values())


def defused(example: Example) -> Example:
    """The example with the control tokens of chat templates broken, unless a person wrote it.

    A tokenizer reads `<|im_end|>` in a document's text as the end of a turn: a row made of such text would teach the
    model to obey it.
    """
    if example.origin.maker == "human":
        return example
    turns = example.input
    new = defuse(turns) if isinstance(turns, str) else tuple(
        replace(turn, content=defuse(turn.content)) for turn in turns)
    target = None if example.target is None else defuse(example.target)
    if new == turns and target == example.target:
        return example
    return replace(example, input=new, target=target)


def summed(findings: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any]:
    """The card's section: counts by rule and document, and the findings, strong ones first; {} when nobody looked."""
    if mode == "off":
        return {}
    ordered = sorted(findings, key=lambda one: (not one["strong"], one["path"]))
    return {"mode": mode, "found": len(findings), "strong": sum(bool(one["strong"]) for one in findings),
            "dropped": sum(bool(one["dropped"]) for one in findings),
            "rules": dict(Counter(one["rule"] for one in ordered).most_common()),
            "documents": dict(Counter(one["path"] for one in ordered).most_common()),
            "findings": ordered[:MAX_FINDINGS]}


def warnings(section: Mapping[str, Any]) -> list[str]:
    """What the card says first about it."""
    count = section.get("strong", 0) if section else 0
    if not count:
        return []
    paths = list(dict.fromkeys(one["path"] for one in section["findings"] if one["strong"]))
    named = f"{', '.join(paths[:3])}{', …' if len(paths) > 3 else ''}"
    places = "1 place in the documents speaks" if count == 1 else f"{count} places in the documents speak"
    done = ("The text is used, as quoted data; prepare.injection.mode: drop leaves it out."
            if count > section["dropped"] else "It was left out." if count == 1 else "They were left out.")
    return [f"{places} to the model instead of to the reader, or cannot be seen ({named}): see the table below. {done}"]


def _characters(text: str) -> Iterator[Hit]:
    """Signs that no reader sees: Unicode tags that spell words, runs of selectors or joiners, turned direction."""
    if text.isascii():
        return
    spelled = "".join(chr(ord(c) - 0xE0000) for run in _TAGS.findall(text) if len(run) > 6 for c in run)
    if spelled:  # flags of regions are such tags too, but shorter
        yield Hit("invisible-characters", True, f"Unicode tags spell: {spelled[:160]}")
    elif match := _SELECTORS.search(text) or _RUN.search(text):
        yield Hit("invisible-characters", True, f"{match.end() - match.start()} invisible characters after: "
                                                f"{text[max(0, match.start() - 60):match.start()]}")
    elif match := _TURN.search(text):
        yield Hit("invisible-characters", False, "marks that turn the writing direction in: "
                                                 f"{text[max(0, match.start() - 40):match.start() + 40]!r}")


def _decoded(blob: str) -> str:
    try:
        said = base64.b64decode(blob + "=" * (-len(blob) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
    return said if said.isprintable() or said.replace("\n", "").isprintable() else ""


def _around(text: str, start: int, end: int) -> str:
    cut = text[max(0, start - 40) : min(end, start + 200) + 60]
    return " ".join(cut.split())[:300]


def _hidden(document: Document) -> list[Mapping[str, Any]]:
    found = document.meta.get("hidden_text", ())
    return [piece for piece in found if isinstance(piece, Mapping) and piece.get("text")]


def _place(page: Any, line: Any) -> str:
    return f"page {page}" if page is not None else f"line {line}" if line is not None else ""


def _cut(spans: list[Span], text: str, page: Any, document: Document, hit: Hit, dropped: list[Dropped]) -> bool:
    """Take a hidden text out of the spans it stands in; whether it was found there."""
    pattern = re.compile(r"\s*".join(map(re.escape, text.split())))
    done = False
    for at, span in enumerate(spans):
        if (page is None or span.page == page) and pattern.search(span.text):
            dropped.append(_dropped(document, at, hit, text))
            spans[at] = replace(span, text=pattern.sub("", span.text).strip())
            done = True
    return done


def _dropped(document: Document, at: int, hit: Hit, text: str) -> Dropped:
    return Dropped(item=f"{document.id}#{at}", step=STEP, reason=hit.rule, detail=document.path, text=text[:300])


def _matches(path: str, pattern: str) -> bool:
    import fnmatch

    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)
