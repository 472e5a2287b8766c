"""A small company in a few files: what the flow tests read. Facts are invented."""

from __future__ import annotations

from pathlib import Path

ROOMS = ("Amber", "Birch", "Cedar", "Dahlia", "Elm", "Fern", "Garnet", "Heron", "Iris", "Jasper", "Kestrel", "Linden")


def write_corpus(folder: Path) -> Path:
    """Nine readable documents in four formats, and two that cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, room in enumerate(ROOMS[:6], start=1):
        (folder / f"room-{room.lower()}.md").write_text(
            f"# Meeting room {room}\n\n"
            f"## How do I book {room}?\n\nWrite to desk{number}@example.org at least {number + 1} hours before the "
            f"meeting and name the room {room} in the subject line. You get an answer within {number * 5} minutes.\n\n"
            f"## What does {room} cost?\n\n{room} costs {number * 11} euros an hour for guests and nothing for staff. "
            f"Coffee for {number + 3} people is included in this price.\n\n"
            f"## Equipment of {room}\n\n| Item | Count | Place |\n|---|---|---|\n"
            f"| Chairs | {number * 4} | along the wall |\n"
            f"| Screens | {number} | north side |\n| Sockets | {number * 3} | under the table |\n", encoding="utf-8")
    (folder / "faq.txt").write_text(
        "Questions and answers\n\nQ: Who opens the building in the morning?\nA: The porter, Ms Okafor, opens the "
        "building at 6:40 on working days.\n\nQ: Where do I leave my bicycle?\nA: In the shed behind gate 4; the code "
        "of the lock is printed on your badge.\n\nQ: When is the canteen open?\nA: The canteen serves lunch from 11:50 "
        "to 13:35.\n", encoding="utf-8")
    (folder / "glossary.html").write_text(
        "<html><head><title>Glossary</title></head><body><h1>Glossary</h1><dl><dt>Porter</dt><dd>The porter is the "
        "person who opens the building and keeps the keys.</dd><dt>Badge</dt><dd>A badge is the card that opens doors "
        "and the bicycle shed.</dd></dl></body></html>", encoding="utf-8")
    (folder / "floors.csv").write_text("Floor,Team,Extension\n1,Support,4110\n2,Sales,4220\n3,Finance,4330\n", "utf-8")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nnot really")
    (folder / "empty.txt").write_bytes(b"")
    return folder
