"""`luthier weak` and `luthier triage` say what a person needs, and what to do where nothing is set up."""

import json

from typer.testing import CliRunner

from luthier.cli import app

runner = CliRunner()
RULES = """
task: {type: classify}
prepare:
  makers: [{kind: rows, path: rows.csv}]
  weak:
    labelers:
      - kind: rules
        rules: [{label: card, any_of: [card]}, {label: loan, any_of: [loan]}]
"""


def test_weak_prepares_and_shows_every_source(tmp_path):
    (tmp_path / "luthier.yaml").write_text(RULES)
    rows = [f"row {at} about my {('card', 'loan')[at % 2]},{('card', 'loan')[at % 2] if at < 40 else ''}"
            for at in range(80)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    told = runner.invoke(app, ["weak", "-C", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert "card: card" in told.output and "Labelled 40 of 40 rows" in told.output
    found = json.loads(runner.invoke(app, ["weak", "-C", str(tmp_path), "--json"]).stdout)
    assert found["labelled"] == 40 and [row["source"] for row in found["sources"]] == ["card: card", "loan: loan"]


def test_nothing_set_up_is_one_sentence(tmp_path):
    (tmp_path / "luthier.yaml").write_text("task: {type: classify}\n")
    for command, said in ((["weak"], "names nothing that labels rows"), (["triage", str(tmp_path)], "nothing to look"),
                          (["triage", str(tmp_path / "no")], "no such file or folder")):
        told = runner.invoke(app, [*command, "-C", str(tmp_path)])
        assert told.exit_code != 0 and said in str(told.exception), command
