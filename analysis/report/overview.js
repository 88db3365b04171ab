// The map: cells of trials over two axes, or a strip over one; each can be reached by pointer or arrow keys, and opened.

const NONE = { name: null, color: "#bbbbbb", marker: "X" };

// Groups of trials with the same values of the axes shown, in ascending order of x, then y.
function cellsOf(view) {
  const groups = new Map();
  const across = column(view.x).values;
  const up = view.y === null ? null : column(view.y).values;
  for (let i = 0; i < across.length; i++) {
    if ([...view.held].some(([name, value]) => column(name).values[i] !== value)) continue;
    const [x, y] = [across[i], up ? up[i] : null];
    const key = JSON.stringify([x, y]);
    if (!groups.has(key)) groups.set(key, { x, y, rows: [] });
    groups.get(key).rows.push(i);
  }
  const cells = [...groups.values()].sort((a, b) => inOrder(a.x, b.x) || inOrder(a.y, b.y));
  for (const cell of cells) Object.assign(cell, numbersOf(cell.rows, view.measure));
  return cells;
}

// What a measure is over some trials: mean and spread of a number, or how many have each category.
function numbersOf(rows, measure) {
  const values = rows.map((i) => column(measure.name).values[i]);
  if (measure.categories) {
    const counts = [...measure.categories, NONE].map((category) => ({
      category, count: values.filter((value) => value === category.name).length }));
    return { counts: counts.filter(({ count }) => count), known: values };
  }
  const known = values.filter((value) => value !== null);
  return { known, mean: known.length ? mean(known) : null, sd: known.length > 1 ? deviation(known) : null };
}

function words(cell, view) {
  const place = [view.x, ...(view.y === null ? [] : [view.y])]
    .map((name, i) => `${column(name).label} ${short(i ? cell.y : cell.x)}`).join(", ");
  const said = cell.counts ? cell.counts.map(({ category, count }) => `${category.name ?? "none"} ${count}`).join(", ")
    : cell.mean === null ? `no ${view.measure.label}`
    : `${view.measure.label} ${short(cell.mean)}${cell.sd === null || view.measure.share ? "" : ` ± ${short(cell.sd)}`}`;
  const statuses = column("status").values;
  const found = distinct(cell.rows.map((i) => statuses[i])).map((status) =>
    `${cell.rows.filter((i) => statuses[i] === status).length} ${status}`);
  return [place, said, found.join(", ")];
}

function drawOverview(view, stage, open) {
  const cells = cellsOf(view);
  const xs = distinct(cells.map((cell) => cell.x));
  const ys = distinct(cells.map((cell) => cell.y));
  const width = Math.max(260, Math.floor(stage.clientWidth));
  const look = lookOf(cells, view.measure);
  const tip = el("div", { class: "tip", hidden: true });
  const paint = view.y === null ? paintStrip : 2 * cells.length >= xs.length * ys.length ? paintGrid : paintPoints;
  const node = paint({ cells, xs, ys, width, look, view });
  for (const cell of cells) {
    const [place, said, found] = words(cell, view);
    const show = () => {
      tip.replaceChildren(el("strong", {}, place), el("span", {}, said), el("span", {}, found));
      tip.hidden = false;
      const scale = node.getBoundingClientRect().width / width;
      tip.style.left = `${Math.min(Math.max(cell.cx * scale - tip.offsetWidth / 2, 0), stage.clientWidth - tip.offsetWidth)}px`;
      tip.style.top = `${node.offsetTop + node.getBoundingClientRect().top - stage.getBoundingClientRect().top
        + (cell.cy - cell.reach) * scale - tip.offsetHeight - 8}px`;
    };
    const hide = () => { tip.hidden = true; };
    for (const [event, act] of Object.entries({ pointerenter: show, focus: show, pointerleave: hide, blur: hide,
      click: () => open(cell), keydown: (press) => {
        if (press.key === "Enter" || press.key === " ") open(cell);
        else if (press.key === "Escape") hide();
        else if (press.key.startsWith("Arrow")) neighbour(cells, cell, press.key)?.node.focus();
        else return;
        press.preventDefault();
      } })) cell.node.addEventListener(event, act);
    cell.node.addEventListener("focus", () => {
      for (const other of cells) other.node.setAttribute("tabindex", other === cell ? 0 : -1);
    });
    for (const [key, value] of Object.entries({ class: "cell", role: "button", tabindex: -1, "aria-pressed": "false",
      "aria-label": `${place}: ${said}; ${found}` })) cell.node.setAttribute(key, value);
  }
  cells[0]?.node.setAttribute("tabindex", 0);
  stage.replaceChildren(look.legend, node, tip);
  return cells;
}

function neighbour(cells, from, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  let [best, least] = [null, Infinity];
  for (const cell of cells) {
    const [x, y] = [cell.cx - from.cx, cell.cy - from.cy];
    const cost = x * dx + y * dy + 3 * Math.abs(x * dy + y * dx);
    if (x * dx + y * dy > 1 && cost < least) [best, least] = [cell, cost];
  }
  return best;
}

// Colours of cells, and what they mean.
function lookOf(cells, measure) {
  if (measure.categories) {
    const items = [...measure.categories, ...(cells.some((cell) => cell.counts.some(({ category }) => category === NONE)) ? [NONE] : [])];
    return { legend: el("ul", { class: "legend" }, ...items.map((category) => el("li", {},
      svg("svg", { width: 16, height: 16, "aria-hidden": "true" }, marker(category, 8, 8, 6)), category.name ?? "none"))) };
  }
  const means = cells.map((cell) => cell.mean).filter((value) => value !== null);
  const log = measure.log && means.every((value) => value > 0);
  const [low, high] = measure.share ? [0, 1] : means.length ? [Math.min(...means), Math.max(...means)] : [0, 1];
  const bend = log ? Math.log : Number;
  const colour = (value) => shade(high > low ? (bend(value) - bend(low)) / (bend(high) - bend(low)) : 0.5);
  const stops = VIRIDIS.map((_, i) => svg("stop", { offset: i / (VIRIDIS.length - 1), "stop-color": shade(i / (VIRIDIS.length - 1)).fill }));
  const bar = svg("svg", { width: 140, height: 12, "aria-hidden": "true" }, svg("linearGradient", { id: "ramp" }, ...stops),
    svg("rect", { width: 140, height: 12, rx: 2, fill: "url(#ramp)" }));
  const ramp = means.length ? [short(low), bar, short(high)] : ["no trial has a number"];
  return { colour, log, legend: el("p", { class: "legend" }, el("span", { class: "what" }, `${measure.label}${log ? ", log scale" : ""}`), ...ramp) };
}

function hatch() {
  return svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { y2: 6, class: "hatch" }));
}

function paintGrid({ cells, xs, ys, width, look, view }) {
  const left = 12 + 6.6 * Math.max(...ys.map((y) => short(y).length), 1);
  const wide = (width - left - 4) / xs.length;
  const tall = Math.min(Math.max(0.7 * wide, 20), 46);
  const height = 24 + tall * ys.length + 42;
  const bottom = 24 + tall * ys.length;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group",
    "aria-label": `${view.measure.label} by ${column(view.x).label} and ${column(view.y).label}; arrow keys move, Enter opens` },
  hatch(), svg("text", { x: 2, y: 14, class: "label" }, column(view.y).label),
  svg("text", { x: width - 4, y: height - 6, "text-anchor": "end", class: "label" }, column(view.x).label));
  const every = Math.ceil((Math.max(...xs.map((x) => short(x).length)) * 6.6 + 6) / wide);
  xs.forEach((x, i) => i % every || node.append(svg("text", { x: left + (i + 0.5) * wide, y: bottom + 17, "text-anchor": "middle" }, short(x))));
  ys.forEach((y, i) => node.append(svg("text", { x: left - 6, y: bottom - (i + 0.5) * tall + 4, "text-anchor": "end" }, short(y))));
  for (const cell of cells) {
    const [x, y] = [left + xs.indexOf(cell.x) * wide, bottom - (ys.indexOf(cell.y) + 1) * tall];
    Object.assign(cell, { cx: x + wide / 2, cy: y + tall / 2, reach: tall / 2, node: svg("g") });
    const box = { y: y + 1, height: tall - 2 };
    if (cell.counts) {
      let start = x + 1;
      for (const { category, count } of cell.counts) {
        const part = ((wide - 2) * count) / cell.rows.length;
        cell.node.append(svg("rect", { ...box, x: start, width: part, fill: category.color }));
        if (part > 9) cell.node.append(marker({ ...category, color: "#fff" }, start + part / 2, cell.cy, Math.min(5, part / 4)));
        start += part;
      }
    } else {
      const paint = cell.mean === null ? null : look.colour(cell.mean);
      cell.node.append(svg("rect", { ...box, x: x + 1, width: wide - 2, fill: paint ? paint.fill : "url(#hatch)" }));
      const text = short(cell.mean);
      if (paint && wide > 8 + 6.2 * text.length) {
        cell.node.append(svg("text", { x: cell.cx, y: cell.cy + 4, "text-anchor": "middle", class: paint.light ? "on-light" : "on-dark" }, text));
      }
    }
    cell.node.append(svg("rect", { ...box, x: x + 1, width: wide - 2, class: "rim" }));
    node.append(cell.node);
  }
  return node;
}

function paintPoints({ cells, width, look, view }) {
  const axis = (name, values) => ({ label: column(name).label, ...placed(values, column(name)) });
  const [x, y] = [axis(view.x, cells.map((cell) => cell.x)), axis(view.y, cells.map((cell) => cell.y))];
  const { node, layer, across, up } = frame(width, Math.min(440, 0.75 * width + 60), x, y, "");
  node.setAttribute("role", "group");
  for (const cell of cells) {
    const paint = cell.counts ? cell.counts[0].category : cell.mean === null ? NONE : { color: look.colour(cell.mean).fill, marker: "o" };
    const [cx, cy] = [across(x.at(cell.x)), up(y.at(cell.y))];
    Object.assign(cell, { cx, cy, reach: 6, node: svg("g", {}, marker(paint, cx, cy, 5.5), svg("circle", { cx, cy, r: 8, class: "rim" })) });
    layer.append(cell.node);
  }
  return node;
}

// Where values go on an axis: numbers where they are, categories one after another.
function placed(values, { numeric, log }) {
  if (numeric) return { values, log, at: (value) => value };
  const order = distinct(values);
  return { values: order.map((_, i) => i), log: false, ticks: [], at: (value) => order.indexOf(value) };
}

function paintStrip({ cells, xs, width, look, view }) {
  const x = { label: column(view.x).label, ...placed(xs, column(view.x)) };
  const shares = Boolean(view.measure.categories);
  const known = cells.flatMap((cell) => cell.known);
  const values = shares || view.measure.share ? [0, 1] : known;
  const y = { label: shares ? `share of trials by ${view.measure.label}` : view.measure.label, values,
    log: !shares && view.measure.log && known.every((value) => value > 0) };
  const { node, layer, across, up, bottom, left } = frame(width, 320, x, y, "");
  node.setAttribute("role", "group");
  if (x.ticks) xs.forEach((value, i) => layer.append(svg("text", { x: across(i), y: bottom + 17, "text-anchor": "middle" }, short(value))));
  const at = cells.map((cell) => across(x.at(cell.x)));
  if (!shares && !x.ticks) layer.append(svg("path", { d: path(cells.map((cell, i) => [at[i], cell.mean === null ? null : up(cell.mean)])), class: "line one" }));
  cells.forEach((cell, i) => {
    const middle = (other) => (other === undefined ? null : (at[i] + other) / 2);
    const [from, to] = [middle(at[i - 1]) ?? left, middle(at[i + 1]) ?? width - 8];
    cell.node = svg("g", {}, svg("rect", { x: from, width: Math.max(1, to - from), y: 28, height: bottom - 28, class: "column" }));
    Object.assign(cell, { cx: at[i], cy: shares || cell.mean === null ? (28 + bottom) / 2 : up(cell.mean), reach: 10 });
    if (shares) {
      let below = 0;
      for (const { category, count } of cell.counts) {
        const [low, high] = [up(below / cell.rows.length), up((below + count) / cell.rows.length)];
        const bar = Math.min(36, Math.max(3, to - from - 4));
        cell.node.append(svg("rect", { x: at[i] - bar / 2, width: bar, y: high, height: low - high, fill: category.color }));
        if (low - high > 10 && bar > 10) cell.node.append(marker({ ...category, color: "#fff" }, at[i], (low + high) / 2, 4));
        below += count;
      }
    } else if (cell.mean !== null) {
      cell.node.append(...cell.known.map((value) => svg("circle", { cx: at[i], cy: up(value), r: 2.5, class: "dot" })),
        svg("circle", { cx: at[i], cy: cell.cy, r: 6, fill: look.colour(cell.mean).fill, class: "mean" }));
    } else {
      cell.node.append(marker(NONE, at[i], cell.cy, 5));
    }
    layer.append(cell.node);
  });
  return node;
}
