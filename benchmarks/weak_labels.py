"""Labels from little, against the labels that people gave: banking77 (its first 20 intents by name) and cuad_clauses
(14 clause types), with three labelled rows a class, three draws of them.

How the rules were written: those of banking77 from the names of the intents alone; those of cuad_clauses from the names
of the clause types, what such clauses say in most contracts, and one training clause of each type. No rule was changed
after its accuracy was seen. Descriptions: the names (banking77), one sentence a type (cuad_clauses).

Told: accuracy and coverage of every source, of the votes counted, and of the label model; and the test accuracy of a
logistic regression on frozen features (all-MiniLM-L6-v2) from the labelled rows alone, from these and the weak labels,
and from all labels of the data.

    python benchmarks/weak_labels.py [--seeds 3] [--only banking77] [--zero-shot 80]
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

import common
import label_common
import numpy as np

from luthier.prepare.weak import combine
from luthier.prepare.weak.base import LABELERS, Weak, WeakContext, WeakRow, readable
from luthier.prepare.weak.neighbours import embed
from luthier.prepare.weak.zero_shot import ZeroShotLabeler
from luthier.store import Store

EACH = 3
BANKING: dict[str, dict[str, Any]] = {
    "Refund_not_showing_up": {"all_of": ["refund*"]},
    "activate_my_card": {"any_of": ["activat*"]},
    "age_limit": {"any_of": ["age", "how old", "old enough", "child*", "kid*", "daughter", "son", "years old"]},
    "apple_pay_or_google_pay": {"any_of": ["apple", "google"]},
    "atm_support": {"any_of": ["atm*"]},
    "automatic_top_up": {"pattern": r"auto\w*.*top|top.*auto"},
    "balance_not_updated_after_bank_transfer": {"all_of": ["balance", "transfer*"]},
    "balance_not_updated_after_cheque_or_cash_deposit": {"any_of": ["cheque*", "check", "cash deposit*"]},
    "beneficiary_not_allowed": {"any_of": ["beneficiar*"]},
    "cancel_transfer": {"pattern": r"cancel.*(transfer|transaction)|(transfer|transaction).*cancel"},
    "card_about_to_expire": {"any_of": ["expir*"]},
    "card_acceptance": {"any_of": ["accept*"]},
    "card_arrival": {"pattern": r"card.*(arriv|deliver|track)|(arriv|deliver|track).*card"},
    "card_delivery_estimate": {"pattern": r"how long.*(card|deliver)|when.*(card|deliver)"},
    "card_linking": {"any_of": ["link*"]},
    "card_not_working": {"pattern": r"(card|it).*(not|n't|isn) work|broken"},
    "card_payment_fee_charged": {"any_of": ["fee", "fees", "charged extra", "extra charge"]},
    "card_payment_not_recognised": {"pattern": r"(recogni[sz]e|did ?n.t make|unknown).*|payment.*not mine"},
    "card_payment_wrong_exchange_rate": {"any_of": ["exchange rate", "rate"]},
    "card_swallowed": {"any_of": ["swallow*", "took my card", "ate my card", "stuck"]},
}
CUAD: dict[str, tuple[str, dict[str, Any]]] = {
    "License Grant": ("A party is granted a licence to use or distribute something.",
                      {"pattern": r"grants?\b.*\b(licen[sc]e|right)"}),
    "Governing Law": ("The law of a state or country governs the agreement.",
                      {"pattern": r"governed by|laws of the (state|commonwealth|province)"}),
    "Expiration Date": ("How long the agreement lasts and when it expires.",
                        {"pattern": r"\bterm of this agreement|(continue|remain) in (full force|effect)|shall expire"}),
    "Revenue-Profit Sharing": ("Revenue, royalties or profits are shared between the parties.",
                               {"pattern": r"royalt|revenue|net sales|commission|profits?\b"}),
    "Anti-Assignment": ("The agreement may not be assigned without consent.",
                        {"pattern": r"\bassign(ed|able|ment)?\b.*(consent|approval)|not.*\bassign"}),
    "Minimum Commitment": ("A party must buy, order or pay a minimum amount.", {"any_of": ["minimum", "at least"]}),
    "Cap On Liability": ("The liability of a party for damages is limited.",
                         {"pattern": r"liab(le|ility).*(damages|exceed)|in no event"}),
    "Insurance": ("A party must keep insurance.", {"any_of": ["insurance", "insured", "insurer*"]}),
    "Audit Rights": ("A party may inspect or audit books and records.",
                     {"any_of": ["audit*", "inspect*", "books and records"]}),
    "Post-Termination Services": ("What parties must still do after the agreement ends.",
                                  {"pattern": r"(upon|after|following|date of)\b.{0,40}\b(termination|expiration)"}),
    "Rofr-Rofo-Rofn": ("A right of first refusal, first offer or first negotiation.",
                       {"any_of": ["first refusal", "first offer", "first negotiation", "right of first"]}),
    "Exclusivity": ("A party deals exclusively with the other in a territory or field.", {"any_of": ["exclusive*"]}),
    "Ip Ownership Assignment": ("Intellectual property made under the agreement is assigned or owned by a party.",
                                {"any_of": ["works for hire", "work made for hire", "hereby assigns", "title to"]}),
    "Termination For Convenience": ("A party may end the agreement without cause by notice.",
                                    {"pattern": r"terminate\b.*(without cause|any time|convenience|for any reason)"}),
}


def banking() -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[dict[str, Any]], dict[str, str]]:
    def rows(name: str) -> list[tuple[str, str]]:
        with (common.data_folder() / "banking77" / name).open(encoding="utf-8") as file:
            found = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
        return [row for row in found if row[1] in BANKING]

    return rows("train.csv"), rows("test.csv"), [{"label": k, **v} for k, v in BANKING.items()], {}


def cuad() -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[dict[str, Any]], dict[str, str]]:
    def rows(name: str) -> list[tuple[str, str]]:
        return [(row["text"].strip(), row["label"])
                for row in common.read_rows(common.data_folder() / "cuad_clauses" / name)]

    return (rows("train.jsonl"), rows("test.jsonl"), [{"label": k, **rule} for k, (_, rule) in CUAD.items()],
            {k: told for k, (told, _) in CUAD.items()})


def share(hits: np.ndarray, of: int) -> dict[str, Any]:
    from luthier.index.recall import wilson

    low, high = wilson(int(hits.sum()), len(hits))
    return {"accuracy": float(hits.mean()) if len(hits) else None, "low": low, "high": high, "n": len(hits),
            "coverage": len(hits) / of}


def head(vectors: np.ndarray, classes: np.ndarray, weights: np.ndarray, test: np.ndarray, right: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=10, max_iter=300).fit(vectors, classes, sample_weight=weights)
    return float((model.predict(test) == right).mean())


def measure(name: str, told: Any, seeds: int, zero_shot: int, most: int) -> Iterator[dict[str, Any]]:
    train, test, rules, descriptions = told
    train, test = ([(row["text"], row["label"]) for row in common.fixed_order(
        [{"text": text, "label": label} for text, label in dict(rows).items()], "text")] for rows in (train, test))
    train, test = train[:most], test[: most // 3]
    labels = tuple(sorted({label for _, label in train}))
    place = {label: at for at, label in enumerate(labels)}
    folder = label_common.scratch("weak")
    store = Store(folder / "store")
    truth, right = np.array([place[label] for _, label in train]), np.array([place[label] for _, label in test])
    spec = Weak()

    def context(rows: list[WeakRow]) -> WeakContext:
        told = {label: descriptions.get(label) or readable(label) for label in labels}
        return WeakContext(rows=rows, labels=labels, descriptions=told, multi_label=False, root=folder, store=store)

    blank = context([WeakRow(str(at), text, "", {}) for at, (text, _) in enumerate(train)])
    vectors = embed("starter:encoder", [text for text, _ in train], blank)
    held = embed("starter:encoder", [text for text, _ in test], blank)
    full = head(vectors, truth, np.ones(len(train)), held, right)
    found: dict[str, Any] = {"rows": len(train), "test": len(test), "classes": len(labels), "head_all_labels": full,
                             "draws": []}
    for seed in range(seeds):
        order = random.Random(seed).sample(range(len(train)), len(train))
        known = [at for label in labels for at in [at for at in order if train[at][1] == label][:EACH]]
        rest = [at for at in order if at not in set(known)]
        at = np.array([*known, *rest])
        rows = [WeakRow(str(i), train[i][0], "", {}, (train[i][1],) if n < len(known) else None)
                for n, i in enumerate(at)]
        given = context(rows)
        labelers = ({"kind": "rules", "rules": rules}, {"kind": "descriptions"}, {"kind": "neighbours"})
        sources = [source for kind in labelers for source in LABELERS.parse(kind).vote(given)]
        human = [{train[i][1]} if n < len(known) else None for n, i in enumerate(at)]
        gold, open_rows = truth[at], np.arange(len(known), len(at))

        def of(votes: list[tuple[int, str]], gold: np.ndarray = gold, total: int = len(open_rows)) -> dict[str, Any]:
            return share(np.array([place[label] == gold[n] for n, label in votes]), total)

        single = {source.name: of([(n, source.votes[n][0]) for n in open_rows if source.votes[n]])
                  for source in sources if source.name in ("descriptions", "neighbours")}
        by_rule = [(n, s.votes[n][0]) for s in sources if s.name not in single for n in open_rows if s.votes[n]]
        draw: dict[str, Any] = {"single": single, "rules": of(by_rule)}
        for method in ("majority", "model"):
            one = combine.combine(sources, labels, human, learn=len(known), spec=spec.but(combine=method),
                                  multi_label=False)
            voted = [n for n in open_rows if one.spoke[n]]
            draw[method] = of([(n, one.best[n][0]) for n in voted])
            kept = [n for n in voted if one.sure[n] >= spec.min_probability]
            draw[f"{method}_kept"] = {**of([(n, one.best[n][0]) for n in kept]),
                                      "expected": float(np.mean([one.sure[n] for n in kept]))}
            if method == "model":  # what it would say of itself from the labelled rows
                said = [(n, found) for n, found in enumerate(one.crossed[: len(known)]) if found is not None]
                hits = [int(found.argmax()) == gold[n] for n, found in said if one.spoke[n]]
                draw["measured_on_labelled"] = share(np.array(hits), len(known))
            weak = np.array([place[one.best[n][0]] for n in kept])
            draw[f"head_{method}"] = head(
                vectors[at[[*range(len(known)), *kept]]], np.concatenate([gold[: len(known)], weak]),
                np.concatenate([np.ones(len(known)), one.sure[kept]]), held, right)
        draw["head_labelled_alone"] = head(vectors[at[: len(known)]], gold[: len(known)], np.ones(len(known)), held,
                                           right)
        found["draws"].append(draw)
        draw["head_model_all"] = head(
            vectors[at[[*range(len(known)), *voted]]],
            np.concatenate([gold[: len(known)], [place[one.best[n][0]] for n in voted]]),
            np.concatenate([np.ones(len(known)), one.sure[voted]]), held, right)
        print(name, "draw", seed, {k: round(v["accuracy"], 3) if isinstance(v, dict) and "accuracy" in v else v
                                   for k, v in draw.items() if k != "single"}, flush=True)
    found["summary"] = summary(found["draws"])
    yield found
    if zero_shot:
        rows = random.Random(0).sample(range(len(train)), zero_shot)
        texts = [train[at][0] for at in rows]
        found["zero_shot"] = {"model": "starter:chat", **{
            what: share(ZeroShotLabeler(calibrated=calibrated, max_chars=600).chances(texts, blank).argmax(1)
                        == truth[rows], zero_shot) for what, calibrated in (("raw", False), ("calibrated", True))}}
        print(name, "zero-shot", found["zero_shot"], flush=True)
        yield found


def summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the draws; intervals over draws for the heads."""
    def mean(pick: Any) -> dict[str, float]:
        return {key: statistics.fmean(pick(draw)[key] for draw in draws) for key in ("accuracy", "coverage")}

    found: dict[str, Any] = {key: mean(lambda draw, key=key: draw[key]) for key in (
        "rules", "majority", "model", "majority_kept", "model_kept", "measured_on_labelled")}
    found |= {name: mean(lambda draw, name=name: draw["single"][name]) for name in draws[0]["single"]}
    found["model_expected"] = statistics.fmean(draw["model_kept"]["expected"] for draw in draws)
    for key in ("head_labelled_alone", "head_majority", "head_model", "head_model_all"):
        found[key] = label_common.over_seeds([draw[key] for draw in draws])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("banking77", "cuad_clauses"))
    parser.add_argument("--rows", type=int, default=10_000, help="most training rows; a third as many test rows")
    parser.add_argument("--zero-shot", type=int, default=80, help="rows that the starter chat model is asked about")
    told = parser.parse_args()
    for name, load in (("banking77", banking), ("cuad_clauses", cuad)):
        if told.only in (None, name):
            began = common.cpu_seconds()
            for found in measure(name, load(), told.seeds, told.zero_shot, told.rows):  # kept as it comes
                common.save(f"weak_labels_{name}", {**found, "labelled_a_class": EACH, "machine": common.machine(),
                                                    "cpu_s": round(common.cpu_seconds() - began)})


if __name__ == "__main__":
    main()
