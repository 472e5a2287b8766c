"""HTML: everything a person reads, in order; page furniture is left out, counted, and can be kept."""

PAGE = """<!doctype html><html lang="en"><head><title>Returns – Shop</title><meta name="description" content="How to">
<style>p {color: red}</style><script>var words = "not text";</script></head><body>
<header class="site-header"><a href="/">Home</a></header><nav><ul><li>Menu one</li><li>Menu two</li></ul></nav>
<main><h1>Returns</h1><p>You may return goods within <b>30 days</b><br>of delivery. See <a href="x">terms</a>.</p>
Loose text between blocks.
<h2>Steps</h2><ol start="3"><li>Pack<ul><li>with paper</li></ul></li><li><p>Send</p></li></ol>
<dl><dt>RMA</dt><dd>Return number.</dd><dt>DOA</dt><dt>Dead</dt><dd>Broken on arrival.</dd></dl>
<table><caption>Fees</caption><tr><th>Country</th><th>Fee</th></tr><tr><td rowspan="2">EU</td><td>5 €</td></tr>
<tr><td>7 | 8 €</td></tr></table>
<pre>curl \\
  --return</pre><blockquote><p>Great service.</p></blockquote>
<details><summary>Who pays?</summary><p>You do.</p></details>
<div class="layout"><div>Left <span>half</span></div><div>Right half</div></div>
<form><label>Search</label><button>Go</button></form></main>
<footer>Copyright Shop</footer><div class="cookie-banner">We use cookies</div></body></html>"""


def test_structure(tmp_path, read, shape):
    (tmp_path / "a.html").write_text(PAGE)
    document = read(tmp_path / "a.html")
    assert shape(document) == [
        ("heading", 1, "Returns"), ("paragraph", 0, "You may return goods within 30 days\nof delivery. See terms."),
        ("paragraph", 0, "Loose text between blocks."), ("heading", 2, "Steps"),
        ("list", 0, "3. Pack\n  - with paper\n4. Send"),
        ("list", 0, "- RMA: Return number.\n- DOA, Dead: Broken on arrival."), ("caption", 0, "Fees"),
        ("table", 0, "| Country | Fee |\n|---|---|\n| EU | 5 € |\n| EU | 7 \\| 8 € |"),
        ("code", 0, "curl \\\n  --return"), ("quote", 0, "Great service."), ("heading", 3, "Who pays?"),
        ("paragraph", 0, "You do."), ("paragraph", 0, "Left half"), ("paragraph", 0, "Right half"),
        ("paragraph", 0, "Search")]
    assert document.title == "Returns – Shop"
    assert document.meta == {"description": "How to", "language": "en", "furniture_words": 10}
    assert document.spans[0].line == 4


def test_furniture_can_be_kept(tmp_path, read):
    (tmp_path / "a.html").write_text(PAGE)
    text = read(tmp_path / "a.html", keep_furniture=True).text
    assert "Menu one" in text and "Copyright Shop" in text and "not text" not in text


def test_a_header_that_holds_the_title_stays(tmp_path, read):
    (tmp_path / "a.html").write_text("<html><body><header><h1>Title</h1></header><article><footer>By Ann</footer>"
                                     "<p>Text</p></article></body></html>")
    assert [s.text for s in read(tmp_path / "a.html").spans] == ["Title", "By Ann", "Text"]


def test_encodings_and_broken_markup(tmp_path, read):
    latin = '<html><head><meta charset="iso-8859-1"></head><p>Größe<p>Straße'
    (tmp_path / "a.html").write_bytes(latin.encode("latin-1"))
    assert [s.text for s in read(tmp_path / "a.html").spans] == ["Größe", "Straße"]
    (tmp_path / "b.html").write_bytes("<p>Größe <b>fett <i>schräg</b></p><li>Punkt".encode())
    assert read(tmp_path / "b.html").text.startswith("Größe fett schräg")
    (tmp_path / "c.html").write_bytes("<html><p>Café".encode("utf-16"))
    assert read(tmp_path / "c.html").text == "Café"


def test_layout_tables_are_text(tmp_path, read):
    (tmp_path / "a.html").write_text("<html><body><table><tr><td><h2>News</h2><p>One</p></td><td><p>Two</p></td></tr>"
                                     "</table></body></html>")
    assert [(s.kind, s.text) for s in read(tmp_path / "a.html").spans] == [
        ("heading", "News"), ("paragraph", "One"), ("paragraph", "Two")]
