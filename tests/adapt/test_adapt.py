"""Law: adapt chooses a fit model, its template and its stop token, and says in one sentence why one is unfit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from luthier.adapt.base import METHODS, Adapt, adapt, open_base, open_model, read_facts  # noqa: E402
from luthier.adapt.full import Full  # noqa: E402
from luthier.adapt.lora import LoRA  # noqa: E402
from luthier.adapt.template import render_text  # noqa: E402
from luthier.errors import ModelError  # noqa: E402
from luthier.spec import parse  # noqa: E402
from luthier.store import Store  # noqa: E402
from luthier.task import Task  # noqa: E402
from luthier.testing import check_spec, tiny_chat_model  # noqa: E402
from luthier.types import Message  # noqa: E402

TURNS = (Message(role="user", content="q"), Message(role="assistant", content="a"))


@pytest.fixture()
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.mark.parametrize("method", [LoRA(), LoRA(rank=4, targets=("q_proj",), layers=1), Full(), Full(layers=1)])
def test_methods_conform(method):
    check_spec(METHODS, method)


def test_own_template_and_stop_token(tmp_path, store):
    tiny_chat_model(tmp_path / "m")
    facts = read_facts(adapt(Task(), Adapt(model=str(tmp_path / "m")), store=store))
    assert facts["template_note"] == "the model's own" and facts["stop_tokens"] == ["<|im_end|>"]


def test_a_base_model_is_given_a_template_that_ends_with_its_own_token_and_told_so(tmp_path, store):
    tiny_chat_model(tmp_path / "m", template=False)
    artifact = adapt(Task(), Adapt(model=str(tmp_path / "m")), store=store)
    model = open_base(artifact)
    assert "base model" in model.template_note and "<|endoftext|>" in model.template_note
    assert model.stop_ids == (model.tokenizer.eos_token_id,) == (0,)
    assert render_text(model.tokenizer, TURNS, prompt=False) == \
        "<|im_start|>user\nq<|endoftext|>\n<|im_start|>assistant\na<|endoftext|>\n"


def test_a_template_file_replaces_the_own_and_reaches_the_id(tmp_path, store):
    tiny_chat_model(tmp_path / "m")
    (tmp_path / "t.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}<|endoftext|>{% endfor %}"
                                      "{% if add_generation_prompt %}[assistant] {% endif %}")
    spec = Adapt(model="m", template="t.jinja")
    first = adapt(Task(), spec, store=store, root=tmp_path)
    model = open_base(first)
    assert model.stop_ids[0] == 0 and render_text(model.tokenizer, TURNS, prompt=False).startswith("[user] q")
    (tmp_path / "t.jinja").write_text((tmp_path / "t.jinja").read_text().replace("[user]", "(user)") + " ")
    assert adapt(Task(), spec, store=store, root=tmp_path).id != first.id


def test_the_same_model_elsewhere_has_the_same_id_and_a_changed_one_another(tmp_path, store):
    tiny_chat_model(tmp_path / "m")
    first = adapt(Task(), Adapt(model="m"), store=store, root=tmp_path)
    assert not adapt(Task(), Adapt(model="m"), store=store, root=tmp_path).fresh
    tiny_chat_model(tmp_path / "m", seed=1)
    with pytest.raises(ModelError, match="changed since"):
        open_base(first)
    assert adapt(Task(), Adapt(model="m"), store=store, root=tmp_path).id != first.id


def change(folder, file, **changes):
    data = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**data, **changes}))


def test_an_encoder_is_refused(tmp_path, store):
    folder = tiny_chat_model(tmp_path / "m")
    change(folder, "config.json", architectures=["BertModel"], model_type="bert")
    with pytest.raises(ModelError, match="BertModel, not a causal language model"):
        adapt(Task(), Adapt(model=str(folder)), store=store)


def test_a_model_without_tokenizer_is_refused(tmp_path, store):
    folder = tiny_chat_model(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        adapt(Task(), Adapt(model=str(folder)), store=store)


def test_a_template_without_stop_token_is_refused(tmp_path, store):
    folder = tiny_chat_model(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                                                "{% if add_generation_prompt %}assistant: {% endif %}")
    with pytest.raises(ModelError, match="no stop token"):
        adapt(Task(), Adapt(model=str(folder)), store=store)


def test_unknown_lora_targets_are_named_with_what_there_is(tmp_path, store):
    tiny_chat_model(tmp_path / "m")
    artifact = adapt(Task(), Adapt(model=str(tmp_path / "m"), method=LoRA(targets=("c_attn",))), store=store)
    with pytest.raises(ModelError, match=r"c_attn.*q_proj"):
        open_model(artifact)


def names(tmp_path, store, method, **model):
    if not (tmp_path / "m").exists():
        tiny_chat_model(tmp_path / "m", layers=3, **model)
    found = open_model(adapt(Task(), Adapt(model=str(tmp_path / "m"), method=method, dtype="float32"), store=store))
    return found, [name for group in found.groups.values() for name in group]


def test_lora_trains_pairs_beside_every_linear_layer_but_the_output(tmp_path, store):
    model, found = names(tmp_path, store, LoRA(rank=4))
    assert len(found) == 3 * 7 * 2 and list(model.groups) == ["layer.000", "layer.001", "layer.002"]
    assert all("lora_" in name for name in found) and "lm_head" not in str(found)


def test_targets_and_top_layers_narrow_lora(tmp_path, store):
    model, found = names(tmp_path, store, LoRA(rank=4, targets=("q_proj", "v_proj"), layers=2))
    assert len(found) == 2 * 2 * 2 and list(model.groups) == ["layer.001", "layer.002"]


def test_lora_fits_gpt2(tmp_path, store):
    model, found = names(tmp_path, store, LoRA(rank=4), family="gpt2")
    assert len(found) == 3 * 4 * 2 and model.module is not None


def test_full_trains_everything_once_and_top_layers_only_the_top(tmp_path, store):
    model, found = names(tmp_path, store, Full())
    assert list(model.groups) == ["embeddings", "layer.000", "layer.001", "layer.002", "head"]
    assert len(found) == len(set(found)) == sum(1 for _ in model.module.parameters())
    model, found = names(tmp_path, store, Full(layers=1))
    assert list(model.groups) == ["layer.002", "head"] and "embed" not in str(found)


def test_the_seed_draws_the_adapter(tmp_path, store):
    tiny_chat_model(tmp_path / "m")
    artifact = adapt(Task(), Adapt(model=str(tmp_path / "m")), store=store)
    state = torch.random.get_rng_state()
    a, b, c = (open_model(artifact, seed=seed).module.state_dict() for seed in (1, 1, 2))
    key = next(key for key in a if "lora_A" in key)
    assert torch.equal(a[key], b[key]) and not torch.equal(a[key], c[key])
    assert torch.equal(state, torch.random.get_rng_state())


def test_yaml_kinds_and_typos():
    assert parse(Adapt, {"method": {"kind": "lora", "rank": 4}}).method == LoRA(rank=4)
    assert parse(Adapt, {"method": "full"}).method == Full()
    with pytest.raises(Exception, match="did you mean 'rank'"):
        parse(Adapt, {"method": {"kind": "lora", "rnak": 4}})


def test_specs_import_without_torch():
    code = ("import sys; from luthier.adapt.base import METHODS, Adapt; METHODS.kinds(); Adapt()\n"
            "from luthier.train.base import REGULARIZERS, Train; REGULARIZERS.kinds(); Train()\n"
            "Train.model_json_schema(), Adapt.model_json_schema()\n"
            "print([m for m in ('torch', 'transformers', 'peft', 'accelerate') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
