"""A small but real release folder, and a real server on a free loopback port."""

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest
import torch

from luthier.index.base import Index, index
from luthier.index.rag import Rag
from luthier.models.generate import load_module, stop_tokens
from luthier.release.folder import RECORD, hash_files
from luthier.store import Store
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.types import Passage, write_jsonl

KEY = "test-key-of-a-decent-length"
FACTS = {
    "billing.pdf": ["Invoices are sent on the third working day of every month.",
                    "A refund takes ten days and goes back to the card that paid."],
    "battery.md": ["Error code E-07 means that the battery is too cold; warm it to room temperature.",
                   "Store the battery half charged when the bike rests for the winter."],
    "brakes.html": ["Brake pads are worn when less than one millimetre is left."],
}


def sharpen(folder: Path, seed: int) -> Path:
    """Random weights large enough that answers depend on the whole prompt and differ between seeds."""
    module, _ = load_module(folder, dtype="float32", device="cpu")
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    module.save_pretrained(folder)
    return folder


def tiny_encoder(folder: Path) -> Path:
    """A random BERT with a character WordPiece tokenizer: enough for vectors that depend on their text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *".,;:?!-"]
    raw = Tokenizer(models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2),
                                                                                                ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                        sep_token="[SEP]", model_max_length=128)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=64, max_position_embeddings=128))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def passages() -> list[Passage]:
    return [Passage(id=f"p-{path}-{at}", document=f"d-{path}", path=path, title=path.partition(".")[0].title(),
                    heading=("Manual",), text=text, spans=(at, at + 1), page=at + 1 if path.endswith("pdf") else None)
            for path, texts in FACTS.items() for at, text in enumerate(texts)]


def make_release(root: Path, *, mode: str = "hybrid", template: bool = True, name: str = "desk",
                 system: str | None = "You are the help desk.") -> Path:
    """`<root>/release/1`, in the layout of docs/architecture.md."""
    folder = root / "release" / "1"
    sharpen(tiny_chat_model(folder / "base", seed=1), 11)
    sharpen(tiny_chat_model(folder / "model", seed=2), 22)
    encoder = tiny_encoder(root / "encoder")
    module, tokenizer = load_module(folder / "base", dtype="float32", device="cpu")
    store = Store(root / "store")

    def make(part: Path) -> dict:
        return {"passages": write_jsonl(part / "passages.jsonl", passages()), "language": "en"}

    prepared = store.build("prepare", version=1, spec={"mode": mode}, inputs={}, make=make)
    built = index(prepared, Index(encoder=str(encoder), mode=mode, dtype="float32"), store=store, root=root)
    built.path.rename(folder / "index")
    record = {
        "name": name, "version": 1, "choice": "tuned_retrieval",
        "systems": ["base", "retrieval", "tuned", "tuned_retrieval"], "forced": None, "approved_by": "",
        "created": "2026-11-20T10:00:00Z",
        "base": {"source": "tiny", "folder": "base", "fingerprint": "-", "name": "tiny", "bundled": True},
        "tuned": {"present": True, "passed": True, "why": ""}, "task": Task(system=system).dump(),
        "rag": Rag(top_k=3).dump(), "encoder": {"source": str(encoder), "fingerprint": "-"},
        "template": tokenizer.chat_template if template else None, "stop_ids": stop_tokens(module, tokenizer),
        "dtype": "float32", "lineage": {}, "gate": [], "key": "k",
        "files": {file: hash for file, hash in hash_files(folder).items()},
    }
    (folder / RECORD).write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("served"))


class Running:
    """A server in a thread, with what a test needs to know of it."""

    def __init__(self, app, url: str, root: Path):
        self.app, self.url, self.root = app, url, root

    @property
    def service(self):
        return self.app.state.service

    def wait_until(self, condition, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)


@contextlib.contextmanager
def running(release: Path, spec, root: Path, *, wait: bool = True, follow: bool = False):
    import uvicorn

    from luthier.serve.base import create_app, listen

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_API_KEY", KEY)
        app = create_app(release, spec, root=root, follow=follow)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    live = Running(app, f"http://127.0.0.1:{listener.getsockname()[1]}", root)
    try:
        if wait:
            live.wait_until(lambda: live.service.ready or live.service.failure, 60)
            assert live.service.failure is None, live.service.failure
        yield live
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


@pytest.fixture(scope="session")
def serve_release():
    return running


@pytest.fixture(scope="session")
def key() -> str:
    return KEY


@pytest.fixture(scope="session")
def live(release, tmp_path_factory):
    """One server that most tests share."""
    from luthier.serve.base import Serve
    from luthier.serve.engines.transformers import Transformers

    with running(release, Serve(engine=Transformers(threads=1), max_output_tokens=200, max_prompt_tokens=900),
                 tmp_path_factory.mktemp("root")) as found:
        yield found


@pytest.fixture(scope="session")
def client(live):
    import openai

    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="session")
def reference(release):
    """Greedy answers of LocalChat on the release's weights, one at a time: (weights, messages, limit) -> text."""
    from luthier.models.generate import LocalChat
    from luthier.release.folder import read_release

    record = read_release(release)
    chats = {}
    for weights, folder in (("base", "base"), ("tuned", "model")):
        module, tokenizer = load_module(release / folder, dtype="float32", device="cpu")
        tokenizer.chat_template = record.template
        chats[weights] = LocalChat(module, tokenizer, record.stop_ids)

    def answer(weights: str, messages, limit: int):
        return chats[weights].complete([messages], max_new_tokens=limit)[0]

    return answer
