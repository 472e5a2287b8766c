"""EML: head, body in plain text or HTML, readable attachments; the others are listed."""

from email.message import EmailMessage


def message(subject="Late delivery"):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Ann <ann@example.org>", "help@example.org", subject
    mail["Date"] = "Mon, 02 Nov 2026 10:00:00 +0100"
    return mail


def test_plain_body_quotes_and_signature(tmp_path, read, shape):
    mail = message("Größe der Lieferung")
    mail.set_content("Hello,\n\nthe parcel is late.\n\n> You wrote this\n> yesterday.\n\n-- \nAnn\nACME\n")
    (tmp_path / "a.eml").write_bytes(bytes(mail))
    document = read(tmp_path / "a.eml")
    assert shape(document) == [
        ("heading", 1, "Größe der Lieferung"),
        ("row", 0, "From: Ann <ann@example.org>\nTo: help@example.org\nDate: Mon, 02 Nov 2026 10:00:00 +0100"),
        ("paragraph", 0, "Hello,"), ("paragraph", 0, "the parcel is late."), ("quote", 0, "You wrote this yesterday."),
        ("row", 0, "Ann\nACME")]
    assert document.title == "Größe der Lieferung" and document.meta["from"] == "Ann <ann@example.org>"


def test_html_body_and_attachments(tmp_path, read):
    mail = message()
    mail.set_content("<h1>Prices</h1><p>See below.</p>", subtype="html")
    mail.add_attachment("a,b\n1,2\n", subtype="csv", filename="prices.csv")
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="x.pdf")
    inner = message("Inner")
    inner.set_content("Forwarded words.")
    mail.add_attachment(inner)
    (tmp_path / "a.eml").write_bytes(bytes(mail))
    document = read(tmp_path / "a.eml")
    texts = [span.text for span in document.spans]
    assert "See below." in texts and "| a | b |\n|---|---|\n| 1 | 2 |" in texts and "Forwarded words." in texts
    assert ("heading", 2, "Attachment: prices.csv") in [(s.kind, s.level, s.text) for s in document.spans]
    assert [(a["name"], a["read"]) for a in document.meta["attachments"]] == [
        ("prices.csv", True), ("x.pdf", False), ("message/rfc822", True)]
    kept = read(tmp_path / "a.eml", attachments=False)
    assert "Forwarded words." not in kept.text and [a["read"] for a in kept.meta["attachments"]] == [False] * 3


def test_plain_text_is_preferred_and_broken_charsets_are_survived(tmp_path, read):
    mail = message()
    mail.set_content("The plain one.")
    mail.add_alternative("<p>The other one.</p>", subtype="html")
    (tmp_path / "a.eml").write_bytes(bytes(mail))
    text = read(tmp_path / "a.eml").text
    assert "The plain one." in text and "The other one." not in text
    (tmp_path / "b.eml").write_bytes(b"From: a@b.c\nSubject: x\nDate: nonsense\nContent-Type: text/plain; "
                                     b"charset=klingon\n\nStill here.\n")
    assert "Still here." in read(tmp_path / "b.eml").text
