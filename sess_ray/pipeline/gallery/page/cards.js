"use strict";

// The cards: an image and its maps, a section for each target.
gallery.cards = (() => {
  const { data, filters, make, percent, shown, signed } = gallery;
  const { field } = filters;

  const part = (value, whole) => `${(100 * value) / whole}%`;

  function mark(className, [x0, y0, x1, y1], entry, title) {
    const made = make("div", { className, title });
    Object.assign(made.style, {
      left: part(x0, entry.width), top: part(y0, entry.height),
      width: part(x1 - x0, entry.width), height: part(y1 - y0, entry.height),
    });
    return made;
  }

  // A photograph, and the map of a run over it where there is one.
  function stack(entry, run, map) {
    const plane = make("div", { className: "plane" });
    if (entry.image) plane.append(make("img", { src: entry.image, alt: map ? "" : `photograph ${entry.id}`, draggable: false }));
    else plane.append(make("div", { className: "missing", textContent: entry.error }));
    if (map) {
      const alt = `where ${run} sees ${data.nameOf(entry.target)} in ${entry.id}`;
      plane.append(make("img", { className: "heat", src: map.file, alt, draggable: false }));
      for (const { box, label, own } of entry.boxes) plane.append(mark(own ? "box" : "box other", box, entry, label));
      const [x, y] = map.peak;
      const peak = make("div", { className: "peak", title: "maximum of the map" });
      Object.assign(peak.style, { left: part(x + 0.5, entry.width), top: part(y + 0.5, entry.height) });
      plane.append(peak);
    }
    const box = make("div", { className: "stack" }, plane);
    box.style.aspectRatio = `${entry.width} / ${entry.height}`;
    return box;
  }

  // The chosen metric of a run's map, and for run B its difference to run A.
  function value(number, run) {
    const name = field.metric.value;
    const own = data.values(run, name)?.[number];
    if (own === undefined) return "";
    const base = data.values(field.a.value, name)?.[number];
    const compared = run === field.b.value && run !== field.a.value && base !== undefined && !Number.isNaN(own - base);
    return `${name} ${shown(own)}${compared ? ` (${signed(own - base)})` : ""}`;
  }

  // In the words of sess_ray.pictures.overlay.windows_in_words.
  function windows({ kept, patches }) {
    if (patches === 1) return "one window";
    return kept === patches ? `all ${patches} windows` : `${kept} of ${patches} windows`;
  }

  function ofRun(entry, number, place) {
    const run = data.index.runs[place];
    const map = entry.maps[place];
    const caption = make("figcaption", {}, make("span", { textContent: `${run}: ${map ? windows(map) : "no map"}` }));
    const told = value(number, run);
    if (told) caption.append(make("b", { textContent: told }));
    const figure = make("figure", { className: "ofrun" }, map ? stack(entry, run, map) : "", caption);
    const other = entry.maps[data.index.runs.indexOf(field.b.value)];
    if (map && other && run === field.a.value && other !== map) figure.dataset.other = other.file;
    return figure;
  }

  function facts(entry, number) {
    const predicted = data.index.predicted[number];
    const told = predicted === entry.target ? "as predicted" : `predicted: ${data.nameOf(predicted)}`;
    return `${data.nameOf(entry.target)}: ${percent(data.index.score[number])}, ${told}`;
  }

  function tagged(number) {
    return gallery.tags.tagsOf(number).map((textContent) => make("span", { className: "tag", textContent }));
  }

  const photograph = (entry) => make("figure", {}, stack(entry), make("figcaption", { textContent: "image" }));
  const maps = (entry, number) => entry.maps.map((_, place) => ofRun(entry, number, place));

  function section(entry, number) {
    const open = make("button", { type: "button", className: "open", textContent: facts(entry, number) });
    const right = data.index.predicted[number] === entry.target;
    const made = make(
      "section",
      { className: right ? "map" : "map wrong" },
      make("h3", {}, open),
      make("div", { className: "row" }, ...maps(entry, number)),
      make("p", { className: "tags" }, ...tagged(number)),
    );
    made.dataset.number = number;
    return made;
  }

  function card(entries, numbers) {
    const name = make("h2", { textContent: entries[0].id, title: entries[0].id });
    const sections = entries.map((entry, place) => section(entry, numbers[place]));
    return make("article", {}, name, photograph(entries[0]), make("div", {}, ...sections));
  }

  // While it is held, the maps of run B lie where those of run A do.
  function blink(on) {
    document.body.classList.toggle("blinking", on);
    for (const figure of document.querySelectorAll("figure[data-other]")) {
      const heat = figure.querySelector(".heat");
      figure.dataset.own ??= heat.getAttribute("src");
      heat.setAttribute("src", on ? figure.dataset.other : figure.dataset.own);
    }
  }

  return { card, photograph, maps, facts, tagged, blink };
})();
