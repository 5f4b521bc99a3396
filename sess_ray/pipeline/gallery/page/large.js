"use strict";

// One map, large: zoom and pan, the values under the pointer, all of its metrics, and the way to its windows.
gallery.large = (() => {
  const { cards, data, filters, make, shown, signed } = gallery;
  const dialog = document.getElementById("large");
  const MOST = 16;
  let numbers = []; // of the maps that are shown, in order
  let place = -1; // in them
  let told; // called when another map is open, or none
  let view = { zoom: 1, x: 0, y: 0 };
  let pictures;

  function look(next) {
    const zoom = Math.min(MOST, Math.max(1, next.zoom));
    const inside = (value) => Math.min(0, Math.max(1 - zoom, value));
    view = { zoom, x: inside(next.x), y: inside(next.y) };
    pictures.style.setProperty("--zoom", view.zoom);
    pictures.style.setProperty("--x", `${100 * view.x}%`);
    pictures.style.setProperty("--y", `${100 * view.y}%`);
    dialog.dataset.zoom = view.zoom.toFixed(2);
  }

  function zoomed(factor, [x, y] = [0.5, 0.5]) {
    const zoom = Math.min(MOST, Math.max(1, view.zoom * factor));
    const keep = (at, shift) => at - (at - shift) * (zoom / view.zoom);
    look({ zoom, x: keep(x, view.x), y: keep(y, view.y) });
  }

  const panned = (x, y) => look({ ...view, x: view.x + x, y: view.y + y });

  // Where an event is, in shares of the picture as it is seen.
  function at(event) {
    const box = event.target.closest(".stack")?.getBoundingClientRect();
    return box && [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function reader(entry, levels) {
    const maps = levels?.map((map) => map && { ...map, bytes: Uint8Array.from(atob(map.levels), (one) => one.charCodeAt(0)) });
    return ([fx, fy]) => {
      const [x, y] = [(fx - view.x) / view.zoom, (fy - view.y) / view.zoom];
      if (x < 0 || y < 0 || x >= 1 || y >= 1) return "";
      const value = (map) => map.bytes[Math.floor(y * map.height) * map.width + Math.floor(x * map.width)] / 255;
      const values = (maps ?? []).map((map, run) => map && `${data.index.runs[run]} ${value(map).toFixed(2)}`).filter(Boolean);
      return [`x ${Math.floor(x * entry.width)}, y ${Math.floor(y * entry.height)}`, ...values].join(" · ");
    };
  }

  function pointing(entry, levels, said) {
    const read = reader(entry, levels);
    let dragged = null;
    pictures.addEventListener("wheel", (event) => {
      const where = at(event);
      if (!where) return;
      event.preventDefault();
      zoomed(event.deltaY < 0 ? 1.25 : 0.8, where);
    }, { passive: false });
    pictures.addEventListener("pointerdown", (event) => { dragged = at(event); });
    pictures.addEventListener("pointerup", () => { dragged = null; });
    pictures.addEventListener("pointerleave", () => { dragged = null; });
    pictures.addEventListener("pointermove", (event) => {
      const where = at(event);
      if (!where) return;
      if (dragged) {
        panned(where[0] - dragged[0], where[1] - dragged[1]);
        dragged = where;
      }
      said.textContent = read(where);
    });
    pictures.addEventListener("dblclick", (event) => zoomed(view.zoom >= MOST ? 1 / MOST : 2, at(event)));
  }

  const cells = (tag, texts) => texts.map((textContent) => make(tag, { textContent }));

  function measured(number) {
    const names = data.metricNames();
    const { a, b } = filters.field;
    const { runs } = data.index;
    const lines = names.map((name) => {
      const value = (run) => data.values(run, name)?.[number] ?? NaN;
      const texts = runs.map((run) => shown(value(run)));
      if (runs.length > 1) texts.push(signed(value(b.value) - value(a.value)));
      return make("tr", {}, ...cells("th", [name]), ...cells("td", texts));
    });
    const heads = runs.length > 1 ? [...runs, `${b.value} − ${a.value}`] : runs;
    return names.length ? make("table", {}, make("tr", {}, ...cells("th", ["metric", ...heads])), ...lines) : "";
  }

  function about(entry, number) {
    const { index } = data;
    const known = [["image", entry.id], ["read from", entry.uri], ["size", `${entry.width} x ${entry.height}`], ["class", cards.facts(entry, number)]];
    if (index.size && !Number.isNaN(index.size[number])) known.push(["covered by its boxes", gallery.percent(index.size[number])]);
    if (index.disagreement) known.push(["disagreement of runs", shown(index.disagreement[number])]);
    return make("table", {}, ...known.map(([name, value]) => make("tr", {}, ...cells("th", [name]), ...cells("td", [value]))));
  }

  const button = (textContent, onclick, label = textContent) => make("button", { type: "button", textContent, onclick, ariaLabel: label });

  async function show() {
    const number = numbers[place];
    const entry = await data.row(number);
    const levels = await data.levels(entry).catch(() => null);
    if (number !== numbers[place]) return; // another was asked for meanwhile
    pictures = make("div", { className: "row" }, cards.photograph(entry), ...cards.maps(entry, number));
    pictures.style.setProperty("--aspect", entry.width / entry.height);
    const said = make("output", { className: "reading", textContent: "Point at a map to read its values." });
    const bar = make(
      "div", { className: "bar" },
      button("←", () => move(-1), "Previous map"), button("→", () => move(1), "Next map"),
      button("−", () => zoomed(0.8), "Zoom out"), button("+", () => zoomed(1.25), "Zoom in"), button("1:1", () => look({ zoom: 1, x: 0, y: 0 }), "Whole image"),
      said, make("span", { className: "tags" }, ...cards.tagged(number)),
      button("Close", () => dialog.close()),
    );
    if (entry.windows) {
      const back = encodeURIComponent(`../../index.html${location.hash}`);
      bar.lastChild.before(make("a", { href: `${entry.windows}#back=${back}`, textContent: "Windows of this map" }));
    }
    dialog.replaceChildren(bar, make("h2", { textContent: cards.facts(entry, number) }), pictures, make("div", { className: "tables" }, about(entry, number), measured(number)));
    dialog.dataset.number = number;
    pointing(entry, levels, said);
    look({ zoom: 1, x: 0, y: 0 });
    if (!dialog.open) dialog.showModal();
  }

  function open(number, all) {
    numbers = all;
    place = Math.max(0, all.indexOf(number));
    told(numbers[place]);
    return show();
  }

  function move(step) {
    place = Math.min(Math.max(place + step, 0), numbers.length - 1);
    told(numbers[place]);
    return show();
  }

  const KEYS = {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1),
    "+": () => zoomed(1.25), "-": () => zoomed(0.8), 0: () => look({ zoom: 1, x: 0, y: 0 }),
  };
  const PAN = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

  function key(event) {
    if (event.shiftKey && PAN[event.key]) panned(...PAN[event.key]);
    else if (KEYS[event.key]) KEYS[event.key]();
    else return false;
    return true;
  }

  function setup(tell) {
    told = tell;
    dialog.addEventListener("close", () => { place = -1; told(null); });
  }

  return { setup, open, key, isOpen: () => dialog.open, number: () => numbers[place] };
})();
