"use strict";

// A histogram for each column of values: its bars say what is shown of all; drawing over them, or its two sliders, filter.
gallery.histograms = (() => {
  const BINS = 40;
  const { filters, make } = gallery;
  const home = document.getElementById("histograms");
  let drawn = new Map(); // column -> what updates its bars

  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  function span(values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return low < high ? [low, high] : null; // one value has no histogram
  }

  function counted(values, numbers, [low, high]) {
    const counts = new Float64Array(BINS);
    const scale = BINS / (high - low);
    const add = (value) => {
      if (!Number.isNaN(value)) counts[Math.min(BINS - 1, Math.floor((value - low) * scale))] += 1;
    };
    if (numbers) for (const number of numbers) add(values[number]);
    else values.forEach(add);
    return counts;
  }

  function bars(name, counts, most) {
    return [...counts].map((count, bin) => {
      const height = count ? Math.max(1.5, 30 * Math.sqrt(count / most)) : 0;
      return svg("rect", { class: name, x: bin, y: 30 - height, width: 0.86, height });
    });
  }

  function slider(name, text, value, [low, high]) {
    const made = make("input", { type: "range", min: low, max: high, step: "any", value });
    made.setAttribute("aria-label", `${name}, ${text}`);
    return made;
  }

  function one(name, values, changed) {
    const whole = span(values);
    if (!whole) return null;
    const [low, high] = whole;
    const all = counted(values, null, whole);
    const most = Math.max(...all);
    const picture = svg("svg", { viewBox: `0 0 ${BINS} 30`, preserveAspectRatio: "none", class: "bars", "aria-hidden": "true" });
    const ends = [slider(name, "from", low, whole), slider(name, "to", high, whole)];
    const said = make("output", {});
    const box = make("fieldset", { className: "histogram" }, make("legend", { textContent: name }), picture, ...ends, said);
    box.dataset.column = name;

    function brush(first, last) {
      const [from, to] = first < last ? [first, last] : [last, first];
      if (from <= low && to >= high) filters.ranges.delete(name);
      else filters.ranges.set(name, [from, to]);
      changed();
    }

    const at = (event) => {
      const { left, width } = picture.getBoundingClientRect();
      return low + (high - low) * Math.min(1, Math.max(0, (event.clientX - left) / width));
    };
    let began = null;
    picture.addEventListener("pointerdown", (event) => {
      began = at(event);
      picture.setPointerCapture(event.pointerId);
    });
    picture.addEventListener("pointermove", (event) => {
      if (began !== null) brush(began, at(event));
    });
    picture.addEventListener("pointerup", (event) => {
      if (began !== null && Math.abs(at(event) - began) < (high - low) / 100) brush(low, high); // a click takes all again
      began = null;
    });
    ends.forEach((end) => end.addEventListener("input", () => brush(Number(ends[0].value), Number(ends[1].value))));

    drawn.set(name, (numbers) => {
      const [from, to] = filters.ranges.get(name) ?? whole;
      ends[0].value = from;
      ends[1].value = to;
      said.textContent = `${gallery.shown(from)} to ${gallery.shown(to)}`;
      picture.replaceChildren(...bars("all", all, most), ...bars("lit", counted(values, numbers, whole), most));
    });
    return box;
  }

  function setup(changed) {
    drawn = new Map();
    home.replaceChildren(...[...filters.columns()].map(([name, values]) => one(name, values, changed)).filter(Boolean));
  }

  const update = (numbers) => drawn.forEach((draw) => draw(numbers));

  return { setup, update };
})();
