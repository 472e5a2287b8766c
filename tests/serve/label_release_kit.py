"""A release folder around a labelled model, and a client for the server that answers from it."""

from __future__ import annotations

import io
import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
from label_kit import encoder  # pyright: ignore[reportMissingImports]

from luthier.release.folder import RECORD, hash_files

__all__ = ["TEXTS", "Api", "encoder", "picture", "sharpened", "write_release"]

TEXTS = ["my parcel is late now", "the money please help", "where is my password today", "login lost now now"]


def write_release(folder: Path, model: Any, **labels: Any) -> Path:
    """A release folder around a model, as `release` writes it."""
    from luthier.index.rag import Rag
    from luthier.release.labels import write_model

    settings = {"temperature": model.temperature, "thresholds": {}, "abstain": model.task.abstain, **labels}
    write_model(model, folder / "model", settings, dtype="float32")
    (folder / RECORD).write_text(json.dumps({
        "name": "desk", "version": 1, "choice": "tuned", "systems": ["tuned"], "forced": None, "approved_by": "",
        "created": "2026-11-20T10:00:00Z", "base": {}, "tuned": {"present": True, "passed": True, "why": ""},
        "task": model.task.dump(), "rag": Rag().dump(), "encoder": {"source": None, "fingerprint": None},
        "template": None, "stop_ids": [], "dtype": "float32", "lineage": {"train": "train/abc"}, "gate": [], "key": "k",
        "labels": {"names": list(model.labels), **settings, "onnx": False}, "files": hash_files(folder)}))
    return folder


def sharpened(model: Any, seed: int = 3) -> Any:
    """A head that decides: random weights alone would give every text nearly the same answer."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        model.module.head[-1].weight.normal_(std=1.0)
    return model


@dataclass
class Api:
    url: str
    key: str

    def post(self, path: str, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})}
        return self._ask(urllib.request.Request(self.url + path, data=data, headers=sent, method="POST"), status)

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {self.key}"}), 200)

    @staticmethod
    def _ask(request: urllib.request.Request, status: int) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                code, raw = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            code, raw = error.code, error.read()
        assert code == status, raw
        return json.loads(raw) if raw[:1] in b"{[" else raw.decode()


def picture(size=(40, 30), colour=(200, 30, 30), kind="PNG", **more):
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind, **more)
    return out.getvalue()
