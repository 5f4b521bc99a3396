"use strict";

// The pages of a gallery. data/index.js calls gallery.start with one value of each row, for filters and orders;
// data/N.js calls gallery.chunk with all that is known of a hundred rows. As scripts, they load from a disk too.
const gallery = (() => {
  const ON_PAGE = 24;
  const CHUNKS = 200; // in memory
  const element = (id) => document.getElementById(id);
  const form = element("filters");
  const field = form.elements;
  const cards = element("cards");
  const large = element("large");

  let index;
  let found = []; // numbers of the rows that pass the filters, in order
  let page = 0;
  let opened = -1; // place in `found` of the row in the large view
  const chunks = new Map(); // number -> promise of rows
  const waiting = new Map(); // number -> what to call with them

  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const nameOf = (target) => index.names[target] ?? `class ${target}`;
  const percent = (value) => `${Number((100 * value).toPrecision(2))} %`;
  const shown = (value) => (value === null ? "none" : Number(value.toPrecision(3)).toString());

  // --- data ---

  function load(number) {
    if (!chunks.has(number)) {
      if (chunks.size >= CHUNKS) chunks.delete(chunks.keys().next().value);
      chunks.set(number, new Promise((resolve, reject) => {
        waiting.set(number, resolve);
        const script = make("script", { src: `data/${number}.js` });
        script.onerror = () => reject(new Error(`data/${number}.js is missing`));
        script.onload = () => script.remove();
        document.head.append(script);
      }));
    }
    return chunks.get(number);
  }

  const row = async (number) => (await load(Math.floor(number / index.chunk)))[number % index.chunk];

  // --- filters and orders ---

  // An order: what it is called, and the value by which rows come, the largest first; null comes last.
  function orders() {
    const list = [["as stored", (number) => -number]];
    list.push(["score, highest first", (number) => index.score[number]]);
    list.push(["score, lowest first", (number) => -index.score[number]]);
    if (index.disagreement) list.push(["runs disagree most", (number) => index.disagreement[number]]);
    for (const { run, metric, better, values } of index.metrics) {
      const sign = better === "higher" ? -1 : 1;
      list.push([`worst ${metric} of ${run}`, (number) => (values[number] === null ? null : sign * values[number])]);
    }
    return list;
  }

  function choose() {
    const { target, correct, low, high, order } = Object.fromEntries(new FormData(form));
    const least = low === "" ? 0 : Number(low);
    const most = high === "" ? 1 : Number(high);
    found = [];
    for (let number = 0; number < index.count; number++) {
      if (target !== "" && index.target[number] !== Number(target)) continue;
      if (correct !== "" && (index.predicted[number] === index.target[number]) !== (correct === "yes")) continue;
      if (index.score[number] < least || index.score[number] > most) continue;
      found.push(number);
    }
    if (Number(order) > 0) {
      const value = orders()[Number(order)][1];
      const keys = new Map(found.map((number) => [number, value(number) ?? -Infinity]));
      found.sort((one, other) => keys.get(other) - keys.get(one) || one - other);
    }
  }

  // --- what is seen ---

  function stack(entry, of, map) {
    const box = make("div", { className: "stack" });
    box.style.aspectRatio = `${entry.width} / ${entry.height}`;
    if (entry.image) box.append(make("img", { src: entry.image, alt: map ? "" : `photograph ${entry.id}` }));
    else box.append(make("div", { className: "missing", textContent: entry.error }));
    if (!map) return box;
    box.append(make("img", { className: "heat", src: map.file, alt: `where ${of} sees ${nameOf(entry.target)} in ${entry.id}` }));
    for (const { box: [x0, y0, x1, y1], label, own } of entry.boxes) {
      const mark = make("div", { className: own ? "box" : "box other", title: label });
      Object.assign(mark.style, {
        left: percentOf(x0, entry.width), top: percentOf(y0, entry.height),
        width: percentOf(x1 - x0, entry.width), height: percentOf(y1 - y0, entry.height),
      });
      box.append(mark);
    }
    const peak = make("div", { className: "peak", title: "maximum of the map" });
    Object.assign(peak.style, { left: percentOf(map.peak[0] + 0.5, entry.width), top: percentOf(map.peak[1] + 0.5, entry.height) });
    box.append(peak);
    return box;
  }

  const percentOf = (value, whole) => `${(100 * value) / whole}%`;

  function figures(entry) {
    const made = [make("figure", {}, stack(entry), make("figcaption", { textContent: "image" }))];
    entry.maps.forEach((map, place) => {
      const run = index.runs[place];
      const text = map ? `${run}: ${map.kept} of ${map.patches} windows` : `${run}: no map`;
      made.push(make("figure", {}, map ? stack(entry, run, map) : "", make("figcaption", { textContent: text })));
    });
    return make("div", { className: "row" }, ...made);
  }

  function facts(entry, number) {
    const predicted = index.predicted[number];
    const told = predicted === entry.target ? "as predicted" : `predicted: ${nameOf(predicted)}`;
    return `${nameOf(entry.target)}: ${percent(index.score[number])}, ${told}`;
  }

  function card(entry, number, place) {
    const made = make("article", { tabIndex: 0 });
    made.dataset.place = place;
    made.append(
      make("h2", { textContent: entry.id }),
      make("p", { className: "facts", textContent: facts(entry, number) }),
      figures(entry),
    );
    return made;
  }

  let drawing = 0;
  async function draw() {
    const mine = ++drawing;
    const pages = Math.max(1, Math.ceil(found.length / ON_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const first = page * ON_PAGE;
    const numbers = found.slice(first, first + ON_PAGE);
    const rows = await Promise.all(numbers.map(row));
    if (mine !== drawing) return; // another page was asked for meanwhile
    cards.replaceChildren(...rows.map((entry, place) => card(entry, numbers[place], first + place)));
    const last = first + numbers.length;
    element("place").textContent = found.length
      ? `${first + 1} to ${last} of ${found.length}${found.length < index.count ? ` (of ${index.count})` : ""}`
      : "no map passes the filters";
    element("previous").disabled = page === 0;
    element("next").disabled = page === pages - 1;
    document.body.dataset.drawn = `${page}`;
  }

  const cells = (tag, texts) => texts.map((textContent) => make(tag, { textContent }));

  function measured(number) {
    const names = [...new Set(index.metrics.map(({ metric }) => metric))];
    const value = (run, name) => {
      const known = index.metrics.find(({ run: of, metric }) => of === run && metric === name);
      return known ? shown(known.values[number]) : "";
    };
    const lines = names.map((name) => make("tr", {}, ...cells("th", [name]), ...cells("td", index.runs.map((run) => value(run, name)))));
    return names.length ? [make("tr", {}, ...cells("th", ["", ...index.runs])), ...lines] : [];
  }

  async function open(place) {
    opened = Math.min(Math.max(place, 0), found.length - 1);
    const number = found[opened];
    const entry = await row(number);
    const known = [["image", entry.id], ["read from", entry.uri], ["size", `${entry.width} x ${entry.height}`], ["class", facts(entry, number)]];
    if (index.disagreement) known.push(["disagreement of runs", shown(index.disagreement[number])]);
    const about = known.map(([name, value]) => make("tr", {}, ...cells("th", [name]), ...cells("td", [value])));
    const pictures = figures(entry);
    for (const figure of pictures.children) figure.style.maxWidth = `${(62 * entry.width) / entry.height}vh`;
    const close = make("button", { type: "button", textContent: "Close", onclick: () => large.close() });
    large.replaceChildren(close, pictures, make("table", {}, ...about), make("table", {}, ...measured(number)));
    if (!large.open) large.showModal();
  }

  // --- what a person does ---

  function settle() {
    document.documentElement.style.setProperty("--opacity", Number(field.opacity.value) / 100);
    document.body.classList.toggle("without-marks", !field.marks.checked);
    const state = new URLSearchParams(new FormData(form));
    state.set("page", page);
    if (!field.marks.checked) state.set("marks", "off");
    history.replaceState(null, "", `#${state}`);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [name, value] of state) {
      if (name !== "marks" && field[name]) field[name].value = value;
    }
    field.marks.checked = state.get("marks") !== "off";
    page = Number(state.get("page")) || 0;
  }

  function turn(to) {
    page = to;
    draw().then(settle);
    scrollTo(0, 0);
  }

  const KEYS = {
    ArrowLeft: () => turn(page - 1),
    ArrowRight: () => turn(page + 1),
    Home: () => turn(0),
    End: () => turn(Infinity),
    "+": () => { field.opacity.stepUp(10); settle(); },
    "-": () => { field.opacity.stepDown(10); settle(); },
  };

  function listen() {
    form.addEventListener("submit", (event) => event.preventDefault());
    field.opacity.addEventListener("input", settle);
    form.addEventListener("change", (event) => {
      if (["opacity", "marks"].includes(event.target.name)) { settle(); return; }
      choose();
      turn(0);
    });
    element("previous").addEventListener("click", KEYS.ArrowLeft);
    element("next").addEventListener("click", KEYS.ArrowRight);
    cards.addEventListener("click", (event) => {
      const chosen = event.target.closest("article");
      if (chosen) open(Number(chosen.dataset.place));
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
      if (large.open) {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (step) open(opened + step);
      } else if (event.key === "Enter" && event.target.tagName === "ARTICLE") {
        open(Number(event.target.dataset.place));
        event.preventDefault(); // or it would press the button that gets the focus
      } else if (KEYS[event.key]) {
        KEYS[event.key]();
        event.preventDefault();
      }
    });
  }

  function start(given) {
    index = given;
    document.documentElement.style.setProperty("--runs", index.runs.length);
    const targets = [...new Set(index.target)].sort((one, other) => nameOf(one).localeCompare(nameOf(other)));
    field.target.append(...targets.map((target) => make("option", { value: target, textContent: nameOf(target) })));
    field.order.append(...orders().map(([text], place) => make("option", { value: place, textContent: text })));
    restore();
    choose();
    listen();
    draw().then(settle);
  }

  function chunk(number, rows) {
    waiting.get(number)(rows);
    waiting.delete(number);
  }

  return { start, chunk };
})();
