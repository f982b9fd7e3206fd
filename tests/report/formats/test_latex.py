"""LaTeX for a paper: it compiles, fits, and says what it says in the field's way."""

import re
import shutil
import string
import subprocess
from pathlib import Path

import matplotlib as mpl
import pytest

from harness import report
from harness.report.content import Column, Label, Missing, Number, Report, Table
from harness.report.formats.latex import PACKAGES, WIDTH_PT, render_latex
from harness.report.formats.latex_words import escape, points, words
from harness.running.surveying import survey

TEX = shutil.which("pdflatex") or shutil.which("tectonic")
needs_tex = pytest.mark.skipif(
    TEX is None, reason="no pdflatex, no tectonic (Debian: texlive-science)"
)
TITLES = ("arm", "loss", "said", "limit")
LONG = {
    "seeds": [1, 2, 3],
    "arms": "  an-arm_with.a-very-long_name-of-42: {constraint: softplus}",
    "attacks": "\n".join(f"  hotflip_{i}: {{attack: hotflip}}" for i in range(4)),
    "errors": 3,
    "control_flops": 0.5,
    "failed": ("monotone.s1.hotflip_2",),
}


def long_story():
    arms = ("baseline", "monotone", "an-arm_with.a-very-long_name-of-42")
    attacks = ("hotflip", "random", *(f"hotflip_{i}" for i in range(4)))
    losses = {(arm, x): 0.5 + 0.1 * i for arm in arms for i, x in enumerate(attacks)}
    return LONG | {"clean_loss": dict.fromkeys(arms, 2.5), "delta_loss": losses}


def compiled(tmp_path: Path, body: str, options: str) -> str:
    """Compile a document that holds what a report printed; return TeX's log."""
    (needs,) = re.findall(r"^% (\\usepackage\{.*\})$", body, re.MULTILINE)
    file = tmp_path / "paper.tex"
    lines = [rf"\documentclass[{options}]{{article}}", needs, r"\begin{document}", body]
    file.write_text("\n".join([*lines, r"\end{document}"]), encoding="utf-8")
    assert TEX is not None
    flags = ["--keep-logs"] if "tectonic" in TEX else ["-interaction=nonstopmode"]
    made = subprocess.run(
        [TEX, *flags, file.name], cwd=tmp_path, capture_output=True, check=False
    )
    log = file.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    assert made.returncode == 0, re.findall(r"^!.*\n.*", log, re.MULTILINE)
    return log


@needs_tex
@pytest.mark.parametrize(
    ("width", "options"), [("column", "twocolumn"), ("page", ""), ("page", "twocolumn")]
)
def test_tables_compile_and_are_no_wider_than_asked(make_run, tmp_path, width, options):
    made = report.build(survey(make_run(**long_story())))
    log = compiled(tmp_path, report.render(made, "latex", width), options)
    assert "Overfull \\hbox" not in log
    assert "Float too large" not in log
    assert "Missing character" not in log


@needs_tex
def test_a_table_that_ignores_the_width_is_noticed(make_run, tmp_path):
    made = report.build(survey(make_run(**long_story())))
    wide = report.render(made, "latex", "page").replace("table*", "table")
    assert "Overfull \\hbox" in compiled(tmp_path, wide, "twocolumn")


def one_table(*cells, title="A title", **more):
    columns = [Column("arm", Label), *(Column(f"c{i}", Label) for i in cells)]
    rows = [[Label("a"), *cells]]
    return Report("r", [], [], [Table("key", title, columns, rows, "", **more)])


@needs_tex
@pytest.mark.parametrize(
    "text",
    [
        string.punctuation,
        "[begins an argument] *",
        "Monotone (ours, β=0.5, Δ) · W ≥ 0 → é ß",
        "x" * 80,
        r"\input{/etc/passwd} \end{document} $$ %",
    ],
)
def test_whatever_a_label_holds_is_printed(tmp_path, text):
    columns = [Column(text, Label), Column(text, Label, text), Column("c", Label)]
    cells = [Label(text), Missing(text), Label(text, alarm=True)]
    table = Table("key", text[:20], columns, [cells], "", [text], summary=text[:20])
    log = compiled(tmp_path, render_latex(Report("r", [], [text], [table])), "")
    assert "Overfull \\hbox" not in log
    assert "Missing character" not in log


# --- numbers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (Number(53.29, "perplexity", std=0.41), r"\num{53.3} $\pm$ \num{0.4}"),
        (
            Number(-0.01, "nats", signed=True, interval=(-0.18, 0.17)),
            r"\num{-0.01} {[}\num{-0.18}, \num{+0.17}]",
        ),
        (Number(0.177, "fraction", signed=True), "+17.7"),
        (Number(5.01e9, "flops"), "5.01e9"),
        (Number(65536, "count"), "65536"),
        (Number(1.1e6, "parameters"), r"\num{1.1}M"),
        (Number(0.0001, "p"), r"{\ensuremath{<}\num{0.001}}"),
        (
            Number(0.75, "share", interval=(0.6, 0.9), mark="†"),
            r"\num{75} {[}\num{60}, \num{90}]\textsuperscript{$\dagger$}",
        ),
        (
            Number(12.0, "perplexity", n=1, planned=5),
            r"\num{12.00} (n=\num{1} of \num{5})",
        ),
    ],
)
def test_numbers_are_siunitx(number, shown):
    made = render_latex(one_table(number, Number(0.5, "p")))
    (row,) = re.findall(r"^a & (.*?) & 0\.500 \\\\$", made, re.MULTILINE)
    assert row == shown


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        ([1.5, 12.25], "S[table-format=2.4]"),
        ([-1.5, 0.25], "S[table-format=+1.4]"),
    ],
)
def test_plain_numbers_are_aligned_at_their_points(values, spec):
    rows = [[Label("a"), Number(value, "number")] for value in values]
    columns = [Column("arm", Label), Column("value", Label)]
    made = render_latex(
        Report("r", [], [], [Table("key", "T", columns, rows, "caption")])
    )
    assert rf"\begin{{tabular}}{{@{{}}l{spec}@{{}}}}" in made
    assert "arm & {value} \\\\" in made


def test_a_long_reason_makes_no_column_of_numbers_wide():
    number, reason = Number(0.5, "nats", interval=(0.4, 0.6)), Missing("why " * 20)
    columns = [Column("arm", Label), Column("dL", Label)]
    rows = [[Label("a"), number], [Label("b"), reason]]
    made = render_latex(Report("r", [], [], [Table("key", "T", columns, rows, "")]))
    (wide,) = re.findall(r"\\parbox\[t\]\{(\d+)pt\}\{\\raggedleft \\emph", made)
    assert 60 <= int(wide) < points("0.50 [0.40, 0.60]") + 10
    assert "resizebox" not in made


@needs_tex
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext")
def test_thousands_have_commas_and_decimals_none(tmp_path):
    number = Number(65536.0, "count"), Number(53.721137, "nats", std=1e-6)
    compiled(tmp_path, render_latex(one_table(*number)), "")
    command = ["pdftotext", "-layout", "paper.pdf", "-"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert re.search(rb"65,536 +53\.721137 \xc2\xb1 0\.000001", text.stdout)


def test_a_unit_that_all_numbers_have_is_in_the_heading():
    made = render_latex(one_table(Number(0.5, "fraction"), Missing("failed")))
    assert r"(\%)}" in made
    assert r"a & 50.0 & \emph{failed} \\" in made


# --- words --------------------------------------------------------------------------


def test_captions_have_a_sentence_or_two_and_name_no_file(make_run):
    made = report.build(survey(make_run(**long_story())))
    captions = re.findall(r"\\caption\{(.*)\}$", report.render(made, "latex"), re.M)
    assert len(captions) >= len(made.tables)
    for caption in captions:
        assert len(re.findall(r"[.;](?: |$)", caption)) <= 3, caption  # title included
        assert not re.search(r"\w\.(csv|json|md|txt|yaml)\b|\bdL\b", caption), caption
    assert sum(r"$\Delta L$" in caption for caption in captions) > 3


def test_words_are_typeset():
    assert words("dL at 95 % of odL-dL") == r"$\Delta L$ at 95\,\% of odL-dL"
    assert words("1.04e13 FLOP, a1.5e3") == r"\num{1.04e13} FLOP, a1.5e3"
    assert escape("é β Ω λ") == r"é $\beta$ $\Omega$ $\lambda$"
    assert words("as with --limit") == "as with -{}-limit"
    assert escape("|W|") == r"\textbar{}W\textbar{}"  # "|" is a dash in OT1


def test_marks_are_explained_below_and_other_notes_are_comments():
    notes = ["† one ended in an error", "m (a): undecided\n  - why", "† two did"]
    made = render_latex(one_table(Label("x"), notes=notes)).splitlines()
    assert "% m (a): undecided - why" in made
    assert made.index(r"\end{tabular}") < made.index(
        r"\par\smallskip $\dagger$ one ended in an error (and 1 more)"
    )
    assert "% † two did" in made


def test_columns_in_which_no_row_has_anything_are_a_comment():
    dashes, reason = Missing("none", brief=True), Missing("not evaluated")
    rows = [
        [Label("a"), dashes, Label("x"), dashes],
        [Label("b"), dashes, reason, dashes],
    ]
    columns = [Column(x, Label, "sd of" if x == "limit" else "") for x in TITLES]
    made = render_latex(Report("r", [], [], [Table("key", "T", columns, rows, "")]))
    assert "% no row has: loss, sd of limit\n" in made
    assert made.count(r"\toprule") == 1
    assert [x for x in made.splitlines() if " & " in x] == [
        r"arm & said \\",
        r"a & x \\",
        r"b & \emph{not evaluated} \\",
    ]


def test_that_numbers_are_of_a_limited_run_stands_below_each_table(make_run):
    made = report.render(report.build(survey(make_run(more="limit: 9"))), "latex")
    said = r"\par\smallskip NOT FOR REAL NUMBERS: only the first 9 examples"
    assert made.count(said) == made.count(r"\begin{table*}") > 9


def test_a_wide_table_is_several_tabulars():
    columns = [Column("arm", Label)]
    columns += [Column(f"c{i}", Label, f"g{i // 2}") for i in range(12)]
    cells = [Number(0.5, "nats", interval=(0.41, 0.59))] * 12
    table = Table("key", "A title", columns, [[Label("baseline"), *cells]], "")
    made = render_latex(Report("r", [], [], [table]), "column")
    assert made.count(r"\begin{table}") == 1
    assert made.count(r"\begin{tabular}{@{}lrr@{}}") == 6
    assert made.count(r"\cmidrule(lr){2-3}") == 6


def test_what_is_too_high_for_a_page_goes_on_in_another_table():
    columns = [Column("arm", Label), *(Column(f"c{i}" * 40, Label) for i in range(3))]
    rows = [[Label(f"arm {i}"), *[Number(1.0, "nats")] * 3] for i in range(30)]
    made = render_latex(
        Report(
            "r", [], [], [Table("key", "A title", columns, rows, "", summary="So.")]
        ),
        "column",
    )
    captions = re.findall(r"\\caption\{(.*)\}\n\\label\{(.*)\}", made)
    assert captions == [
        ("A title. So.", "tab:key"),
        ("A title, continued.", "tab:key-2"),
        ("A title, continued.", "tab:key-3"),
    ]


def test_a_table_with_many_rows_goes_on_in_another_one():
    rows = [[Label(f"arm {i}"), Number(i, "count")] for i in range(120)]
    columns = [Column("arm", Label), Column("n", Label)]
    made = render_latex(Report("r", [], [], [Table("key", "T", columns, rows, "")]))
    assert made.count(r"\begin{table*}") == 3
    assert re.findall(r"^arm (\d+) & (\d+) ", made, re.MULTILINE) == [
        (str(i), str(i)) for i in range(120)
    ]


# --- widths -------------------------------------------------------------------------


def test_widths_are_no_less_than_those_of_the_font():
    """Of Computer Modern at 10 pt, as matplotlib has its metrics."""
    path = Path(mpl.get_data_path()) / "fonts" / "afm" / "cmr10.afm"
    lines = re.findall(r"^C (\d+) ; WX ([\d.]+)", path.read_text(), re.MULTILINE)
    known = {chr(int(code)): float(wide) for code, wide in lines}
    for character in [*string.ascii_letters, *string.digits, *"+-=/()[],.:;%&"]:
        size = known[character] / 1000 * 8
        assert size <= points(character) <= 1.6 * size, character


def test_columns_and_pages_are_the_narrowest_in_use():
    assert WIDTH_PT == {"column": 219.0, "page": 345.0}
    assert PACKAGES[:2] == ("booktabs", "siunitx")
