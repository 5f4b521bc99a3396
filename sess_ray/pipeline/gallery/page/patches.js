"use strict";

// The windows of one image. data/windows.js calls patches.start with all of them, best first, and with the map that is
// fused of the best few, more and all.
const patches = (() => {
  const element = (id) => document.getElementById(id);
  const field = element("controls").elements;
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const percent = (value) => `${Number((100 * value).toPrecision(2))} %`;

  let told;
  let fused;
  let outline;
  let tiles = [];
  let bars;

  function show() {
    const step = told.steps[Number(field.step.value)];
    document.documentElement.style.setProperty("--opacity", Number(field.opacity.value) / 100);
    fused.src = step.map;
    fused.alt = `map of the best ${step.kept} windows`;
    element("kept").textContent = `${step.kept} of ${told.windows.length} windows, r = ${step.ratio}`;
    bars.childNodes.forEach((bar, rank) => bar.classList.toggle("kept", rank < step.kept));
    tiles.forEach((tile, rank) => {
      tile.classList.toggle("kept", rank < step.kept);
      tile.hidden = rank >= step.kept && !field.dropped.checked;
    });
  }

  // The windows by rank, as high as their scores: those that are kept are lit.
  function timeline() {
    const most = told.windows[0].score;
    const made = make("ol", { className: "timeline", ariaLabel: "Scores of the windows, best first" });
    made.append(...told.windows.map(({ score }, rank) => {
      const bar = make("li", { title: `rank ${rank + 1}: ${percent(score)}` });
      bar.style.height = `${100 * Math.max(0.02, score / most)}%`;
      return bar;
    }));
    return made;
  }

  let playing;
  function play() {
    clearInterval(playing);
    field.step.value = 0;
    show();
    playing = setInterval(() => {
      field.step.stepUp();
      show();
      if (field.step.value === field.step.max) clearInterval(playing);
    }, 350);
  }

  // The gallery that leads here says how to come back; to a page beside this one, and nowhere else.
  function wayBack() {
    const given = new URLSearchParams(location.hash.slice(1)).get("back");
    if (!given?.startsWith("../")) return;
    element("back").href = given;
    element("back").hidden = false;
  }

  function point(window) {
    outline.hidden = !window;
    if (!window) return;
    const [x0, y0, x1, y1] = window.box;
    Object.assign(outline.style, {
      left: `${(100 * x0) / told.width}%`, top: `${(100 * y0) / told.height}%`,
      width: `${(100 * (x1 - x0)) / told.width}%`, height: `${(100 * (y1 - y0)) / told.height}%`,
    });
  }

  function tile(window, rank) {
    const text = `${percent(window.score)}`;
    const stack = make("div", { className: "stack" });
    stack.style.aspectRatio = `${told.window.width} / ${told.window.height}`;
    stack.append(
      make("img", { src: window.crop, alt: "", loading: "lazy" }),
      make("img", { className: "heat", src: window.map, alt: `window at row ${window.y}, column ${window.x}`, loading: "lazy" }),
    );
    const made = make("figure", { className: "tile", tabIndex: 0, title: `rank ${rank + 1}` }, stack, make("figcaption", { textContent: text }));
    for (const name of ["mouseenter", "focus"]) made.addEventListener(name, () => point(window));
    for (const name of ["mouseleave", "blur"]) made.addEventListener(name, () => point(null));
    return made;
  }

  function start(given) {
    told = given;
    document.title = `${told.name}: windows`;
    element("title").textContent = `${told.id}: ${told.name}, ${percent(told.score)}, ${told.method} of ${told.model}`;
    outline = make("div", { className: "box", hidden: true });
    fused = make("img", { className: "heat" });
    const stack = make("div", { className: "stack" });
    stack.style.aspectRatio = `${told.width} / ${told.height}`;
    stack.append(make("img", { src: told.image, alt: told.id }), fused, outline);
    bars = timeline();
    document.querySelector(".fused").append(stack, bars);
    tiles = told.windows.map(tile);
    told.scales.forEach(({ height, width, columns }, scale) => {
      const grid = make("div", { className: "tiles" });
      grid.style.gridTemplateColumns = `repeat(${columns}, minmax(2.5rem, 7rem))`;
      const own = told.windows.map((window, rank) => [window, tiles[rank]]).filter(([window]) => window.scale === scale);
      own.sort(([one], [other]) => one.y - other.y || one.x - other.x);
      grid.append(...own.map(([, made]) => made));
      const title = make("h2", { textContent: `scale ${scale}: ${width} x ${height}, ${own.length === 1 ? "1 window" : `${own.length} windows`}` });
      element("scales").append(make("section", { className: "scale" }, title, grid));
    });
    field.step.max = told.steps.length - 1;
    field.step.value = told.first;
    element("controls").addEventListener("input", show);
    element("play").addEventListener("click", play);
    wayBack();
    element("controls").addEventListener("submit", (event) => event.preventDefault());
    show();
    document.body.dataset.drawn = "0";
  }

  return { start };
})();
