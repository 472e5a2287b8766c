"""Names of people: titles, salutations, signatures, name fields, mail headers, and given names before a surname.

Without a model a name is told by what stands around it; a name that nothing announces and no list knows stays unseen.
Add the recogniser `ner` with a named-entity model for those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs
from luthier.prepare.privacy.lazy import lazy
from luthier.prepare.privacy.names import AMBIGUOUS, GIVEN, NOT_A_SURNAME, SURNAMES

_GIVEN = frozenset(name.lower() for name in GIVEN)
_SURNAMES = frozenset(name.lower() for name in SURNAMES)
_UP = "A-ZÀ-ÖØ-ÞŁŚŻŹĆŠČŽĐŐŰŞİĞĀĒĪŌŪ"
_NAME = rf"(?:(?:[{_UP}]['’])?[{_UP}][^\W\d_]+(?:['’-][{_UP}]?[^\W\d_]+)*)"
_INITIAL = rf"[{_UP}]\.(?:[ -]?[{_UP}]\.){{0,2}}"
_PARTICLE = (r"(?:van der|van den|van de|van|von der|von und zu|von|zu|de la|de los|de las|del|della|de|di|da|dos|"
             r"do|du|la|le|el|al|bin|ibn|"
             r"ben|ter|ten|af|Van|Von|De|Di|Da|Del|Le|La|Mac|St\.)")
_S = r"[ \u00a0]"
_FULL = rf"(?:{_NAME}|{_INITIAL})(?:{_S}(?:{_NAME}|{_INITIAL})){{0,2}}(?:{_S}{_PARTICLE}{_S}{_NAME}|{_S}{_NAME})"
_ANY = rf"(?:{_FULL}|(?:{_PARTICLE}{_S})?{_NAME})"
_RANK = rf"(?:(?:Dr|Prof|Professor|Ing|Dipl\.-Ing|med|rer|nat|phil|h\.c)\.?{_S}){{0,3}}"

_TITLE_WORDS = ("Mr Mrs Ms Miss Mx Dr Prof Professor Sir Dame Lady Rev Sgt Capt Judge Justice Nurse Herr Herrn "
                "Frau Fräulein "
                "Monsieur Madame Mademoiselle Mme Mlle Señor Señora Señorita Sr Sra Srta Don Doña Signor Signora "
                "Signore Sig "
                "Dott Dottoressa Avv Dhr Mevr Mevrouw Meneer Mw Senhor Senhora Fru Pan Pani").split()
_TITLE = lazy(rf"(?<![\w-])(?:{'|'.join(sorted(_TITLE_WORDS, key=len, reverse=True))}|"
                    rf"M(?=\.{_S}[{_UP}]))(?:\.|(?![\w-])){_S}{_RANK}"
                    rf"({_ANY})")
_LOW_TITLE = lazy(
    r"(?<![\w-])(?:(?:sig|sr|sra|srta|dr|dhr|mevr|mw|mr|mrs|ms|prof|avv|dott|ing|fru|hr|fr)\.|sig\.ra|signora?|"
    r"signore|señora?|"
    r"señorita|senhora?|monsieur|madame|meneer|mevrouw|heer|herr|frau|herrn|lady|sir|don|doña)"
    rf"{_S}({_ANY})")
_FIELD = lazy(
    r"(?:^|[\n|;,(•\t]|\.\s)\s*(?:[-*]\s)?(?:\*\*|_)?((?:full |first |last |contact |customer |client |patient |"
    r"employee |user |account |family |"
    r"card ?holder |your |legal |insured )?(?:name|surname)|contact(?: person)?|patient|customer|client|employee|"
    r"tenant|landlord|applicant|"
    r"insured|policyholder|manager|supervisor|owner|author|from|to|cc|attn|attention|kunde|kundin|"
    r"ansprechpartner(?:in)?|mitarbeiter(?:in)?|patientin|"
    r"versicherter?|mieter(?:in)?|vorname|nachname|absender|empfänger|inhaber(?:in)?|bearbeiter(?:in)?|nom|prénom|"
    r"nom et prénom|titulaire|destinataire|"
    r"nombre|apellidos|nombre y apellidos|cliente|paciente|titular|nome|cognome|paziente|intestatario|naam|klant|"
    r"namn|kund|signed|"
    r"signed by|prepared by|reviewed by|approved by|responsible|account holder|beneficiary|emergency contact)"
    rf"(?:\*\*|_)?\s?[:|=]\s?(?:\*\*|_)?{_RANK}({_NAME},{_S}{_NAME}|{_ANY})(?![\w@])", re.IGNORECASE)
_DEAR = lazy(rf"(?:^|[\n>“\"]\s*|\.\s)(?:Dear|Hi|Hello|Hey|Good (?:morning|afternoon|evening),?|Liebe[rs]?|"
                   rf"Hallo|Guten (?:Tag|Morgen),?|Servus|Moin|"
                   rf"Cher|Chère|Bonjour|Salut|Estimad[oa]|Querid[oa]|Hola|Gentile|Car[oa]|Ciao|Buongiorno|Beste|"
                   rf"Geachte|Hej|Hei|Prezad[oa]|Olá|Oi)"
                   rf"{_S}({_ANY})(?=\s*[,!:;–-]|\s*\n)")
_NOT_DEAR = frozenset("""
customer customers sir madam team all colleague colleagues friend friends everyone everybody there support sirs
hiring manager
member members guest user users valued kunde kundin kunden kollege kollegen kolleginnen freunde damen herr frau
familie alle
client clients cliente clientes monsieur madame señor señora equipo équipe tous amigo amici tutti colleghi klant
allemaal world
mr mrs ms dr prof again folks guys both mum dad mom santa siri alexa god lord reader readers parents student students
""".split())
_SIGNED = lazy(
    r"(?:(?:best|kind|warm|many|with (?:best|kind))[ ]?(?:regards|wishes)|regards|(?:yours )?(?:sincerely|"
    r"faithfully|truly)|thanks(?: again)?|many thanks|"
    r"thank you|cheers|best|all the best|mit freundlichen grüßen|mit freundlichem gruß|freundliche grüße|viele "
    r"grüße|liebe grüße|beste grüße|herzliche grüße|"
    r"mfg|vg|lg|cordialement|bien cordialement|bien à vous|salutations|saludos(?: cordiales)?|atentamente|un "
    r"saludo|cordiali saluti|distinti saluti|"
    r"saluti|met vriendelijke groet(?:en)?|groeten|hälsningar|med vänliga hälsningar|vänliga hälsningar|"
    r"atenciosamente|abraços)"
    rf"[,.!]?[ \t]*(?:\n\s*|[,.]?{_S})(?i:(?:i\.{_S}?[av]\.|gez\.|/s/){_S})?{_RANK}(?-i:({_ANY}))(?=[ \t]*(?:\n|$|"
    rf",|\||\())", re.IGNORECASE)
_MAIL = lazy(rf"(?:^|[\n:;,(]\s*|\bOn\b[^\n]{{0,60}}[,\s])['\"]?({_NAME}(?:,?{_S}(?:{_NAME}|{_INITIAL}|"
                   rf"{_PARTICLE})){{0,3}})['\"]?\s*[<(](?:mailto:)?[\w.+-]+@")
_SAYS = lazy(
    rf"(?i:\bmy name is|\bmy name's|\bi am called|\bthis is|\bi'm|\bi am|\bname's|\bich heiße|\bmein name ist|"
    rf"\bich bin|\bje m['’]appelle|\bje suis|\bmon nom est|"
    rf"\bme llamo|\bmi nombre es|\bsoy|\bmi chiamo|\bsono|\bik heet|\bmijn naam is|\bjag heter|\bmeu nome é|"
    rf"\bnamed|\bcalled|\bnamens){_S}(?:{_RANK})({_ANY})"
    r"(?![\w@-])")
_SURE_SAYS = lazy(r"name|call me|heiße|appelle|llamo|nombre|chiamo|heet|naam|heter", re.IGNORECASE)
_DONE = lazy(
    rf"(?i:\b(?:signed|approved|reported|written|prepared|submitted|handled|reviewed|requested|diagnosed|"
    rf"witnessed|treated|booked|hired|interviewed|"
    rf"represented|unterschrieben|genehmigt|bearbeitet|signé|firmado|firmato){_S}(?:by|von|par|por|da)|"
    rf"\b(?:contact|spoke (?:to|with)|talk(?:ed)? to|met with|meeting with|ask for|assigned to|"
    rf"on behalf of|in the name of|call(?:ed)? from|e-?mail from|letter from|message from|attn\.?:?|c/o|"
    rf"z\.{_S}?hd\.?:?|wenden sie sich an|im auftrag von|à l['’]attention de|a la atención de|"
    rf"sold to|ship(?:ped)? to|billed to|invoice to|paid by|transferred to|account of|belongs to|refund "
    rf"to)){_S}{_RANK}({_FULL})(?![\w@-])")
_ROLE = lazy(
    r"\b(?:employee|customer|client|patient|tenant|colleague|applicant|resident|student|manager|director|nurse|"
    r"owner|user|"
    r"neighbou?r|landlord|witness|mitarbeiter(?:in)?|kund(?:e|in|en)|mieter(?:in)?|kolleg(?:e|in|en)|patient(?:in|"
    r"en)?|"
    r"nachbar(?:in)?|vermieter(?:in)?|schüler(?:in)?|employée?|cliente?|locataire|patiente|collègue|emplead[oa]|"
    r"paciente|"
    r"inquilin[oa]|dipendente|paziente|collega|medewerker|klant|huurder|complaint from|request from|order from|"
    r"geht an|"
    rf"gesendet an|gehört|belongs to|heißt|hei(?:ss|ß)e[nr]?){_S}({_FULL})(?![\w@-])")
_DOES = lazy(
    rf"(?:^|[.!?]\s|\n|\b(?:that|dass|que|and|"
    rf"und)\s)({_NAME}(?:{_S}{_INITIAL})?{_S}(?:{_PARTICLE}{_S})?{_NAME})(?:{_S}\([^)\n]{{2,30}}\))?"
    r"(?:['’]s (?:card|account|phone|email|e-mail|address|password|salary|contract|application|request|order|flat|"
    r"birthday)|"
    r" (?:called|reported|said|says|wrote|asked|complained|requested|submitted|moved|left|had left|has left|"
    r"joined|signed|"
    r"lives|works|was born|is on (?:leave|holiday|vacation)|is (?:sick|ill|away)|resigned|hat |ist bis |wohnt|"
    r"arbeitet|rief|"
    r"schrieb|habite|travaille|vive|trabaja|abita|lavora|woont|werkt|bor ))")
_PAIR = lazy(rf"(?<![\w'’@/.&-])({_NAME})((?:{_S}{_INITIAL}|"
                   rf"{_S}{_NAME}){{0,2}}?(?:{_S}{_PARTICLE})?){_S}({_NAME})(?![\w@]|[.-]\w)")
_MORE = lazy(rf"{_S}({_NAME})(?![\w@-])")
_TURNED = lazy(rf"(?<![\w@-])({_NAME}),{_S}({_NAME})(?:{_S}{_INITIAL})?(?![\w@-])")
_POSSESSIVE = lazy(r"['’]s$")

_CUES = frozenset("""
mr mrs ms miss mx dr prof professor sir dame lady rev sgt capt judge justice nurse herr herrn frau fräulein monsieur
madame
mademoiselle mme mlle m señor señora señorita sr sra srta don doña signor signora signore sig dott dottoressa avv dhr
mevr mevrouw
meneer mw senhor senhora fru pan pani name surname contact patient customer client employee tenant landlord applicant
insured
policyholder manager supervisor owner author from to cc attn attention kunde kundin ansprechpartner ansprechpartnerin
mitarbeiter
mitarbeiterin patientin mieter vorname nachname absender empfänger inhaber bearbeiter nom prénom titulaire
destinataire nombre
apellidos cliente paciente titular nome cognome paziente intestatario naam klant namn kund signed prepared reviewed
approved
responsible holder beneficiary dear hi hello hey liebe lieber hallo cher chère bonjour salut estimado estimada
querido querida
hola gentile caro cara ciao buongiorno beste geachte hej prezado prezada olá regards wishes sincerely faithfully
truly thanks
cheers grüße grüßen gruß cordialement salutations saludos atentamente saludo saluti groet groeten hälsningar
atenciosamente
heiße appelle llamo chiamo heet heter nome named called namens reported written submitted handled requested diagnosed
witnessed
booked hired interviewed represented said says wrote asked complained joined resigned lives works wohnt arbeitet rief
schrieb
habite travaille vive trabaja abita lavora woont werkt heer genehmigt bearbeitet spoke talked assigned behalf ask
letter message call called
email hd
auftrag invoice paid transferred belongs refund sold shipped moin servus tag morgen abraços mfg vg lg thank
""".split()) - frozenset(("to", "from", "m", "tag", "call", "ask", "called", "thank"))
_ROLES = frozenset("""
employee customer client patient tenant colleague applicant resident student manager director nurse owner user
neighbor neighbour
landlord witness mitarbeiter mitarbeiterin kunde kundin kunden mieter mieterin kollege kollegin kollegen patientin
patienten
nachbar nachbarin vermieter vermieterin schüler schülerin employé employée cliente locataire patiente collègue
empleado empleada
paciente inquilino inquilina dipendente paziente collega medewerker klant huurder geht gesendet gehört heißt heiße
""".split())
_FIELD_SIGNS = lazy(r"(?:^|\n)\s*(?:from|to)\s?:", re.IGNORECASE)
_NOT_A_NAME = frozenset("""
the a an and or of in on at for with by to it is was this that your our their his her my its new please thank thanks
best kind
sir madam team support customer service dear no yes not all any none unknown see n/a tba tbd click here sales info
help sorry
januar februar märz april mai juni juli august september oktober november dezember january february march july
october november
december monday tuesday wednesday thursday friday saturday sunday montag dienstag mittwoch donnerstag freitag samstag
sonntag
english german french spanish italian dutch american british european minister ministerin präsident president
director doctor doktor
professor kanzler kanzlerin who what where when how why if i we you he she they but so as vom zur zum der die das den
dem des ein
eine und oder mit von für ist wir sie ich le la les une un et ou el los las una y il lo gli uno
""".split())


@register(RECOGNIZERS, "person")
class Person(Rule):
    """Names of people by rule. A given name that is also a word (Grace, Mark, May) counts as unsure unless a title, a
    known surname or a greeting stands beside it; organisations, streets and diseases named after people are left
    alone."""

    extra_names: tuple[str, ...] = ()
    """More given names and surnames, such as those of your employees."""

    @cached_property
    def _extra(self) -> frozenset[str]:
        return frozenset(part.lower() for name in self.extra_names for part in name.split())

    @cached_property
    def _words(self) -> frozenset[str]:
        return _GIVEN | _CUES | self._extra

    def wants(self, signs: Signs) -> bool:
        text = signs.text
        return (not self._words.isdisjoint(signs.words) or not _ROLES.isdisjoint(signs.words) or "M. " in text
                or ("<" in text and "@" in text) or bool(_FIELD_SIGNS.search(text)))

    def find(self, signs: Signs) -> Iterator[Hit]:
        text, words = signs.text, signs.words
        cued = not _CUES.isdisjoint(words)
        if cued or " M. " in text or text.startswith("M. "):
            yield from self._titles(text)
        if cued or ":" in text:
            yield from self._fields(text)
        if cued:
            yield from self._greetings(text)
        if "@" in text:
            for found in _MAIL.finditer(text):
                if not self._refused(found[1]) and (" " in found[1] or self._given(found[1])):
                    yield _hit(found, 1, 0.95, "mail")
        for found in _SAYS.finditer(text):
            yield from self._said(found)
        if cued or "from" in words or "to" in words or not _ROLES.isdisjoint(words):
            for found in _ROLE.finditer(text):
                name = found[1].split()
                if not self._refused(found[1]) and name[-1].lower() not in NOT_A_SURNAME:
                    yield _hit(found, 1, 0.9 if self._given(name[0]) else 0.7, "role")
        for found in _DOES.finditer(text):
            name = found[1].split()
            if not self._refused(found[1]) and not any(part.lower() in NOT_A_SURNAME for part in name) \
                    and not found[1].isupper():
                yield _hit(found, 1, 0.85 if self._given(name[0]) else 0.55, "deed")
        for found in _DONE.finditer(text) if cued or "called" in words or "call" in words or "to" in words else ():
            name = found[1].split()
            if not self._refused(found[1]) and name[-1].lower() not in NOT_A_SURNAME:
                yield _hit(found, 1, 0.9 if self._given(name[0]) else 0.7, "deed")
        if not _GIVEN.isdisjoint(words) or (self._extra and not self._extra.isdisjoint(words)):
            yield from self._pairs(text)

    def _titles(self, text: str) -> Iterator[Hit]:
        for found in _TITLE.finditer(text):
            name = found[1].split()
            last = name[-1].lower()
            if self._refused(found[1]):
                continue
            doubtful = last in NOT_A_SURNAME and len(name) == 1
            yield _hit(found, 1, 0.4 if _follows(text, found.end(1)) else 0.7 if doubtful else 0.92, "title")
        for found in _LOW_TITLE.finditer(text):
            if found[1].split()[0].lower() not in _NOT_A_NAME:
                yield _hit(found, 1, 0.85, "title")

    def _fields(self, text: str) -> Iterator[Hit]:
        for found in _FIELD.finditer(text):
            value = found[2]
            parts = value.replace(",", " ").split()
            if not all(part[0].isupper() or part.lower() in _LOW_PARTICLES for part in parts) or self._refused(value):
                continue
            field, known = found[1].lower(), self._given(parts[0]) or self._given(parts[-1])
            whole = "name" in field or field in ("surname", "nom", "prénom", "nombre", "nome", "naam", "namn",
                                                 "vorname",
                                                 "nachname", "apellidos", "cognome")
            if any(part.lower() in NOT_A_SURNAME for part in parts) or (len(parts) == 1 and not (whole and known)
                                                                       and not known and not whole):
                continue
            confidence = 0.92 if known else 0.8 if len(parts) > 1 and whole else 0.65
            yield Hit(found.start(2), found.end(2), "PERSON", confidence, "person/field")

    def _greetings(self, text: str) -> Iterator[Hit]:
        for found in _DEAR.finditer(text):
            parts = found[1].split()
            if parts[0].lower() in _NOT_DEAR or parts[-1].lower() in _NOT_DEAR or self._refused(found[1]):
                continue
            yield _hit(found, 1, 0.9 if self._given(parts[0]) or len(parts) == 2 else 0.7, "greeting")
        for found in _SIGNED.finditer(text):
            parts = found[1].split()
            if parts[0].lower() in _NOT_DEAR or self._refused(found[1]) or parts[-1].lower() in NOT_A_SURNAME:
                continue
            yield _hit(found, 1, 0.92 if self._given(parts[0]) else 0.8 if len(parts) > 1 else 0.6, "signature")

    def _said(self, found: re.Match[str]) -> Iterator[Hit]:
        parts = found[1].split()
        known = self._given(parts[0])
        if self._refused(found[1]) or parts[-1].lower() in NOT_A_SURNAME:
            return
        sure = bool(_SURE_SAYS.search(found[0][: found.start(1) - found.start()]))
        if sure and "amed" not in found[0][:6]:
            yield _hit(found, 1, 0.92 if known or len(parts) > 1 else 0.75, "said")
        elif known:
            yield _hit(found, 1, 0.85 if len(parts) > 1 or parts[0].lower() not in AMBIGUOUS else 0.5, "said")

    def _pairs(self, text: str) -> Iterator[Hit]:
        at = 0
        while found := _PAIR.search(text, at):
            first, last = found[1], _POSSESSIVE.sub("", found[3])
            at = found.end(1)
            if not self._given(first):
                continue
            at = found.end()
            end = found.start(3) + len(last)
            between = found[2].split()
            shouted = last.isupper() and len(last) > 3 and not first.isupper()
            if shouted or last.lower() in NOT_A_SURNAME or last.lower() in _NOT_A_NAME:
                at = found.end(1)
                continue
            if any(part.lower() in NOT_A_SURNAME or part.lower() in _NOT_A_NAME for part in between):
                at = found.end(1)
                continue
            if (more := _MORE.match(text, end)) and more[1].lower() in _SURNAMES:  # Thomas Schneider Jones
                end, last = more.end(), more[1]
            known = last.lower() in _SURNAMES or last.lower() in self._extra
            doubtful = first.lower() in AMBIGUOUS and first.lower() not in self._extra
            if first.isupper() and (not known or doubtful):
                continue  # IN NO EVENT WILL CISCO
            confidence = 0.92 if known and not doubtful else 0.82 if known or not doubtful else 0.45
            if _follows(text, end):
                confidence = 0.35
            yield Hit(found.start(), end, "PERSON", confidence, "person/pair")
        for found in _TURNED.finditer(text):
            first, last = found[2].lower(), found[1].lower()
            if first in _GIVEN and last in _SURNAMES and last not in _GIVEN:
                yield Hit(found.start(), found.end(2), "PERSON", 0.85, "person/turned")

    def _given(self, name: str) -> bool:
        lower = name.lower().strip(",'’")
        return lower in _GIVEN or lower in self._extra or ("-" in lower and lower.split("-")[0] in _GIVEN)

    def _refused(self, name: str) -> bool:
        parts = name.replace(",", " ").split()
        first = parts[0].lower()
        particle = len(parts) > 1 and first in _LOW_PARTICLES
        return (first in _NOT_A_NAME and not particle) or parts[-1].lower() in _NOT_A_NAME


_LOW_PARTICLES = frozenset("van der den de von zu la los las del della di da dos do du le el al bin ibn ben ter "
                           "ten af und".split())
_NEXT = lazy(r"(?:['’]s?)?[ \u00a0](?:&|and|und)?[ \u00a0]?([^\W\d_]+)")
_ORGANISATION = frozenset("""
hospital university college school institute foundation center centre clinic company inc ltd llc gmbh corp
corporation group
street road avenue lane drive court park bridge airport station hotel museum church building tower square prize award
syndrome disease disorder sarcoma lymphoma tumor tumour procedure method effect sign reflex anemia dystrophy
malformation
association society bank press medal straße str weg platz allee klinik krankenhaus stiftung schule sons brothers co
ag kg
sensor hall library memorial stadium school's partners associates
""".split())


def _follows(text: str, end: int) -> bool:
    """Whether a word follows that makes the name an organisation's, a street's or a disease's."""
    found = _NEXT.match(text, end)
    return found is not None and found[1].lower() in _ORGANISATION


def _hit(found: re.Match[str], group: int, confidence: float, rule: str) -> Hit:
    """The group without a possessive at its end."""
    value = _POSSESSIVE.sub("", found[group])
    return Hit(found.start(group), found.start(group) + len(value), "PERSON", confidence, f"person/{rule}")
