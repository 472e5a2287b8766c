"""The page gate: good pages pass, glued and garbled ones are flagged, whatever the language."""

import pytest

from luthier.ingest._quality import agreement, judge_text

GERMAN = ("Die Rindfleischetikettierungsüberwachung und die Kraftfahrzeughaftpflichtversicherung sind lange Wörter, "
          "kommen aber in gewöhnlichen Sätzen über Verwaltung und Versicherung selten mehr als einmal vor. ") * 3
GOOD = [
    "The technician opens the inlet valve slowly and waits until the gauge reads less than two bar.",
    GERMAN,
    "日本語の文章は単語の間に空白を入れません。そのため、とても長い文字列が続くことがありますが、これは正常です。" * 3,
    "See https://example.org/a/very/long/path/that/has/no/spaces?and=goes&on=and#on for details of the whole thing.",
    "Chapter one ........................................ 7\nChapter two ........................................ 9",
    "Przedsiębiorstwo świadczy usługi w zakresie źródeł energii odnawialnej oraz szczegółowych pomiarów jakości.",
    "Which of these holds? A) B) C) D) Tick one: a b c d e. " + "The drill is set to x, y and z before it turns. " * 3,
    "ATP-ADP DNA mRNA XML HTTP JSON TCP UDP LSTM CNN RNN GPU CPU TPU RAM SSD HDD USB PCI NVME SATA are terms.",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_text_passes(text):
    assert judge_text(text) == []


def test_glued_words_are_flagged():
    whole_line = GOOD[0] + " " + GOOD[0].replace(" ", "")
    in_threes = " ".join("".join(GOOD[0].split()[i:i + 3]) for i in range(0, 18, 3))
    for text in (whole_line, " ".join([in_threes] * 4)):
        assert [w["warning"] for w in judge_text(text)] == ["glued-words"]


def test_words_set_letter_by_letter_are_flagged():
    apart = "for ( i n t k = 0 ; k < D ) { p r o d u c t } r e t u r n p r o ; l e a s t s i g n i f i c a n t b i t s"
    assert [w["warning"] for w in judge_text(apart)] == ["split-words"]
    assert judge_text(apart + " " + GOOD[0] * 20) == []  # a word or two on a page of text


def test_garbled_text_is_flagged():
    # A font whose letters were renamed: each stands three further on in the alphabet.
    renamed = "".join(chr((ord(c) - 97 + 3) % 26 + 97) if c.islower() else c for c in GOOD[0] * 3)
    for text in (GOOD[0].replace("e", "\ufffd"), "(cid:12)(cid:7)" * 20, renamed):
        assert [w["warning"] for w in judge_text(text)] == ["garbled"], text


def test_agreement_sees_lost_words_and_lost_order():
    assert agreement(GOOD[0], GOOD[0]) == (1.0, 1.0)
    words = GOOD[0].split()
    lost, _ = agreement(" ".join(words[:8]), GOOD[0])
    assert lost == pytest.approx(8 / len(words))
    share, order = agreement(" ".join(words[::2] + words[1::2]), GOOD[0])
    assert share == 1.0 and order < 0.1
