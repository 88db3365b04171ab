// Every trial: a table to sort and filter.

const ROWS = 1000; // in the document at once

function drawTable(filters, place, open) {
  const shown = data.table.map(column);
  const statuses = distinct(column("status").values);
  const all = Array.from(column("trial_id").values.keys());
  const texts = all.map((i) =>
    shown
      .map(({ values }) => (values[i] === null ? "" : String(values[i])))
      .join(" ")
      .toLowerCase(),
  );
  let [sorted, down, status] = [null, false, 0];
  const search = el("input", { type: "search", placeholder: "any text", autocomplete: "off", input: () => fill() });
  const count = el("output", {});
  const body = el("tbody", {});
  const heads = shown.map((of) =>
    el(
      "th",
      { scope: "col", class: of.numeric ? "number" : null },
      el(
        "button",
        {
          type: "button",
          click: () => {
            [sorted, down] = [of, sorted === of && !down];
            fill();
          },
        },
        of.label,
      ),
    ),
  );

  function fill() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = all.filter(
      (i) =>
        wanted.every((word) => texts[i].includes(word)) &&
        (!status || column("status").values[i] === statuses[status - 1]),
    );
    if (sorted) {
      // Missing values stay last whichever way the others go.
      found.sort((a, b) => {
        const [x, y] = [sorted.values[a], sorted.values[b]];
        return inOrder(x, y) * (down && x !== null && y !== null ? -1 : 1);
      });
    }
    heads.forEach((head, i) =>
      head.setAttribute("aria-sort", shown[i] !== sorted ? "none" : down ? "descending" : "ascending"),
    );
    body.replaceChildren(
      ...found.slice(0, ROWS).map((i) =>
        el(
          "tr",
          {},
          ...shown.map((of) => {
            const value = of.values[i];
            if (of.name === "trial_id")
              return el(
                "th",
                { scope: "row" },
                el("button", { type: "button", title: value, click: () => open(i) }, value.slice(0, 8)),
              );
            return el("td", { class: of.numeric ? "number" : null }, of.numeric ? short(value) : (value ?? ""));
          }),
        ),
      ),
    );
    count.textContent =
      `${found.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} trials` +
      (found.length > ROWS ? `, the first ${ROWS.toLocaleString("en")} shown` : "");
  }

  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.replaceChildren(
    el("label", {}, el("span", {}, "Filter"), search),
    choice("Status", ["all", ...statuses], 0, (i) => {
      status = i;
      fill();
    }),
    count,
  );
  place.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body));
  fill();
}
