"use strict";

// Tags: the number keys put words on maps. They are kept in the browser, by the address of the gallery.
gallery.tags = (() => {
  const { data, filters, make } = gallery;
  const PLACE = `sess-ray tags ${location.pathname}`;
  const NAMES = ["good", "bad", "look again"];
  let names = [...NAMES];
  let of = new Map(); // key of a map -> its tags

  function load() {
    try {
      const kept = JSON.parse(localStorage.getItem(PLACE)) ?? {};
      names = kept.names ?? names;
      of = new Map(Object.entries(kept.of ?? {}).map(([key, own]) => [key, new Set(own)]));
    } catch { /* a browser that keeps nothing tags until the page is closed */ }
  }

  function save() {
    try {
      const own = Object.fromEntries([...of].map(([key, tags]) => [key, [...tags]]));
      localStorage.setItem(PLACE, JSON.stringify({ names, of: own }));
    } catch { /* as above */ }
  }

  const tagsOf = (number) => [...(of.get(data.key(number)) ?? [])];

  function passes(number, tag) {
    const own = of.get(data.key(number));
    return tag === "any tag" ? Boolean(own) : tag === "no tag" ? !own : Boolean(own?.has(tag));
  }

  function toggle(number, place) {
    const tag = names[place];
    if (!tag) return false;
    const key = data.key(number);
    const own = of.get(key) ?? new Set();
    if (!own.delete(tag)) own.add(tag);
    if (own.size) of.set(key, own);
    else of.delete(key);
    save();
    return true;
  }

  function options() {
    const chosen = filters.field.tag.value;
    const texts = ["any tag", "no tag", ...names];
    filters.field.tag.replaceChildren(
      make("option", { value: "", textContent: "all" }),
      ...texts.map((textContent) => make("option", { value: textContent, textContent })),
    );
    filters.field.tag.value = texts.includes(chosen) ? chosen : "";
    document.getElementById("tagkeys").textContent = names.map((name, place) => `${place + 1} ${name}`).join(" · ");
  }

  function rename(text) {
    const found = [...new Set(text.split(",").map((name) => name.trim()).filter(Boolean))].slice(0, 9);
    names = found.length ? found : [...NAMES];
    save();
    options();
  }

  function setup() {
    load();
    options();
    const input = document.getElementById("tagnames");
    input.value = names.join(", ");
    input.addEventListener("change", () => rename(input.value));
  }

  // What sess-ray explain --input takes: the images of some maps, each with the targets that are shown of it.
  async function manifest(numbers) {
    const found = new Map();
    for (const number of numbers) {
      const { id, uri } = await data.row(number);
      const target = data.index.target[number];
      const classes = data.index.groups[target];
      const spec = classes ? `${data.nameOf(target)}=${classes.join("+")}` : String(target);
      if (found.has(id)) found.get(id).targets.push(spec);
      else found.set(id, { uri, id, targets: [spec] });
    }
    return [...found.values()].map((line) => `${JSON.stringify(line)}\n`).join("");
  }

  return { setup, passes, toggle, tagsOf, manifest };
})();
