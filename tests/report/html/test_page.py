"""The page as a file: what it holds, and that nothing in it acts."""

import base64
import csv
import hashlib
import html.parser
import io
import json
import re
import zlib

import pytest

from harness import report
from harness.report.content import Column, Label, Missing, Number, Table
from harness.report.figures import drawing
from harness.report.figures.parts import At, Axis, Panel, Series
from harness.report.formats.csv import table_csv
from harness.report.formats.json import render_json
from harness.report.html.samples import _row, pieces, worst
from harness.report.html.svg import inlined
from harness.report.html.views import table_view
from harness.running.surveying import survey
from harness.testing import tiny_tokenizer
from tests.report.html.hostile import HOSTILE, hostile_report
from tests.run_fixtures import full_row


class Reader(html.parser.HTMLParser):
    """Notes every element with its attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style"):
            self.texts.setdefault(len(self.found) - 1, data)


@pytest.fixture(scope="module")
def made(written_runs, tmp_path_factory):
    """Return a report with hostile texts, its page, and what is read in it."""
    built = hostile_report(written_runs, tmp_path_factory.mktemp("hostile"))
    page = report.render(built, "html")
    return built, page, Reader(page)


def unpacked(reader, name):
    (at,) = [i for i, (_, own) in enumerate(reader.found) if own.get("id") == name]
    return json.loads(zlib.decompress(base64.b64decode(reader.texts[at])))


def test_nothing_acts_but_the_one_program_and_nothing_is_fetched(made):
    _, _, reader = made
    for tag, attributes in reader.found:
        assert tag not in ("img", "iframe", "object", "embed", "base", "audio", "video")
        assert not [name for name in attributes if name.startswith("on")]
        assert "style" not in attributes
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert re.match("#|data:,$|$", attributes.get(name) or "")
    programs = [
        text
        for i, text in reader.texts.items()
        if reader.found[i][0] == "script" and "type" not in reader.found[i][1]
    ]
    styles = [x for i, x in reader.texts.items() if reader.found[i][0] == "style"]
    (policy,) = [
        own["content"] for tag, own in reader.found if own.get("http-equiv") is not None
    ]
    for (text,), name in ((programs, "script-src"), (styles, "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert "url(" not in styles[0]


def test_the_same_records_give_the_same_page(made):
    built, page, _ = made
    assert report.render(built, "html") == page


def test_hidden_characters_are_spelt_out_everywhere(made):
    _, page, reader = made
    samples = json.dumps(unpacked(reader, "data-samples"), ensure_ascii=False)
    for text in (page, samples):
        assert not set(text) & set("\x1b\u202e\u2066\u200b")
        assert "<U+202E>" in text.replace("&lt;", "<").replace("&gt;", ">")


def test_every_table_can_be_taken_away_in_full(made):
    built, _, reader = made
    taken = unpacked(reader, "data-exports")
    tables = json.loads(render_json(built))["tables"]
    for table in built.tables:
        found = taken[table.key]
        assert json.loads(found["json"]) == tables[table.key]
        assert f"\\label{{tab:{table.key}}}" in found["tex"]
        lines = list(csv.DictReader(io.StringIO(found["csv"])))
        assert len(lines) == len(table.rows)
        for line, row in zip(lines, table.rows, strict=True):
            for column, cell in zip(table.columns, row, strict=True):
                if isinstance(cell, Number):
                    assert float(line[column.name]) == cell.value
                    if cell.interval:
                        bounds = line[f"{column.name} low"], line[f"{column.name} high"]
                        assert tuple(map(float, bounds)) == cell.interval


def test_long_settings_take_several_lines_and_names_break_at_their_parts(made):
    page = made[1]
    assert '<td class=" long">adapter pythia' in page
    assert "<td>perplexity.<wbr>token_<wbr>perplexity</td>" in page
    assert re.search(r"CPU of \d+ cores and [\d.]+ GiB", page)
    assert "memory_bytes" not in page.partition("Provenance")[2]


def test_csv_has_a_column_for_each_part_of_a_number():
    columns = [Column("a", Label), Column("x", Label, "g")]
    rows = [
        [Label('say "a, b"'), Number(1.5, "nats", std=0.25)],
        [Label("b"), Number(2.0, "nats", interval=(1.0, 3.0))],
        [Label("c"), Missing("failed")],
    ]
    made = table_csv(Table("key", "title", columns, rows, "caption"))
    assert made.splitlines() == [
        "a,g: x,g: x sd,g: x low,g: x high,g: x reason",
        '"say ""a, b""",1.5,0.25,,,',
        "b,2.0,,1.0,3.0,",
        "c,,,,,failed",
    ]


def test_samples_are_the_worst_of_all_cells(make_run):
    results = report.build(survey(make_run(errors=2))).results
    cells = [results.cell(x) for x in results.records if x.kind == "cell"]
    deltas = [row.delta_loss for cell in cells for row in cell.rows]
    found = worst(results, 50)
    assert found.total == len(deltas) == 320
    known = sorted((x for x in deltas if x is not None), reverse=True)
    assert [row.delta_loss for _, row in found.rows] == known[:50]
    every = worst(results)
    assert [row.delta_loss for _, row in every.rows][-16:] == [None] * 16


def test_pieces_of_tokens_make_up_their_text(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "the model sees a text\twith tabs, and two  spaces"
    ids = tokenizer(text)["input_ids"]
    found = pieces(tmp_path / "tokenizer.json", ids)
    assert "".join(found[x] for x in ids) == text.replace("\t", r"\t")
    part, *_ = tokenizer("\u00e9")["input_ids"]  # a token is half of it
    name = tokenizer.convert_ids_to_tokens(part)
    assert pieces(tmp_path / "tokenizer.json", [part]) == {part: name}


def test_tokens_without_a_text_are_left_to_their_numbers(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{spoilt")
    assert pieces(path, [1]) == {}
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.save(str(path))
    assert set(pieces(path, [-1, 5, len(tokenizer), 2**70])) == {5}


def test_samples_are_no_more_than_a_browser_holds(make_run, monkeypatch):
    results = report.build(survey(make_run(seeds=[1]))).results
    whole = worst(results, 9)
    assert len(whole.rows) == 9
    # Each has two prompts of 8 tokens, and 4 reference tokens with two losses.
    monkeypatch.setattr("harness.report.html.samples.MOST_NUMBERS", 3 * 28 + 27)
    assert worst(results, 9).rows == whole.rows[:3]


def test_a_run_without_records_has_a_page(make_run):
    page = report.render(
        report.build(survey(make_run(seeds=[1], absent=("Pythia",)))), "html"
    )
    assert "MISSING" in page
    assert 'id="samples"' not in page
    assert 'id="figures"' not in page


def test_a_drawing_becomes_part_of_the_page():
    names = [f"<script>{i}</script>" for i in range(2)]
    lines = [Series("a", [At(0, 0, 0, 1), At(1, 1, 0, 2)])]
    panel = Panel("", Axis("x"), Axis(""), lines, rows=names)
    made = inlined(drawing.panel_svg(panel), "own", 'said "so"')
    assert made.startswith('<svg viewBox="0 0 ')
    assert 'aria-label="said &quot;so&quot;"' in made
    assert "<style" not in made
    assert "style=" not in made
    assert names[0] not in made
    assert "&lt;script&gt;0&lt;/script&gt;" in made
    ids = re.findall(r'\bid="([^"]+)"', made)
    assert ids
    assert all(name.startswith("own-") for name in ids)
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', made)) == set(ids)
    assert "#0072b2" not in made
    assert "var(--c0)" in made


def test_intervals_are_drawn_on_the_scale_of_their_column():
    columns = [Column("a", Label), Column("x", Label)]
    numbers = [
        Number(0.0, "nats", signed=True, interval=(-1.0, 1.0)),
        Number(2.0, "nats", signed=True, interval=(1.0, 3.0)),
    ]
    rows = [[Label("a"), number] for number in numbers]
    shown = table_view(Table("key", "title", columns, rows, "caption")).rows
    first, second = (row[1].spark for row in shown)
    # From -1 to 3 on 56 units: 14 a nat.
    assert 'd="M0.0 5H28.0"' in first
    assert 'd="M28.0 5H56.0"' in second
    assert 'cx="42.0"' in second
    assert first.count('d="M14.0 0V10"') == second.count('d="M14.0 0V10"') == 1
    assert shown[0][1].spread == "[\u22121.00, +1.00]"


def test_the_page_is_written_into_the_run_folder(cli, made, monkeypatch, tmp_path):
    monkeypatch.setattr("harness.report.build", lambda *told: made[0])
    monkeypatch.setattr("harness.report.render", lambda *told, **_: f"<p>{told[1]}</p>")
    run = made[0].results.survey.folder.root
    outcome = cli("report", run, "--format", "html")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == f"written to {run / 'report' / 'report.html'}\n"
    assert (run / "report" / "report.html").read_text() == "<p>html</p>"
    elsewhere = tmp_path / "page.html"
    assert cli("report", run, "--format", "html", "-o", elsewhere).code == 0
    assert elsewhere.read_text() == "<p>html</p>"


def test_hostile_texts_are_in_the_report_at_all(made):
    built = made[0]
    assert HOSTILE in built.warnings[0]


@pytest.mark.parametrize(
    ("steps", "by"),
    [
        ([{"step": 1, "passes": 9, "loss": 2.5}] * 2, "passes"),
        ([{"step": 1, "loss": 2.5}, {"step": 2, "passes": 9, "loss": 2.5}], "step"),
        (
            [
                {"step": HOSTILE, "loss": 1.0},
                *({"step": n, "loss": 2.5} for n in (1, 2)),
            ],
            "step",
        ),
        ([{"step": 1, "loss": HOSTILE}, {"step": 2, "loss": True}, {"step": 3}], None),
        ([{"step": 1, "loss": 2.5}], None),
    ],
)
def test_the_course_of_a_search_is_its_losses_by_what_was_spent(steps, by):
    row = full_row(1, 2.0, 0.6).model_copy(update={"trace": steps})
    course = _row(0, row).get("course")
    assert (course and course["by"]) == by
    key = by or "step"
    assert course is None or course["points"] == [
        [step[key], 2500] for step in steps if step["loss"] == 2.5
    ]


def test_a_long_course_keeps_its_ends():
    steps = [{"step": n, "loss": n / 1000} for n in range(1000)]
    row = full_row(1, 2.0, 0.6).model_copy(update={"trace": steps})
    points = _row(0, row)["course"]["points"]
    assert len(points) <= 65
    assert (points[0], points[-1]) == ([0, 0], [999, 999])
