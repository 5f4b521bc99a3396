"use strict";

// The maps that are shown, class by class, and what is taken for what: both lead to the images.
gallery.tables = (() => {
  const { data, filters, make, percent, shown, signed } = gallery;
  const { field } = filters;

  class Mean {
    sum = 0;
    count = 0;
    add(value) {
      if (Number.isNaN(value)) return;
      this.sum += value;
      this.count += 1;
    }
    get value() { return this.count ? this.sum / this.count : NaN; }
  }

  // Of each class: how many maps, how often it is predicted, the mean score, and the mean metric of runs A and B.
  function classes(numbers) {
    const { index } = data;
    const chosen = [...new Set([field.a.value, field.b.value])].map((run) => data.values(run, field.metric.value)).filter(Boolean);
    const found = new Map();
    for (const number of numbers) {
      const target = index.target[number];
      if (!found.has(target)) found.set(target, { target, count: 0, right: new Mean(), score: new Mean(), metrics: chosen.map(() => new Mean()) });
      const own = found.get(target);
      own.count += 1;
      own.right.add(Number(index.predicted[number] === target));
      own.score.add(index.score[number]);
      chosen.forEach((values, place) => own.metrics[place].add(values[number]));
    }
    const sign = data.metric(field.a.value, field.metric.value)?.better === "lower" ? -1 : 1;
    const worth = ({ right, metrics }) => (metrics.length ? sign * metrics[0].value : right.value);
    const order = (value) => (Number.isNaN(value) ? Infinity : value);
    return [...found.values()].sort((one, other) => order(worth(one)) - order(worth(other)) || other.count - one.count);
  }

  function confusions(numbers) {
    const { index } = data;
    const counts = new Map(); // target -> prediction -> number of maps
    for (const number of numbers) {
      const target = index.target[number];
      const predicted = index.predicted[number];
      if (target === predicted) continue;
      if (!counts.has(target)) counts.set(target, new Map());
      const own = counts.get(target);
      own.set(predicted, (own.get(predicted) ?? 0) + 1);
    }
    const pairs = [...counts].flatMap(([target, own]) => [...own].map(([predicted, count]) => [target, predicted, count]));
    return pairs.sort(([, , one], [, , other]) => other - one);
  }

  const MOST = 500; // lines

  function table(caption, heads, lines) {
    const texts = lines.length > MOST ? `${caption}: the first ${MOST} of ${lines.length}` : caption;
    const head = make("tr", {}, ...heads.map((textContent) => make("th", { textContent, scope: "col" })));
    const body = lines.slice(0, MOST).map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
    return make("table", { className: "wide" }, make("caption", { textContent: texts }), make("thead", {}, head), make("tbody", {}, ...body));
  }

  function link(text, values, go) {
    const onclick = () => {
      for (const [name, value] of Object.entries(values)) field[name].value = value;
      go();
    };
    return make("button", { type: "button", className: "open", textContent: text, onclick });
  }

  function byClass(numbers, go) {
    const name = field.metric.value;
    const runs = [...new Set([field.a.value, field.b.value])].filter((run) => data.values(run, name));
    const heads = ["class", "maps", "predicted", "mean score", ...runs.map((run) => `${name}, ${run}`)];
    if (runs.length > 1) heads.push("difference");
    const lines = classes(numbers).map(({ target, count, right, score, metrics }) => {
      const values = metrics.map(({ value }) => shown(value));
      if (runs.length > 1) values.push(signed(metrics[1].value - metrics[0].value));
      return [link(data.nameOf(target), { target }, go), String(count), percent(right.value), percent(score.value), ...values];
    });
    return table("Classes, the worst first", heads, lines);
  }

  function byConfusion(numbers, go) {
    const lines = confusions(numbers).map(([target, predicted, count]) => {
      const text = `${data.nameOf(target)} → ${data.nameOf(predicted)}`;
      return [link(text, { target, predicted }, go), String(count)];
    });
    return table("Target → prediction, where they differ", ["pair", "maps"], lines);
  }

  return { classes: byClass, confusions: byConfusion };
})();
