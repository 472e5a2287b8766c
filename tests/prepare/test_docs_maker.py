"""Law: the maker that docs/prepare.md shows works as it stands there."""

import re
from pathlib import Path

from luthier.index.rag import Rag
from luthier.plugins import Seam
from luthier.prepare.base import MAKERS, MakeContext, Prepare
from luthier.progress import Silent
from luthier.spec import parse
from luthier.store import Cache
from luthier.task import Task
from luthier.types import Dropped, Example, Passage

PAGE = Path(__file__).parents[2] / "docs" / "prepare.md"


def test_a_local_maker_is_found_and_makes_examples(tmp_path):
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
               if block.startswith("# glossary.py"))
    (tmp_path / "glossary.py").write_text(code, "utf-8")
    spec = parse(Prepare, {"makers": [{"kind": "glossary:Glossary", "max_words": 5}]}, local=tmp_path)
    (maker,) = spec.makers
    assert isinstance(MAKERS, Seam) and maker.dump()["kind"] == "glossary:Glossary"
    passage = Passage(id="p", document="d", path="a.md", title="", heading=(), spans=(0, 1),
                      text="VAT: a tax on sales\nplain: no\nERP: " + "word " * 9)
    context = MakeContext(documents=(), passages=(passage,), task=Task(), split_of=lambda id: "train", seed=0,
                          root=tmp_path, cache=Cache(tmp_path), progress=Silent(), rag=Rag())
    made = list(maker.make(context))
    assert [type(found) for found in made] == [Example, Dropped]
    assert made[0].question == "What does VAT mean?" and made[0].target == "a tax on sales"
