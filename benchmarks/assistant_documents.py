"""From documents alone: the whole path, from a folder of pages to a gated release and a verdict.

    python benchmarks/assistant_documents.py                     # 12 pages of MedQuAD's sources, about 15 minutes
    python benchmarks/assistant_documents.py --documents DIR     # any folder, such as examples/helpdesk/documents

MedQuAD's raw XML records are turned back into pages like those they were taken from: a title, and each question as
a heading over its text. Nothing else is given: Luthier finds the questions, splits by document, trains, and compares
base, retrieval, tuned and tuned + retrieval. With a starter of 135M parameters and a dozen pages retrieval may well
win; the verdict printed is the report's own.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import common

PROJECT = """name: pages
prepare:
  split: {test: 0.3}   # twelve pages give few questions: with the usual 15 % the test would be too small to tell
rag: {top_k: 3, max_context_tokens: 350}
train:
  epochs: 2
  replay: {share: 0.1}
evaluate:
  max_new_tokens: 160  # the pages' own answers are long
  latency_questions: 3
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, help="a folder of documents instead of MedQuAD's pages")
    parser.add_argument("--folder", type=Path, default=Path("build/assistant_documents"),
                        help="the project folder; a finished stage in it is not run again")
    args = parser.parse_args()

    from luthier.errors import GateRefused, LuthierError
    from luthier.progress import Terminal
    from luthier.project.base import Project

    root: Path = args.folder
    lay_out(root, args.documents)
    project = Project.open(root)
    began, cpu, stages, refused = time.monotonic(), common.cpu_seconds(), {}, None
    try:
        for done in project.run(progress=Terminal()):
            stages[done.stage] = {"seconds": round(done.seconds, 1), "made": done.fresh,
                                  **(dict(done.artifact.summary) if done.artifact else {"folder": str(done.folder)})}
    except GateRefused as error:  # a result, not a failure: the gate is part of the path
        refused = str(error)
    except LuthierError as error:
        raise SystemExit(f"assistant_documents: {error}") from None
    report = json.loads((project.artifact("evaluate").path / "report.json").read_text("utf-8"))
    result = {
        "benchmark": "assistant_documents", "machine": common.machine(),
        "documents": str(args.documents) if args.documents else "medquad/raw_xml as HTML pages",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "cpu_minutes": round((common.cpu_seconds() - cpu) / 60, 1), "stages": stages,
        "release": "refused: " + refused if refused else "released",
        **{key: report.get(key) for key in ("verdict", "test", "metric", "systems", "differences", "retention",
                                            "retrieval")},
        "unseen_answers": unseen(common.read_rows(project.artifact("prepare").path / "examples.jsonl"),
                                 common.read_rows(project.artifact("evaluate").path / "predictions.jsonl")),
    }
    show(result)
    print(f"report: {project.artifact('evaluate').path / 'report.html'}")
    print(f"written to {common.save('assistant_documents', result)}")


def lay_out(root: Path, documents: Path | None) -> None:
    """A project folder with its documents and the few settings that differ from the defaults."""
    folder = root / "documents"
    if not folder.is_dir():
        if documents is not None:
            shutil.copytree(documents, folder)
        else:
            folder.mkdir(parents=True)
            for record in sorted((common.data_folder() / "medquad" / "raw_xml").glob("*.xml")):
                (folder / f"{record.stem}.html").write_text(page(record.read_text("utf-8")), "utf-8")
    project = root / "luthier.yaml"
    if not project.is_file():
        project.write_text(PROJECT, "utf-8")


def page(record: str) -> str:
    """One MedQuAD XML record as the HTML page it stands for."""
    tree = ElementTree.fromstring(record)
    title = (tree.findtext("Focus") or "").strip()
    body = [f"<h1>{html.escape(title)}</h1>"]
    for pair in tree.iter("QAPair"):
        question, answer = (pair.findtext("Question") or "").strip(), (pair.findtext("Answer") or "").strip()
        if question and answer:
            body += [f"<h2>{html.escape(question)}</h2>", *_blocks(answer)]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>\n'
            "<body>\n" + "\n".join(body) + "\n</body></html>\n")


def _blocks(answer: str) -> list[str]:
    """Paragraphs and lists: the records keep line breaks, and mark list items with a dash after wide spaces."""
    made: list[str] = []
    for line in re.split(r"\n\s*", answer):
        head, *items = (html.escape(" ".join(part.split())) for part in re.split(r"(?:^|\s{3,})-\s+", line))
        if head:
            made.append(f"<p>{head}</p>")
        if items:
            made.append("<ul>" + "".join(f"<li>{item}</li>" for item in items if item) + "</ul>")
    return made


def unseen(examples: list[dict], predictions: list[dict]) -> dict:
    """Token-F1 on the test questions whose reference answer is no train example's answer, against the base.

    Pages of one site repeat themselves: an abbreviation is explained on several of them in the same words. Such a
    question tests memory of the training, so the gain is given without them too.
    """
    learned = {(row["target"] or "").strip() for row in examples if row["split"] == "train"}
    scores: dict[str, dict[str, float]] = {}
    for row in predictions:
        if row["reference"].strip() not in learned:
            scores.setdefault(row["system"], {})[row["example"]] = row["scores"]["token_f1"]
    kept = sorted(scores.get("base", {}))
    asked = {row["example"] for row in predictions}
    found = {"left_out": len(asked) - len(kept), "kept": len(kept)}
    if kept:
        found |= {system: common.mean_difference([scores["base"][name] for name in kept],
                                                 [values[name] for name in kept]) for system, values in scores.items()}
    return found


def show(result: dict) -> None:
    metric = result["metric"]
    print(f"\n{result['minutes']} minutes ({result['cpu_minutes']} CPU minutes); "
          f"{result['test']['num_questions']} test questions, {result['release']}")
    for name, system in result["systems"].items():
        found = system["metrics"].get(metric)
        if found:
            print(f"  {name:16} {metric} {found['value']:.3f}  [{found['low']:.3f}, {found['high']:.3f}]  "
                  f"n={found['n']}")
    new = result["unseen_answers"]
    print(f"  without {new['left_out']} questions whose answer is some train example's too: " + ", ".join(
        f"{name} {new[name]['after']:.3f} ({new[name]['low']:+.3f} to {new[name]['high']:+.3f})"
        for name in result["systems"] if name in new))
    print(f"verdict: {result['verdict']['sentence']}")


if __name__ == "__main__":
    main()
