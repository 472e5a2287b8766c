"""A project whose stages have asked something in every queue: a real PDF and image, real artifacts in a real store."""

import json
from pathlib import Path

from luthier.queues import ReviewItem, write_review
from luthier.review.base import open_desk
from luthier.store import Store
from luthier.types import Example, Origin, write_jsonl

LABELS = ("login", "parcel", "refund")
LINES = ("Invoice 4711 of 3 March 2024", "Deliver two cartons to the ware house", "Total 1,250.00 EUR, due in ten days")
BOXES = [(72.0, 100.0 + 40 * at, 420.0, 122.0 + 40 * at) for at in range(3)]


def scan(file: Path) -> None:
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen import canvas

    page = canvas.Canvas(str(file), pagesize=A4)
    page.setFont("Helvetica", 18)
    for text, box in zip(LINES, BOXES):
        page.drawString(box[0], A4[1] - box[3] + 5, text)
    page.save()


def picture(file: Path) -> None:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (600, 300), "white")
    ImageDraw.Draw(image).text((40, 100), "Kind regards, Ada", fill="black", font_size=40)
    image.save(file)


def rows() -> list[Example]:
    texts = ["I cannot sign in to my account", "Where is my parcel? " * 30, "Give me my money back", "hello there"]
    labels = [("parcel",), ("login",), ("refund",), None]
    return [Example(id=f"r{at}", input=text, target=None, labels=label,
                    origin=Origin(maker="human", step="rows", where=f"data.csv:{at + 2}"))
            for at, (text, label) in enumerate(zip(texts, labels))]


def items() -> dict[str, list[ReviewItem]]:
    """Stage → what it asks."""
    lines = [ReviewItem(queue="corrections", id=f"line-{at}", text=LINES[at].replace("o", "0"), confidence=0.9 - at / 5,
                        proposal=LINES[at].replace("o", "0"), where="scan.pdf, page 1", path="scan.pdf", page=1,
                        box=BOXES[at], reason="The engine is unsure of this line.") for at in range(3)]
    lines.append(ReviewItem(queue="corrections", id="photo", text="Kind regards, Ade", proposal="Kind regards, Ade",
                            confidence=0.2, where="photo.png", path="photo.png", page=1, box=(38, 98, 380, 145),
                            reason="Looks like handwriting, which the engine reads badly."))
    pair = ReviewItem(queue="pairs", id="pair", text="Q: When is the invoice due?\nA: In ten days.", confidence=0.4,
                      context="Total 1,250.00 EUR, due in ten days, to the account below.", where="scan.pdf, page 1",
                      reason="A reader without the passage answers it as well.", notes={"evidence": "due in ten days"})
    twins = ReviewItem(queue="duplicates", id="twins", text="Press the red button for ten seconds.",
                       context="Press the green button for 10 seconds.", proposal="same", choices=("same", "different"),
                       confidence=0.6, where="a.md, line 3", reason="Likeness 0.91.")
    name = ReviewItem(queue="privacy", id="name", text="Please call Ada Park about the roof.", proposal="person",
                      choices=("person", "address", "phone"), confidence=0.5, where="mail.eml",
                      reason="Two capitalised words after “call”.", notes={"start": 12, "end": 20})
    return {"ingest": lines, "prepare": [pair, twins, name]}


def project(root: Path) -> Path:
    """Write it; returns the root."""
    (root / "documents").mkdir(parents=True)
    (root / "luthier.yaml").write_text("name: desk\ntask: {type: classify}\n")
    scan(root / "documents/scan.pdf")
    picture(root / "documents/photo.png")
    store = Store(root / ".luthier/store")
    ids = {}
    for stage, asked in items().items():
        def make(folder: Path, stage=stage, asked=asked):
            write_review(folder, asked)
            if stage == "prepare":
                (folder / "labels.json").write_text(json.dumps({"labels": LABELS, "multi_label": False}))
                write_jsonl(folder / "examples.jsonl", rows())
            return {}
        ids[stage] = store.build(stage, version=1, spec={}, inputs={}, make=make).id

    def suspects(folder: Path):
        found = [{"id": row.id, "where": row.origin.where, "text": str(row.input)[:300], "labels": list(row.labels),
                  "proposed": [better], "probability": 0.93, "probability_of_given": chance}
                 for row, better, chance in zip(rows(), ("login", "parcel"), (0.04, 0.02))]
        (folder / "suspects.json").write_text(json.dumps({"rows": found}))
        return {}
    ids["train"] = store.build("train", version=1, spec={}, inputs={}, make=suspects).id
    (root / ".luthier/latest.json").write_text(json.dumps(ids))
    (root / "labels").mkdir()
    (root / "labels/proposed.jsonl").write_text(json.dumps({
        "id": "r3", "where": "data.csv:5", "text": "hello there", "labels": None, "proposed": "login",
        "probability": 0.41, "top": [["login", 0.41], ["refund", 0.4], ["parcel", 0.19]], "why": "login?"}) + "\n")
    return root


def desk(root: Path, **more):
    return open_desk(root, Store(root / ".luthier/store"), **more)
