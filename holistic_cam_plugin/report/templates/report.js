"use strict";

const list = document.getElementById("cards"), cards = [...list.children];
const form = document.getElementById("controls"), count = document.getElementById("count");
const collator = new Intl.Collator(undefined, { numeric: true });

// A filter with a single option has no control.
const choice = (name) => form.elements[name]?.value ?? "";
const isShown = (element) => !element.closest("[hidden]");

function filter() {
  const text = choice("file").toLowerCase();
  for (const name of ["layer", "method"]) {
    const wanted = choice(name);
    for (const part of list.querySelectorAll(`[data-${name}]`)) part.hidden = wanted && part.dataset[name] !== wanted;
  }
  for (const card of cards) {
    const targets = [...card.querySelectorAll(".target")];
    for (const target of targets) target.hidden = choice("class") && target.dataset.class !== choice("class");
    card.hidden = !card.dataset.file.toLowerCase().includes(text) || targets.every((target) => target.hidden);
  }
  const methods = cards[0].querySelectorAll(".target:first-child th[data-method]:not([hidden])").length;
  document.body.style.setProperty("--methods", methods);
  const maps = [...list.querySelectorAll(".map")].filter(isShown).length;
  count.value = `${cards.filter(isShown).length} of ${cards.length} image${cards.length === 1 ? "" : "s"}, ${maps} map${maps === 1 ? "" : "s"}`;
}

const values = (card, selector, name) => [...card.querySelectorAll(selector)].map((part) => Number(part.dataset[name] ?? 0));

// Sort keys, of the visible parts of a card: its highest probability, its total time.
const keys = {
  name: (card) => card.dataset.file,
  probability: (card) => Math.max(0, ...values(card, ".target:not([hidden])", "probability")),
  seconds: (card) => values(card, ".target:first-child th:not([hidden])", "seconds").reduce((sum, value) => sum + value, 0),
};

function sort() {
  const [, minus, name] = choice("order").match(/(-?)(.*)/);
  const sign = minus ? -1 : 1;
  const keyed = cards.map((card) => [keys[name](card), card]);
  keyed.sort(([a], [b]) => sign * (name === "name" ? collator.compare(a, b) : a - b));
  const sorted = keyed.map(([, card]) => card);
  if (sorted.some((card, index) => card !== list.children[index])) list.append(...sorted);
}

function update() {
  filter();
  sort();
}

const viewer = document.getElementById("viewer"), stage = document.getElementById("stage");
const below = document.getElementById("below"), above = document.getElementById("above");
const opacity = document.getElementById("opacity"), views = [...viewer.querySelectorAll("[data-view]:not(.stage)")];
const back = document.getElementById("back"), next = document.getElementById("next");
let maps = [], place = 0; // the visible maps in page order, and the index of the one in the viewer

function view(button) {
  const card = button.closest(".card"), map = button.querySelector("img"), picture = card.querySelector(".subject img");
  place = maps.indexOf(button);
  above.src = map.src;
  above.alt = map.alt;
  below.setAttribute("src", picture ? picture.src : "");
  stage.style.setProperty("--ratio", map.getAttribute("width") / map.getAttribute("height"));
  document.getElementById("viewed").textContent = map.alt;
  document.getElementById("caption").textContent = `${card.dataset.file} · ${button.dataset.caption}`;
  back.disabled = place === 0;
  next.disabled = place === maps.length - 1;
}

function step(by) {
  if (maps[place + by]) view(maps[place + by]);
}

// Go to the same method in another layer.
function stepLayer(by) {
  const row = maps[place].closest("tr"), column = maps[place].closest("td").cellIndex;
  const rows = [...row.parentElement.rows].filter((other) => !other.hidden);
  const button = rows[rows.indexOf(row) + by]?.cells[column].querySelector(".map");
  if (button) view(button);
}

function show(name) {
  stage.dataset.view = name;
  for (const button of views) button.ariaPressed = button.dataset.view === name;
  opacity.disabled = name !== "overlay";
}

const arrows = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepLayer(-1), ArrowDown: () => stepLayer(1) };

form.addEventListener("change", update);
form.elements.file.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
list.addEventListener("click", (event) => {
  const button = event.target.closest(".map");
  if (!button) return;
  maps = [...list.querySelectorAll(".map")].filter(isShown);
  view(button);
  viewer.showModal();
});
viewer.addEventListener("keydown", (event) => {
  if (event.target === opacity || !arrows[event.key]) return;
  event.preventDefault();
  arrows[event.key]();
});
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("close", () => maps[place].focus()); // the last map viewed, not the first
back.addEventListener("click", () => step(-1));
next.addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => viewer.close());
for (const button of views) button.addEventListener("click", () => show(button.dataset.view));
opacity.addEventListener("input", () => stage.style.setProperty("--opacity", opacity.value / 100));

form.hidden = false;
update();
