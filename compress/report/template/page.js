"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const of = (id) => document.getElementById(id);
  const facts = JSON.parse(of("facts").textContent);

  // --- one model highlighted on the whole page
  let picked = "";
  const pick = (name) => {
    picked = name === picked ? "" : name;
    for (const part of all("[data-model]")) {
      const own = picked !== "" && part.dataset.model === picked;
      part.classList.toggle("on", own);
      if (part.getAttribute("role") === "button") part.setAttribute("aria-pressed", own);
    }
    for (const button of all(".who button")) {
      button.setAttribute("aria-pressed", button.closest("tr").dataset.model === picked);
    }
    const bar = of("picked");
    bar.replaceChildren();
    if (!picked) return;
    const words = document.createElement("span");
    words.textContent = [picked, ...(facts[picked] || [])].join(" · ");
    const clear = document.createElement("button");
    clear.type = "button";
    clear.textContent = "Clear";
    clear.addEventListener("click", () => pick(picked));
    bar.append(words, clear);
  };
  addEventListener("keydown", (event) => { if (event.key === "Escape") { hide(); if (picked) pick(picked); } });

  // --- what a mark stands for, beside it
  const tip = of("tip");
  const hide = () => { tip.hidden = true; };
  const show = (part) => {
    const name = part.dataset.model, [label, ...rest] = (part.getAttribute("aria-label") || name).split(/: (.*)/s);
    const title = document.createElement("b");
    title.textContent = label;
    tip.replaceChildren(title, (rest[0] || "").split("; ").join("\n"));
    tip.style.whiteSpace = "pre-line";
    tip.hidden = false;
    const mark = (part.querySelector(".halo") || part).getBoundingClientRect(), own = tip.getBoundingClientRect();
    const middle = mark.left + mark.width / 2 - own.width / 2;
    tip.style.left = Math.max(8, Math.min(middle, innerWidth - own.width - 8)) + "px";
    tip.style.top = (mark.top > own.height + 12 ? mark.top - own.height - 8 : mark.bottom + 8) + "px";
  };
  addEventListener("scroll", () => {
    const at = document.activeElement;
    if (!tip.hidden && at.matches("[data-pick] [data-model]")) show(at);
    else hide();
  }, { passive: true, capture: true });

  // --- charts whose marks are gone through by arrow keys: one stop for Tab in each
  for (const chart of all("[data-pick] svg.chart")) {
    const place = (part) => part.querySelector(".halo").getBoundingClientRect().left;
    const marks = all("g[data-model]", chart).sort((a, b) => place(a) - place(b));
    chart.setAttribute("role", "group");
    const go = (to) => {
      marks.forEach((mark, at) => mark.setAttribute("tabindex", at === to ? 0 : -1));
      marks[to].focus();
    };
    marks.forEach((mark, at) => {
      mark.setAttribute("role", "button");
      mark.setAttribute("aria-pressed", "false");
      mark.setAttribute("tabindex", at ? -1 : 0);
      mark.addEventListener("mouseenter", () => show(mark));
      mark.addEventListener("mouseleave", hide);
      mark.addEventListener("focus", () => show(mark));
      mark.addEventListener("blur", hide);
      mark.addEventListener("click", () => pick(mark.dataset.model));
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: marks.length - 1 };
        if (event.key in step) go((step[event.key] + marks.length) % marks.length);
        else if (event.key === "Enter" || event.key === " ") pick(mark.dataset.model);
        else return;
        event.preventDefault();
      });
    });
  }

  // --- the table of all models
  const table = of("all-models"), body = table.tBodies[0], rows = [...body.rows];
  for (const who of all(".who", body)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = who.textContent;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => pick(who.closest("tr").dataset.model));
    who.replaceChildren(button);
  }
  const key = (row, column) => {
    if (!column) return row.dataset.name;
    const value = row.cells[column].dataset.value;
    return value === undefined ? null : Number(value);
  };
  const sort = (column, down) => {
    const order = (a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === null || y === null) return (x === null) - (y === null);
      return (down ? -1 : 1) * (typeof x === "number" ? x - y : x.localeCompare(y));
    };
    body.append(...[...rows].sort(order));
  };
  all("th.sorts", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(column, down);
    });
  });
  const filter = () => {
    const words = of("find").value.trim().toLowerCase(), role = of("role").value, precision = of("precision").value;
    const seeds = of("seeds") ? of("seeds").checked : true;
    let shown = 0;
    for (const row of rows) {
      const data = row.dataset;
      row.hidden = !(data.name.toLowerCase().includes(words) && (!role || data.role === role) &&
        (!precision || data.precision === precision) && (seeds || !("seed" in data)));
      shown += !row.hidden;
    }
    of("count").textContent = `${shown} of ${rows.length} rows`;
  };
  of("controls").hidden = false;
  of("controls").addEventListener("input", filter);
  of("controls").addEventListener("submit", (event) => event.preventDefault());
  filter();

  // --- the record inside the page, and paper
  const download = of("download");
  download.hidden = false;
  download.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([of("record").textContent], { type: "application/json" }));
    link.download = "result.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
})();
