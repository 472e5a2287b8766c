"""Laws of parity (contract, point 11): a true export passes exactly, every kind of wrong export is caught."""


import pytest

from luthier.errors import ContractError, DataError
from luthier.release import parity
from luthier.release.parity import Answers, changed_tensors, compare, export_checked, probes
from luthier.task import Task
from luthier.testing import tiny_chat_model
from luthier.types import Example, Message, Origin

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="the extra `train` is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


def examples(count=4):
    return [Example(id=f"e{number}", input=(Message(role="user", content=f"What is code {number}?"),), target="Blue.",
                    origin=Origin(maker="human", step="pairs")) for number in range(count)]


@pytest.fixture()
def trained(base, tmp_path):
    """Makes (run, model): a LoRA adapter on the base whose weights, drawn from `seed`, are not zero."""
    from luthier.adapt.base import Adapt, adapt, open_model
    from luthier.adapt.lora import LoRA
    from luthier.store import Store

    store = Store(tmp_path / "store")
    artifact = adapt(Task(), Adapt(model=str(base), method=LoRA(rank=4)), store=store)

    def make(seed=1, size=0.2):
        def fill(folder):
            model = open_model(artifact, dtype="float32")
            generator = torch.Generator().manual_seed(seed)
            tensors = {name: parameter.data for name, parameter in model.module.named_parameters()
                       if parameter.requires_grad}
            for name in tensors:
                if "lora_B" in name:
                    tensors[name] = size * torch.randn(tensors[name].shape, generator=generator)
            model.method.save(model.module, tensors, folder / "best")
            return {"best_step": 4 if size else 0}

        run = store.build("train", version=1, spec={"seed": seed, "size": size}, inputs={"model": artifact}, make=fill)
        return run, artifact

    return make


def check(trained, folder, base, dtype="float32", **more):
    settings = {"num_probes": 3, "max_new_tokens": 8, "examples": examples(), **more}
    return export_checked(*trained, folder, base=base, dtype=dtype, **settings)


def test_a_true_export_answers_with_the_same_tokens(trained, base, tmp_path):
    found = check(trained(), tmp_path / "out", base)
    assert found.identical_answers + found.near_ties == found.num_prompts == 3
    assert found.agreement == 1.0
    assert found.max_logit_difference < 1e-4 * found.max_logit
    assert 0 < found.changed_tensors < found.num_tensors, "LoRA moves the linear layers and nothing else"
    assert found.bfloat16 is not None and found.bfloat16["max_logit_difference"] > found.max_logit_difference


def test_the_exported_folder_is_a_plain_model(trained, base, tmp_path):
    """transformers alone, without PEFT or Luthier, gives the trained model's logits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from luthier.train.base import open_tuned

    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        wanted = open_tuned(*trained(), dtype="float32").module(input_ids=ids).logits
    check(trained(), tmp_path / "out", base)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.inference_mode():
        assert torch.allclose(plain(input_ids=ids).logits, wanted, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert not list((tmp_path / "out").glob("adapter*"))


@pytest.mark.parametrize("wrong", ["another run", "the base", "one layer not merged", "scaled twice"])
def test_a_wrong_export_is_caught(trained, base, tmp_path, monkeypatch, wrong):
    """Writes the wrong weights behind the check's back, as real exporters have done (LlamaFactory#9051, #10596)."""
    from safetensors.torch import load_file, save_file

    from luthier.adapt import export

    right = export.export_merged
    old = load_file(base / "model.safetensors")

    def export_wrong(run, model, folder, **options):
        right(*(trained(seed=2) if wrong == "another run" else (run, model)), folder, **options)
        file = folder / "model.safetensors"
        new = load_file(file)
        if wrong == "the base":
            new = old
        elif wrong == "one layer not merged":
            new |= {name: tensor for name, tensor in old.items() if "layers.1" in name}
        elif wrong == "scaled twice":
            new = {name: tensor + (tensor - old[name]) for name, tensor in new.items()}
        save_file(new, file, metadata={"format": "pt"})

    monkeypatch.setattr(export, "export_merged", export_wrong)
    words = "equal the base" if wrong == "the base" else "not the trained one"
    with pytest.raises(ContractError, match=words):
        check(trained(), tmp_path / "out", base)


def test_an_untrained_adapter_is_the_base(trained, base, tmp_path):
    """Lower precision changes every number a little: rounding alone must not pass for learning."""
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(ContractError, match="equal the base"):
            check(trained(size=0.0), tmp_path / dtype, base, dtype)


def test_another_template_or_stop_token_is_caught(trained, base, tmp_path, monkeypatch):
    import json

    from luthier.adapt import export

    right = export.export_merged

    def spoil(change):
        def export_spoiled(run, model, folder, **options):
            made = right(run, model, folder, **options)
            change(folder)
            return made

        monkeypatch.setattr(export, "export_merged", export_spoiled)

    def template(folder):
        (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")

    def stop(folder):
        for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
            file = folder / name
            if file.is_file():
                data = json.loads(file.read_text())
                if "eos_token_id" in data:
                    data["eos_token_id"] = 0
                if "eos_token" in data:
                    data["eos_token"] = "<|endoftext|>"
                file.write_text(json.dumps(data))

    spoil(template)
    with pytest.raises(ContractError, match="template"):
        check(trained(), tmp_path / "template", base)
    spoil(stop)
    with pytest.raises(ContractError, match="does not stop"):
        check(trained(), tmp_path / "stop", base)


def test_bfloat16_is_measured_and_not_refused(trained, base, tmp_path):
    found = check(trained(), tmp_path / "out", base, "bfloat16")
    assert found.dtype == "bfloat16" and found.bfloat16 is None
    assert 0.5 < found.agreement <= 1.0
    assert 0 < found.max_logit_difference < 0.3 * found.max_logit
    from safetensors.torch import load_file

    stored = load_file(next((tmp_path / "out").glob("*.safetensors")))
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def answers(tokens, logits):
    return Answers(prompts=[[1]], tokens=[tokens], logits=[torch.tensor(logits)], texts=["x"])


def test_a_tie_within_rounding_is_no_difference():
    """Two tokens closer than the rounding difference: which one wins is a matter of the order of sums."""
    mine = answers([0, 2], [[4.0, 3.99999, 0.0], [0.0, 0.0, 9.0]])
    theirs = answers([1, 2], [[3.99999, 4.00001, 0.0], [0.0, 0.0, 9.0]])
    found = compare(mine, theirs, dtype="float32", changed=(1, 2))
    assert (found.identical_answers, found.near_ties) == (0, 1)
    far = answers([1, 2], [[3.99999, 3.99998, 0.0], [0.0, 0.0, 9.0]])
    clear = answers([0, 2], [[4.0, 3.0, 0.0], [0.0, 0.0, 9.0]])
    with pytest.raises(ContractError, match="1 of 1 greedy answers differ"):
        compare(clear, far, dtype="float32", changed=(1, 2))


def test_logits_that_drift_are_caught_though_the_tokens_agree():
    mine = answers([0], [[4.0, 1.0]])
    with pytest.raises(ContractError, match="0 of 1 greedy answers differ, largest logit difference 0"):
        compare(mine, answers([0], [[3.9, 1.0]]), dtype="float32", changed=(1, 2))
    assert compare(mine, answers([0], [[3.9, 1.0]]), dtype="bfloat16", changed=(1, 2)).agreement == 1.0


def test_changed_tensors_counts_what_differs(tmp_path):
    from safetensors.torch import save_file

    one, two = torch.ones(2, 2), torch.zeros(3)
    for name, tensors in {"old": {"a": one, "b": two}, "same": {"a": one, "b": two},
                          "new": {"a": one, "b": two + 1, "c": one}, "prefixed": {"model.a": one, "model.b": two},
                          "rounded": {"a": one.bfloat16(), "b": two.bfloat16()}}.items():
        (tmp_path / name).mkdir()
        save_file({key: value.clone() for key, value in tensors.items()}, tmp_path / name / "model.safetensors")
    counts = {name: changed_tensors(tmp_path / name, tmp_path / "old")
              for name in ("same", "new", "prefixed", "rounded")}
    assert counts == {"same": (0, 2), "new": (2, 3), "prefixed": (0, 2), "rounded": (0, 2)}


def test_probes_do_not_depend_on_the_order_of_the_data():
    assert probes(examples(9)) == probes(list(reversed(examples(9))))
    assert probes(examples(9)) != examples(9)


def test_probes_leave_room_for_the_answer(trained, base, tmp_path):
    long = Example(id="long", input=(Message(role="user", content="word " * 240),), target="x",
                   origin=Origin(maker="human", step="pairs"))
    with pytest.raises(DataError, match="probe_tokens"):
        check(trained(), tmp_path / "out", base, examples=[long])
    assert check(trained(), tmp_path / "out", base, examples=[long, *examples()], num_probes=2).num_prompts == 2




def test_the_probe_prompt_is_what_serving_sends(base):
    """The task's system message leads, the template's assistant header ends the prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = parity.prompt_ids(tokenizer, Task(system="Be brief."), examples(1)[0])
    text = tokenizer.decode(ids)
    assert text.startswith("<|im_start|>system\nBe brief.") and text.endswith("<|im_start|>assistant\n")
    plain = Example(id="t", input="one two three four", target=None, origin=Origin(maker="document", step="text"))
    assert tokenizer.decode(parity.prompt_ids(tokenizer, Task(type="completion"), plain)) == "one two"
