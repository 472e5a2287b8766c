"""Laws of pseudonyms: the same value, the same pseudonym; the same shape; nobody's; and another key, another one."""

import os
import stat
from pathlib import Path

import pytest

from luthier.errors import SpecError
from luthier.prepare.privacy.base import Privacy
from luthier.prepare.privacy.checks import luhn, mod97
from luthier.prepare.privacy.key import Key, open_key
from luthier.prepare.privacy.scan import Scanner
from luthier.prepare.privacy.surrogate import Surrogates

ONE, OTHER = Surrogates(Key(b"k" * 32)), Surrogates(Key(b"o" * 32))
VALUES = {
    "PERSON": ["Jane Miller", "Dr. Karl-Heinz von der Heide", "MILLER"], "EMAIL": ["jane.miller7@acme.com"],
    "PHONE": ["+49 30 901820", "(212) 736-5000", "0171 2345678", "+1-212-736-5000"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "CARD": ["4111 1111 1111 1111", "378282246310005"],
    "NATIONAL_ID": ["078-05-1120", "AB 12 34 56 C", "529.982.247-25"], "BIRTHDATE": ["12.03.1980", "March 3, 1980"],
    "ADDRESS": ["12 Baker Street, London NW1 6XE", "Berliner Straße 12, 10115 Berlin"], "DEVICE": ["81.2.69.142"],
    "EMPLOYEE": ["E-123456"],
}


def shape(text):
    return "".join("9" if sign.isdigit() else sign for sign in text if not sign.isalpha())


def test_the_same_value_gives_the_same_pseudonym_and_another_key_another_one():
    again = Surrogates(Key(b"k" * 32))
    for kind, values in VALUES.items():
        for value in values:
            made = ONE.of(kind, value)
            assert made == again.of(kind, value) and made != value
            assert made != OTHER.of(kind, value), (kind, value)
    assert ONE.of("IBAN", "DE89370400440532013000").replace(" ", "") == \
        ONE.of("IBAN", "DE89 3704 0044 0532 0130 00").replace(" ", "")


def test_the_shape_is_kept():
    for kind in ("PHONE", "IBAN", "CARD", "NATIONAL_ID", "BIRTHDATE", "EMPLOYEE"):
        for value in VALUES[kind]:
            assert shape(ONE.of(kind, value)) == shape(value), (kind, value, ONE.of(kind, value))
    assert ONE.of("ADDRESS", "Berliner Straße 12, 10115 Berlin").split()[1] == "Straße"


def test_accounts_and_cards_have_valid_check_digits_in_ranges_that_are_nobodys():
    for value in VALUES["IBAN"]:
        made = ONE.of("IBAN", value).replace(" ", "")
        assert mod97(made) == 1 and made[4:8] in ("0000", "XXXX") and made[:2] == value[:2]
    for value in VALUES["CARD"]:
        digits = ONE.of("CARD", value).replace(" ", "")
        assert luhn(digits) and digits.startswith(("400000", "378282")) and len(digits) == len(value.replace(" ", ""))


def test_no_pseudonym_is_found_as_a_phone_or_national_number_or_real_address():
    phonenumbers = pytest.importorskip("phonenumbers")
    for value, region in zip(VALUES["PHONE"], ("DE", "US", "DE", "US"), strict=True):
        made = ONE.of("PHONE", value)
        assert phonenumbers.is_valid_number(phonenumbers.parse(value, region)) and made[0] != "["
        assert not phonenumbers.is_valid_number(phonenumbers.parse(made, region)), made
    scanner = Scanner(Privacy(sure=0.9), Path("/nowhere"))
    for kind in ("EMAIL", "DEVICE"):
        assert not scanner.scan([f"from {ONE.of(kind, VALUES[kind][0])} here"])[0].hits
    assert ONE.of("NATIONAL_ID", "078-05-1120").startswith("9")
    cpf = pytest.importorskip("stdnum.br.cpf")
    assert not cpf.is_valid(ONE.of("NATIONAL_ID", "529.982.247-25"))


def test_a_person_stays_one_person_in_every_form():
    first, last = ONE.of("PERSON", "Jane Miller").split()
    assert ONE.of("PERSON", "Miller") == last and ONE.of("PERSON", "Jane") == first
    assert ONE.of("PERSON", "MILLER") == last.upper() and ONE.of("PERSON", "Miller, Jane") == f"{last}, {first}"
    assert ONE.of("EMAIL", "jane.miller@acme.com").startswith(f"{first.lower()}.{last.lower()}")
    assert ONE.of("PERSON", "van der Miller") == f"van der {last}" and ONE.of("SECRET", "hunter2") == "[SECRET]"


def test_the_key_is_made_once_for_the_owner_alone_and_outside_git(tmp_path, monkeypatch):
    spec = Privacy(mode="redact")
    assert open_key(spec, tmp_path, make=False) is None and not (tmp_path / ".luthier").exists()
    key = open_key(spec, tmp_path, make=True)
    file = tmp_path / ".luthier" / "privacy.key"
    assert key.made == file and stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert (tmp_path / ".luthier" / ".gitignore").read_text() == "*\n" and not list(file.parent.glob(".*.tmp"))
    again = open_key(spec, tmp_path, make=True)
    assert again.secret == key.secret and again.made is None and again.fingerprint == key.fingerprint
    elsewhere = open_key(Privacy(mode="redact", key_file="keys/my.key"), tmp_path, make=True)
    assert elsewhere.secret != key.secret and "/my.key" in (tmp_path / "keys" / ".gitignore").read_text()
    file.write_text("short")
    with pytest.raises(SpecError, match=r"holds 5 characters"):
        open_key(spec, tmp_path, make=True)
    named = Privacy(mode="redact", key_env="LUTHIER_TEST_KEY")
    with pytest.raises(SpecError, match="LUTHIER_TEST_KEY is not set"):
        open_key(named, tmp_path, make=True)
    monkeypatch.setenv("LUTHIER_TEST_KEY", "x" * 20)
    assert open_key(named, tmp_path, make=True).secret == b"x" * 20
