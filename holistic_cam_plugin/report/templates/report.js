"use strict";

const PER_PAGE = 24;
const find = (id) => document.getElementById(id);
const form = find("controls"), list = find("cards"), collator = new Intl.Collator(undefined, { numeric: true });

// The data are rows: give their values names.
const data = JSON.parse(find("data").textContent);
const name = (columns, row) => Object.fromEntries(columns.map((column, index) => [column, row[index]]));
const images = data.images.map((row) => name(data.columns, row));
for (const image of images) {
  image.maps = image.maps.map((row) => name(data.map_columns, row));
  image.outcome = image.label === null ? "" : image.label === image.predicted ? "right" : "wrong";
}
const hasObjects = images.some((image) => image.object_share !== null);
const hasLabels = images.some((image) => image.outcome);

// Numbers as text
const whole = (number) => number.toLocaleString("en");
const plural = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
const figures = (number) => Number(number.toPrecision(3)).toString();
const percent = (share) => (share > 0 && share < 1e-4 ? "< 0.01 %" : `${Number((100 * share).toPrecision(share < 0.0995 ? 2 : 3)).toFixed(share < 0.0995 ? undefined : 0)} %`);

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

// The filters and the order are in the address after "#": links set them, and the browser's history keeps them.

const control = (name) => form.elements[name];

// Offer values with their numbers of images; a control with nothing to choose is removed.
function offer(name, labels, counts) {
  const values = [...labels].filter(([value]) => counts.get(value));
  if (values.length < 2) return control(name).closest("label").remove();
  control(name).append(new Option(`all ${whole(values.length)}`, ""));
  for (const [value, label] of values) control(name).append(new Option(`${label} (${whole(counts.get(value))})`, value));
}

function count(list) {
  const counts = new Map();
  for (const value of list) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function prepareForm() {
  const classes = Object.entries(data.names).map(([number, text]) => [Number(number), text]);
  classes.sort(([, a], [, b]) => collator.compare(a, b));
  const perMap = (column) => count(images.flatMap((image) => [...new Set(image.maps.map((map) => map[column]))]));
  // One of the other two filters tells the explained class of every image.
  const told = (column) => images.every((image) => image.maps.every((map) => map.target === image[column]));
  offer("label", classes, count(images.map((image) => image.label)));
  offer("predicted", classes, count(images.map((image) => image.predicted)));
  offer("target", classes, told("label") || told("predicted") ? new Map() : perMap("target"));
  offer("layer", data.layers.map((layer) => [layer, layer]), perMap("layer"));
  offer("method", Object.entries(data.methods), perMap("method"));
  if (!hasLabels) control("outcome").closest("label").remove();
  if (!hasObjects) control("below").closest("label").remove();
  for (const option of [...control("order").options]) {
    const column = option.value.replace("-", "");
    const known = { label_probability: hasLabels, inside: hasObjects, precision: hasObjects }[column] ?? true;
    if (!known) option.remove();
  }
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const element of form.elements) if (element.name) element.value = wanted.get(element.name) ?? "";
  for (const element of form.querySelectorAll("select")) if (element.selectedIndex < 0) element.value = "";
  page = Number(wanted.get("page")) || 1;
}

function writeAddress() {
  const chosen = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  if (page > 1) chosen.set("page", page);
  history.replaceState(null, "", `#${chosen}`);
}

// Filter and sort

let selected = [], page = 1; // the images that pass the filters, in order; the page of them that is shown

let chosen = {}; // the values of the form

const passes = (name, value) => !chosen[name] || chosen[name] === String(value);
const isShown = (map) => passes("layer", map.layer) && passes("method", map.method) && passes("target", map.target);

function measure(image) {
  image.shown = image.maps.filter(isShown);
  for (const column of ["coverage", "precision", "inside"]) image[column] = mean(image.shown.map((map) => map[column]));
  const seconds = new Map(image.shown.map((map) => [map.method, map.seconds]));
  image.seconds = [...seconds.values()].reduce((sum, value) => sum + value, 0);
}

function select() {
  chosen = Object.fromEntries(new FormData(form));
  const text = chosen.file.toLowerCase(), below = chosen.below || Infinity;
  images.forEach(measure);
  selected = images.filter((image) =>
    image.shown.length && image.file.toLowerCase().includes(text) && passes("outcome", image.outcome)
    && passes("label", image.label) && passes("predicted", image.predicted)
    && (below === Infinity || (image.inside !== null && 100 * image.inside < below)));
  const [, minus, column] = (chosen.order || "file").match(/(-?)(.*)/), sign = minus ? -1 : 1;
  const compare = column === "file" ? collator.compare : (a, b) => a - b;
  // What is not known comes last in both directions.
  selected.sort(({ [column]: a }, { [column]: b }) => (a === null) - (b === null) || sign * compare(a, b));
}

// Summary of the selection

function showSummary() {
  const maps = selected.flatMap((image) => image.shown);
  const right = selected.filter((image) => image.outcome === "right"), labelled = selected.filter((image) => image.outcome);
  const share = labelled.length && !chosen.outcome ? `, ${percent(right.length / labelled.length)} right` : "";
  find("count").value = `${whole(selected.length)} of ${plural(images.length, "image")}, ${plural(maps.length, "map")}${share}`;
  find("reset").hidden = !location.hash.includes("=") || location.hash === find("reset").hash;
  showCoverage(maps.map((map) => map.coverage));
  if (hasObjects) showObjects(right);
}

function showCoverage(values) {
  const bars = new Array(20).fill(0), middle = mean(values), chart = find("coverage").querySelector("svg");
  for (const value of values) bars[Math.min(19, Math.floor(20 * value))] += 1;
  const highest = Math.max(1, ...bars);
  chart.innerHTML = bars.map((bar, index) =>
    `<rect x="${10 * index + 0.5}" width="9" y="${60 - (58 * bar) / highest}" height="${(58 * bar) / highest}"/>`).join("");
  chart.ariaLabel = middle === null ? "no maps" : `Histogram: on average ${percent(middle)}; most often ${5 * bars.indexOf(highest)} % to ${5 * bars.indexOf(highest) + 5} %`;
  find("coverage").querySelector("h2").textContent = middle === null ? "Coverage of the maps" : `Coverage of the maps: ${percent(middle)} on average`;
}

function showObjects(right) {
  const [figure, text] = find("inside").querySelectorAll("p"), known = selected.filter((image) => image.inside !== null);
  figure.textContent = known.length ? percent(mean(known.map((image) => image.inside))) : "–";
  const precision = mean(selected.map((image) => image.precision));
  text.replaceChildren(`mean of ${plural(known.length, "image")}`, precision === null ? "" : `, average precision ${precision.toFixed(2)}`);
  const suspicious = right.filter((image) => image.inside !== null && image.inside < 0.5).length;
  if (suspicious) text.append(". ", make("a", { href: "#outcome=right&below=50&order=inside" }, `${whole(suspicious)} right for the wrong reason?`), " Most of their energy lies outside.");
  find("inside").hidden = false;
}

// Cards

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const gone = (image, text) => make("p", { class: "gone", style: `aspect-ratio: ${image.width} / ${image.height}` }, text);

function drawOutline(image) {
  if (!image.outline) return null;
  const drawing = find("outline").content.firstElementChild.cloneNode(true);
  drawing.setAttribute("viewBox", `-.5 -.5 ${image.width} ${image.height}`);
  for (const path of drawing.children) path.setAttribute("d", image.outline);
  return drawing;
}

const picture = (image, url, alt) =>
  make("img", { src: url, alt, width: image.width, height: image.height, loading: "lazy", decoding: "async" });

// A long file name may be wrapped after these characters.
const wrappable = (text) => text.split(/(?<=[/_-])|(?=\.)/).flatMap((part) => [make("wbr", {}), part]);

function makeVerdict(image) {
  const line = (term, number, probability) => number === null ? null : make("div", {}, make("dt", {}, term),
    make("dd", {}, data.names[number], " ", make("strong", {}, probability === null ? "" : percent(probability))));
  const mark = image.outcome && make("p", { class: image.outcome }, image.outcome === "right" ? "✓ right" : "✗ wrong");
  const predicted = line(image.outcome === "right" ? "predicted and label" : "predicted", image.predicted, image.probability);
  const facts = image.outcome === "right" ? [predicted] : [predicted, line("label", image.label, image.label_probability)];
  return make("div", { class: "verdict" }, mark || null, make("dl", {}, ...facts),
    image.object_share === null ? null : make("p", {}, `object: ${percent(image.object_share)} of the image`),
    image.problem ? make("p", {}, `object unknown: ${image.problem}`) : null);
}

function makeMap(image, map) {
  const title = `${data.names[map.target]}, ${map.layer}, ${data.methods[map.method]}`;
  if (!map.url) return gone(image, `The map of ${title} is missing or damaged`);
  const button = make("button", { type: "button", class: "map" }, picture(image, map.url, `Map of ${title}`), drawOutline(image));
  const inside = map.inside === null ? [] : [`${percent(map.inside)} inside`, `${percent(map.inside)} of its energy inside the object`];
  const precision = map.precision === null ? [] : [`AP ${map.precision.toFixed(2)}`, `average precision ${map.precision.toFixed(2)}`];
  const join = (...texts) => texts.filter(Boolean).join(" · ");
  button.image = image;
  button.caption = join(`covers ${percent(map.coverage)} of the image`, inside[1], precision[1]);
  return make("figure", {}, button, make("figcaption", {}, make("span", {}, `covers ${percent(map.coverage)}`), make("span", {}, join(inside[0], precision[0]))));
}

function makeTarget(image, target) {
  const maps = image.shown.filter((map) => map.target === target), [first] = maps;
  const methods = [...new Map(maps.map((map) => [map.method, map.seconds]))];
  const layers = data.layers.filter((layer) => maps.some((map) => map.layer === layer));
  const cell = (layer, method) => maps.find((map) => map.layer === layer && map.method === method);
  const head = make("tr", {}, make("td", {}), ...methods.map(([method, seconds]) =>
    make("th", { scope: "col" }, data.methods[method], " ", make("small", {}, `${figures(seconds)} s`))));
  const rows = layers.map((layer) => make("tr", {}, make("th", { scope: "row" }, make("span", {}, layer)),
    ...methods.map(([method]) => make("td", {}, ...(cell(layer, method) ? [makeMap(image, cell(layer, method))] : [])))));
  return make("section", { class: "target" },
    make("h3", {}, data.names[target], " ", make("strong", {}, percent(first.probability)), " ", make("small", {}, `score ${figures(first.score)}`)),
    make("div", { class: "maps" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
}

function makeCard(image) {
  const shown = image.url ? make("div", { class: "picture" }, picture(image, image.url, `Image ${image.file}`), drawOutline(image))
    : gone(image, "This image is missing or has changed");
  const targets = [...new Set(image.shown.map((map) => map.target))];
  return make("article", { class: "card", "aria-label": image.file, "data-file": image.file, style: image.url ? `--picture: url('${image.url}')` : null },
    make("div", { class: "subject" }, shown, make("h2", {}, ...wrappable(image.file)), makeVerdict(image)),
    make("div", { class: "targets" }, ...targets.map((target) => makeTarget(image, target))));
}

function showPage() {
  const pages = Math.max(1, Math.ceil(selected.length / PER_PAGE));
  page = Math.min(Math.max(1, page), pages);
  const cards = selected.slice((page - 1) * PER_PAGE, page * PER_PAGE).map(makeCard);
  list.replaceChildren(...cards);
  const methods = Object.keys(data.methods).filter((method) => passes("method", method)).length;
  document.body.style.setProperty("--methods", methods);
  find("pager").hidden = pages === 1;
  find("page").value = page;
  find("page").max = pages;
  find("pages").textContent = `of ${whole(pages)}`;
  find("earlier").disabled = page === 1;
  find("later").disabled = page === pages;
  return cards.length;
}

function update() {
  select();
  showSummary();
  showPage();
}

function turn(to) {
  page = to;
  writeAddress();
  showPage();
}

// Viewer: one map, large

const viewer = find("viewer"), stage = find("stage"), below = find("below"), above = find("above");
const opacity = find("opacity"), views = [...viewer.querySelectorAll("[data-view]:not(.stage)")];
let place = 0; // of the viewed map among those of the page
const listMaps = () => [...list.querySelectorAll(".map")];

function view(button) {
  const maps = listMaps(), { image } = button, map = button.querySelector("img");
  place = maps.indexOf(button);
  above.src = map.src;
  above.alt = map.alt;
  below.setAttribute("src", image.url);
  stage.querySelector("svg")?.remove();
  const outline = drawOutline(image);
  if (outline) stage.append(outline);
  stage.style.setProperty("--ratio", image.width / image.height);
  find("viewed").textContent = map.alt;
  find("caption").textContent = `${image.file} · ${button.caption}`;
  find("back").disabled = page === 1 && place === 0;
  find("next").disabled = find("later").disabled && place === maps.length - 1;
}

// Go to another map; beyond the last one, to the next page.
function step(by) {
  const maps = listMaps();
  if (maps[place + by]) return view(maps[place + by]);
  if (find(by < 0 ? "earlier" : "later").disabled) return;
  turn(page + by);
  const button = listMaps().at(by < 0 ? -1 : 0);
  if (button) view(button);
}

// Go to the same method in another layer.
function stepLayer(by) {
  const cell = listMaps()[place].closest("td"), rows = [...cell.closest("tbody").rows];
  const button = rows[rows.indexOf(cell.parentElement) + by]?.cells[cell.cellIndex].querySelector(".map");
  if (button) view(button);
}

function show(name) {
  stage.dataset.view = name;
  for (const button of views) button.ariaPressed = button.dataset.view === name;
  opacity.disabled = name !== "overlay";
}

const arrows = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepLayer(-1), ArrowDown: () => stepLayer(1) };

// Events

function choose() {
  page = 1;
  writeAddress();
  update();
}

form.addEventListener("change", choose);
form.addEventListener("input", (event) => { if (event.target.matches("input")) choose(); });
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  if (location.hash && !location.hash.includes("=")) return; // a link to a part of the page
  readAddress();
  update();
  form.scrollIntoView({ block: "start" });
});
for (const [id, by] of [["earlier", -1], ["later", 1]]) find(id).addEventListener("click", () => {
  turn(page + by);
  list.scrollIntoView({ block: "start" });
});
find("page").addEventListener("change", () => turn(Number(find("page").value) || 1));
list.addEventListener("click", (event) => {
  const button = event.target.closest(".map");
  if (!button) return;
  view(button);
  viewer.showModal();
});
viewer.addEventListener("keydown", (event) => {
  if (event.target === opacity || !arrows[event.key]) return;
  event.preventDefault();
  arrows[event.key]();
});
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("close", () => listMaps()[place].focus()); // the last map viewed, not the first
find("back").addEventListener("click", () => step(-1));
find("next").addEventListener("click", () => step(1));
find("close").addEventListener("click", () => viewer.close());
for (const button of views) button.addEventListener("click", () => show(button.dataset.view));
opacity.addEventListener("input", () => stage.style.setProperty("--opacity", opacity.value / 100));

prepareForm();
readAddress();
form.hidden = false;
update();
