"""Writes benchmarks/privacy_sample.jsonl: sentences with personal data at known places, and some that only look so.

Values come from Faker's locales and are kept only if python-stdnum and phonenumbers, which the rules under test do not
share (but for phonenumbers), call them valid. The errors on the `dev` templates were looked at to mend the rules;
those on the `test` templates, other sentences with other values, were only counted. Run in an environment of its own:

    python -m venv /tmp/faker && /tmp/faker/bin/pip install Faker phonenumbers python-stdnum
    /tmp/faker/bin/python benchmarks/privacy_sample.py
"""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path

OUT = Path(__file__).with_name("privacy_sample.jsonl")
LOCALES = {"us": "en_US", "gb": "en_GB", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "nl": "nl_NL",
           "se": "sv_SE", "br": "pt_BR", "in": "en_IN"}
SLOT = re.compile(r"\{(\w+)\}")

DEV = {
    "us": ["Hi {GIVEN}, your refund was sent to the card {CARD} yesterday.",
           "Please call {PERSON} at {PHONE} or write to {EMAIL}.",
           "Customer: {PERSON}\nAddress: {ADDRESS}\nPhone: {PHONE}\nSSN: {NATIONAL_ID}",
           "Mr. {LAST} was born on {BIRTHDATE} and lives at {ADDRESS}.",
           "The deploy key is {SECRET}, please rotate it.", "Login from {IP} at 10:42 by {EMAIL}.",
           "Thanks for your help!\n\nBest regards,\n{PERSON}", "From: {PERSON} <{EMAIL}>\nSubject: invoice 2023-118"],
    "gb": ["Dear {PERSON},\nyour policy starts on 1 May 2024.", "NI number {NATIONAL_ID} belongs to Mrs {LAST}.",
           "Ship to {PERSON}, {ADDRESS}.", "I spoke with {PERSON} about it, her mobile is {PHONE}.",
           "Pay into {IBAN} by Friday."],
    "de": ["Sehr geehrte Frau {LAST},\nvielen Dank für Ihre Nachricht.", "Ansprechpartner: {PERSON}, Tel. "
                                                                         "{PHONE}, {EMAIL}",
           "Die Rechnung geht an {PERSON}, {ADDRESS}.", "Bitte überweisen Sie auf {IBAN}.",
           "Herr {LAST}, geb. am {BIRTHDATE}, Steuer-ID {NATIONAL_ID}, zieht um.",
           "Mit freundlichen Grüßen\n{PERSON}\nVertrieb"],
    "fr": ["Bonjour {GIVEN},\nvotre colis est arrivé.", "M. {LAST} habite {ADDRESS}.",
           "Numéro de sécurité sociale : {NATIONAL_ID}", "Contact : {PERSON}, tél. {PHONE}"],
    "es": ["Estimada {GIVEN}, su DNI {NATIONAL_ID} ha caducado.", "La Sra. {LAST} vive en {ADDRESS}."],
    "it": ["Gentile {PERSON}, il suo codice fiscale è {NATIONAL_ID}.", "Il sig. {LAST} abita in {ADDRESS}."],
    "nl": ["Beste {GIVEN}, je BSN is {NATIONAL_ID}.", "Mevrouw {LAST} woont op {ADDRESS}."],
    "se": ["Hej {GIVEN}, ditt personnummer är {NATIONAL_ID}."],
    "br": ["Prezado {PERSON}, CPF {NATIONAL_ID}, sua conta foi aprovada."],
    "in": ["Aadhaar of {PERSON} is {NATIONAL_ID}, mobile {PHONE}."],
}
TEST = {
    "us": ["{PERSON} reported the outage at 9 pm and can be reached at {PHONE}.",
           "We charged your Visa ending soon, full number {CARD}, for the hotel.",
           "Patient name: {PERSON}; DOB: {BIRTHDATE}; social security number {NATIONAL_ID}.",
           "My name is {PERSON} and I want to close my account.",
           "I moved last month. My new home is {ADDRESS}, please update it.",
           "Hello {GIVEN},\n\nthe package is on its way.\n\nCheers,\n{GIVEN}",
           "api_key: {SECRET}", "The database is at postgres://{LOGIN}@db.intra.net:5432/sales",
           "export AWS_ACCESS_KEY_ID={SECRET_AWS}", "Her e-mail changed from {EMAIL} to {EMAIL}.",
           "Ticket closed by {PERSON} after Dr. {LAST} approved it.",
           "The client {IP} was blocked after five attempts.", "Password: {PASSWORD}",
           "Send the check to {PERSON}, {ADDRESS}, before June 1.",
           "On the call {GIVEN} said that {PERSON} had left the company.",
           "Authorization: Bearer {SECRET_JWT}", "Employee {PERSON} ({EMAIL}) requested parental leave.",
           "call me on {PHONE} after 6pm pls", "Wire it to {IBAN}, reference 2024-88."],
    "gb": ["Could you ring Mr {LAST} back on {PHONE}?", "Tenant: {PERSON}\nProperty: {ADDRESS}",
           "His National Insurance number is {NATIONAL_ID}.", "Kind regards\n{PERSON}\nHead of Lettings",
           "{PERSON}'s card {CARD} was declined twice.", "Complaint from {PERSON} of {ADDRESS}.",
           "Her sort code did not work, the IBAN {IBAN} did.", "Attn: {PERSON}, legal department"],
    "de": ["Hallo {GIVEN},\nkannst du {PERSON} zurückrufen? Nummer: {PHONE}", "Frau {PERSON} hat am {BIRTHDATE} "
                                                                              "Geburtstag.",
           "Lieferadresse: {PERSON}, {ADDRESS}", "Unsere neue Kollegin heißt {PERSON}.",
           "Der Mieter {PERSON} wohnt in der {ADDRESS}.", "IBAN: {IBAN}, Inhaber {PERSON}",
           "Schreiben Sie an {EMAIL} oder rufen Sie {PHONE} an.", "Das Kennwort lautet {PASSWORD}.",
           "Steuerliche Identifikationsnummer: {NATIONAL_ID}", "Viele Grüße\n{GIVEN}",
           "{PERSON} (Buchhaltung) ist bis Montag im Urlaub."],
    "fr": ["Je m'appelle {PERSON} et mon adresse est {ADDRESS}.", "Madame {LAST}, née le {BIRTHDATE}, est notre "
                                                                  "cliente.",
           "Merci de virer la somme sur {IBAN}.", "Mon numéro : {PHONE}. Cordialement,\n{PERSON}",
           "NIR {NATIONAL_ID}, dossier complet."],
    "es": ["Me llamo {PERSON}, mi teléfono es {PHONE}.", "Envíelo a {ADDRESS}, por favor.", "NIF: {NATIONAL_ID}",
           "El señor {LAST} pagó con la tarjeta {CARD}."],
    "it": ["Mi chiamo {PERSON} e sono nato il {BIRTHDATE}.", "Indirizzo: {ADDRESS}", "C.F. {NATIONAL_ID}, "
                                                                                     "intestatario {PERSON}",
           "Chiamare la signora {LAST} al numero {PHONE}."],
    "nl": ["Geachte heer {LAST}, uw pakket ligt klaar.", "Adres: {ADDRESS}", "Burgerservicenummer {NATIONAL_ID}",
           "Ik heet {PERSON}, bel mij op {PHONE}."],
    "se": ["Jag heter {PERSON}, personnummer {NATIONAL_ID}.", "Adress: {ADDRESS}"],
    "br": ["Meu nome é {PERSON} e meu CPF é {NATIONAL_ID}.", "Ligue para {PHONE}."],
    "in": ["{PERSON} submitted Aadhaar {NATIONAL_ID} for verification.", "Reach {PERSON} on {PHONE}."],
}
NEGATIVE_DEV = [
    "Order {n10} was shipped with tracking number {n12}.", "Part number {n4}-{n4} replaces {n3}-{n2}-{n4}x.",
    "The firmware version 4.{n2}.{n1}.{n2} fixes the problem.", "ISBN 978-3-16-{n6}-0 is out of print.",
    "The meeting is on 12.03.2024 from 10:00 to 11:30.", "See section 4.2.{n1}.3 of the manual.",
    "Charles University and Johns Hopkins Hospital took part.", "Grace Period: 30 days. Mark Complete when done.",
    "The password must have at least {n1} characters.", "Article {n8}, colour red, size {n2}.",
]
NEGATIVE_TEST = [
    "Invoice number {n8} dated 2023-11-04 is due in 30 days.", "The serial number of the pump is {n3}-{n4}-{n3}.",
    "Reference {n16} belongs to the batch of May.", "Upgrade from 10.{n1}.{n2} to 11.0.{n1} first.",
    "Torque: 12-14 Nm, temperature 20-25 °C, voltage 220-240 V.", "Read chapter {n2} on pages {n3}-{n3}.",
    "The Parkinson disease society met in Victoria Park in May.", "Press Will Call, then Submit Request.",
    "Dear customer, thank you for your order.", "Best regards,\nYour Support Team", "Ticket #{n7}: the printer "
                                                                                    "prints blank pages.",
    "Population grew from {n6} in 1990 to {n7} in 2020.", "SKU {n12} and EAN {n13} are the same article.",
    "Reset your password under Settings, Security, Password.", "The token expires after {n2} minutes; request a "
                                                               "new one.",
    "ISO 9001:2015 and EN 60601-1-2 apply.", "Der Artikel {n6} ist ab 01.04.2024 lieferbar.",
    "Die Straße ist 12 km lang, der Weg 300 m.", "La référence {n8} est épuisée depuis 2021.",
    "Le cours de la rue commerçante a baissé de 5 %.", "El pedido {n9} llegó el 3 de mayo de 2023.",
    "Ordine {n10} del 12/05/2023, totale 1.234,56 EUR.", "Bestelling {n9} is verzonden op 4 juni.",
    "Call the hotline 0800 {n3} {n4} or 1-800-{n3}-{n4} free of charge.", "Send questions to support@example.com.",
    "git@github.com:acme/tools.git holds the code, commit {hex40}.", "The MAC layer uses frames of {n3} bytes.",
    "Drive 3 miles along the coast road, then turn left.", "Model X-{n3} has 4 ports and 2 fans, see www.acme.com.",
    "Guillain-Barre syndrome and Crohn's disease are not contagious.", "He won 3 Olympic medals and the Nobel Prize.",
    "SHA-256 {hex64} is the checksum of the file.", "The Dow fell 1,234.56 points on Black Monday.",
    "The clinic is open Monday to Friday, 8 am to 6 pm.", "Use 10.0.0.{n1} as the gateway and 255.255.255.0 as "
                                                          "the mask.",
    "PMID {n8}, doi:10.1000/{n3}.{n4}, volume 12, pages 345-367.", "Customer number {n8}, contract {n6}/{n2}.",
    "Sincerely yours was the name of the show.", "Sub-section (b) of article 12 shall not apply to the Licensee.",
]


class Values:
    """Valid values of each kind, from a seed."""

    def __init__(self, seed: int):
        from faker import Faker

        self.random = random.Random(seed)
        self.fakers = {}
        for at, (country, locale) in enumerate(LOCALES.items()):
            self.fakers[country] = Faker(locale)
            self.fakers[country].seed_instance(seed * 100 + at)

    def make(self, slot: str, country: str) -> tuple[str, str | None]:
        """(text, kind or None) for a slot of a template."""
        fake = self.fakers[country]
        if slot in ("PERSON", "GIVEN", "LAST"):
            first, last = fake.first_name(), fake.last_name()
            return {"PERSON": f"{first} {last}", "GIVEN": first, "LAST": last}[slot], "PERSON"
        if slot == "EMAIL":
            first, last = (re.sub(r"[^a-z]", "", part.lower()) or "jo"
                           for part in (fake.first_name(), fake.last_name()))
            local = self.random.choice([f"{first}.{last}", f"{first[0]}{last}", f"{last}{self.random.randint(1, 99)}"])
            host = self.random.choice(["gmail.com", "acme-tools.com", "web.de", "orange.fr", "mail.northwind.co.uk"])
            return f"{local}@{host}", "EMAIL"
        if slot == "PHONE":
            return self.phone(country), "PHONE"
        if slot == "IBAN":
            value = self.valid("iban", lambda: self.fakers["de" if country == "us" else country].iban())
            if self.random.random() < 0.6:
                value = " ".join(value[at : at + 4] for at in range(0, len(value), 4))
            return value, "IBAN"
        if slot == "CARD":
            value = fake.credit_card_number(self.random.choice(["visa16", "mastercard", "amex", "discover"]))
            if len(value) == 16 and self.random.random() < 0.6:
                value = self.random.choice(" -").join(value[at : at + 4] for at in range(0, 16, 4))
            return value, "CARD"
        if slot == "BIRTHDATE":
            day = fake.date_of_birth(minimum_age=18, maximum_age=90)
            form = {"us": "%m/%d/%Y", "gb": "%d %B %Y"}.get(country, "%d.%m.%Y" if country == "de" else "%d/%m/%Y")
            return day.strftime(form), "BIRTHDATE"
        if slot == "ADDRESS":
            return self.address(country), "ADDRESS"
        if slot == "NATIONAL_ID":
            return self.national(country), "NATIONAL_ID"
        if slot == "IP":
            return f"{self.random.choice([81, 93, 145, 203])}.{self.random.randint(40, 250)}." \
                   f"{self.random.randint(1, 250)}.{self.random.randint(1, 250)}", "DEVICE"
        return self.secret(slot), "SECRET"

    def valid(self, number: str, draw) -> str:
        import importlib

        check = importlib.import_module(f"stdnum.{number}").is_valid
        return next(value for value in (draw() for _ in range(5000)) if check(value))

    def digits(self, count: int) -> str:
        return "".join(self.random.choice(string.digits) for _ in range(count))

    def national(self, country: str) -> str:
        fake = self.fakers[country]
        if country == "us":
            return self.valid("us.ssn", fake.ssn)
        if country == "gb":
            draw = lambda: (self.random.choice("ABCEHJKLMPRSW") + self.random.choice("ABCEHJKLMPRSW") + self.digits(6)  # noqa: E731
                            + self.random.choice("ABCD"))
            never = ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")
            value = next(one for one in (draw() for _ in range(99)) if one[:2] not in never)
            spaced = f"{value[:2]} {value[2:4]} {value[4:6]} {value[6:8]} {value[8]}"
            return spaced if self.random.random() < 0.5 else value
        if country == "de":
            value = self.valid("de.idnr", lambda: self.idnr())
            return f"{value[:2]} {value[2:5]} {value[5:8]} {value[8:]}" if self.random.random() < 0.5 else value
        if country == "fr":
            return self.valid("fr.nir", lambda: self.nir())
        if country == "es":
            return self.valid("es.dni", lambda: self.digits(8) + self.random.choice("TRWAGMYFPDXBNJZSQVHLCKE"))
        if country == "it":
            return self.valid("it.codicefiscale", fake.ssn)
        if country == "nl":
            return self.valid("nl.bsn", lambda: self.digits(9))
        if country == "se":
            return self.valid("se.personnummer", lambda: fake.ssn(long=False))
        if country == "br":
            return fake.cpf()
        value = self.valid("in_.aadhaar", lambda: self.random.choice("23456789") + self.digits(11))
        return f"{value[:4]} {value[4:8]} {value[8:]}"

    def idnr(self) -> str:
        pool = self.random.sample(string.digits, 9)
        pool.append(pool[-1])
        self.random.shuffle(pool)
        return "".join(pool) + self.digits(1)

    def nir(self) -> str:
        body = f"{self.random.randint(1, 2)}{self.random.randint(30, 99)}{self.random.randint(1, 12):02d}" \
               f"{self.random.randint(1, 95):02d}{self.random.randint(1, 900):03d}{self.random.randint(1, 900):03d}"
        return body + f"{97 - int(body) % 97:02d}"

    def phone(self, country: str) -> str:
        import phonenumbers
        from phonenumbers import PhoneNumberFormat, PhoneNumberType

        region = {"us": "US", "gb": "GB"}.get(country, country.upper())
        kind = self.random.choice([PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE])
        number = phonenumbers.example_number_for_type(region, kind)
        seed = str(number.national_number)
        for _ in range(9999):
            number.national_number = int(seed[:-5] + self.digits(5))
            if phonenumbers.is_valid_number(number):
                form = self.random.choice([PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL,
                                           PhoneNumberFormat.E164])
                text = phonenumbers.format_number(number, form)
                return text.replace(" ", self.random.choice([" ", " ", "-"]))
        raise RuntimeError(country)

    def address(self, country: str) -> str:
        fake = self.fakers[country]
        if country == "us":
            state = fake.state_abbr(include_territories=False)
            return f"{fake.street_address()}, {fake.city()}, {state} {fake.postcode()}"
        if country == "gb":
            return f"{self.random.randint(1, 200)} {fake.street_name()}, {fake.city()} {fake.postcode()}"
        if country == "de":
            return f"{fake.street_address()}, {fake.postcode()} {fake.city()}"
        return fake.address().replace("\n", ", ")

    def secret(self, slot: str) -> str:
        letters = string.ascii_letters + string.digits
        mixed = lambda count: "".join(self.random.choice(letters) for _ in range(count))  # noqa: E731
        if slot == "SECRET_AWS":
            return "AKIA" + "".join(self.random.choice(string.ascii_uppercase + "234567") for _ in range(16))
        if slot == "SECRET_JWT":
            return "eyJ" + mixed(20) + ".eyJ" + mixed(40) + "." + mixed(43)
        if slot == "PASSWORD":
            return self.random.choice(["Blue", "tiger", "Haus", "s3cret", "pa55", "Qwerty"]) + self.digits(3) + \
                self.random.choice("!?#$%")
        if slot == "LOGIN":
            return f"admin:{mixed(12)}"
        return self.random.choice(["ghp_" + mixed(36), "sk_live_" + mixed(24), mixed(32), "glpat-" + mixed(20)])


def fill(template: str, country: str, values: Values) -> dict[str, object]:
    text, spans, at = "", [], 0
    for slot in SLOT.finditer(template):
        value, kind = values.make(slot[1], country)
        text += template[at : slot.start()]
        spans.append([len(text), len(text) + len(value), kind])
        text += value
        at = slot.end()
    return {"text": text + template[at:], "spans": spans, "country": country}


def negative(template: str, values: Values) -> dict[str, object]:
    def number(slot: re.Match[str]) -> str:
        if slot[1].startswith("hex"):
            return "".join(values.random.choice("0123456789abcdef") for _ in range(int(slot[1][3:])))
        return str(values.random.randint(1, 9)) + values.digits(int(slot[1][1:]) - 1)

    return {"text": SLOT.sub(number, template), "spans": [], "country": ""}


def main() -> None:
    rows = []
    for name, positive, negatives, seed, times in (("dev", DEV, NEGATIVE_DEV, 11, 4),
                                                   ("test", TEST, NEGATIVE_TEST, 97, 6)):
        values = Values(seed)
        for turn in range(times):
            for country, templates in positive.items():
                for place, template in enumerate(templates):
                    rows.append({"set": name, "template": f"{country}{place}", **fill(template, country, values)})
            if turn < 4:
                rows += [{"set": name, "template": f"no{place}", **negative(template, values)}
                         for place, template in enumerate(negatives)]
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} sentences, {sum(len(row['spans']) for row in rows)} values: {OUT}")


if __name__ == "__main__":
    main()
