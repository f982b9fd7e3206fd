"""The page in a real browser: quick, quiet, usable by keyboard, and inert."""

import csv
import io
import itertools
import json
import re
import shutil
from importlib import resources

import pytest

from harness import report
from harness.report.formats.json import render_json
from harness.report.html import samples
from tests.report.html.hostile import (
    COURSE,
    HOSTILE,
    LONG,
    MOST,
    SCORED,
    hostile_report,
    many,
)

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no browser to drive: playwright is not installed"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.xdist_group("browser"),
]

FIRST_PAINT_MS = 2000
"""Until something is seen, with 5,000 samples in the page."""
PATIENCE_MS = 30_000
"""How long a state is waited for, on a machine that is busy with other things."""
WIDTHS = {"phone": 360, "desk": 1280}


@pytest.fixture(scope="module")
def built(written_runs, tmp_path_factory):
    """Return a hostile report, and the file of its page with all the samples."""
    made = hostile_report(written_runs, tmp_path_factory.mktemp("hostile"))
    with pytest.MonkeyPatch.context() as patch:
        rows = many(made.results)
        patch.setattr(samples, "worst", lambda results: rows)
        page = report.render(made, "html")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page)
    return made, path, rows


@pytest.fixture(scope="module")
def browser():
    """Return a browser without a window."""
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture
def visit(browser, built):
    """Return a function that opens the page; what it logs or asks for is noted."""
    contexts = []

    def visit(width="desk", scheme="light"):
        context = browser.new_context(
            viewport={"width": WIDTHS[width], "height": 800}, color_scheme=scheme
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.noted, page.asked = [], []
        page.on("console", lambda message: page.noted.append(message.text))
        page.on("pageerror", lambda error: page.noted.append(str(error)))
        page.on("dialog", lambda dialog: page.noted.append(dialog.message))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(built[1].as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()


def go_to_samples(page):
    """Scroll to the samples, and wait until they are unpacked."""
    page.evaluate("document.getElementById('samples').scrollIntoView()")
    page.locator(".found", has_text=f" of {MOST} samples").wait_for()
    return page.locator(".found").inner_text()


def test_the_page_paints_at_once_and_asks_for_nothing(visit, built, capsys):
    page = visit()
    paint = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    before = page.evaluate("performance.now()")
    assert go_to_samples(page) == "5000 of 5000 samples, page 1 of 100"
    ready = page.evaluate("performance.now()") - before
    size = built[1].stat().st_size / 2**20
    with capsys.disabled():
        print(
            f"\n{size:.1f} MiB, {MOST} samples: first paint {paint:.0f} ms, "
            f"samples {ready:.0f} ms after they are scrolled to"
        )
    assert paint < FIRST_PAINT_MS
    assert page.asked == [built[1].as_uri()]
    assert page.noted == []
    # Only what is on the first page of the list was made.
    assert page.locator(".list li").count() == 50


def test_hostile_texts_are_only_text(visit):
    page = visit()
    go_to_samples(page)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, b:not(.losses b), iframe").count() == 0
    spelt = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", "<U+202E>")
    spelt = spelt.replace("\u2066", "<U+2066>").replace("\u200b", "<U+200B>")
    shown = page.locator(".warnings li").first.text_content()
    assert " ".join(shown.split()) == " ".join(spelt.split())
    text = page.evaluate("document.body.innerText")
    assert not set(text) & set("\x1b\u202a\u202e\u2066\u2069\u200b")
    # Whatever came in as markup all the same would not run.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.pwned = 1'}))"
    )
    assert page.evaluate("window.pwned") is None
    assert "Content Security Policy" in page.noted[0]


def test_tables_sort_and_filter_by_keyboard(visit, built):
    page = visit()
    table = page.locator("#table-controls")
    (made,) = [x for x in built[0].tables if x.key == "controls"]
    index = [column.name for column in made.columns].index("dL: difference")
    values = [row[index].value for row in made.rows]
    column = table.locator("thead tr").last.locator("th").nth(index)
    names = ("ascending", "descending", None)
    for direction, expected in zip(
        names, (sorted(values), sorted(values)[::-1], values), strict=True
    ):
        column.locator("button").focus()
        page.keyboard.press("Enter")
        assert column.get_attribute("aria-sort") == direction
        cells = table.locator(f"tbody tr td:nth-child({index + 1})")
        shown = cells.evaluate_all("cells => cells.map(x => Number(x.dataset.v))")
        assert shown == expected
    (asked,) = [x for x in built[0].tables if x.key == "diagnostics"]
    questions = page.locator("#table-diagnostics")
    questions.locator(".filter input").focus()
    page.keyboard.type("GRADIENT not_there")
    count = questions.locator(".count")
    assert count.inner_text() == f"0 of {len(asked.rows)} rows"
    page.keyboard.press("Control+Backspace")
    expected = [row[0].text for row in asked.rows if "gradient" in row[0].text]
    shown = questions.locator("tbody tr:visible td:first-child").all_inner_texts()
    assert shown == expected != []
    assert count.inner_text() == f"{len(expected)} of {len(asked.rows)} rows"


BY_HAND = """(texts) => {
    const table = document.createElement("table");
    const rows = texts.map((cell) => "<tr><td " + cell);
    const head = "<thead><tr><th><button></button></th></tr></thead>";
    table.innerHTML = head + "<tbody>" + rows.join("");
    sortable(table);
    const shown = () => [...table.tBodies[0].rows].map((row) => row.textContent);
    const button = table.querySelector("button");
    return [1, 2].map(() => (button.click(), shown().join(" ")));
}"""


@pytest.mark.parametrize(
    ("cells", "rising", "falling"),
    [
        ([">b", "class=none>a", ">A"], "A b a", "b A a"),
        (
            ["data-v=10>1e1", "data-v=-2>x", "data-v=9>9", "class=none>y"],
            "x 9 1e1 y",
            "1e1 9 x y",
        ),
    ],
)
def test_words_and_numbers_are_sorted_and_what_is_missing_stands_last(
    visit, cells, rising, falling
):
    assert visit().evaluate(BY_HAND, cells) == [rising, falling]


def test_samples_are_found_chosen_and_marked_by_keyboard(visit, built):
    _, _, rows = built
    page = visit()
    go_to_samples(page)
    page.locator(".find select[name=attack]").select_option("hotflip")
    page.locator(".find input[name=from]").focus()
    page.keyboard.type("0.6")
    found = [
        (record, row)
        for record, row in rows.rows
        if record.attack.label == "hotflip" and row.delta_loss >= 0.6
    ]
    status = page.locator(".found")
    assert status.inner_text().startswith(f"{len(found)} of 5000 samples")
    page.locator(".list button").first.focus()
    for _ in range(50):  # onto the second page
        page.keyboard.press("ArrowDown")
    assert "page 2 of" in status.inner_text()
    ordered = sorted(found, key=lambda x: -round(1000 * x[1].delta_loss))
    record, row = ordered[50]
    shown = page.locator(".sample")
    assert shown.locator("h3").inner_text() == row.example_id
    assert f"{record.arm.label} · hotflip · seed {record.seed}" in shown.inner_text()
    changed = shown.locator("ins")
    assert changed.all_text_contents() == [" <b>w<U+202E></b>999"]
    assert shown.locator(".sides .t").count() == 2 * LONG
    assert page.evaluate("document.activeElement.ariaCurrent") == "true"
    assert page.locator(".list button[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "sample"
    shown.locator("summary").focus()
    page.keyboard.press("Enter")
    cells = shown.locator("tbody tr").nth(SCORED - 1).locator("td").all_inner_texts()
    first, then = row.clean_token_losses[-1], row.adversarial_token_losses[-1]
    rise = round(1000 * then) - round(1000 * first)
    sign = "\u2212" if rise < 0 else "+"
    assert cells == [f"{first:.3f}", f"{then:.3f}", f"{sign}{abs(rise) / 1000:.3f}"]


def test_samples_are_searched_by_text(visit, built):
    page = visit()
    go_to_samples(page)
    first, second = built[2].rows[9][1].clean_prompt_ids[3:5]
    page.locator(".find input[name=text]").fill(
        f"</B>{first} <b>W<U+202E></b>{second} "
    )
    expected = sum(
        any(
            f" {first} {second} " in f" {' '.join(map(str, ids))}"
            for ids in (
                row.clean_prompt_ids,
                row.adversarial_prompt_ids,
                row.reference_ids,
            )
        )
        for _, row in built[2].rows
    )
    assert expected >= 1
    assert page.locator(".found").inner_text().startswith(f"{expected} of 5000")
    page.locator(".find input[name=text]").fill("nowhere at all")
    assert page.locator(".found").inner_text() == "0 of 5000 samples"
    assert page.locator(".sample").inner_text() == ""


@pytest.mark.parametrize(
    ("first", "second", "gone", "added"),
    [
        ([1, 2, 3], [1, 9, 3], [1], [1]),
        ([1, 2, 3], [7, 8, 1, 2, 3], [], [0, 1]),
        ([1, 2, 3, 4], [9, 1, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3]),
        ([1, 2, 3, 4, 5], [9, 1, 2, 8, 4, 5], [2], [0, 3]),
        ([], [1], [], [0]),
    ],
)
def test_changed_tokens_are_those_that_differ(visit, first, second, gone, added):
    if len(first) == len(second):  # flips: position by position
        pairs = zip(first, second, strict=True)
        gone = added = [i for i, (a, b) in enumerate(pairs) if a != b]
    told = visit().evaluate(f"compared({first}, {second})")
    found = [[i for i, changed in enumerate(side) if changed] for side in told]
    assert found == [gone, added]


def test_tables_can_be_downloaded_and_copied(visit, built):
    page = visit()
    data = page.locator("#table-main .exports")
    data.locator("summary").focus()
    page.keyboard.press("Enter")
    texts = {}
    for kind in ("CSV", "JSON", "LaTeX"):
        button = data.get_by_role("button", name=re.compile(f"Download .* as {kind}"))
        with page.expect_download() as download:
            button.press("Enter")
        texts[kind] = download.value.path().read_text()
        ending = {"CSV": "csv", "JSON": "json", "LaTeX": "tex"}[kind]
        assert download.value.suggested_filename == f"main.{ending}"
    tables = json.loads(render_json(built[0]))["tables"]
    assert json.loads(texts["JSON"]) == tables["main"]
    (first, *_) = csv.DictReader(io.StringIO(texts["CSV"]))
    expected = tables["main"]["rows"][0]["hotflip: dL"]["value"]
    assert float(first["hotflip: dL"]) == expected
    assert r"\label{tab:main}" in texts["LaTeX"]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    data.get_by_role("button", name=re.compile("Copy .* as LaTeX")).press("Enter")
    data.locator("[data-do=copy]", has_text="✓").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == texts["LaTeX"]


@pytest.mark.parametrize(("width", "scheme"), [("desk", "light"), ("phone", "dark")])
def test_everyone_can_read_it(visit, width, scheme):
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    page = visit(width, scheme)
    go_to_samples(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    page.evaluate("document.querySelectorAll('details').forEach(x => (x.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    said = [
        (x["id"], x["help"], [node["html"][:200] for node in x["nodes"][:3]])
        for x in found["violations"]
    ]
    assert said == []
    assert page.noted == []


def test_it_prints_with_reasons_and_without_what_is_to_be_clicked(visit):
    page = visit()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".card .reasons").first.is_visible()
    for selector in ("nav", ".tools", ".exports", ".find"):
        assert not page.locator(selector).first.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_a_sample_shows_the_course_of_its_search(visit):
    page = visit()
    go_to_samples(page)
    drawn = page.locator(".sample .course polyline").get_attribute("points")
    places = [tuple(map(float, point.split(","))) for point in drawn.split()]
    assert len(places) == len(COURSE)
    across, down = zip(*places, strict=True)
    assert list(across) == sorted(across)
    assert list(down) == sorted(down, reverse=True)  # the loss rises at each step
    # Passes are evenly apart here, and so are their places.
    steps = {round(b - a, 1) for a, b in itertools.pairwise(across)}
    assert max(steps) - min(steps) < 0.2
    told = page.locator(".sample .course").get_attribute("aria-label")
    assert told.startswith("From 3.000 to 4.828 nats/token, after 5 to 40 forward pas")
    assert page.noted == []
