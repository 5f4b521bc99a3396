"use strict";

// What a gallery knows. data/index.js calls gallery.start with a value of each map, for filters and orders; data/N.js
// calls gallery.chunk with all that is known of a hundred maps; levels/NAME.js calls gallery.levels with the values of
// the maps that are open. As scripts they load from a disk too, where a page may read no file.
const gallery = {};

gallery.make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

gallery.percent = (value) => `${Number((100 * value).toPrecision(2))} %`;
gallery.shown = (value) => (value === null || Number.isNaN(value) ? "none" : Number(value.toPrecision(3)).toString());
gallery.signed = (value) => (value === null || Number.isNaN(value) ? "" : `${value < 0 ? "−" : "+"}${gallery.shown(Math.abs(value))}`);

gallery.data = (() => {
  const CHUNKS = 200; // in memory
  const scripts = new Map(); // source -> promise of what it tells
  const waiting = new Map(); // name -> what to call with it
  let index;

  function told(name, source) {
    return new Promise((resolve, reject) => {
      waiting.set(name, resolve);
      const script = gallery.make("script", { src: source });
      script.onerror = () => reject(new Error(`${source} is missing`));
      script.onload = () => script.remove();
      document.head.append(script);
    });
  }

  function load(number) {
    if (!scripts.has(number)) {
      if (scripts.size >= CHUNKS) scripts.delete(scripts.keys().next().value);
      scripts.set(number, told(`chunk ${number}`, `data/${number}.js`));
    }
    return scripts.get(number);
  }

  function tell(name, value) {
    waiting.get(name)?.(value);
    waiting.delete(name);
  }

  const numbers = (values) => Float32Array.from(values, (value) => value ?? NaN);

  // Columns as typed arrays: a hundred thousand boxed values are heavier than the maps' names.
  function columns(given) {
    index = given;
    for (const name of ["target", "predicted", "image"]) index[name] = Int32Array.from(index[name]);
    if (index.runs.length < 2) index.disagreement = null;
    for (const name of ["score", "size", "disagreement"]) index[name] = index[name] && numbers(index[name]);
    for (const metric of index.metrics) metric.values = numbers(metric.values);
    return index;
  }

  let small; // the ids in small letters, made when they are first searched
  const search = () => (small ??= index.ids.map((id) => id.toLowerCase()));

  const row = async (number) => (await load(Math.floor(number / index.chunk)))[number % index.chunk];
  const nameOf = (target) => index.names[target] ?? `class ${target}`;
  const metric = (run, name) => index.metrics.find((known) => known.run === run && known.metric === name);
  const values = (run, name) => metric(run, name)?.values ?? null;
  const metricNames = () => [...new Set(index.metrics.map((known) => known.metric))];
  const key = (number) => `${index.target[number]} ${index.ids[index.image[number]]}`;

  // The values of the maps of an entry, as many as a coarse look needs.
  async function levels(entry) {
    if (!entry.levels) return null;
    return told(`levels ${entry.levels}`, `levels/${entry.levels}.js`);
  }

  return { columns, search, row, tell, nameOf, metric, values, metricNames, key, levels, get index() { return index; } };
})();

gallery.chunk = (number, rows) => gallery.data.tell(`chunk ${number}`, rows);
gallery.levels = (name, maps) => gallery.data.tell(`levels ${name}`, maps);
