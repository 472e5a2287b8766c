"""Markdown: blocks with the line they start on; markup goes, words stay."""

TEXT = """---
title: Install guide
tags: [a, b]
---
# Install *fast*

Read the [manual](http://x) first,
then `run` it. ![screenshot of the window](a.png)

1. one
2. two
   - inner

| Option | Use |
|---|---|
| `-v` | more \\| text |

```sh
make  install
```

> Careful!

<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr></table>

Heading two
-----------
"""


def test_structure(tmp_path, read):
    (tmp_path / "a.md").write_text(TEXT)
    document = read(tmp_path / "a.md")
    assert [(s.line, s.kind, s.level, s.text) for s in document.spans] == [
        (5, "heading", 1, "Install fast"),
        (7, "paragraph", 0, "Read the manual first, then run it. screenshot of the window"),
        (10, "list", 0, "1. one\n2. two\n  - inner"),
        (14, "table", 0, "| Option | Use |\n|---|---|\n| -v | more \\| text |"),
        (18, "code", 0, "make  install"), (22, "quote", 0, "Careful!"),
        (24, "table", 0, "| a | b |\n|---|---|\n| 1 | 2 |"), (26, "heading", 2, "Heading two")]
    assert document.title == "Install guide" and document.meta["tags"] == "['a', 'b']"


def test_front_matter_that_is_none_stays_text(tmp_path, read):
    (tmp_path / "a.md").write_text("---\n: : [\n---\n\nText\n")
    assert "Text" in read(tmp_path / "a.md").text
    (tmp_path / "b.md").write_text("---\njust a line\n---\n\nText\n")
    assert "just a line" in read(tmp_path / "b.md").text


def test_deep_nesting_ends(tmp_path, read):
    (tmp_path / "a.md").write_text(">" * 3000 + " deep\n\n" + "[" * 5000 + "\n\nlast words\n")
    assert "last words" in read(tmp_path / "a.md").text
