"""Personal data: precision and recall of the rules on benchmarks/privacy_sample.jsonl, false alarms on real texts
without personal data, and speed; beside other libraries where they are installed.

    python benchmarks/privacy.py [--other /tmp/alt/bin/python]

A hit counts where it overlaps a value of its kind; what of a value it misses is told as `covered`. Other libraries
run in
the interpreter that `--other` names (datafog's regex engine; presidio's rules with a blank spaCy pipeline, since its
model
is a download), on the same test sentences.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from common import RESULTS, data_folder, machine, read_rows

SAMPLE = Path(__file__).with_name("privacy_sample.jsonl")
OTHER = r"""
import json, sys, time
rows = json.load(sys.stdin)
texts = [row["text"] for row in rows]
names = {"EMAIL": "EMAIL", "EMAIL_ADDRESS": "EMAIL", "PHONE": "PHONE", "PHONE_NUMBER": "PHONE", "CREDIT_CARD": "CARD",
         "IBAN_CODE": "IBAN", "IBAN": "IBAN", "SSN": "NATIONAL_ID", "US_SSN": "NATIONAL_ID", "UK_NINO": "NATIONAL_ID",
         "ES_NIF": "NATIONAL_ID", "IT_FISCAL_CODE": "NATIONAL_ID", "IN_AADHAAR": "NATIONAL_ID", "IP_ADDRESS": "DEVICE",
         "DOB": "BIRTHDATE", "PERSON": "PERSON", "ADDRESS": "ADDRESS", "US_ITIN": "NATIONAL_ID", "DE_TAX_ID":
         "NATIONAL_ID",
         "DATE": "BIRTHDATE", "ZIP": "ADDRESS"}
out = {}
try:
    from importlib.metadata import version
    from datafog.processing.text_processing.regex_annotator import RegexAnnotator
    annotate = RegexAnnotator()
    annotate.annotate(texts[0])
    began = time.process_time()
    found = []
    for text in texts:
        _, result = annotate.annotate_with_spans(text)
        found.append([[s.start, s.end, names.get(s.label, s.label)] for s in result.spans])
    out["datafog " + version("datafog")] = {"hits": found, "seconds": time.process_time() - began}
except Exception as error:
    out["datafog"] = {"error": repr(error)}
try:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    class Blank(SpacyNlpEngine):
        def __init__(self):
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}
    registry = RecognizerRegistry()
    engine = Blank()
    registry.load_predefined_recognizers(nlp_engine=engine, languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
    analyzer.analyze(texts[0], "en")
    began = time.process_time()
    kind = lambda name: names.get(name, "NATIONAL_ID" if name[2:3] == "_" else name)
    found = [[[r.start, r.end, kind(r.entity_type)]
              for r in analyzer.analyze(text, "en", score_threshold=0.4)] for text in texts]
    out["presidio-analyzer " + version("presidio-analyzer") + " (rules, score from 0.4)"] = {
        "hits": found, "seconds": time.process_time() - began}
except Exception as error:
    out["presidio"] = {"error": repr(error)}
json.dump(out, sys.stdout)
"""


def score(rows: list[dict[str, Any]], hits: list[list[list[Any]]]) -> dict[str, Any]:
    """By kind: precision, recall and the covered share of the values' characters."""
    right: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    good: Counter[str] = Counter()
    covered: dict[str, list[float]] = defaultdict(list)
    for row, mine in zip(rows, hits, strict=True):
        for start, end, kind in row["spans"]:
            planted[kind] += 1
            same = [hit for hit in mine if hit[2] == kind and hit[0] < end and hit[1] > start]
            right[kind] += bool(same)
            covered[kind].append(sum(min(hit[1], end) - max(hit[0], start) for hit in same) / (end - start))
        for start, end, kind in mine:
            found[kind] += 1
            good[kind] += any(span[2] == kind and start < span[1] and end > span[0] for span in row["spans"])
    kinds = sorted(planted)
    table = {kind: {"values": planted[kind], "recall": round(right[kind] / planted[kind], 3),
                    "precision": round(good[kind] / found[kind], 3) if found[kind] else None,
                    "covered": round(sum(covered[kind]) / planted[kind], 3)} for kind in kinds}
    table["all"] = {"values": sum(planted.values()), "recall": round(sum(right.values()) / sum(planted.values()), 3),
                    "precision": round(sum(good[kind] for kind in kinds)
                                        / max(1, sum(found[kind] for kind in kinds)), 3),
                    "covered": round(sum(map(sum, covered.values())) / sum(planted.values()), 3)}
    negatives = [(row, mine) for row, mine in zip(rows, hits) if not row["spans"]]
    table["hard negatives"] = {"sentences": len(negatives), "with a hit": sum(bool([h for h in mine if h[2] in kinds])
                                                                             for _, mine in negatives)}
    return table


def plain_texts() -> dict[str, list[str]]:
    """Real texts in which nobody's data stands (intents, clauses with redacted names, medical answers)."""
    folder = data_folder()
    import csv

    with (folder / "banking77" / "test.csv").open(encoding="utf-8") as file:
        banking = [row["text"] for row in csv.DictReader(file)]
    cuad = [row["text"] for row in read_rows(folder / "cuad_clauses" / "test.jsonl")]
    medquad = [str(row.get("answer") or "") for row in read_rows(folder / "medquad" / "test.jsonl")]
    pick = random.Random(5)
    return {name: pick.sample(texts, min(1500, len(texts)))
            for name, texts in (("banking77", banking), ("cuad_clauses", cuad), ("medquad", medquad))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", help="Python interpreter that has datafog and presidio-analyzer")
    parser.add_argument("--show", action="store_true", help="print the errors on the dev sentences and the false "
                                                            "alarms")
    asked = parser.parse_args()
    from luthier.prepare.privacy.base import Privacy
    from luthier.prepare.privacy.scan import Scanner

    rows = read_rows(SAMPLE)
    result: dict[str, Any] = {"machine": machine(), "sample": {
        name: {"sentences": sum(row["set"] == name for row in rows), "templates": len({
            row["template"] for row in rows if row["set"] == name})} for name in ("dev", "test")}}
    for name in ("dev", "test"):
        part = [row for row in rows if row["set"] == name]
        for mode, least in (("found", 0.5), ("sure", 0.8)):
            scanner = Scanner(Privacy(min_confidence=least), Path("/nonexistent"))
            hits = [[[hit.start, hit.end, hit.kind] for hit in one.hits]
                    for one in scanner.scan([row["text"] for row in part])]
            result.setdefault(name, {})[mode] = score(part, hits)
            if asked.show and name == "dev" and mode == "found":
                show(part, hits)
    scanner = Scanner(Privacy(), Path("/nonexistent"))
    result["false_alarms_per_1000_texts"] = {}
    for name, texts in plain_texts().items():
        found = scanner.scan(texts)
        kinds = Counter(hit.kind for one in found for hit in one.hits)
        sure = sum(hit.confidence >= 0.8 for one in found for hit in one.hits)
        result["false_alarms_per_1000_texts"][name] = {
            "texts": len(texts), "words_per_text": round(sum(len(text.split()) for text in texts) / len(texts), 1),
            "hits": round(1000 * sum(kinds.values()) / len(texts), 1), "sure": round(1000 * sure / len(texts), 1),
            "kinds": dict(kinds.most_common())}
        if asked.show:
            shown = [(hit, text) for text, one in zip(texts, found) for hit in one.hits]
            for hit, text in shown[:40]:
                print(name, hit.kind, hit.rule, hit.confidence, "|", text[hit.start : hit.end], "|",
                      text[max(0, hit.start - 40) : hit.end + 30].replace("\n", " "))
    result["speed"] = speed([row["text"] for row in rows], scanner)
    if asked.other:
        result["others"] = others(asked.other, [row for row in rows if row["set"] == "test"])
    if not asked.show:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "privacy.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))


def speed(sample: list[str], scanner: Any) -> dict[str, Any]:
    """Texts a CPU second: short real questions, and the sample, in which nearly every text holds something."""
    told = {}
    for name, texts in (("banking77 questions", plain_texts()["banking77"] * 8), ("this sample", sample * 4),
                        ("medquad answers", plain_texts()["medquad"][:600])):
        began = time.process_time()
        scanner.scan(texts)
        seconds = time.process_time() - began
        told[name] = {"texts_per_cpu_second": round(len(texts) / seconds),
                      "words_per_cpu_second": round(sum(len(text.split()) for text in texts) / seconds)}
    return told


def others(python: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = subprocess.run([python, "-c", OTHER], input=json.dumps(rows), capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr[-500:]}
    told = {}
    for name, found in json.loads(done.stdout).items():
        told[name] = {"error": found["error"]} if "error" in found else {
            **score(rows, found["hits"]), "texts_per_cpu_second": round(len(rows) / max(1e-9, found["seconds"]))}
    return told


def show(rows: list[dict[str, Any]], hits: list[list[list[Any]]]) -> None:
    for row, mine in zip(rows, hits):
        text = row["text"]
        alone = lambda one, others: not any(o[2] == one[2] and o[0] < one[1] and o[1] > one[0] for o in others)  # noqa: E731
        missed = [text[one[0] : one[1]] + ":" + one[2] for one in row["spans"] if alone(one, mine)]
        extra = [text[one[0] : one[1]] + ":" + one[2] for one in mine if alone(one, row["spans"])]
        cut = [f"{text[p[0]:p[1]]} -> {text[h[0]:h[1]]}" for p in row["spans"] for h in mine
               if p[2] == h[2] and h[0] < p[1] and h[1] > p[0] and (h[0] > p[0] or h[1] < p[1])]
        if missed or extra or cut:
            print(repr(text), "MISSED", missed, "EXTRA", extra, "CUT", cut)


if __name__ == "__main__":
    main()
