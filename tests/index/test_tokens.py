"""Law: the estimate grows with the text, and 220 estimated tokens fit into the starter encoder's 256."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.index.tokens import estimate_tokens

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@given(st.text(max_size=200), st.text(max_size=200))
def test_texts_put_side_by_side_cost_the_sum(one, other):
    assert estimate_tokens(f"{one} {other}") == estimate_tokens(one) + estimate_tokens(other)


@pytest.mark.skipif(not (DATA / "medquad").is_dir(), reason="shared/data/medquad is not here")
def test_220_estimated_tokens_fit_the_encoder():
    from transformers import AutoTokenizer

    from luthier.models.sources import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("starter:encoder", purpose="encoder").folder)
    lines = (DATA / "medquad" / "test.jsonl").read_text("utf-8").splitlines()
    pieces, current = [], ""
    for word in " ".join(json.loads(line)["answer"] for line in lines).split()[:12000]:
        if estimate_tokens(f"{current} {word}") > 220:
            pieces.append(current)
            current = ""
        current = f"{current} {word}".strip()
    sizes = [len(row) for row in tokenizer(pieces)["input_ids"]]
    assert len(pieces) > 40
    assert sum(size <= 256 for size in sizes) >= 0.99 * len(sizes)
    assert max(sizes) < 300 and sum(sizes) / len(sizes) > 170  # and the estimate is not wastefully high
