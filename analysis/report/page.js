// The whole page: what is shown where, kept in the address (#x=...&y=...&value=...&cell=3) so that it can be passed on.

const data = JSON.parse(byId("data").textContent);
const columns = new Map(data.columns.map((each) => [each.name, each]));
const column = (name) => columns.get(name);
const details = new Map(Object.entries(data.details));
const seeds = columns.get("seed");
const HELD = 40; // values that one choice offers at most

const view = { x: data.axes[0], y: data.axes[1] ?? null, held: new Map(), measure: firstMeasure(), opened: null };
let cells = [];

// Accuracy says most, but where none was measured and trials diverged, that does.
function firstMeasure() {
  const by = (name) => data.measures.find((measure) => measure.name === name);
  const diverged =
    by("diverged") && column("diverged").values.some((value) => value === 1) ? by("diverged") : undefined;
  return by("test_accuracy") ?? diverged ?? by("test_loss") ?? by("status");
}

function controls() {
  const axes = data.axes.map((name) => column(name).label);
  const at = data.axes.indexOf(view.y);
  const parts = [
    choice(
      "Show",
      data.measures.map(({ label }) => label),
      data.measures.indexOf(view.measure),
      (i) => {
        view.measure = data.measures[i];
        update();
      },
    ),
  ];
  if (data.axes.length > 1) {
    parts.push(
      choice("Across", axes, data.axes.indexOf(view.x), (i) => {
        [view.x, view.y] = [data.axes[i], view.y === data.axes[i] ? view.x : view.y];
        update();
      }),
      choice("Up", [...axes, "nothing: one axis"], at < 0 ? axes.length : at, (i) => {
        if (data.axes[i] === view.x) view.x = view.y ?? data.axes.find((name) => name !== view.x);
        view.y = data.axes[i] ?? null;
        update();
      }),
    );
  }
  for (const name of data.axes.filter((axis) => axis !== view.x && axis !== view.y)) {
    const values = distinct(column(name).values);
    if (values.length > HELD) continue;
    parts.push(
      choice(
        column(name).label,
        ["all together", ...values.map(short)],
        view.held.has(name) ? values.indexOf(view.held.get(name)) + 1 : 0,
        (i) => {
          if (i) view.held.set(name, values[i - 1]);
          else view.held.delete(name);
          update();
        },
      ),
    );
  }
  return parts;
}

function update() {
  view.held.delete(view.x);
  view.held.delete(view.y);
  view.opened = null;
  draw();
  remember();
}

function draw() {
  const focused = document.activeElement?.closest("#controls select");
  const place = focused ? [...byId("controls").querySelectorAll("select")].indexOf(focused) : -1;
  byId("controls").replaceChildren(...controls());
  if (place >= 0) byId("controls").querySelectorAll("select")[place]?.focus();
  cells = drawOverview(view, byId("stage"), open);
  if (view.opened !== null && cells[view.opened]) show(cells[view.opened]);
  else
    byId("panel").replaceChildren(
      el("h3", { id: "panel-title" }, "Trials"),
      el(
        "p",
        { class: "note" },
        "Choose a cell, by pointer or with arrow keys and Enter, to see its trials, their curves and their spectra.",
      ),
    );
}

function open(cell) {
  view.opened = cells.indexOf(cell);
  show(cell);
  remember();
}

function show(cell) {
  for (const other of cells) other.node.setAttribute("aria-pressed", String(other === cell));
  const [place, said] = words(cell, view);
  openPanel(byId("panel"), place, cell.rows, view);
  byId("said").textContent = `Opened ${place}: ${said}`;
}

function openTrial(i) {
  for (const other of cells) other.node.setAttribute("aria-pressed", "false");
  view.opened = null;
  const place = data.axes.map((name) => `${column(name).label} ${short(column(name).values[i])}`).join(", ");
  openPanel(byId("panel"), place, [i], view);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("panel").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
  byId("said").textContent = `Opened trial ${column("trial_id").values[i].slice(0, 8)}`;
}

function remember() {
  const words = new URLSearchParams({ x: view.x, ...(view.y === null ? {} : { y: view.y }), value: view.measure.name });
  for (const [name, value] of view.held) words.append("held", JSON.stringify([name, value]));
  if (view.opened !== null) words.set("cell", view.opened);
  history.replaceState(null, "", `#${words}`);
}

// What an address asks for; what it does not name, or names wrongly, stays.
function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (![..."x y value cell".split(" ")].some((name) => asked.has(name))) return;
  const axis = (name, other) => (data.axes.includes(asked.get(name)) ? asked.get(name) : other);
  if (asked.has("x")) [view.x, view.y] = [axis("x", view.x), axis("y", null)];
  if (view.y === view.x) view.y = null;
  view.measure = data.measures.find(({ name }) => name === asked.get("value")) ?? view.measure;
  view.held.clear();
  for (const text of asked.getAll("held")) {
    try {
      const [name, value] = JSON.parse(text);
      if (data.axes.includes(name) && column(name).values.includes(value)) view.held.set(name, value);
    } catch {
      /* not of this page's making */
    }
  }
  const cell = Number(asked.get("cell") ?? NaN);
  view.opened = Number.isInteger(cell) ? cell : null;
}

recall();
draw();
drawTable(byId("filters"), byId("rows"), openTrial);
byId("controls").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  recall();
  draw();
});
let width = byId("stage").clientWidth;
new ResizeObserver(() => {
  if (byId("stage").clientWidth === width) return;
  width = byId("stage").clientWidth;
  draw();
}).observe(byId("stage"));
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
