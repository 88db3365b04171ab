// What cells look like: squares of a grid, points where a design fills space, or a strip over one axis. Each painter
// gives every cell its node, its centre (cx, cy) and how far it reaches up from there.

const NONE = { name: null, color: "#bbbbbb", marker: "X" };

// Colours of cells, and what they mean.
function lookOf(cells, measure) {
  if (measure.categories) {
    const items = [
      ...measure.categories,
      ...(cells.some((cell) => cell.counts.some(({ category }) => category === NONE)) ? [NONE] : []),
    ];
    return {
      legend: el(
        "ul",
        { class: "legend" },
        ...items.map((category) =>
          el(
            "li",
            {},
            svg("svg", { width: 16, height: 16, "aria-hidden": "true" }, marker(category, 8, 8, 6)),
            category.name ?? "none",
          ),
        ),
      ),
    };
  }
  const means = cells.map((cell) => cell.mean).filter((value) => value !== null);
  const log = measure.log && means.every((value) => value > 0);
  const [low, high] = measure.share ? [0, 1] : means.length ? [Math.min(...means), Math.max(...means)] : [0, 1];
  const bend = log ? Math.log : Number;
  const colour = (value) => shade(high > low ? (bend(value) - bend(low)) / (bend(high) - bend(low)) : 0.5);
  const stops = VIRIDIS.map((_, i) =>
    svg("stop", { offset: i / (VIRIDIS.length - 1), "stop-color": shade(i / (VIRIDIS.length - 1)).fill }),
  );
  const bar = svg(
    "svg",
    { width: 140, height: 12, "aria-hidden": "true" },
    svg("linearGradient", { id: "ramp" }, ...stops),
    svg("rect", { width: 140, height: 12, rx: 2, fill: "url(#ramp)" }),
  );
  const ramp = means.length ? [short(low), bar, short(high)] : [];
  return {
    colour,
    log,
    legend: el(
      "p",
      { class: "legend" },
      el("span", { class: "what" }, `${measure.label}${log ? ", log scale" : ""}`),
      el("span", { class: "ramp" }, ...ramp),
      ...(means.length < cells.length ? [el("span", {}, "hatched or crossed: no trial has a number")] : []),
    ),
  };
}

function hatch() {
  return svg(
    "pattern",
    { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { y2: 6, class: "hatch" }),
  );
}

function paintGrid({ cells, xs, ys, width, look, view }) {
  const left = 12 + 6.6 * Math.max(...ys.map((y) => short(y).length), 1);
  const wide = (width - left - 4) / xs.length;
  const tall = Math.min(Math.max(0.7 * wide, 26), 46);
  const height = 24 + tall * ys.length + 42;
  const bottom = 24 + tall * ys.length;
  const node = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
    },
    hatch(),
    svg("text", { x: 2, y: 14, class: "label" }, column(view.y).label),
    svg("text", { x: width - 4, y: height - 6, "text-anchor": "end", class: "label" }, column(view.x).label),
  );
  const every = Math.ceil((Math.max(...xs.map((x) => short(x).length)) * 6.6 + 6) / wide);
  xs.forEach(
    (x, i) =>
      i % every ||
      node.append(svg("text", { x: left + (i + 0.5) * wide, y: bottom + 17, "text-anchor": "middle" }, short(x))),
  );
  ys.forEach((y, i) =>
    node.append(svg("text", { x: left - 6, y: bottom - (i + 0.5) * tall + 4, "text-anchor": "end" }, short(y))),
  );
  for (const cell of cells) {
    const [x, y] = [left + xs.indexOf(cell.x) * wide, bottom - (ys.indexOf(cell.y) + 1) * tall];
    Object.assign(cell, { cx: x + wide / 2, cy: y + tall / 2, reach: tall / 2, node: svg("g") });
    const box = { y: y + 1, height: tall - 2 };
    if (cell.counts) {
      let start = x + 1;
      for (const { category, count } of cell.counts) {
        const part = ((wide - 2) * count) / cell.rows.length;
        cell.node.append(svg("rect", { ...box, x: start, width: part, fill: category.color }));
        if (part > 9)
          cell.node.append(marker({ ...category, color: "#fff" }, start + part / 2, cell.cy, Math.min(5, part / 4)));
        start += part;
      }
    } else {
      const paint = cell.mean === null ? null : look.colour(cell.mean);
      cell.node.append(svg("rect", { ...box, x: x + 1, width: wide - 2, fill: paint ? paint.fill : "url(#hatch)" }));
      const text = short(cell.mean);
      if (paint && wide > 8 + 6.2 * text.length) {
        cell.node.append(
          svg(
            "text",
            { x: cell.cx, y: cell.cy + 4, "text-anchor": "middle", class: paint.light ? "on-light" : "on-dark" },
            text,
          ),
        );
      }
    }
    cell.node.append(svg("rect", { ...box, x: x + 1, width: wide - 2, class: "rim" }));
    node.append(cell.node);
  }
  return node;
}

function paintPoints({ cells, width, look, view }) {
  const axis = (name, values) => placed(values, column(name));
  const [x, y] = [
    axis(
      view.x,
      cells.map((cell) => cell.x),
    ),
    axis(
      view.y,
      cells.map((cell) => cell.y),
    ),
  ];
  const { node, layer, across, up } = frame(width, Math.min(440, 0.75 * width + 60), x, y, "");
  for (const cell of cells) {
    const paint = cell.counts
      ? cell.counts[0].category
      : cell.mean === null
        ? NONE
        : { color: look.colour(cell.mean).fill, marker: "o" };
    const [cx, cy] = [across(x.at(cell.x)), up(y.at(cell.y))];
    Object.assign(cell, {
      cx,
      cy,
      reach: 6,
      node: svg("g", {}, marker(paint, cx, cy, 5.5), svg("circle", { cx, cy, r: 8, class: "rim" })),
    });
    layer.append(cell.node);
  }
  return node;
}

// Where values go on an axis, and which are named: numbers where they are, categories one after another.
function placed(values, { label, numeric, log }) {
  const order = distinct(values.filter((value) => value !== null));
  if (numeric)
    return {
      label,
      log,
      values: order,
      named: order.length <= 12 ? order.map((value) => [value, short(value)]) : null,
      at: (value) => value,
    };
  const all = distinct(values);
  return {
    label,
    log: false,
    values: all.map((_, i) => i),
    named: all.map((value, i) => [i, short(value)]),
    at: (value) => all.indexOf(value),
  };
}

function paintStrip({ cells, xs, width, view }) {
  const x = placed(xs, column(view.x));
  const shares = Boolean(view.measure.categories);
  const known = cells.flatMap((cell) => cell.known);
  const values = shares || view.measure.share ? [0, 1] : known;
  const y = {
    label: shares ? `share of trials by ${view.measure.label}` : view.measure.label,
    values,
    log: !shares && view.measure.log && known.every((value) => value > 0),
  };
  const { node, layer, across, up, bottom, left } = frame(width, 320, x, y, "");
  const at = cells.map((cell) => across(x.at(cell.x)));
  if (!shares && column(view.x).numeric)
    layer.append(
      svg("path", {
        d: path(cells.map((cell, i) => [at[i], cell.mean === null ? null : up(cell.mean)])),
        class: "line one",
      }),
    );
  cells.forEach((cell, i) => {
    const middle = (other) => (other === undefined ? null : (at[i] + other) / 2);
    const [from, to] = [middle(at[i - 1]) ?? left, middle(at[i + 1]) ?? width - 8];
    cell.node = svg(
      "g",
      {},
      svg("rect", { x: from, width: Math.max(1, to - from), y: 28, height: bottom - 28, class: "column" }),
    );
    Object.assign(cell, { cx: at[i], cy: shares || cell.mean === null ? (28 + bottom) / 2 : up(cell.mean), reach: 10 });
    if (shares) {
      let below = 0;
      for (const { category, count } of cell.counts) {
        const [low, high] = [up(below / cell.rows.length), up((below + count) / cell.rows.length)];
        const bar = Math.min(36, Math.max(3, to - from - 4));
        cell.node.append(
          svg("rect", { x: at[i] - bar / 2, width: bar, y: high, height: low - high, fill: category.color }),
        );
        if (low - high > 10 && bar > 10)
          cell.node.append(marker({ ...category, color: "#fff" }, at[i], (low + high) / 2, 4));
        below += count;
      }
    } else if (cell.mean !== null) {
      cell.node.append(
        ...cell.known.map((value) => svg("circle", { cx: at[i], cy: up(value), r: 2.5, class: "dot" })),
        svg("circle", { cx: at[i], cy: cell.cy, r: 5.5, class: "mean" }),
      );
    } else {
      cell.node.append(marker(NONE, at[i], cell.cy, 5));
    }
    layer.append(cell.node);
  });
  return node;
}
