// Drawing: elements, numbers as text, scales with their axes, colours and markers. What a study says becomes text nodes
// and attribute values here, never markup.

function made(space, name, attributes, children) {
  const node = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const el = (name, attributes = {}, ...children) => made("http://www.w3.org/1999/xhtml", name, attributes, children);
const svg = (name, attributes = {}, ...children) => made("http://www.w3.org/2000/svg", name, attributes, children);
const byId = (id) => document.getElementById(id);

const short = (value) => rounded(value, 3);

function rounded(value, digits) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  const text =
    size >= 1e6 || (size < 1e-3 && size > 0)
      ? value.toExponential(digits - 1).replace(/\.?0+e\+?/, "e")
      : String(Number.isInteger(value) || size >= 1000 ? Math.round(value) : Number(value.toPrecision(digits)));
  return text.replace(/-/g, "−");
}

// Ticks as text, with as many digits as tell them apart: 1.09, 1.095, 1.1.
function named(ticks) {
  const digits = [3, 4, 5, 6, 8].find((count) => new Set(ticks.map((tick) => rounded(tick, count))).size === ticks.length);
  return ticks.map((tick) => [tick, rounded(tick, digits ?? 12)]);
}

function choice(label, options, chosen, change) {
  const select = el(
    "select",
    { change: () => change(Number(select.value)) },
    ...options.map((words, i) => el("option", { value: i, selected: i === chosen }, words)),
  );
  return el("label", {}, el("span", {}, label), select);
}

// Missing values come last, numbers by size, text by letters.
function inOrder(a, b) {
  if (a === b) return 0;
  if (a === null || b === null) return a === null ? 1 : -1;
  return a < b ? -1 : 1;
}

const distinct = (values) => [...new Set(values)].sort(inOrder);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

// A map from numbers to pixels. On a log scale 0 (step 0, no decay) stands apart at the low end.
function scaleOf(values, log, range, pad = 0) {
  let known = values.filter((value) => value !== null && (!log || value >= 0));
  if (!known.length) known = [0, 1];
  const positive = known.filter((value) => value > 0);
  const least = positive.length ? Math.min(...positive) : 1;
  const most = positive.length ? Math.max(...positive) : 10;
  const zero = Math.log(least) - Math.max(0.12 * Math.log(most / least), 0.4);
  const bend = log ? (value) => (value > 0 ? Math.log(value) : zero) : (value) => value;
  let low = bend(Math.min(...known));
  let high = bend(Math.max(...known));
  if (low === high)
    [low, high] = log ? [low - 0.5, high + 0.5] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(low) || 1) / 2];
  [low, high] = [low - pad * (high - low), high + pad * (high - low)];
  const scale = (value) => range[0] + ((bend(value) - low) / (high - low)) * (range[1] - range[0]);
  const within = (value) => bend(value) >= low - 1e-9 && bend(value) <= high + 1e-9;
  scale.ticks = (count) => (log ? logTicks(known, least, most, count) : linearTicks(low, high, count)).filter(within);
  return scale;
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

function logTicks(known, least, most, count) {
  const [low, high] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most))];
  const factors = high - low > 2 ? [1] : [1, 2, 5];
  const stride = factors.length > 1 ? 1 : Math.max(1, Math.ceil((high - low + 1) / count));
  const ticks = known.includes(0) ? [0] : [];
  for (let power = low; power <= high; power += stride)
    ticks.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(12))));
  return ticks;
}

// An empty chart: x and y are {values, log, label}, x with the [value, text] of ticks where those are named; returns
// its svg, its scales and the layer to draw into.
function frame(width, height, x, y, words) {
  const bottom = height - 40;
  const up = scaleOf(y.values, y.log, [bottom, 28], 0.05);
  const yTicks = named(up.ticks(5));
  const left = 14 + 6.6 * Math.max(...yTicks.map(([, text]) => text.length), 1);
  const across = scaleOf(x.values, x.log, [left + 6, width - 14]);
  const layer = svg("g", {});
  const axes = svg(
    "g",
    { class: "axes" },
    svg("text", { x: 2, y: 14, class: "label" }, y.label),
    svg("text", { x: width - 6, y: height - 6, "text-anchor": "end", class: "label" }, x.label),
  );
  for (const [tick, text] of yTicks) {
    axes.append(
      svg("line", { x1: left, x2: width - 8, y1: up(tick), y2: up(tick), class: "grid" }),
      svg("text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, text),
    );
  }
  let end = -Infinity;
  for (const [tick, text] of x.named ?? named(across.ticks(Math.max(2, Math.floor(width / 90))))) {
    const half = 3.4 * text.length;
    axes.append(svg("line", { x1: across(tick), x2: across(tick), y1: bottom, y2: bottom + 4, class: "tick" }));
    if (across(tick) - half < end + 6) continue;
    end = across(tick) + half;
    axes.append(svg("text", { x: across(tick), y: bottom + 17, "text-anchor": "middle" }, text));
  }
  axes.append(svg("line", { x1: left, x2: width - 8, y1: bottom, y2: bottom, class: "tick" }));
  const node = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words },
    axes,
    layer,
  );
  return { node, layer, across, up, bottom, left };
}

function path(points) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (x === null || y === null || !Number.isFinite(y)) {
        pen = "M";
        return "";
      }
      const piece = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return piece;
    })
    .join("");
}

// Nine colours of viridis (Smith & van der Walt 2015), joined by straight lines.
const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)),
);

function shade(part) {
  const at = Math.min(Math.max(part, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const rgb = VIRIDIS[low].map((value, i) => Math.round(value + (at - low) * (VIRIDIS[low + 1][i] - value)));
  return { fill: `rgb(${rgb})`, light: 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 128 };
}

const SHAPES = {
  // by matplotlib's names, in a square of two around 0
  s: "M-.85-.85H.85V.85H-.85Z",
  "^": "M0-1.1L1 .8H-1Z",
  v: "M0 1.1L1-.8H-1Z",
  D: "M0-1.15L1.15 0 0 1.15-1.15 0Z",
  o: "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0-1 0Z",
  P: "M-.4-1H.4V-.4H1V.4H.4V1H-.4V.4H-1V-.4H-.4Z",
  X: "M-1-.5L-.5-1 0-.5 .5-1 1-.5 .5 0 1 .5 .5 1 0 .5-.5 1-1 .5-.5 0Z",
};

function marker(category, x, y, size) {
  return svg("path", {
    d: SHAPES[category.marker],
    transform: `translate(${x} ${y}) scale(${size})`,
    fill: category.color,
    class: "marker",
  });
}
