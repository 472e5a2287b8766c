"""`adapt`: choose the base model, the method (LoRA or full) and the chat template, and open the result for training.

The artifact holds decisions only (adapt.json), never weights: opening it loads the base and attaches a fresh adapter.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from luthier.adapt.head import Head
from luthier.adapt.vocabulary import Vocabulary
from luthier.errors import ModelError, need
from luthier.models.generate import compute_dtype
from luthier.models.sources import SourceFiles, resolve
from luthier.plugins import Seam
from luthier.progress import Progress, Silent
from luthier.spec import Spec
from luthier.store import Artifact, Store, write_json
from luthier.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

VERSION = 1

METHODS = Seam("method", package="luthier.adapt")


class Method(Protocol):
    """How a model is made trainable. Registered with `@register(METHODS, "name")` on a Spec."""

    kind: ClassVar[str]

    def dump(self) -> dict[str, Any]:
        """JSON-ready fields, as every Spec has."""
        ...

    def attach(self, module: nn.Module, *, seed: int) -> nn.Module:
        """The module with exactly the parameters that may train requiring gradients."""
        ...

    def save(self, module: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Write the trained parameters (`tensors`, by their name in `module`, float32) so that `restore` finds them."""
        ...

    def restore(self, module: nn.Module, folder: Path) -> nn.Module:
        """A bare base module turned into the tuned model in `folder`."""
        ...

    def merge(self, module: nn.Module) -> nn.Module:
        """The tuned model as a plain Hugging Face module without adapter layers."""
        ...


def _default_method() -> Method:
    from luthier.adapt.lora import LoRA  # a kind imports the seam, so the seam cannot import the kind at the top

    return LoRA()


class Adapt(Spec):
    """Which base model is tuned, and how."""

    model: str = "starter:chat"
    """Base model: `starter:chat` (assistant), `starter:encoder` (classify, tag, embed), `starter:image` (image), a
    local folder, a GGUF file, `keras:NAME` (image), `mlp:256x256` (image: a small network on the pixels, trained from
    scratch), or `hub:owner/name` (downloads)."""
    method: Annotated[Method, METHODS] = Field(default_factory=_default_method)
    """What is trained: `lora` (small matrices beside frozen weights) or `full` (all weights)."""
    template: str = "auto"
    """Chat template: `auto` is the model's own (a base model without one is given a ChatML-style one), otherwise a
    Jinja file, relative to the project folder."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights in memory; `auto` is bfloat16 where the processor computes in it, else float32."""
    head: Head = Head()
    """What stands on top of the base model, for the tasks classify, tag, embed and image."""
    pretrained: bool = True
    """Start from the base model's weights; false draws them at random, to see what the pretraining is worth (labelled
    tasks only)."""
    image_size: int | None = Field(default=None, ge=16, le=1024)
    """Side in pixels that images are brought to (image only); null takes the base model's own, smaller is faster."""
    vocabulary: Vocabulary | None = None
    """Words of your field that become tokens of their own (classify, tag, embed); null leaves the tokenizer alone."""


@dataclass(frozen=True)
class Model:
    """A loaded model: what training, evaluation and export receive."""

    module: Any
    """torch.nn.Module, in evaluation mode; parameters that may train require gradients."""
    tokenizer: Any
    task: Task
    stop_ids: tuple[int, ...]
    """Tokens that end an answer; the first closes every assistant turn of the template."""
    name: str
    groups: dict[str, list[str]]
    """Names of the parameters that may train, by layer, bottom first; empty for a bare base."""
    template_note: str
    method: Any
    """The Method that made it trainable."""
    artifact: Artifact


def adapt(task: Task, spec: Adapt, *, store: Store, root: Path | None = None,
          progress: Progress = Silent()) -> Artifact:
    """Decide model, method, template and stop tokens; the artifact holds `adapt.json`.

    Raises ModelError with one sentence for a model that cannot be tuned as a language model (an encoder, no tokenizer,
    no stop token). The id depends on the content of the model's files, not on their path.
    """
    base = Path.cwd() if root is None else root
    if task.labelled:
        return _adapt_labelled(task, spec, store=store, root=base, progress=progress)
    for field, bad in (("head", spec.head != Head()), ("pretrained", not spec.pretrained),
                       ("image_size", spec.image_size is not None), ("vocabulary", spec.vocabulary is not None)):
        if bad:
            raise ModelError(f"adapt.{field} is for the tasks classify, tag, embed and image, not for '{task.type}'")
    source = resolve(spec.model, root=base)
    template = _template_text(spec.template, base)

    def make(folder: Path) -> dict[str, Any]:
        facts = _inspect(source, spec, template, task)
        write_json(folder / "adapt.json", {**facts, "root": str(base.resolve())})
        progress.say(f"  {facts['name']}: {spec.method.kind}, template: {facts['template_note']}, "
                     f"answers end with {facts['stop_tokens'][0]}")
        return {key: facts[key] for key in ("name", "architecture", "template_note", "stop_tokens", "parameters")}

    return store.build("adapt", version=VERSION, spec=spec, make=make,
                       inputs={"model": source.fingerprint, "task": task, "template": template or ""})


def _adapt_labelled(task: Task, spec: Adapt, *, store: Store, root: Path, progress: Progress) -> Artifact:
    """A model with a head: adapt.json says which base, which head, and what may train."""
    if spec.template != "auto":
        raise ModelError(f"adapt.template is for assistants; the task is '{task.type}'")
    if spec.image_size is not None and task.type != "image":
        raise ModelError(f"adapt.image_size is for the task image; the task is '{task.type}'")
    if spec.vocabulary is not None and task.type == "image":
        raise ModelError("adapt.vocabulary is for texts; the task is 'image'")
    words = None if spec.vocabulary is None else spec.vocabulary.read(root)
    source = resolve(spec.model, purpose="image" if task.type == "image" else "encoder", root=root)

    def make(folder: Path) -> dict[str, Any]:
        from luthier.adapt.labelled import inspect_labelled

        facts = inspect_labelled(source, spec.model_copy(update={"vocabulary": words}), task)
        write_json(folder / "adapt.json", {**facts, "root": str(root.resolve())})
        progress.say(f"  {facts['name']}: {facts['method']['kind']}, {facts['groups']} layer groups, "
                     f"features of {facts['width']} numbers")
        return {key: facts[key] for key in ("name", "architecture", "parameters", "groups", "width")}

    return store.build("adapt", version=VERSION, spec=spec, make=make,
                       inputs={"model": source.fingerprint, "task": task,
                               "method": "method" in spec.model_fields_set,
                               **({} if words is None else {"vocabulary": words})})


def _template_text(wanted: str, root: Path) -> str | None:
    if wanted == "auto":
        return None
    try:
        return (root / wanted).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"chat template '{wanted}' cannot be read: {error}; "
                         "name a Jinja file or write 'auto'") from None


def _inspect(source: SourceFiles, spec: Adapt, template: str | None, task: Task) -> dict[str, Any]:
    from luthier.adapt.template import choose_template, encode, turn_end

    config = json.loads((source.folder / "config.json").read_text("utf-8"))
    architecture = _architecture(config, source)
    tokenizer = load_tokenizer(source)
    jinja2 = need("jinja2", extra="train")
    if task.type == "assistant" or template is not None or tokenizer.chat_template:
        text, note = choose_template(tokenizer, template, name=source.name)
        tokenizer.chat_template = text
        try:
            end = turn_end(tokenizer)
        except jinja2.TemplateError as error:
            raise ModelError(f"model '{source.source}': its chat template cannot be used: {error}") from None
        if end is None:
            raise ModelError(
                f"model '{source.source}': its chat template writes no stop token after an assistant's turn, so the "
                "model could never learn to stop; name another template file under adapt.template"
            )
    else:
        text, note, end = None, "none: a completion model continues plain text", tokenizer.eos_token_id
        if end is None:
            raise ModelError(f"model '{source.source}' has no end-of-text token, so it could never learn to stop")
    stops = [end, *(i for i in _generation_stops(source.folder, config) if i != end)]
    return {
        "source": source.source, "folder": str(source.folder), "fingerprint": source.fingerprint, "name": source.name,
        "architecture": architecture, "template": text, "template_note": note, "stop_ids": stops,
        "stop_tokens": tokenizer.convert_ids_to_tokens(stops), "bos_id": tokenizer.bos_token_id,
        "adds_bos": encode_adds_bos(tokenizer, encode), "method": spec.method.dump(), "dtype": spec.dtype,
        "task": task.dump(), "parameters": _num_parameters(source.folder),
    }


def encode_adds_bos(tokenizer: Any, encode: Any) -> bool:
    """Whether plain text (not a chat) starts with a begin token when this tokenizer encodes it."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] and encode(tokenizer, "a") != ids


def _architecture(config: Mapping[str, Any], source: SourceFiles) -> str:
    """The class in config.json, if it is a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    causal = set()
    for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        causal.update([names] if isinstance(names, str) else names)
    found = (config.get("architectures") or ["an unnamed architecture"])[0]
    if found not in causal:
        raise ModelError(
            f"model '{source.source}' is a {found}, not a causal language model that transformers can load, so it "
            "cannot be tuned to write answers; choose one whose architecture ends in ForCausalLM"
        )
    return found


def _generation_stops(folder: Path, config: Mapping[str, Any]) -> list[int]:
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text("utf-8")) if file.is_file() else config
    stops = settings.get("eos_token_id")
    return [] if stops is None else [stops] if isinstance(stops, int) else list(stops)


def _num_parameters(folder: Path) -> int:
    """Stored numbers in the safetensors files (a tied matrix counts once), from the headers alone."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                total += size
    return total


def load_tokenizer(source: SourceFiles) -> Any:
    """The tokenizer in the model's folder; ModelError where there is none."""
    transformers = need("transformers", extra="train")
    if not any((source.folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"model '{source.source}': {source.folder} has no tokenizer (tokenizer.json)")
    try:
        return transformers.AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (ValueError, OSError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model '{source.source}': its tokenizer cannot be loaded: {reason}") from None


def read_facts(artifact: Artifact) -> dict[str, Any]:
    """The content of adapt.json."""
    return json.loads((artifact.path / "adapt.json").read_text("utf-8"))


def open_base(artifact: Artifact, *, dtype: str = "", weights: Path | None = None) -> Model:
    """The base model as it is, frozen, with the tokenizer and template that training and serving use.

    `dtype` overrides the spec's; `weights` is a folder with the whole model after full tuning, which is opened in the
    base's place. Raises ModelError when the model's files changed since `adapt` looked at them.
    """
    facts = read_facts(artifact)
    source = resolve(facts["source"], root=Path(facts["root"]))
    if source.fingerprint != facts["fingerprint"]:
        raise ModelError(f"model '{facts['source']}' at {source.folder} changed since it was adapted; "
                         "run `luthier adapt` again")
    tokenizer = load_tokenizer(source)
    if facts["template"] is not None:
        tokenizer.chat_template = facts["template"]
    module = load_module(weights or source.folder, source=str(weights or facts["source"]),
                         dtype=dtype or facts["dtype"])
    method = METHODS.parse(facts["method"], local=Path(facts["root"]))
    return Model(module=module, tokenizer=tokenizer, task=Task(**facts["task"]), stop_ids=tuple(facts["stop_ids"]),
                 name=facts["name"], groups={}, template_note=facts["template_note"], method=method, artifact=artifact)


class _Local:
    """Validation context that trusts kinds from one project folder."""

    def __init__(self, root: Path):
        self.context = {"local": root}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars: people get Luthier's own."""
    logging = need("transformers", extra="train").utils.logging
    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def load_module(folder: Path, *, source: str, dtype: str) -> nn.Module:
    """The causal LM in `folder`, on the CPU, frozen, in evaluation mode."""
    transformers = need("transformers", extra="train")
    try:
        with quiet():
            module = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=compute_dtype(dtype), local_files_only=True)
    except (ValueError, OSError, RuntimeError, ImportError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model '{source}' cannot be loaded from {folder}: {reason}") from None
    return module.requires_grad_(False).eval()


def open_model(artifact: Artifact, *, seed: int = 0, dtype: str = "") -> Model:
    """The base with its untrained adapter (or all weights trainable): what training starts from. `seed` draws the
    adapter's first weights."""
    base = open_base(artifact, dtype=dtype)
    return trainable(base, base.method.attach(base.module, seed=seed))


def trainable(base: Model, module: nn.Module) -> Model:
    """`base` with another module and the layer groups of its trainable parameters."""
    return replace(base, module=module.eval(), groups=layer_groups(module))


def layer_groups(module: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters that require gradients by layer, bottom first: embeddings, layer.000…, head.

    Shared tensors (tied embeddings) appear once, under their first name.
    """
    groups: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            layer = re.search(r"\.(\d+)\.", name)
            low = any(word in name for word in ("embed", "wte", "wpe"))
            key = f"layer.{int(layer[1]):03d}" if layer else "embeddings" if low else "head"
            groups.setdefault(key, []).append(name)
    order = {"embeddings": 0, "head": 2}
    return {key: groups[key] for key in sorted(groups, key=lambda key: (order.get(key, 1), key))}
