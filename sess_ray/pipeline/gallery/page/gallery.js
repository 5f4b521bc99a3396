"use strict";

// The page: what a person does, and what is seen after it.
(() => {
  const ON_PAGE = 24; // images
  const { cards, data, filters, histograms, large, make, tables, tags } = gallery;
  const { form, field } = filters;
  const element = (id) => document.getElementById(id);
  const LOOKS = ["opacity", "marks", "theme"]; // settings that choose no maps
  const VIEWS = ["maps", "classes", "confusions"];

  let numbers = []; // of the maps that pass the filters, in order
  let images = []; // the same, those of an image together
  let page = 0;
  let view = "maps";
  let opened = null; // number of the map in the large view
  let pointed = null; // section under the pointer, or with the focus

  // --- what is seen ---

  let drawing = 0;
  async function draw() {
    const mine = ++drawing;
    const pages = Math.max(1, Math.ceil(images.length / ON_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const first = page * ON_PAGE;
    const groups = view === "maps" ? images.slice(first, first + ON_PAGE) : [];
    const rows = await Promise.all(groups.map((group) => Promise.all(group.map(data.row))));
    if (mine !== drawing) return; // another page was asked for meanwhile
    element("cards").replaceChildren(...rows.map((entries, place) => cards.card(entries, groups[place])));
    element("table").replaceChildren(...(view === "maps" ? [] : [tables[view](numbers, toMaps)]));
    for (const name of VIEWS) element(`view-${name}`).setAttribute("aria-pressed", name === view);
    element("pages").hidden = view !== "maps";
    element("place").textContent = counts(first, groups.length);
    element("previous").disabled = page === 0;
    element("next").disabled = page === pages - 1;
    element("save").disabled = numbers.length === 0;
    document.body.dataset.drawn = `${page}`;
  }

  function counts(first, shownImages) {
    if (!numbers.length) return "no map passes the filters";
    const { index } = data;
    const every = numbers.length < index.count ? `${numbers.length} of ${index.count} maps` : `${index.count} maps`;
    if (view !== "maps") return every;
    const place = `${first + 1} to ${first + shownImages} of ${images.length}`;
    return numbers.length === images.length && numbers.length === index.count ? place : `${place} images, ${every}`;
  }

  function settle() {
    const root = document.documentElement;
    root.style.setProperty("--opacity", Number(field.opacity.value) / 100);
    root.dataset.theme = field.theme.value;
    document.body.classList.toggle("without-marks", !field.marks.checked);
    const state = filters.state();
    if (page) state.set("page", page);
    if (view !== "maps") state.set("view", view);
    if (opened !== null) state.set("map", opened);
    history.replaceState(null, "", `#${state}`);
  }

  function choose() {
    numbers = filters.rows();
    images = filters.images(numbers);
    histograms.update(numbers);
  }

  function again() {
    choose();
    return turn(0);
  }

  function turn(to) {
    page = to;
    scrollTo(0, 0);
    return draw().then(settle);
  }

  function show(name) {
    view = name;
    return turn(0);
  }

  function toMaps() {
    view = "maps";
    return again();
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    filters.restore(state);
    page = Number(state.get("page")) || 0;
    view = VIEWS.includes(state.get("view")) ? state.get("view") : "maps";
    choose();
    const number = state.get("map");
    return draw().then(() => (number === null ? null : open(Number(number)))).then(settle);
  }

  // --- what a person does ---

  const open = (number) => large.open(number, images.flat());

  function tag(key) {
    const number = large.isOpen() ? large.number() : pointed && Number(pointed.dataset.number);
    if (number === null || number === undefined || !tags.toggle(number, Number(key) - 1)) return false;
    const section = document.querySelector(`section[data-number="${number}"] .tags`);
    section?.replaceChildren(...cards.tagged(number));
    document.querySelector("#large .tags")?.replaceChildren(...cards.tagged(number));
    return true;
  }

  async function save() {
    const text = await tags.manifest(numbers);
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/jsonl" })), download: "selection.jsonl" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const fade = (step) => {
    field.opacity[step > 0 ? "stepUp" : "stepDown"](10);
    settle();
  };

  const KEYS = {
    ArrowLeft: () => turn(page - 1),
    ArrowRight: () => turn(page + 1),
    Home: () => turn(0),
    End: () => turn(Infinity),
    "+": () => fade(1),
    "-": () => fade(-1),
    "/": () => field.search.focus(),
  };

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range]), textarea")) return;
    // A list that has just been chosen from takes letters and digits itself, unless they are for the map under the pointer.
    const meant = /^[1-9b]$/.test(event.key) && document.querySelector("section.map:hover");
    if (event.target.matches("select") && !meant) return;
    if (event.key === "b") cards.blink(true);
    else if (/^[1-9]$/.test(event.key) && tag(event.key)) event.preventDefault();
    else if (event.target.matches("input")) return; // a slider has keys of its own
    else if (large.isOpen() ? large.key(event) : KEYS[event.key]) {
      if (!large.isOpen()) KEYS[event.key]();
      event.preventDefault();
    }
  }

  function listen() {
    form.addEventListener("submit", (event) => event.preventDefault());
    let later;
    form.addEventListener("input", (event) => {
      const { name } = event.target;
      if (LOOKS.includes(name)) settle();
      else if (name === "search") {
        clearTimeout(later);
        later = setTimeout(again, 60);
      }
    });
    form.addEventListener("change", ({ target: { name } }) => {
      if (!name || name === "search" || LOOKS.includes(name)) return;
      if (name === "a") histograms.setup(again);
      again();
    });
    const buttons = { previous: KEYS.ArrowLeft, next: KEYS.ArrowRight, save, clear: () => { filters.clear(); again(); } };
    for (const [id, does] of Object.entries(buttons)) element(id).addEventListener("click", does);
    for (const name of VIEWS) element(`view-${name}`).addEventListener("click", () => show(name));
    element("cards").addEventListener("click", (event) => {
      const section = event.target.closest("section.map");
      if (section) open(Number(section.dataset.number));
    });
    for (const name of ["pointerover", "focusin"]) {
      element("cards").addEventListener(name, (event) => { pointed = event.target.closest("section.map") ?? pointed; });
    }
    document.addEventListener("keydown", pressed);
    document.addEventListener("keyup", (event) => { if (event.key === "b") cards.blink(false); });
    addEventListener("blur", () => cards.blink(false));
    addEventListener("hashchange", restore); // typed, or by the browser's own way back
    large.setup((number) => { opened = number; settle(); });
  }

  gallery.start = (given) => {
    data.columns(given);
    document.documentElement.style.setProperty("--runs", given.runs.length);
    document.documentElement.style.setProperty("--maps", `${given.runs.length}fr`);
    document.body.classList.toggle("several-runs", given.runs.length > 1);
    if (matchMedia("(max-width: 60rem)").matches) element("panel").open = false;
    filters.setup();
    tags.setup();
    histograms.setup(again);
    listen();
    restore();
  };
})();
