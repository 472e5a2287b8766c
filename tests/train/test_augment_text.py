"""Text augmentations: they keep what they promise, come from their generator alone, and depend on their files."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from data_kit import encoder, topics, trained

from luthier.errors import DataError, SpecError
from luthier.spec import parse
from luthier.store import Cache
from luthier.train.augments import AUGMENTS, Setting, ready
from luthier.train.augments.back_translation import BackTranslation
from luthier.train.augments.counterfactual import Counterfactual
from luthier.train.augments.neighbours import Neighbours, read_vectors
from luthier.train.augments.synonyms import Synonyms
from luthier.train.augments.word_dropout import WordDropout
from luthier.train.augments.word_noise import WordNoise
from luthier.train.base import Train

TEXT = "Where is my new card? I ordered it 12 days ago, and NOTHING has come so far."


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed) or [0])


def setting(tmp_path, texts=(TEXT,), model=None) -> Setting:
    return Setting(root=tmp_path, model=model, texts=texts, cache=Cache(tmp_path / "cache"))  # type: ignore[arg-type]


def test_every_text_augmentation_is_registered_and_reads_text():
    kinds = {kind for kind, cls in AUGMENTS.kinds().items() if cls.reads == "text"}  # type: ignore[attr-defined]
    assert kinds >= {"word_dropout", "word_noise", "synonyms", "neighbours", "back_translation", "counterfactual"}


@pytest.mark.parametrize("one", [WordDropout(share=0.3), WordNoise(share=0.5)], ids=lambda one: one.kind)
def test_the_same_generator_gives_the_same_text_and_another_one_another(one):
    assert one.apply(TEXT, rng(1)) == one.apply(TEXT, rng(1))
    assert len({one.apply(TEXT, rng(seed)) for seed in range(20)}) > 10


@pytest.mark.parametrize("one", [WordDropout(share=0), WordNoise(share=0)], ids=lambda one: one.kind)
def test_a_share_of_nothing_changes_nothing(one):
    assert all(one.apply("two  spaces\tand a tab", rng(seed)) == "two  spaces\tand a tab" for seed in range(5))


def test_word_dropout_leaves_out_its_share_in_order_and_never_everything():
    words = [f"w{n}" for n in range(200)]
    kept = WordDropout(share=0.25).apply(" ".join(words), rng()).split()
    assert 0.15 < 1 - len(kept) / 200 < 0.35
    assert kept == [word for word in words if word in set(kept)]
    assert all(WordDropout(share=0.99).apply("a b c", rng(seed)) for seed in range(50))
    assert WordDropout(share=0.9).apply("alone", rng()) == "alone"


def test_word_noise_makes_one_mistake_a_word_and_spares_digits_signs_and_short_words():
    noisy = WordNoise(share=1).apply(TEXT, rng(3)).split()
    for before, after in zip(TEXT.split(), noisy, strict=True):
        letters = before.strip("?,.")
        if len(letters) < 4 or not letters.isalpha():
            assert after == before
        else:
            assert abs(len(after) - len(before)) <= 1 and after[0] == before[0]
    assert noisy != TEXT.split()


def test_word_noise_knows_no_alphabet():
    assert WordNoise(share=1).apply("Здравствуйте", rng(2)) != "Здравствуйте"
    assert WordNoise(share=1).apply("", rng()) == ""


def test_synonyms_swap_words_and_phrases_within_their_group_and_keep_the_case(tmp_path):
    (tmp_path / "words.txt").write_text("# ours\ncard, piece of plastic\nordered,requested\n", "utf-8")
    one = ready([Synonyms(path="words.txt", share=1)], setting(tmp_path))[0]
    assert one.apply("My CARD, my cards: Ordered a piece  of plastic", rng()) == \
        "My PIECE OF PLASTIC, my cards: Requested a card"


@pytest.mark.parametrize(("content", "said"), [
    ("card, bank card\nlonely\n", "words.txt:2: 1 different entries"), ("# nothing\n", "holds no line to use")])
def test_a_list_that_does_not_fit_is_refused_with_its_line(tmp_path, content, said):
    (tmp_path / "words.txt").write_text(content, "utf-8")
    with pytest.raises(DataError, match=said):
        ready([Synonyms(path="words.txt")], setting(tmp_path))
    with pytest.raises(DataError, match=r"there is no file .*other\.txt"):
        ready([Synonyms(path="other.txt")], setting(tmp_path))


def test_counterfactuals_swap_all_words_of_a_text_at_once_both_ways(tmp_path):
    (tmp_path / "pairs.txt").write_text("he, she\nhis, her\nJohn,Mary\n", "utf-8")
    one = ready([Counterfactual(path="pairs.txt", chance=1)], setting(tmp_path))[0]
    assert one.apply("He told Mary she has HIS key, theatre", rng()) == "She told John he has HER key, theatre"
    half = ready([Counterfactual(path="pairs.txt")], setting(tmp_path))[0]
    swapped = sum(half.apply("he", rng(seed)) == "she" for seed in range(400))
    assert 160 < swapped < 240
    (tmp_path / "pairs.txt").write_text("he, she, they\n", "utf-8")
    with pytest.raises(DataError, match=r"pairs\.txt:1: 3 different entries"):
        ready([Counterfactual(path="pairs.txt")], setting(tmp_path))


def test_neighbours_come_from_a_file_of_word_vectors(tmp_path):
    (tmp_path / "glove.txt").write_text("card 1 0 0\nvisa 0.9 0.1 0\nloan 0 1 0\nnew 0 0 1\n3d 1 1 1\n", "utf-8")
    one = ready([Neighbours(path="glove.txt", share=1, least=0.5)], setting(tmp_path))[0]
    assert one.apply("My New Card, a loan", rng()) == "My New Visa, a loan"  # nothing is near enough to the others
    (tmp_path / "w2v.txt").write_text("2 3\ncard 1 0 0\nvisa 0.9 0.1 0\n", "utf-8")
    assert read_vectors(tmp_path / "w2v.txt")[0] == ["card", "visa"]
    (tmp_path / "bad.txt").write_text("card 1 0 0\nvisa 1 0\n", "utf-8")
    with pytest.raises(DataError, match=r"bad\.txt:2: 'visa' has 2 numbers"):
        read_vectors(tmp_path / "bad.txt")


def test_neighbours_without_a_file_are_the_models_own_whole_words(tmp_path):
    from luthier.adapt.base import Adapt, adapt
    from luthier.adapt.labelled import open_label_model
    from luthier.store import Store
    from luthier.task import Task

    base = adapt(Task(type="classify"), Adapt(model=str(encoder(tmp_path / "bert"))), store=Store(tmp_path / "store"))
    model = open_label_model(base, ["a", "b"])
    one = ready([Neighbours(share=1, least=-1)], setting(tmp_path, texts=["card loan zebra"], model=model))[0]
    changed = one.apply("Card loan zebra", rng()).split()
    assert changed[0] != "Card" and changed[0][0].isupper() and changed[1] != "loan" and changed[2] == "zebra"


class Translator(BaseHTTPRequestHandler):
    asked = 0

    def do_POST(self):
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        text = prompt.partition("\n\n")[2]
        said = f"<{text}>" if "into German" in prompt else text.strip("<>").replace("new card", "replacement card")
        data = json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


def test_back_translation_asks_the_named_endpoint_once_a_text_and_keeps_the_answers(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Translator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        spec = BackTranslation(base_url=f"http://127.0.0.1:{server.server_port}/v1", model="any", chance=1)
        one = ready([spec], setting(tmp_path, texts=[TEXT, "unchanged"]))[0]
        assert one.apply(TEXT, rng()) == TEXT.replace("new card", "replacement card")
        assert one.apply("unchanged", rng()) == "unchanged" and Translator.asked == 4
        again = ready([spec], setting(tmp_path, texts=[TEXT, "unchanged"]))[0]
        assert again.apply(TEXT, rng()) == one.apply(TEXT, rng()) and Translator.asked == 4
    finally:
        server.shutdown()


def test_back_translation_is_refused_without_an_address():
    with pytest.raises(SpecError, match="base_url"):
        parse(Train, {"augments": [{"kind": "back_translation", "model": "any"}]})


def test_a_changed_list_is_another_training_and_an_equal_one_is_found_again(tmp_path):
    rows = topics(labelled=30)
    (tmp_path / "words.txt").write_text("card, visa\n", "utf-8")
    settings = {"augments": (Synonyms(path="words.txt", share=0.5), WordDropout()), "epochs": 1}
    first = trained(tmp_path, rows, **settings)
    assert not trained(tmp_path, rows, **settings).fresh
    assert first.inputs["files"].keys() == {"0.synonyms"}
    (tmp_path / "words.txt").write_text("card, plastic\n", "utf-8")
    assert trained(tmp_path, rows, **settings).id != first.id


def test_the_counterfactual_strategy_adds_twins_of_the_rows_that_name_a_pair(tmp_path):
    from luthier.train.strategies.counterfactual import CounterfactualTwins

    rows = topics(labelled=30)
    (tmp_path / "pairs.txt").write_text("visa, pin\n", "utf-8")
    naming = sum("visa" in str(row.input).split() or "pin" in str(row.input).split() for row in rows[:30])
    twins = trained(tmp_path, rows, strategy=CounterfactualTwins(path="pairs.txt")).summary
    assert 0 < twins["twins"] <= naming and twins["train_examples"] == 30 + twins["twins"]
