"""Law: whoever reads records cannot tell a shelf in memory from one on disk, and the memory bound is kept."""

import os
import random
import tracemalloc

import pytest

from luthier.shelf import Again, Memory, view
from luthier.types import Document, Dropped, Example, Message, Origin, Passage, Span, Tag

CHAT = Example(id="1", input=(Message(role="user", content="Wie groß?\u2028 \ud800"),), target="So.", weight=0.5,
               origin=Origin(maker="human", step="pairs", documents=("d",), passages=("p", "q"), where="a.csv:2"),
               tags=("grounded",), groups={"language": "de"}, split="test")
ROWS = Example(id="2", input="Due 1 May.", target=None, origin=Origin(maker="human", step="rows"), labels=("a", "b"),
               spans=(Tag(start=4, end=9, label="date"),), negatives=("x",), image="a/b.png")
BARE = Example(id="3", input="", target="", origin=Origin(maker="rule", step="s"), spans=(), labels=())


def passage(n, words=20):
    return Passage(id=str(n), document="d", path=f"{n % 7}.md", title="T", heading=("H", "I"), text="word " * words,
                   spans=(n, n + 1), page=None if n % 2 else n)


def test_every_field_of_every_record_comes_back_from_disk():
    memory = Memory(0)
    document = Document(id="d", path="a.md", sha256="0", media="text/plain", reader="text", title="T", meta={"a": [1]},
                        spans=(Span(text="One", box=(0.0, 1.0, 2.5, 3.0), page=1), Span(text="Two", doubt="", level=1)))
    drop = Dropped(item="1", step="s", reason="r", detail="d\n", text="t")
    for shelf, records in ((memory.documents(), [document]), (memory.passages(), [passage(1), passage(2)]),
                           (memory.examples(), [CHAT, ROWS, BARE]), (memory.drops(), [drop]),
                           (memory.rows(), [{"where": "a", "page": None, "ask": ["b", "c"]}])):
        shelf.extend(records)
        assert memory.full and list(shelf) == records and type(shelf[0]) is type(records[0])
        assert [vars(one) if not isinstance(one, dict) else one for one in shelf] == [
            vars(one) if not isinstance(one, dict) else one for one in records]
    assert hash(memory.examples) and hash(CHAT.origin) == hash(Origin(**vars(CHAT.origin)))


@pytest.mark.parametrize("bound", [0, 0.02, 64])
def test_a_shelf_reads_as_a_list_does_while_it_grows_and_moves_to_disk(bound):
    rng = random.Random(0)
    shelf, plain = Memory(bound).passages(), []
    for step in range(300):
        record = passage(step, rng.randint(0, 4000) if step % 50 == 0 else 20)
        shelf.append(record)
        plain.append(record)
        if step % 10 == 0:
            at = rng.randrange(-len(plain), len(plain))
            assert shelf[at] == plain[at]
    assert list(shelf) == plain and len(shelf) == 300 and bool(shelf) and shelf == plain
    assert [(a.id, b.id) for a, b in zip(shelf, shelf)] == [(str(n), str(n)) for n in range(300)]  # two readers at once
    assert list(shelf[10:40:3]) == plain[10:40:3] and list(reversed(shelf)) == plain[::-1]
    odd = view(shelf, range(1, 300, 2))
    assert odd == plain[1::2] and odd[-1] == plain[299] and odd[2:4] == plain[5:9:2]
    assert view(odd, [3, 0])[0] == plain[7]
    with pytest.raises(IndexError):
        shelf[300]


def test_a_reader_goes_on_while_another_one_appends():
    shelf = Memory(0).passages()
    shelf.extend(map(passage, range(5)))
    seen = []
    for record in shelf:
        seen.append(record.id)
        if len(seen) < 8:
            shelf.append(passage(90 + len(seen)))
    assert seen == ["0", "1", "2", "3", "4", *(str(90 + n) for n in range(1, 8))]


def test_the_shelves_of_a_run_share_one_bound_and_leave_no_file(tmp_path):
    memory = Memory(2, tmp_path)
    one, other = memory.passages(), memory.passages()
    one.extend(map(passage, range(500)))
    assert not memory.full
    tracemalloc.start()
    other.extend(passage(n) for n in range(20_000))  # about 30 MB as objects
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory.full and len(one) == 500 and one[499] == passage(499) and other[19_999] == passage(19_999)
    assert peak < 4 * 2**20 and held < 2**20
    assert not os.listdir(tmp_path)  # nameless: nothing is left behind after kill -9


def test_what_is_thrown_away_counts_no_more():
    memory = Memory(1)
    for _ in range(20):
        shelf = memory.passages()
        shelf.extend(map(passage, range(400)))  # 0.4 MiB
        del shelf
    assert not memory.full


def test_again_is_gone_through_as_often_as_asked():
    texts = Again(lambda: (str(n) for n in range(3)))
    assert list(texts) == list(texts) == ["0", "1", "2"]
