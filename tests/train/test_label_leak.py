"""Contract point 7 for labelled rows: a group on both sides is a leak, and so are equal words."""

from luthier.prepare.base import TOGETHER
from luthier.train.labelled.checks import check_row_leak
from luthier.types import Example, Origin


def row(text, number, split, **groups):
    return Example(id=f"r{number}", input=text, target=None, labels=("a",), split=split, groups=groups,
                   origin=Origin(maker="human", step="rows", documents=(), where=f"data.csv:{number}"))


def test_rows_of_one_group_on_both_sides_are_a_leak(tmp_path):
    train = [row("where is my bike", 2, "train", **{TOGETHER: "customer=C1"})]
    held = [row("what does a tube cost", 3, "test", **{TOGETHER: "customer=C1"})]
    found = check_row_leak(train, held, root=tmp_path)
    assert found.state == "violated" and "data.csv:3" in found.text
    other = [row("what does a tube cost", 3, "test", **{TOGETHER: "customer=C2"})]
    assert check_row_leak(train, other, root=tmp_path).state == "kept"


def test_the_same_words_on_both_sides_are_a_leak(tmp_path):
    found = check_row_leak([row("Where is my bike?", 2, "train")], [row("where is MY bike", 3, "test")], root=tmp_path)
    assert found.state == "violated" and "data.csv:2" in found.text
