"use strict";

// Which maps are shown, in which order, and how the address of the page says so.
gallery.filters = (() => {
  const form = document.getElementById("filters");
  const field = form.elements;
  const ranges = new Map(); // brushed column -> [low, high]
  const { data, make } = gallery;

  const SIZES = { "": () => true };
  const CORRECT = { "": () => true, yes: (right) => right, no: (right) => !right };
  const PROBLEM = { "": () => true, yes: (error) => error, no: (error) => !error };

  // What a histogram shows of each map: its name, and its values.
  function columns() {
    const found = new Map([["score", data.index.score]]);
    if (data.index.disagreement) found.set("disagreement", data.index.disagreement);
    for (const name of data.metricNames()) {
      const values = data.values(field.a.value, name);
      if (values) found.set(name, values);
    }
    return found;
  }

  // An order: what it is called, and the value by which maps come, the largest first; NaN comes last.
  function orders() {
    const { index } = data;
    const list = [["as stored", null]];
    list.push(["score, highest first", (number) => index.score[number]]);
    list.push(["score, lowest first", (number) => -index.score[number]]);
    if (index.disagreement) list.push(["runs disagree most", (number) => index.disagreement[number]]);
    for (const { run, metric, better, values } of index.metrics) {
      const sign = better === "higher" ? -1 : 1;
      list.push([`worst ${metric} of ${run}`, (number) => sign * values[number]]);
    }
    return list;
  }

  function words() {
    const terms = field.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!terms.length) return () => true;
    const { index } = data;
    const ids = data.search();
    const names = new Map();
    return (number) => {
      const target = index.target[number];
      if (!names.has(target)) names.set(target, data.nameOf(target).toLowerCase());
      return terms.every((term) => ids[index.image[number]].includes(term) || names.get(target).includes(term));
    };
  }

  function tests() {
    const { index } = data;
    const found = [words()];
    const { target, predicted, correct, size, problem, tag } = Object.fromEntries(new FormData(form));
    if (target !== "") found.push((number) => index.target[number] === Number(target));
    if (predicted !== "") found.push((number) => index.predicted[number] === Number(predicted));
    if (correct !== "") found.push((number) => CORRECT[correct](index.predicted[number] === index.target[number]));
    if (size) found.push((number) => SIZES[size](index.size[number]));
    if (problem !== "") found.push((number) => PROBLEM[problem](index.problem[number]));
    if (tag !== "") found.push((number) => gallery.tags.passes(number, tag));
    const known = columns();
    for (const [name, [low, high]] of ranges) {
      const values = known.get(name);
      if (values) found.push((number) => values[number] >= low && values[number] <= high); // NaN is in no range
    }
    return found;
  }

  // The numbers of the maps that pass, in order.
  function rows() {
    const found = [];
    const all = tests();
    for (let number = 0; number < data.index.count; number++) {
      if (all.every((passes) => passes(number))) found.push(number);
    }
    const value = orders()[Number(field.order.value)]?.[1];
    if (!value) return found;
    const keys = new Float64Array(data.index.count);
    for (const number of found) {
      const own = value(number);
      keys[number] = Number.isNaN(own) ? -Infinity : own;
    }
    return found.sort((one, other) => (keys[other] > keys[one] ? 1 : keys[other] < keys[one] ? -1 : one - other));
  }

  // Maps of one image together, where the first of them comes.
  function images(numbers) {
    const groups = new Map();
    for (const number of numbers) {
      const image = data.index.image[number];
      if (groups.has(image)) groups.get(image).push(number);
      else groups.set(image, [number]);
    }
    return [...groups.values()];
  }

  // --- the page's address ---

  function state() {
    const found = new URLSearchParams();
    for (const { name, type, checked, value, dataset } of field) {
      if (!name) continue;
      const own = type === "checkbox" ? (checked ? "on" : "off") : value;
      if (own !== dataset.initially) found.set(name, own);
    }
    for (const [name, [low, high]] of ranges) found.set(`between.${name}`, `${low}~${high}`);
    return found;
  }

  function restore(found) {
    ranges.clear();
    for (const own of field) {
      if (!own.name) continue;
      const value = found.get(own.name) ?? own.dataset.initially;
      if (own.type === "checkbox") own.checked = value === "on";
      else own.value = value;
    }
    for (const [name, value] of found) {
      if (!name.startsWith("between.")) continue;
      const edges = value.split("~").map(Number);
      if (edges.length === 2 && edges.every(Number.isFinite)) ranges.set(name.slice(8), edges);
    }
  }

  const sorted = (numbers) => [...new Set(numbers)].sort((one, other) => data.nameOf(one).localeCompare(data.nameOf(other)));
  const options = (numbers) => numbers.map((number) => make("option", { value: number, textContent: data.nameOf(number) }));

  function setup() {
    const { index } = data;
    field.target.append(...options(sorted(index.target)));
    field.predicted.append(...options(sorted(index.predicted)));
    let least = 0;
    for (const [name, most] of index.sizes) {
      const above = least;
      SIZES[name] = (share) => share > above && share <= most;
      field.size.append(make("option", { value: name, textContent: `${name} of the image` }));
      least = most;
    }
    for (const own of [field.a, field.b]) own.append(...index.runs.map((run) => make("option", { value: run, textContent: run })));
    if (index.runs.length > 1) field.b.value = index.runs[1];
    field.metric.append(...data.metricNames().map((name) => make("option", { value: name, textContent: name })));
    field.order.append(...orders().map(([text], place) => make("option", { value: place, textContent: text })));
    const absent = { size: index.size.every(Number.isNaN), a: index.runs.length < 2, b: index.runs.length < 2, metric: !index.metrics.length };
    for (const [name, none] of Object.entries(absent)) field[name].closest("label").hidden = none;
    for (const own of field) {
      if (own.name) own.dataset.initially = own.type === "checkbox" ? (own.checked ? "on" : "off") : own.value;
    }
  }

  function clear() {
    for (const name of ["search", "target", "predicted", "correct", "size", "problem", "tag"]) field[name].value = "";
    ranges.clear();
  }

  return { form, field, ranges, columns, rows, images, state, restore, setup, clear };
})();
