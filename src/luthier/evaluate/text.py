"""Words of an answer: normalisation, content words, and the recogniser of refusals. Shared by the metrics."""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

ARTICLES = {
    "en": "a an the",
    "de": "der die das den dem des ein eine einen einem einer eines",
    "fr": "le la les l un une des",
    "es": "el la los las un una unos unas",
    "it": "il lo la i gli le l un uno una",
    "pt": "o a os as um uma uns umas",
    "nl": "de het een",
}
"""Words that the SQuAD normalisation removes, by language; other languages remove none."""

_STOP_LISTS = {"en": "EN_PLUS", "de": "GERMAN", "fr": "FRENCH", "es": "SPANISH", "it": "ITALIAN", "pt": "PORTUGUESE",
               "nl": "DUTCH", "sv": "SWEDISH", "da": "DANISH", "no": "NORWEGIAN", "ru": "RUSSIAN", "tr": "TURKISH"}
_STEMMERS = {"en": "english", "de": "german", "fr": "french", "es": "spanish", "it": "italian", "pt": "portuguese",
             "nl": "dutch", "sv": "swedish", "da": "danish", "no": "norwegian", "ru": "russian", "tr": "turkish",
             "fi": "finnish", "hu": "hungarian", "ro": "romanian", "cs": "czech", "pl": "polish"}

# One character = one word in scripts that are written without spaces (as in MLQA and BERT's tokeniser).
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f])")
_APOSTROPHE = re.compile(r"\b([ldcjmnstLDCJMNST]|qu|Qu)['’](?=\w)")

_REFUSALS = {
    "en": r"(i|we) (could not|couldn.?t|can ?not|can.?t|was not able to|am not able to|am unable to|do not|don.?t) "
          r"(find|answer|know|have (any |enough |the |that )?information|provide an answer|see (any|this|that))"
          r"|there is (no|not enough) (information|mention|answer)"
          r"|(this|that|it|the answer|the information)( information| question)? "
          r"(is|was|are) not (mentioned|stated|provided|given|specified|contained|available|covered|answered|found)"
          r"|(the )?(documents?|passages?|context|text)s?( provided)? (do|does) not "
          r"(say|mention|contain|state|provide|specify|answer|include|give)"
          r"|not (mentioned|stated|found|answerable) in the (documents?|passages?|context|text)",
    "de": r"(ich|wir) (konnte|konnten|kann|können|weiß|weiss|habe)\b.{0,60}\b(nicht|nichts|keine?)"
          r"|(das|dies|dazu|darüber|hierzu)\b.{0,40}\b(steht|ist|sind|gibt es|enthalten)\b.{0,40}"
          r"\b(nicht|nichts|keine?)",
    "fr": r"je (n['’ ]ai pas|ne) .{0,20}(trouv|sais|peux|dispose)|les documents ne .{0,30}pas",
    "es": r"no (he podido|pude|puedo|encuentro|encontré|sé|dispongo)|los documentos no",
    "it": r"non (ho trovato|riesco|posso|so|trovo|dispongo)|i documenti non",
    "pt": r"não (encontrei|consegui|consigo|posso|sei|encontro)|os documentos não",
    "nl": r"ik (kon|kan|weet|heb)\b.{0,50}\b(niet|geen)|de documenten (bevatten|vermelden)\b.{0,30}\b(niet|geen)",
}
_LEAD = r"^(i.?m sorry|i am sorry|sorry|unfortunately|i apologi[sz]e|leider|es tut mir leid|désolée?|lo siento|" \
        r"mi dispiace|lamento|desculpe|helaas|het spijt me)?[\s,.;:!]*(but|aber|mais|pero|ma|mas|maar)?[\s,]*"


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits; on ASCII text exactly the tokens of Google's `rouge-score`."""
    return re.findall(r"[^\W_]+", text.lower())


def normalise(text: str, language: str = "en") -> str:
    """SQuAD's answer normalisation: lower case, no punctuation, no articles, single spaces.

    As in SQuAD's `evaluate-v2.0.py` for English (punctuation is deleted, not replaced by a space). Where we differ:
    all Unicode punctuation goes, articles follow `language`, and characters of unspaced scripts (Chinese, Japanese,
    Thai) become words of their own, as in MLQA.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    if language in ("fr", "it"):
        lowered = _APOSTROPHE.sub(r"\1 ", lowered)
    bare = "".join(c for c in lowered if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    articles = set(ARTICLES.get(language, "").split())
    return " ".join(word for word in _UNSPACED.sub(r" \1 ", bare).split() if word not in articles)


@lru_cache(maxsize=8)
def _stop_words(language: str) -> frozenset[str]:
    from luthier.errors import need

    lists = need("bm25s.stopwords", extra="index")
    name = _STOP_LISTS.get(language)
    return frozenset(getattr(lists, f"STOPWORDS_{name}")) if name else frozenset()


@lru_cache(maxsize=8)
def _stemmer(language: str):
    from luthier.errors import need

    name = _STEMMERS.get(language)
    return need("Stemmer", extra="index").Stemmer(name) if name else None


def content_words(text: str, language: str = "en") -> list[str]:
    """Stems of the words that carry content: no function words; numbers stay whole (`3.5`, `1,200`, `24/7`).

    Snowball stemmer and stop words of `language`; languages without them keep every word as it is.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    raw = re.findall(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+", _UNSPACED.sub(r" \1 ", lowered))
    kept = [word for word in raw if word not in _stop_words(language) and (len(word) > 1 or not word.isascii()
                                                                            or word.isdigit())]
    stem = _stemmer(language)
    return stem.stemWords(kept) if stem else kept


def is_refusal(text: str, refusal: str, language: str = "en") -> bool:
    """Whether an answer declines to answer.

    True for an answer that begins with (or is nearly) the task's own refusal sentence, and for one whose first
    sentence is a common way to decline in `language` or in English. A refusal later in an answer does not count: the
    answer was given. An empty answer declines nothing; it is merely no answer.
    """
    said, own = normalise(text, language), normalise(refusal, language)
    if not said:
        return False
    if own and said.startswith(own):
        return True
    first = re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0].lower()
    own_words, first_words = set(own.split()), set(normalise(first, language).split())
    if own_words and len(own_words & first_words) / len(own_words | first_words) >= 0.75:
        return True
    sentences = re.split(r"(?<=[.!?])\s+|\n+", text.strip().lower())[:2]
    # "I'm sorry. I could not find this." declines in its second sentence; any other first sentence has answered.
    opening = " ".join(sentences) if re.fullmatch(_LEAD, sentences[0]) else sentences[0]
    patterns = [_REFUSALS["en"], *([_REFUSALS[language]] if language in _REFUSALS and language != "en" else [])]
    return any(re.match(_LEAD + "(" + pattern + ")", opening) for pattern in patterns)
