"use strict";
// Everything here works on what the page holds; nothing is fetched, and no text of the
// data is ever read as markup: it is set as text.

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat());
  return node;
}

function drawn(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** Return the JSON that a script element holds: deflated, in base64. */
async function unpacked(id) {
  const packed = atob($("#" + id).textContent.trim());
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("deflate"))).json();
}

function once(fill) {
  let made;
  return () => (made ??= fill());
}

// --- tables -------------------------------------------------------------------------

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headings = [...table.tHead.rows].at(-1).cells;
  [...headings].forEach((heading, column) => {
    $("button", heading)?.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const next = { null: "ascending", ascending: "descending" }[before];
      for (const other of headings) other.removeAttribute("aria-sort");
      if (next) heading.setAttribute("aria-sort", next);
      body.append(...(next ? sorted(original, column, next === "descending") : original));
    });
  });
}

function sorted(rows, column, falling) {
  const value = (row) => {
    const cell = row.cells[column];
    if (cell.classList.contains("none")) return null;
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const known = rows.filter((row) => value(row) !== null);
  const absent = rows.filter((row) => value(row) === null);
  known.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const numbers = typeof x === "number" && typeof y === "number";
    const order = numbers ? x - y : String(x).localeCompare(String(y), "en");
    return falling ? -order : order;
  });
  return [...known, ...absent]; // what is missing stands last, whatever the order
}

function filterable(input) {
  const body = document.getElementById(input.getAttribute("aria-controls"));
  const count = $(".count", body.closest(".table"));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${body.rows.length} rows` : "";
  });
}

// --- data to take away --------------------------------------------------------------

const exported = once(() => unpacked("data-exports"));
const TYPES = { csv: "text/csv", json: "application/json", tex: "text/x-tex" };

async function take(button) {
  const { key, kind } = button.dataset;
  const text = (await exported())[key][kind];
  if (button.dataset.do === "copy") await copy(text);
  else save(text, `${key}.${kind}`, TYPES[kind]);
  const label = button.textContent;
  button.textContent = "✓";
  setTimeout(() => (button.textContent = label), 1200);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// --- samples ------------------------------------------------------------------------

const PAGE = 50;
const nats = (milli) => (milli === null ? "–" : (milli / 1000).toFixed(3));
const signed = (milli) => (milli === null ? "error" : (milli < 0 ? "−" : "+") + nats(Math.abs(milli)));

class Viewer {
  constructor(section) {
    this.form = $(".find", section);
    this.status = $(".found", section);
    this.list = $(".list ol", section);
    this.page = $(".page", section);
    this.shown = $(".sample", section);
    this.steps = $$(".pager button", section);
    this.start = once(() => this.begin());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("focusin", () => this.start());
    this.form.addEventListener("input", () => this.start().then(() => this.search()));
    this.list.addEventListener("keydown", (event) => this.move(event));
    for (const button of this.steps) {
      button.addEventListener("click", () => this.turn(Number(button.dataset.step)));
    }
    new IntersectionObserver((seen) => seen.some((x) => x.isIntersecting) && this.start(), {
      rootMargin: "400px",
    }).observe(section);
  }

  async begin() {
    this.status.textContent = "Unpacking …";
    this.data = await unpacked("data-samples");
    this.search();
  }

  // What is searched is put together when it is first asked for.
  text = (row) =>
    (row.words ??= [row.clean, row.after ?? [], row.reference]
      .map((ids) => this.pieces(row, ids).join(""))
      .concat(row.texts ?? [], row.example)
      .join("\n")
      .toLowerCase());

  pieces(row, ids) {
    const known = this.data.pieces[this.data.cells[row.cell].model] ?? {};
    return ids.map((id) => known[id] ?? `⟨${id}⟩`);
  }

  search() {
    const asked = Object.fromEntries(new FormData(this.form));
    const words = asked.text.toLowerCase();
    const low = asked.from === "" ? -Infinity : 1000 * Number(asked.from);
    const high = asked.to === "" ? Infinity : 1000 * Number(asked.to);
    const bounded = asked.from !== "" || asked.to !== "";
    this.found = this.data.rows.filter((row) => {
      const cell = this.data.cells[row.cell];
      if (bounded && (row.rise === null || row.rise < low || row.rise > high)) return false;
      for (const name of ["model", "arm", "attack", "seed"]) {
        if (asked[name] && String(cell[name]) !== asked[name]) return false;
      }
      return !words || this.text(row).includes(words);
    });
    const by = {
      rise: (row) => row.rise,
      least: (row) => (row.rise === null ? null : -row.rise),
      clean: (row) => row.loss,
      after: (row) => (row.rise === null ? null : row.loss + row.rise),
    }[asked.order];
    this.found.sort((a, b) => (by(b) ?? -Infinity) - (by(a) ?? -Infinity) || 0);
    this.at = 0;
    this.render();
    if (this.found.length) this.choose(this.found[0]);
    else this.shown.replaceChildren();
  }

  render() {
    const pages = Math.max(1, Math.ceil(this.found.length / PAGE));
    this.status.textContent =
      `${this.found.length} of ${this.data.rows.length} samples` +
      (pages > 1 ? `, page ${this.at + 1} of ${pages}` : "");
    this.page.textContent = `${this.at + 1} / ${pages}`;
    const rows = this.found.slice(this.at * PAGE, (this.at + 1) * PAGE);
    this.list.replaceChildren(...rows.map((row) => this.entry(row)));
    this.list.start = this.at * PAGE + 1;
    this.steps[0].disabled = this.at === 0;
    this.steps[1].disabled = this.at === pages - 1;
  }

  entry(row) {
    const cell = this.data.cells[row.cell];
    const snippet = this.pieces(row, row.after ?? row.clean).join("").slice(0, 90);
    const button = make(
      "button",
      { type: "button", tabindex: "-1" }, // one stop for the whole list: arrows go on
      make("span", { class: "v" }, signed(row.rise)),
      make("span", { class: "who" }, `${cell.arm} · ${cell.attack} · seed ${cell.seed}`),
      make("span", { class: "snippet", dir: "auto" }, snippet),
    );
    button.addEventListener("click", () => {
      this.choose(row);
      this.shown.focus(); // below the list, on a phone
    });
    row.button = button;
    return make("li", {}, button);
  }

  turn(step) {
    this.at += step;
    this.render();
    this.choose(this.found[this.at * PAGE]);
    this.list.firstChild.firstChild.focus();
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = this.found.indexOf(this.chosen) + step;
    const row = this.found[index];
    if (!row) return;
    const page = Math.floor(index / PAGE);
    if (page !== this.at) {
      this.at = page;
      this.render();
    }
    this.choose(row);
    row.button.focus();
  }

  choose(row) {
    this.chosen?.button?.removeAttribute("aria-current");
    this.chosen?.button?.setAttribute("tabindex", "-1");
    this.chosen = row;
    row.button.setAttribute("aria-current", "true");
    row.button.setAttribute("tabindex", "0");
    this.shown.replaceChildren(...this.sample(row));
  }

  sample(row) {
    const cell = this.data.cells[row.cell];
    const [before, after] = compared(row.clean, row.after ?? row.clean);
    const losses = [
      make("span", {}, "clean ", make("b", {}, nats(row.loss))),
      make("span", {}, "attacked ", make("b", {}, row.rise === null ? "–" : nats(row.loss + row.rise))),
      make("span", {}, "dL ", make("b", {}, signed(row.rise))),
    ];
    const parts = [
      make("h3", {}, row.example),
      make("p", { class: "who" }, `${cell.model} · ${cell.arm} · ${cell.attack} · seed ${cell.seed}`),
      make("p", { class: "losses" }, losses, row.textual === false ? make("span", {}, "no text encodes to it") : []),
    ];
    if (row.error) parts.push(make("p", { class: "alarm" }, row.error));
    parts.push(
      make(
        "div",
        { class: "sides" },
        make("div", {}, make("h4", {}, "Clean prompt"), this.tokens(row, row.clean, before, "del")),
        row.after
          ? make("div", {}, make("h4", {}, "Attacked prompt"), this.tokens(row, row.after, after, "ins"))
          : [],
      ),
      make("h4", {}, "Reference", row.first ? make("small", {}, " shaded by the rise of each token's loss") : []),
      this.reference(row),
    );
    if (row.first && row.then) parts.push(this.table(row));
    if (row.course) parts.push(...this.course(row));
    for (const [name, text] of Object.entries(row.further ?? {})) {
      parts.push(make("h4", {}, name), make("p", { class: "tokens", dir: "auto" }, text));
    }
    return parts;
  }

  /** Draw the loss of the prompts that the search went through, over what it spent. */
  course(row) {
    const { by, points } = row.course;
    const clean = by === "passes" ? [row.loss] : []; // else it may be of other prompts
    const losses = points.map(([, loss]) => loss).concat(clean);
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const [first, last] = [points[0][0], points.at(-1)[0]];
    const x = (spent) => 2 + (316 * (spent - first)) / (last - first || 1);
    const y = (loss) => 74 - (70 * (loss - low)) / (high - low || 1);
    const line = points.map(([spent, loss]) => `${x(spent).toFixed(1)},${y(loss).toFixed(1)}`);
    const unit = by === "passes" ? "forward passes" : "steps";
    const told =
      `From ${nats(points[0][1])} to ${nats(points.at(-1)[1])} nats/token, after ` +
      `${first} to ${last} ${unit}` +
      (clean.length ? `; dashed: the clean prompt, ${nats(row.loss)}` : "");
    const svg = drawn("svg", { class: "course", viewBox: "0 0 320 78", role: "img", "aria-label": told });
    for (const loss of clean) svg.append(drawn("path", { class: "clean", d: `M0 ${y(loss).toFixed(1)}H320` }));
    svg.append(drawn("polyline", { points: line.join(" ") }));
    for (const point of line) {
      const [cx, cy] = point.split(",");
      svg.append(drawn("circle", { cx, cy, r: 2 }));
    }
    const name = make("h4", {}, "Loss in the search", make("small", {}, ` by ${unit}`));
    return [name, svg, make("p", { class: "note" }, told)];
  }

  tokens(row, ids, changed, tag) {
    const words = this.pieces(row, ids);
    const shown = words.map((word, i) => make(changed[i] ? tag : "span", { class: "t" }, word));
    return make("p", { class: "tokens" }, shown);
  }

  reference(row) {
    const words = this.pieces(row, row.reference);
    const shown = words.map((word, i) => {
      const rise = row.first && row.then ? row.then[i] - row.first[i] : null;
      const told = rise === null ? undefined : `${nats(row.first[i])} to ${nats(row.then[i])} nats`;
      return make("span", { class: `t ${shade(rise)}`, title: told }, word);
    });
    return make("p", { class: "tokens" }, shown);
  }

  table(row) {
    const words = this.pieces(row, row.reference);
    const lines = words.map((word, i) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, word),
        make("td", { class: "num" }, nats(row.first[i])),
        make("td", { class: "num" }, nats(row.then[i])),
        make("td", { class: "num" }, signed(row.then[i] - row.first[i])),
      ),
    );
    const names = ["token", "clean", "attacked", "rise"];
    const heads = names.map((name, i) => make("th", { scope: "col", class: i ? "num" : false }, name));
    const table = make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, lines));
    const title = "Loss of each reference token, nats";
    const region = { class: "scroll", role: "region", tabindex: "0", "aria-label": title };
    return make("details", {}, make("summary", {}, title), make("div", region, table));
  }
}

function shade(rise) {
  if (rise === null) return "";
  const step = Math.min(4, Math.floor(Math.abs(rise) / 500));
  return step === 0 ? "" : (rise > 0 ? "up" : "down") + step;
}

/** Say of each token of two sequences whether the other has it in its place. */
function compared(first, second) {
  if (first.length === second.length) {
    const changed = first.map((id, i) => id !== second[i]);
    return [changed, changed];
  }
  const [n, m] = [first.length, second.length];
  const best = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      const same = first[i] === second[j];
      best[i][j] = same ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const [gone, added] = [Array(n).fill(true), Array(m).fill(true)];
  for (let i = 0, j = 0; i < n && j < m; ) {
    if (first[i] === second[j]) gone[i++] = added[j++] = false;
    else if (best[i + 1][j] >= best[i][j + 1]) i++;
    else j++;
  }
  return [gone, added];
}

// --- begin --------------------------------------------------------------------------

$$("table.sortable").forEach(sortable);
$$(".filter input").forEach(filterable);
$$("button[data-do]").forEach((button) => button.addEventListener("click", () => take(button)));
const section = $("#samples")?.closest("section");
if (section) new Viewer(section);
addEventListener("beforeprint", () => $$(".card details").forEach((x) => (x.open = true)));
