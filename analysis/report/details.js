// The panel beside the map: the trials of one cell, their training curves and their spectra.

const CURVED = 12; // trials with curves in one chart
const LISTED = 24; // trials named in the panel
let curve = 0; // what was chosen stays chosen from cell to cell
let layerOf = 0;

function openPanel(panel, title, rows, view) {
  const ids = rows.map((i) => column("trial_id").values[i]);
  const detailed = rows.filter((i, at) => details.has(ids[at]));
  const charts = el("div", { class: "charts" });
  const numbers = numbersOf(rows, view.measure);
  const facts = [["trials", rows.length]];
  const statuses = column("status").values;
  for (const status of distinct(rows.map((i) => statuses[i])))
    facts.push([status, rows.filter((i) => statuses[i] === status).length]);
  if (numbers.counts)
    for (const { category, count } of numbers.counts)
      facts.push([`${view.measure.label}: ${category.name ?? "none"}`, count]);
  else if (numbers.known.length) {
    facts.push([
      `${view.measure.label}, ${view.measure.share ? "" : `mean of ${numbers.known.length}`}`.replace(/, $/, ""),
      short(numbers.mean),
    ]);
    if (numbers.sd !== null && !view.measure.share)
      facts.push(
        ["standard deviation", short(numbers.sd)],
        ["least to largest", `${short(Math.min(...numbers.known))} to ${short(Math.max(...numbers.known))}`],
      );
  }
  let chosen = Math.max(
    0,
    detailed.findIndex((i) => details.get(column("trial_id").values[i]).spectra.length),
  );
  const draw = () => charts.replaceChildren(...drawDetails(panel, detailed, chosen, draw));
  const list = el(
    "ul",
    { class: "chosen" },
    ...rows.slice(0, LISTED).map((i, at) => {
      const place = detailed.indexOf(i);
      const seed = seeds ? `, seed ${seeds.values[i]}` : "";
      const said = `${column("trial_id").values[i].slice(0, 8)}${seed}: ${statuses[i]}`;
      const reason = column("reason").values[i];
      return el(
        "li",
        {},
        place < 0
          ? said
          : el(
              "button",
              {
                type: "button",
                "aria-pressed": String(place === chosen),
                click: (press) => {
                  chosen = place;
                  for (const other of list.querySelectorAll("button"))
                    other.setAttribute("aria-pressed", String(other === press.currentTarget));
                  draw();
                },
              },
              said,
            ),
        ...(reason === null ? [] : [el("span", { class: "reason" }, reason)]),
      );
    }),
  );
  panel.replaceChildren(
    el("h3", { id: "panel-title" }, title),
    el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
    list,
    ...(rows.length > LISTED ? [el("p", { class: "note" }, `and ${rows.length - LISTED} more`)] : []),
    ...(detailed.length < rows.length
      ? [
          el(
            "p",
            { class: "note" },
            `${detailed.length} of these ${rows.length} are in the sample with curves and spectra.`,
          ),
        ]
      : []),
    charts,
  );
  draw();
}

function drawDetails(panel, detailed, chosen, again) {
  const width = Math.max(250, Math.floor(panel.clientWidth - 34));
  const parts = [];
  const shown = detailed.slice(0, CURVED).map((i) => details.get(column("trial_id").values[i]));
  const measured = data.curves.filter(({ table, names }) =>
    shown.some((trial) => names.some((name) => trial[table][name]?.some((value) => value !== null))),
  );
  if (measured.length) {
    const at = Math.min(curve, measured.length - 1);
    parts.push(
      choice(
        "Curve",
        measured.map(({ label }) => label),
        at,
        (i) => {
          curve = i;
          again();
        },
      ),
      curveChart(shown, measured[at], chosen, width),
    );
    if (detailed.length > CURVED)
      parts.push(el("p", { class: "note" }, `The first ${CURVED} of ${detailed.length} trials.`));
  }
  const spectra = detailed.length ? details.get(column("trial_id").values[detailed[chosen]]).spectra : [];
  if (spectra.length) {
    const at = Math.min(layerOf, spectra.length - 1);
    parts.push(
      choice(
        "Spectrum of",
        spectra.map(({ layer }) => layer),
        at,
        (i) => {
          layerOf = i;
          again();
        },
      ),
      spectrumChart(spectra[at], width),
    );
  }
  return parts;
}

// Training curves over log steps; of a pair, train is dashed. The chosen trial is drawn strong.
function curveChart(shown, { label, table, names }, chosen, width) {
  const lines = shown.flatMap((trial, i) =>
    names.map((name, j) => ({
      step: trial[table].step ?? [],
      values: trial[table][name] ?? [],
      kind: j === names.length - 1 ? "one" : "two",
      strong: i === chosen,
    })),
  );
  const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const log = values.every((value) => value > 0) && Math.max(...values) > 10 * Math.min(...values);
  const { node, layer, across, up } = frame(
    width,
    250,
    { values: lines.flatMap((line) => line.step), log: true, label: "optimizer steps" },
    { values, log, label: log ? `${label}, log scale` : label },
    `${label} over steps`,
  );
  for (const line of lines) {
    layer.append(
      svg("path", {
        d: path(line.step.map((step, i) => [across(step), line.values[i] === null ? null : up(line.values[i])])),
        class: `line ${line.kind}${line.strong ? " strong" : ""}`,
      }),
    );
  }
  const legend = names.length < 2 ? [] : [key("two", "training set"), key("one", "test set")];
  return el("figure", {}, node, el("figcaption", {}, ...legend));
}

function key(kind, text) {
  return el(
    "span",
    { class: "key" },
    svg(
      "svg",
      { width: 26, height: 8, "aria-hidden": "true" },
      svg("line", { x1: 1, x2: 25, y1: 4, y2: 4, class: `line strong ${kind}` }),
    ),
    text,
  );
}

// Density of ln lambda at the last step, that of the first as an outline, and the Marchenko-Pastur bulk with its edge.
function spectrumChart(found, width) {
  const bins = found.counts.length;
  const step = Math.log(found.high / found.low) / bins;
  const edges = Array.from({ length: bins + 1 }, (_, i) => found.low * Math.exp(i * step));
  const density = ({ counts, count }) => counts.map((inside) => inside / count / step);
  const bulk = found.edge === null ? [] : marchenkoPastur(found, edges);
  const [last, first] = [density(found), found.first ? density(found.first) : []];
  const { node, layer, across, up, bottom } = frame(
    width,
    250,
    { values: [edges[0], edges[bins], found.edge], log: true, label: "eigenvalue λ of WᵀW/N" },
    { values: [0, ...last, ...first, ...bulk.map(([, y]) => y)], log: false, label: "density of ln λ" },
    `spectrum of ${found.layer}`,
  );
  const corners = (heights) =>
    path(
      heights.flatMap((height, i) => [
        [across(edges[i]), up(height)],
        [across(edges[i + 1]), up(height)],
      ]),
    );
  last.forEach(
    (height, i) =>
      height &&
      layer.append(
        svg("rect", {
          x: across(edges[i]),
          width: Math.max(0.5, across(edges[i + 1]) - across(edges[i]) - 0.5),
          y: up(height),
          height: Math.max(0, up(0) - up(height)),
          class: "bar",
        }),
      ),
  );
  if (found.first) layer.append(svg("path", { d: corners(first), class: "outline" }));
  if (bulk.length) {
    layer.append(
      svg("path", { d: path(bulk.map(([x, y]) => [across(x), up(y)])), class: "line two strong solid" }),
      svg("line", { x1: across(found.edge), x2: across(found.edge), y1: 28, y2: bottom, class: "edge" }),
      ...found.spikes.map((value) =>
        svg("path", {
          d: SHAPES["^"],
          transform: `translate(${across(value)} ${up(0) - 5}) scale(3.5)`,
          class: "spike",
        }),
      ),
    );
  }
  const said = [
    `${found.layer} (${found.rows} × ${found.cols}) at step ${short(found.step)}`,
    ...(found.first ? [`; outline: step ${short(found.first.step)}`] : []),
    ...(bulk.length ? [`; curve: Marchenko–Pastur bulk, dotted its edge; beyond it: ${found.beyond}`] : []),
    ...(found.below ? [`; left of the axis: ${found.below}`] : []),
    ".",
  ];
  return el("figure", {}, node, el("figcaption", {}, ...said));
}

// Points of lambda rho(lambda), scaled to the bulk's share of the eigenvalues (Marchenko & Pastur 1967).
function marchenkoPastur({ edge, rows, cols, count, beyond }, edges) {
  const ratio = cols / rows;
  const variance = edge / (1 + Math.sqrt(ratio)) ** 2;
  const low = variance * (1 - Math.sqrt(ratio)) ** 2;
  const from = Math.max(low, edges[0]);
  return Array.from({ length: 121 }, (_, i) => {
    const x = from * (edge / from) ** (i / 120);
    return [
      x,
      ((1 - beyond / count) * Math.sqrt(Math.max(0, (edge - x) * (x - low)))) / (2 * Math.PI * variance * ratio),
    ];
  });
}
