"""Synthesis: what the starter gives as a teacher, and what each source of examples is worth to the tuned model.

    python benchmarks/synthesis.py                   # both parts, about 25 CPU minutes; run again to go on
    python benchmarks/synthesis.py --only yield      # yield by kind and check, groundedness, coverage: 8 CPU minutes
    python benchmarks/synthesis.py --only ablation   # one source left out at a time: 3 CPU minutes an arm

Yield: the pages of MedQuAD's raw XML (as in assistant_documents.py) are asked about by the starter in both styles, with
every check. Groundedness is measured by rule, apart from the maker: the evidence of a kept pair stands in its passage
word for word and holds 75 % of the answer's content words (with headings and question) and all its numbers.

Ablation: the same pages, and pages put together from MedQuAD's train rows with plain headings ("Symptoms"), go through
the makers faq, section, definition, table and synthesize. Each arm trains one epoch on the same number of rows, drawn
from all sources but one, and is judged by the loss of human-written answers (MedQuAD's test rows, about other topics,
in fp32 with plain transformers). A finished arm is kept in --folder.
"""

from __future__ import annotations

import argparse
import html
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
from assistant_documents import _blocks, page

SOURCES = ("faq", "section", "definition", "table", "synthesize")
HEADINGS = {"information": "Overview", "symptoms": "Symptoms", "treatment": "Treatment", "causes": "Causes",
            "inheritance": "Inheritance", "frequency": "How common it is", "genetic changes": "Genetic changes",
            "outlook": "Outlook", "exams and tests": "Tests", "susceptibility": "Who is at risk",
            "prevention": "Prevention", "stages": "Stages", "complications": "Complications",
            "considerations": "Considerations", "research": "Research"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["yield", "ablation"])
    parser.add_argument("--sentence-passages", type=int, default=40, help="asked about in the style sentence")
    parser.add_argument("--pairs-passages", type=int, default=16, help="asked about in the style pairs")
    parser.add_argument("--rows", type=int, default=200, help="training rows of an arm, at most")
    parser.add_argument("--judged", type=int, default=60, help="human-written test answers")
    parser.add_argument("--pages", type=int, default=60, help="pages put together from MedQuAD's train rows")
    parser.add_argument("--folder", type=Path, default=Path("build/synthesis"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    parts = {"yield": yields, "ablation": ablation}
    for name, part in parts.items():
        if args.only in (None, name):
            began = common.cpu_seconds()
            print(f"{name}: {json.dumps(part(args))[:2000]}")
            print(f"{name}: {(common.cpu_seconds() - began) / 60:.1f} CPU minutes in this call")
    found = {name: json.loads((args.folder / f"{name}.json").read_text()) for name in parts
             if (args.folder / f"{name}.json").is_file()}
    print(f"written to {common.save('synthesis', {'benchmark': 'synthesis', 'machine': common.machine(), **found})}")


def yields(args: argparse.Namespace) -> dict[str, Any]:
    """Both styles of the starter over the twelve pages."""
    from luthier.prepare.base import read_examples, read_passages

    result = {}
    for style, count, more in (("sentence", args.sentence_passages, {}),
                               ("pairs", args.pairs_passages, {"max_new_tokens": 220})):
        kept = args.folder / f"yield-{style}.json"
        if not kept.is_file():
            began, cpu = time.monotonic(), common.cpu_seconds()
            data = prepared(args, pages=0, synthesize={"style": style, "max_passages": count, "weak": "keep", **more})
            card = json.loads((data.path / "card.json").read_text("utf-8"))
            notes = next(row["notes"] for row in card["makers"] if row["maker"] == "synthesize")
            made = [one for one in read_examples(data) if one.origin.step == "synthesize"]
            passages = {one.id: one for one in read_passages(data)}
            kept.write_text(json.dumps({
                **notes, "dropped": next(row["dropped"] for row in card["makers"] if row["maker"] == "synthesize"),
                "kept_grounded_by_rule": grounded(made, passages), "kept_after_repeats": len(made),
                "cpu_seconds": round(common.cpu_seconds() - cpu, 1), "wall_seconds": round(time.monotonic() - began, 1),
                "samples": [[one.question, one.target] for one in made[:20]]}, ensure_ascii=False, indent=1), "utf-8")
        result[style] = json.loads(kept.read_text("utf-8"))
    (args.folder / "yield.json").write_text(json.dumps(result), "utf-8")
    return {style: {name: row[name] for name in ("asked", "kept", "yield", "retrieved_rate", "supported_rate",
                                                 "kept_grounded_by_rule", "dropped")} for style, row in result.items()}


def grounded(made: list[Any], passages: dict[str, Any]) -> dict[str, Any]:
    """Kept pairs whose evidence is verbatim and holds the answer."""
    from luthier.prepare.makers._text import numbers, support

    asked = [one for one in made if "unanswerable" not in one.tags]
    good = 0
    for one in asked:
        texts = [passages[id] for id in one.origin.passages]
        parts = one.origin.evidence.split(" […] ")
        verbatim = all(any(part in text.text for text in texts) for part in parts) and bool(one.origin.evidence)
        heads = [piece for text in texts for piece in (text.title, *text.heading)]
        around = " ".join([one.question, one.origin.evidence, *heads])
        good += verbatim and support(one.target, around) >= 0.75 and numbers(one.target) <= numbers(around)
    return {"n": len(asked), "grounded": good}


def prepared(args: argparse.Namespace, *, pages: int, synthesize: dict[str, Any]) -> Any:
    """The pages through all sources."""
    from luthier.index.base import Index
    from luthier.ingest.base import ingest
    from luthier.prepare.base import Prepare, prepare
    from luthier.progress import Terminal
    from luthier.store import Store
    from luthier.task import Task

    folder = args.folder / f"documents-{pages}"
    if not folder.is_dir():
        folder.mkdir()
        for record in sorted((common.data_folder() / "medquad" / "raw_xml").glob("*.xml")):
            (folder / f"{record.stem}.html").write_text(page(record.read_text("utf-8")), "utf-8")
        for number, text in enumerate(more_pages(pages)):
            (folder / f"more{number:03}.html").write_text(text, "utf-8")
    store = Store(args.folder / "store")
    makers = [*({"kind": kind} for kind in SOURCES[:-1]), {"kind": "synthesize", "review": "none", **synthesize}]
    spec = Prepare.model_validate({"makers": makers, "split": {"test": 0.1, "validation": 0.1}})
    return prepare(ingest([folder], store=store, progress=Terminal()), Task(), spec, store=store,
                   root=args.folder.resolve(), index=Index(), progress=Terminal())


def more_pages(count: int) -> list[str]:
    """Pages about one topic each, with plain headings, from train rows whose topic no test row has."""
    source = common.data_folder() / "medquad"
    tested = {row["focus"].lower() for row in common.read_rows(source / "test.jsonl")}
    topics: dict[str, list[dict[str, Any]]] = {}
    for row in common.fixed_order(common.read_rows(source / "train.jsonl"), "question"):
        if row["focus"].lower() not in tested:
            topics.setdefault(row["focus"], []).append(row)
    best = sorted(topics.items(), key=lambda pair: -len(pair[1]))[:count]
    return [f"<!doctype html><html lang=\"en\"><head><title>{html.escape(topic)}</title></head><body>"
            f"<h1>{html.escape(topic)}</h1>" + "".join(
                f"<h2>{HEADINGS.get(row['qtype'], row['qtype'].capitalize())}</h2>" + "".join(_blocks(row["answer"]))
                for row in rows) + "</body></html>" for topic, rows in best]


def ablation(args: argparse.Namespace) -> dict[str, Any]:
    """All sources, and one left out at a time."""
    from transformers import AutoTokenizer

    from luthier.models.sources import resolve
    from luthier.prepare.base import read_examples

    base = resolve("starter:chat").folder
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = common.fixed_order(common.read_rows(common.data_folder() / "medquad" / "test.jsonl"), "question")
    found = (common.tokenise(tokenizer, row["question"], row["answer"], stop=tokenizer.eos_token, limit=320)
             for row in rows)
    probe = [row for row in found if row is not None][:args.judged]
    data = prepared(args, pages=args.pages, synthesize={"max_passages": 60, "weak": "keep"})
    pool = [one for one in read_examples(data) if one.split == "train" and one.target and len(one.target) < 1200]
    sizes = Counter(one.origin.step for one in pool)
    count = min(args.rows, *(len(pool) - sizes[name] for name in SOURCES))
    arms: dict[str, Any] = {"base": arm(args, "base", lambda: common.losses(base, None, probe))}
    for name in ("all", *(f"without {source}" for source in SOURCES if sizes[source])):
        drawn = common.fixed_order([{"question": one.question, "answer": one.target, "step": one.origin.step}
                                    for one in pool if name != f"without {one.origin.step}"], "question")[:count]
        arms[name] = arm(args, name, lambda drawn=drawn, name=name: common.losses(
            base, trained(args, name, drawn), probe))
        arms[name]["rows"] = dict(Counter(row["step"] for row in drawn))
    of = {name: [common.Loss(*loss) for loss in one["losses"]] for name, one in arms.items()}
    result = {
        "pool": dict(sizes), "rows_an_arm": count, "judged": len(probe),
        "test_loss": {name: round(common.mean_loss(one), 4) for name, one in of.items()},
        "against_base": {name: common.relative_change(of["base"], of[name]) for name in of if name != "base"},
        "when_left_out": {name.removeprefix("without "): common.relative_change(of["all"], of[name])
                          for name in of if name.startswith("without ")},
        "rows": {name: one.get("rows") for name, one in arms.items()},
        "cpu_seconds": {name: one["cpu_seconds"] for name, one in arms.items()}}
    (args.folder / "ablation.json").write_text(json.dumps(result), "utf-8")
    return {key: result[key] for key in ("pool", "rows_an_arm", "test_loss")}


def arm(args: argparse.Namespace, name: str, judge: Any) -> dict[str, Any]:
    """The losses of an arm, from an earlier call where there are some."""
    file = args.folder / f"arm-{name.replace(' ', '-')}.json"
    if not file.is_file():
        cpu = common.cpu_seconds()
        found = judge()
        file.write_text(json.dumps({"losses": [list(loss) for loss in found],
                                    "cpu_seconds": round(common.cpu_seconds() - cpu, 1)}), "utf-8")
        print(f"  {name}: loss {common.mean_loss(found):.4f}")
    return json.loads(file.read_text("utf-8"))


def trained(args: argparse.Namespace, name: str, rows: list[dict[str, Any]]) -> Path:
    """The adapter after one epoch on the rows."""
    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.lora import LoRA
    from luthier.ingest.base import ingest
    from luthier.prepare.base import Prepare, prepare
    from luthier.prepare.makers.pairs import Pairs
    from luthier.prepare.split import SplitBy
    from luthier.progress import Terminal
    from luthier.store import Store
    from luthier.task import Task
    from luthier.train.base import Train, train

    file = f"arm-{name.replace(' ', '-')}.jsonl"
    (args.folder / file).write_text("".join(json.dumps({
        "question": row["question"], "answer": row["answer"]}, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    (args.folder / "test.jsonl").write_text("".join(json.dumps(
        {"question": row["question"], "answer": row["answer"]}) + "\n" for row in common.read_rows(
            common.data_folder() / "medquad" / "test.jsonl")[:20]), "utf-8")
    shared: dict[str, Any] = {"store": Store(args.folder / "store"), "root": args.folder.resolve(),
                              "progress": Terminal()}
    documents = ingest([args.folder / f"documents-{args.pages}"], store=shared["store"])
    spec = Prepare(makers=(Pairs(path=file), Pairs(path="test.jsonl", split="test")),
                   split=SplitBy(test=0, validation=0.05))
    data = prepare(documents, Task(), spec, **shared)
    model = adapt(Task(), Adapt(method=LoRA(rank=16, alpha=32)), **shared)
    run = train(model, data, Train(epochs=1, learning_rate=1e-3, max_length=320, verify_resume=False), **shared)
    return run.path / "best"


if __name__ == "__main__":
    main()
