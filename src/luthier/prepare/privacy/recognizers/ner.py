"""Names that no rule knows, by a token classifier of the user's: any transformers model folder for named entities."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from luthier.errors import ModelError
from luthier.plugins import register
from luthier.prepare.privacy.base import RECOGNIZERS, Hit, Rule, Signs

_LABELS = {"PER": "PERSON", "PERSON": "PERSON", "PERSONS": "PERSON", "NAME": "PERSON"}


@register(RECOGNIZERS, "ner")
class Ner(Rule):
    """Named entities by a model folder; nothing is downloaded. A tagger that Luthier trained and released (task `tag`)
    serves as well: name its `model` folder."""

    model: str = Field(min_length=1)
    """Folder of a transformers token classifier (config.json, weights, tokenizer), relative to the project folder."""
    labels: Mapping[str, str] = Field(default_factory=lambda: dict(_LABELS))
    """Which of the model's labels, without B- and I-, are which kind; the others are ignored."""
    batch: int = Field(default=16, ge=1)
    """Texts that the model reads at once."""
    max_tokens: int = Field(default=256, ge=16)
    """Longer texts are read in windows of so many tokens that overlap by a quarter."""

    def inputs(self, root: Path) -> Mapping[str, str]:
        return {"model": _fingerprint(self._folder(root))}

    def _folder(self, root: Path) -> Path:
        folder = root / Path(self.model).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(f"prepare.privacy.recognizers: ner.model: {folder} holds no config.json; name the "
                             f"folder of a "
                             "transformers token classifier")
        return folder

    def find_all(self, texts: Sequence[Signs], root: Path) -> Iterator[tuple[int, Hit]]:
        if not texts:
            return
        tokenizer, module = _open(str(self._folder(root)))
        kinds = self._kinds(module.config)
        windows = [(at, *window) for at, signs in enumerate(texts) if signs.text.strip()
                   for window in self._windows(tokenizer, signs.text)]
        windows.sort(key=lambda window: len(window[1]))
        for begin in range(0, len(windows), self.batch):
            part = windows[begin : begin + self.batch]
            for (at, _, offsets), scores in zip(part, _scores(tokenizer, module, [ids for _, ids, _ in part])):
                for hit in _entities(offsets, scores, kinds, texts[at].text):
                    yield at, hit

    def _kinds(self, config: Any) -> dict[int, tuple[str, bool]]:
        """Class number → (kind, begins an entity)."""
        found = {}
        for number, label in config.id2label.items():
            marked = label[1:2] == "-" and label[0] in "BILUSE"
            prefix, name = (label[0], label[2:]) if marked else ("", label)
            kind = self.labels.get(name) or self.labels.get(name.upper())
            if kind:
                found[int(number)] = (kind, prefix in ("B", "U", "S"))
        if not found:
            raise ModelError(f"prepare.privacy.recognizers: ner.model: none of the labels of {self.model} "
                             f"({', '.join(map(str, list(config.id2label.values())[:8]))}) is known; map them in "
                             f"`labels`")
        return found

    def _windows(self, tokenizer: Any, text: str) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        read = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=self.max_tokens,
                         stride=self.max_tokens // 4, return_overflowing_tokens=True, verbose=False)
        for ids, offsets in zip(read["input_ids"], read["offset_mapping"]):
            yield ids, [tuple(pair) for pair in offsets]


def _scores(tokenizer: Any, module: Any, rows: Sequence[list[int]]) -> list[Any]:
    import torch

    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.inference_mode():
        scores = module(input_ids=ids, attention_mask=mask).logits.float().softmax(-1)
    return [score[: len(row)] for score, row in zip(scores, rows)]


def _entities(offsets: Sequence[tuple[int, int]], scores: Any, kinds: Mapping[int, tuple[str, bool]], text: str
              ) -> Iterator[Hit]:
    """Runs of tokens of one kind, grown to whole words; confidence is the mean of the tokens' probabilities."""
    best = scores.max(-1)
    run: list[tuple[int, int, float]] = []
    current = ""
    for (start, end), number, sure in [*zip(offsets, best.indices.tolist(), best.values.tolist()), ((0, 0), -1, 0.0)]:
        kind, begins = kinds.get(number, ("", False))
        if start == end and number != -1:
            continue  # a token that stands for nothing in the text
        glued = bool(run) and start == run[-1][1] and text[start - 1 : start + 1].isalnum()  # the rest of a word
        if run and not (glued and kind == current) and (kind != current or begins):
            if glued and not kind:
                run.append((start, end, run[-1][2]))
                continue
            yield _grown(run, current, text)
            run = []
        if kind:
            run.append((start, end, sure))
        current = kind if run else ""


def _grown(run: Sequence[tuple[int, int, float]], kind: str, text: str) -> Hit:
    start, end = run[0][0], run[-1][1]
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
        end += 1
    while start < end and text[start].isspace():
        start += 1
    return Hit(start, end, kind, round(sum(sure for _, _, sure in run) / len(run), 3), "ner")


@lru_cache(maxsize=1)
def _open(folder: str) -> tuple[Any, Any]:
    from luthier.errors import need

    transformers = need("transformers", extra="index")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        module = transformers.AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"prepare.privacy.recognizers: ner.model: {folder} is no token classifier that transformers "
                         f"reads ({str(error).splitlines()[0][:200]})") from None
    if not tokenizer.is_fast:
        raise ModelError(f"prepare.privacy.recognizers: ner.model: the tokenizer in {folder} gives no positions; "
                         f"the folder "
                         "needs a tokenizer.json")
    return tokenizer, module.eval()


def _fingerprint(folder: Path) -> str:
    from luthier.models.sources import file_hash
    from luthier.types import digest

    names = ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin")
    parts = [f"{name}:{file_hash(folder / name)}" for name in names if (folder / name).is_file()]
    try:
        json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON ({error})") from None
    return digest(*parts)
