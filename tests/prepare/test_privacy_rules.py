"""Laws of the recognisers: what is planted is found, what looks so is left alone, check digits agree with stdnum."""

import json
import random
from pathlib import Path

import pytest

from luthier.errors import DataError, SpecError
from luthier.prepare.privacy.base import RECOGNIZERS, Privacy, Signs
from luthier.prepare.privacy.checks import iban_check, luhn, luhn_digit, mod11_10, mod97, verhoeff
from luthier.prepare.privacy.scan import Scanner, question_id
from luthier.queues import Decided, decide
from luthier.spec import parse

SAMPLE = Path(__file__).resolve().parents[2] / "benchmarks" / "privacy_sample.jsonl"
DATA = Path(__file__).resolve().parents[2] / "../shared/data"


def found(text, root=Path("/nowhere"), **settings):
    scanner = Scanner(parse(Privacy, settings), root)
    return [(hit.kind, text[hit.start : hit.end]) for hit in scanner.scan([text])[0].hits]


@pytest.mark.parametrize(("text", "kind", "value"), [
    ("write to jane.o'neil+x@mail.acme.co.uk.", "EMAIL", "jane.o'neil+x@mail.acme.co.uk"),
    ("jane (at) acme (dot) com", "EMAIL", "jane (at) acme (dot) com"),
    ("Tel.: 030 / 901 820", "PHONE", "030 / 901 820"), ("call (212) 736-5000 now", "PHONE", "(212) 736-5000"),
    ("+33 6 12 34 56 78", "PHONE", "+33 6 12 34 56 78"),
    ("IBAN DE89 3704 0044 0532 0130 00 bitte", "IBAN", "DE89 3704 0044 0532 0130 00"),
    ("GB82WEST12345698765432", "IBAN", "GB82WEST12345698765432"),
    ("card 4111-1111-1111-1111, exp 12/27", "CARD", "4111-1111-1111-1111"),
    ("SSN: 078-05-1120", "NATIONAL_ID", "078-05-1120"), ("NINO AB 12 34 56 C", "NATIONAL_ID", "AB 12 34 56 C"),
    ("IdNr 86 095 742 719", "NATIONAL_ID", "86 095 742 719"), ("BSN 111222333", "NATIONAL_ID", "111222333"),
    ("DNI 12345678Z", "NATIONAL_ID", "12345678Z"), ("NIE X1234567L", "NATIONAL_ID", "X1234567L"),
    ("CF RSSMRA85T10A562S", "NATIONAL_ID", "RSSMRA85T10A562S"),
    ("personnummer 811228-9874", "NATIONAL_ID", "811228-9874"),
    ("CPF 529.982.247-25", "NATIONAL_ID", "529.982.247-25"),
    ("AHV 756.9217.0769.85", "NATIONAL_ID", "756.9217.0769.85"),
    ("passport no. C01X00T47", "NATIONAL_ID", "C01X00T47"),
    ("login from 81.2.69.142", "DEVICE", "81.2.69.142"), ("MAC 3C:22:FB:9A:01:7E", "DEVICE", "3C:22:FB:9A:01:7E"),
    ("AKIAIOSFODNN7EXAMPLE", "SECRET", "AKIAIOSFODNN7EXAMPLE"),
    ("postgres://admin:s3cr3tPw@db.acme.com/x", "SECRET", "admin:s3cr3tPw"),
    ("password: hunter2!x", "SECRET", "hunter2!x"),
    ('api_key = "9f8A7b6C5d4E3f2A1b0C"', "SECRET", "9f8A7b6C5d4E3f2A1b0C"),
    ("born on March 3, 1980 in Kent", "BIRTHDATE", "March 3, 1980"), ("geb. am 12.03.1980", "BIRTHDATE", "12.03.1980"),
    ("12 Baker Street, London NW1 6XE", "ADDRESS", "12 Baker Street, London NW1 6XE"),
    ("Sie wohnt: Berliner Straße 12, 10115 Berlin.", "ADDRESS", "Berliner Straße 12, 10115 Berlin"),
    ("5 rue de la Paix, 75002 Paris", "ADDRESS", "5 rue de la Paix, 75002 Paris"),
    ("Dear Mr Okonkwo, thanks", "PERSON", "Okonkwo"), ("Sehr geehrte Frau von der Heide,", "PERSON", "von der Heide"),
    ("Best regards,\nXiomara Quispe\nSales", "PERSON", "Xiomara Quispe"),
    ("Name: Xiomara Quispe", "PERSON", "Xiomara Quispe"),
    ("ich heiße Xiomara Quispe", "PERSON", "Xiomara Quispe"),
    ("we saw Thomas Schneider's car", "PERSON", "Thomas Schneider"),
])
def test_what_is_planted_is_found_with_its_ends(text, kind, value):
    assert (kind, value) in found(text)


def test_a_private_key_is_found_whole():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKCAQEA0Z3VS5JJcds3xfn\n-----END RSA PRIVATE KEY-----"
    assert found(f"x\n{key}\ny") == [("SECRET", key)]


@pytest.mark.parametrize("text", [
    "Part 4711-0815, order 4539148803436467, invoice 2023-1182", "ISBN 978-3-16-148410-0 and EAN 4006381333931",
    "version 10.2.33.4, section 4.2.1.3, from 10.0.0.7 and 127.0.0.1", "on 12.03.1980 from 10:00 to 11:30",
    "Charles University, Johns Hopkins Hospital, Victoria Park", "Crohn's disease and Hodgkin lymphoma",
    "Mark Complete, then press Will Call in May Day mode", "IN NO EVENT WILL CISCO BE LIABLE",
    "The password must have at least 12 characters", "password: ********", "the token is required; passwords expire",
    "4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "12345678A", "529.982.247-26", "git@github.com:a/b.git",
    "someone@example.com", "logo@2x.png", "call 1-800-356-9377 for free", "Dear customer,", "Best regards,\nYour Team",
    "Die Straße ist 12 km lang.", "220-240 V, 50/60 Hz, 12-14 Nm", "SHA-256 " + "a3f5" * 16,
])
def test_what_only_looks_like_personal_data_is_left_alone(text):
    assert found(text) == []


def test_check_digits_agree_with_python_stdnum():
    iban, luhn_of = pytest.importorskip("stdnum.iban"), pytest.importorskip("stdnum.luhn")
    from stdnum import verhoeff as theirs
    from stdnum.br import cpf
    from stdnum.de import idnr
    from stdnum.es import dni
    from stdnum.fr import nir
    from stdnum.nl import bsn

    draw = random.Random(3)
    number = lambda count: "".join(draw.choice("0123456789") for _ in range(count))  # noqa: E731
    for _ in range(150):
        digits = number(15)
        assert luhn(digits) == luhn_of.is_valid(digits) and luhn_of.is_valid(digits + luhn_digit(digits))
        assert verhoeff(digits) == theirs.is_valid(digits)
        account = number(18)
        assert iban.is_valid("DE" + iban_check("DE", account) + account, check_country=False)
        assert mod97("DE" + iban_check("DE", account) + account) == 1
    scan = lambda cue, text: ("NATIONAL_ID", text) in found(f"{cue} {text}", recognizers=["national_id"])  # noqa: E731
    checked = 0
    for cue, module, make in (("BSN", bsn, lambda: number(9)), ("CPF", cpf, lambda: number(11)),
                              ("Steuer-ID", idnr, lambda: number(11)),
                              ("DNI", dni, lambda: number(8) + draw.choice("TRWAGM")),
                              ("NIR", nir, lambda: "1" + number(2) + "0575116001" + number(2))):
        for _ in range(80):
            text = make()
            checked += module.is_valid(text)
            assert scan(cue, text) == module.is_valid(text), (cue, text)
    assert checked > 10 and mod11_10("86095742719")


def test_the_sample_is_found_and_real_questions_are_left_alone():
    rows = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()][::6]
    scanner = Scanner(Privacy(), Path("/nowhere"))
    hits = [one.hits for one in scanner.scan([row["text"] for row in rows])]
    planted = [(span, mine) for row, mine in zip(rows, hits) for span in row["spans"]]
    right = sum(any(hit.kind == kind and hit.start < end and hit.end > start for hit in mine)
                for (start, end, kind), mine in planted)
    wrong = sum(not any(hit.kind == kind and hit.start < end and hit.end > start for start, end, kind in row["spans"])
                for row, mine in zip(rows, hits) for hit in mine)
    assert len(planted) > 100 and right / len(planted) > 0.88 and wrong <= 3
    if not (DATA / "banking77" / "test.csv").is_file():
        pytest.skip("no banking77 in shared/data")
    texts = (DATA / "banking77" / "test.csv").read_text("utf-8").splitlines()[1:800]
    assert sum(len(one.hits) for one in scanner.scan(texts)) <= 1


def test_of_overlapping_hits_one_stays_and_the_longest_name():
    assert found("Prezado Enzo Gabriel Novais, obrigado") == [("PERSON", "Enzo Gabriel Novais")]
    text = "Jane Miller <jane.miller@acme.com> wrote"
    assert found(text) == [("PERSON", "Jane Miller"), ("EMAIL", "jane.miller@acme.com")]


def test_a_name_that_is_sure_once_is_found_again_in_the_document():
    scanner = Scanner(Privacy(), Path("/nowhere"))
    texts = ["Dr. Xiomara Quispe leads it.", "Ask Quispe first.", "Xiomara Quispe knows."]
    spread = scanner.spread(texts, scanner.scan(texts))
    assert [[text[hit.start : hit.end] for hit in one.hits] for text, one in zip(texts, spread)] == [
        ["Xiomara Quispe"], ["Quispe"], ["Xiomara Quispe"]]
    assert [scanner.sure(one.hits[0]) for one in spread] == [True, False, True]


def test_allowed_values_and_peoples_decisions_hold(tmp_path):
    text = "Ask Thomas Schneider, support@acme.com or help@acme.com"
    assert found(text, allow=["*@acme.com"]) == [("PERSON", "Thomas Schneider")]
    for verdict, value, expected in (("reject", None, []), ("edit", "mascot", [("MASCOT", "Thomas Schneider")]),
                                     ("accept", None, [("PERSON", "Thomas Schneider")])):
        id = question_id("PERSON", "thomas  schneider")
        decide(tmp_path, "privacy", Decided(id=id, verdict=verdict, value=value))
        assert found(text, tmp_path, allow=["*@acme.com"]) == expected
    decide(tmp_path, "privacy", Decided(id="x", verdict="edit", value="not a kind!"))
    with pytest.raises(DataError, match=r"labels/privacy.jsonl:4.*the right kind, such as PERSON"):
        found(text, tmp_path)


def test_a_pattern_of_the_users_is_a_kind_of_its_own_and_is_checked():
    own = {"kind": "pattern", "name": "EMPLOYEE", "regex": r"\bE-(\d{6})\b", "context": ["badge"]}
    assert found("badge E-123456", recognizers=[own]) == [("EMPLOYEE", "123456")]
    assert found("pump E-123456", recognizers=[own]) == []
    for wrong in ({"regex": "(x"}, {"regex": "x*"}):
        with pytest.raises(SpecError, match=r"regular expression|at least one character"):
            parse(Privacy, {"recognizers": [own | wrong]})
    with pytest.raises(SpecError, match="did you mean 'phone'"):
        parse(Privacy, {"recognizers": ["phones"]})


def test_names_of_the_users_and_regions_are_honoured():
    own = [{"kind": "person", "extra_names": ["Quorra Flynnbert"]}]
    assert found("then Quorra Flynnbert left", recognizers=own) == [("PERSON", "Quorra Flynnbert")]
    swiss = "Tel. 044 668 18 00"
    assert found(swiss, recognizers=[{"kind": "phone", "regions": ["CH"]}], min_confidence=0.8) == [
        ("PHONE", "044 668 18 00")]
    assert found(swiss, recognizers=[{"kind": "phone", "regions": ["US"]}], min_confidence=0.8) == []


def test_without_phonenumbers_a_report_says_so_and_a_redaction_stops(monkeypatch):
    import sys

    from luthier.errors import MissingExtra
    from luthier.prepare.privacy.recognizers import phone

    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    phone._valid.cache_clear()
    scanner = Scanner(Privacy(), Path("/nowhere"))
    assert scanner.scan(["call (212) 736-5000"])[0].hits == () and "luthier[privacy]" in scanner.notes[0]
    with pytest.raises(MissingExtra, match=r"luthier\[privacy\]"):
        Scanner(Privacy(mode="redact"), Path("/nowhere")).scan(["call (212) 736-5000"])
    phone._valid.cache_clear()


def test_a_token_classifier_of_the_users_finds_names_that_no_rule_knows(tmp_path):
    """A model of no layers, whose head reads the word: `zorblax` begins a person, `quux` goes on."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: at for at, word in enumerate(("[PAD]", "[UNK]", "zorblax", "quux", "met"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
                                         ).save_pretrained(tmp_path)
    config = transformers.BertConfig(vocab_size=5, hidden_size=8, num_hidden_layers=0, num_attention_heads=1,
                                     intermediate_size=8, id2label={0: "O", 1: "B-PER", 2: "I-PER"})
    model = transformers.BertForTokenClassification(config).eval()
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.zero_()
        model.bert.embeddings.token_type_embeddings.weight.zero_()
        model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(8)[:5] * 10)
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
        model.classifier.weight[1, 2] = model.classifier.weight[2, 3] = 9.0
    model.save_pretrained(tmp_path)
    spec = parse(Privacy, {"recognizers": [{"kind": "ner", "model": str(tmp_path), "max_tokens": 16}]})
    text = "we met zorblax quux and zorblax, " + "then we met " * 12 + "zorblax quux"
    hits = Scanner(spec, tmp_path).scan(["nothing here", text])[1].hits
    assert [text[hit.start : hit.end] for hit in hits] == ["zorblax quux", "zorblax", "zorblax quux"]
    assert all(hit.kind == "PERSON" and hit.rule == "ner" for hit in hits)
    ner = RECOGNIZERS.get("ner")(model=str(tmp_path))
    before = ner.inputs(tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + "\n")
    assert ner.inputs(tmp_path) != before and not list(ner.find_all([], tmp_path))
    assert Signs("a1").digits == 1
