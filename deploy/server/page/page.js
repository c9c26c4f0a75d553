"use strict";
// What is shown is set as text, never as markup: titles are data.
const byId = id => document.getElementById(id);
const picked = [], added = [];
const FIRST = 10, MOST = 1000;
let token = "", asked = 0, searched = 0;

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = "Bearer " + token;
  const start = performance.now();
  const response = await fetch(path, { ...options, headers });
  const text = await response.text();
  const elapsed = performance.now() - start;
  byId("login").hidden = response.status !== 401;
  if (response.status === 401) { byId("token").focus(); throw new Error(token ? "Not the server's token." : ""); }
  const body = text ? JSON.parse(text) : {};
  if (!response.ok) throw new Error(body.detail || response.statusText);
  byId("error").textContent = "";
  return { body, elapsed };
}

const post = (path, body) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function complain(error) { byId("error").textContent = error.message; }

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function line(list, title, note, label, onClick) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.append(element("span", title), element("span", note, "soft"));
  button.addEventListener("click", onClick);
  item.append(button);
  list.append(item);
}

function isNew(item) { return added.some(one => one.id === item.id); }

async function search() {
  const turn = ++searched, query = byId("query").value.trim();
  let items = [];
  if (query) {
    try { ({ body: { items } } = await call("v1/items?limit=8&query=" + encodeURIComponent(query))); }
    catch (error) { return complain(error); }
  }
  if (turn !== searched) return;
  byId("found").replaceChildren();
  for (const item of items) {
    line(byId("found"), item.title, item.id, "Add " + item.title, () => {
      picked.push(item);
      byId("query").value = "";
      search();
      show();
      byId("query").focus();
    });
  }
}

function showHistory() {
  byId("history").replaceChildren();
  picked.forEach((item, place) => line(byId("history"), item.title, "remove", "Remove " + item.title, () => {
    picked.splice(place, 1);
    show();
    (byId("history").querySelectorAll("button")[Math.min(place, picked.length - 1)] || byId("query")).focus();
  }));
  byId("empty").hidden = picked.length > 0;
}

function answerRow(item, place) {
  const row = document.createElement("li"), title = element("span", item.title);
  if (isNew(item)) { row.className = "new"; title.append(element("span", "new", "tag")); }
  const score = item.score === null ? "" : item.score.toFixed(3);
  row.append(element("span", String(place), "place"), title, element("span", score, "score"));
  return row;
}

async function show() {
  const turn = ++asked, history = picked.map(item => item.id);
  showHistory();
  byId("answers").setAttribute("aria-busy", "true");
  try {
    const { body, elapsed } = await post("v1/recommend", { history, k: FIRST });
    // Where new items rank is a second question, so that the time shown is that of the first.
    const all = added.length && history.length ? (await post("v1/recommend", { history, k: MOST })).body.items : [];
    if (turn !== asked) return;
    byId("release").textContent = body.release;
    byId("latency").textContent =
      (body.source === "popularity" ? "popular now" : "from the history") + ", answered in " + elapsed.toFixed(1) + " ms";
    const below = all.map((item, index) => [item, index + 1]).slice(FIRST).filter(([item]) => isNew(item));
    const rows = [...body.items.map((item, index) => [item, index + 1]), ...below];
    byId("answers").replaceChildren(...rows.map(([item, place]) => answerRow(item, place)));
    showAdded(all, history);
  } catch (error) { complain(error); }
  finally { if (turn === asked) byId("answers").removeAttribute("aria-busy"); }
}

function showAdded(ranked, history) {
  byId("added").replaceChildren();
  for (const item of added) {
    const place = ranked.findIndex(one => one.id === item.id) + 1;
    let note = "pick a history to see its rank";
    if (history.includes(item.id)) note = "in the history";
    else if (history.length) note = place ? "rank " + place : "not among the first " + ranked.length;
    line(byId("added"), item.title, note + ", remove", item.title + ": " + note + "; remove it", async () => {
      try {
        await call("v1/items/" + encodeURIComponent(item.id), { method: "DELETE" });
        added.splice(added.indexOf(item), 1);
        for (let at = picked.length - 1; at >= 0; at--) if (picked[at].id === item.id) picked.splice(at, 1);
        show();
      } catch (error) { complain(error); }
    });
  }
}

async function add(event) {
  event.preventDefault();
  const item = { id: "new-" + crypto.getRandomValues(new Uint32Array(1))[0].toString(36), title: byId("title").value.trim() };
  for (const input of byId("attributes").querySelectorAll("input")) {
    if (input.value.trim()) item[input.name] = input.value.trim();
  }
  try {
    await post("v1/items", item);
    added.push(item);
    event.target.reset();
    byId("title").focus();
    show();
  } catch (error) { complain(error); }
}

// The form has the attributes that this bundle's items have; the contract names them.
async function offer() {
  const { body: contract } = await call("openapi.json");
  if (!(contract.paths["/v1/items"] || {}).post) return;
  const attributes = Object.keys(contract.components.schemas.ItemRequest.properties);
  for (const name of attributes.filter(one => !["id", "title", "text"].includes(one)).slice(0, 6)) {
    const label = element("label", name.replaceAll("_", " ")), input = document.createElement("input");
    input.name = name; input.id = "attribute-" + name; input.maxLength = 300; input.autocomplete = "off";
    label.htmlFor = input.id;
    byId("attributes").append(label, input);
  }
  byId("cold").hidden = false;
}

byId("query").addEventListener("input", search);
byId("query").addEventListener("keydown", event => {
  const first = byId("found").querySelector("button");
  if (!first) return;
  if (event.key === "Enter") { event.preventDefault(); first.click(); }
  if (event.key === "ArrowDown") { event.preventDefault(); first.focus(); }
});
byId("found").addEventListener("keydown", event => {
  const buttons = [...byId("found").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") { byId("query").value = ""; search(); byId("query").focus(); }
  if (step) { event.preventDefault(); (buttons[at + step] || byId("query")).focus(); }
});
byId("add").addEventListener("submit", add);
byId("login").addEventListener("submit", event => {
  event.preventDefault();
  token = byId("token").value.trim();
  show();
});
offer().catch(complain);
show();
