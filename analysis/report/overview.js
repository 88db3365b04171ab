// The map: cells of trials over two axes, or a strip over one. Pointer or arrow keys reach each, and open it.

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
      category,
      count: values.filter((value) => value === category.name).length,
    }));
    return { counts: counts.filter(({ count }) => count), known: values };
  }
  const known = values.filter((value) => value !== null);
  return { known, mean: known.length ? mean(known) : null, sd: known.length > 1 ? deviation(known) : null };
}

function words(cell, view) {
  const place = [view.x, ...(view.y === null ? [] : [view.y])]
    .map((name, i) => `${column(name).label} ${short(i ? cell.y : cell.x)}`)
    .join(", ");
  const said = cell.counts
    ? cell.counts.map(({ category, count }) => `${category.name ?? "none"} ${count}`).join(", ")
    : cell.mean === null
      ? `no ${view.measure.label}`
      : `${view.measure.label} ${short(cell.mean)}` +
        (cell.sd === null || view.measure.share ? "" : ` ± ${short(cell.sd)}`);
  const statuses = column("status").values;
  const found = distinct(cell.rows.map((i) => statuses[i])).map(
    (status) => `${cell.rows.filter((i) => statuses[i] === status).length} ${status}`,
  );
  return [place, said, found.join(", ")];
}

function drawOverview(view, stage, open) {
  const cells = cellsOf(view);
  const xs = distinct(cells.map((cell) => cell.x));
  const ys = distinct(cells.map((cell) => cell.y));
  const width = Math.max(260, Math.floor(stage.clientWidth));
  const look = lookOf(cells, view.measure);
  const and = view.y === null ? "" : ` and ${column(view.y).label}`;
  const tip = el("div", { class: "tip", hidden: true });
  const paint = view.y === null ? paintStrip : 2 * cells.length >= xs.length * ys.length ? paintGrid : paintPoints;
  const node = paint({ cells, xs, ys, width, look, view });
  for (const cell of cells) {
    const [place, said, found] = words(cell, view);
    const show = () => {
      tip.replaceChildren(el("strong", {}, place), el("span", {}, said), el("span", {}, found));
      tip.hidden = false;
      const scale = node.getBoundingClientRect().width / width;
      const room = stage.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.min(Math.max(cell.cx * scale - tip.offsetWidth / 2, 0), room)}px`;
      const above = node.getBoundingClientRect().top - stage.getBoundingClientRect().top;
      tip.style.top = `${above + (cell.cy - cell.reach) * scale - tip.offsetHeight - 8}px`;
    };
    const hide = () => {
      tip.hidden = true;
    };
    for (const [event, act] of Object.entries({
      pointerenter: show,
      focus: show,
      pointerleave: hide,
      blur: hide,
      click: () => open(cell),
      keydown: (press) => {
        if (press.key === "Enter" || press.key === " ") open(cell);
        else if (press.key === "Escape") hide();
        else if (press.key.startsWith("Arrow")) neighbour(cells, cell, press.key)?.node.focus();
        else return;
        press.preventDefault();
      },
    }))
      cell.node.addEventListener(event, act);
    cell.node.addEventListener("focus", () => {
      for (const other of cells) other.node.setAttribute("tabindex", other === cell ? 0 : -1);
    });
    for (const [key, value] of Object.entries({
      class: "cell",
      role: "button",
      tabindex: -1,
      "aria-pressed": "false",
      "aria-label": `${place}: ${said}; ${found}`,
    }))
      cell.node.setAttribute(key, value);
  }
  cells[0]?.node.setAttribute("tabindex", 0);
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", `${view.measure.label} by ${column(view.x).label}${and}; Enter opens a cell`);
  stage.replaceChildren(...(view.y === null && !view.measure.categories ? [] : [look.legend]), node, tip);
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
