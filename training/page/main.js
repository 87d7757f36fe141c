// Connects the parts of the page: the state, the network and the view.

import { draw } from "./charts.js";
import { find, percent } from "./dom.js";
import { bring, openEngine, runtimesFor } from "./engine.js";
import { countPaths, ratio, readable, total } from "./paths.js";
import { measure, Samples } from "./samples.js";
import { State } from "./state.js";
import { View } from "./view.js";
import { Visitor } from "./visitor.js";

const RANDOM = 5; // blocks deleted by a click

async function show(network) {
  document.title = `${network.title}, taken apart`;
  find("title").textContent = network.title;
  find("about").textContent = network.about;
  const state = new State(network);
  const view = new View(network, state);
  const paths = network.residual ? new Paths(network) : null;
  prepareButtons(network, state, view);
  find("effective").hidden = !network.effective;
  find("sample-images").hidden = !network.labels.length;
  find("confusions").hidden = !network.labels.length || network.classes.length > 20;
  if (network.study) await showStudy(state, network);

  let engine, samples; // once they are loaded
  const visitor = new Visitor(network, () => run().catch(fail));

  async function run() {
    if (document.body.dataset.state === "failed") return;
    document.body.dataset.state = "busy";
    if (!engine) return;
    const layout = state.layout();
    const begun = performance.now();
    const [own, probabilities] = await Promise.all([
      visitor.image && engine.own(layout, visitor.image),
      samples && engine.samples(layout),
    ]);
    if (own === null || probabilities === null) return; // a new request has come
    if (own) visitor.show(own[0]);
    if (probabilities) {
      samples.show(probabilities);
      showNumbers(network, measure(probabilities, network.labels));
      find("runtime").textContent = `${engine.name}: ${Math.round(performance.now() - begun)} ms`;
    } else done(own ? "" : "The network is ready. Drop an image in.");
  }

  state.addEventListener("change", () => {
    find("message").textContent = "";
    const written = state.write();
    history.replaceState(null, "", written ? `#${written}` : location.pathname + location.search);
    view.show();
    paths?.show(state.layout());
    run().catch(fail);
  });
  addEventListener("hashchange", () => state.read(location.hash));
  state.read(location.hash);

  const files = await bring(neededBy(network), (share) => progress("Loading", share));
  if (network.labels.length) samples = new Samples(network, files["images.bin"]);
  engine = await openEngine(network, files, await runtimesFor(network), progress);
  await run();
}

/** Returns the sizes of the files that all engines need. */
function neededBy({ sizes, runtimes }) {
  const binaries = Object.values(runtimes).map(({ binary }) => binary);
  return Object.fromEntries(Object.entries(sizes).filter(([name]) => !binaries.includes(name)));
}

function showNumbers(network, { wrong, error, confidence }) {
  const examples = network.labels.length;
  const more = 100 * error - network.intact;
  find("error").textContent = percent(error);
  find("error-note").textContent = `${wrong} of ${examples}, ${more < 0 ? "−" : "+"}${Math.abs(more).toFixed(2)} points`;
  find("confidence").textContent = percent(confidence);
  find("confidence-note").textContent = "on average";
  done(`${wrong} of ${examples} images are wrong.`);
}

function done(text) {
  find("progress").hidden = true;
  find("status").textContent = text;
  document.body.dataset.state = "ready";
}

function progress(what, share) {
  const bar = find("progress");
  bar.hidden = false;
  bar.value = share;
  bar.setAttribute("aria-label", what);
}

function fail({ message }) {
  find("failure").hidden = false;
  find("failure").textContent = `The page does not work in this browser: ${message}`;
  find("progress").hidden = true;
  document.body.dataset.state = "failed";
}

/** Shows the number of paths and their lengths. */
class Paths {
  constructor(network) {
    this.network = network;
    this.intact = countPaths(network, new State(network).layout());
    find("path-lengths").hidden = false;
  }

  show(layout) {
    const left = countPaths(this.network, layout);
    const all = total(this.intact);
    find("paths").textContent = readable(total(left));
    find("paths-note").textContent = `of ${readable(all)}`;
    const points = (counts) => counts.map((count, length) => [length, ratio(count, all)]);
    const chart = {
      title: "",
      x: "blocks on a path",
      y: "share of all paths",
      series: [
        { name: "intact", kind: "outline", points: points(this.intact) },
        { name: "now", kind: "bars", points: points(left) },
      ],
    };
    find("path-chart").replaceChildren(draw(chart));
  }
}

function prepareButtons(network, state, view) {
  const cost = (block) => network.costs?.[block] ?? 0;
  const by = (order) => state.left().sort((a, b) => order * (cost(a) - cost(b)) || a - b);
  const clicked = (id, action) => find(id).addEventListener("click", action);
  clicked("restore", () => state.restore());
  clicked("random", () => state.remove(drawn(state.left(), RANDOM)));
  clicked("worst", () => state.remove(by(-1).slice(0, 1)));
  clicked("effective", () => {
    state.restore();
    const [, longest] = network.effective;
    state.remove(by(1).slice(0, Math.max(0, network.units.length - longest)));
  });
  clicked("swap", () => {
    view.swapping = !view.swapping;
    view.chosen = null;
    view.show();
  });
  find("widths").addEventListener("change", ({ target }) => view.weigh(target.value));
  const known = network.labels.length > 0;
  find("worst").disabled = !known;
  if (!known) find("widths").parentElement.hidden = true;
  if (network.effective) {
    const [, longest] = network.effective;
    find("effective").title =
      `Keeps the ${longest} blocks whose loss costs the most: no path is longer than ` +
      "those that carry 95 % of the gradient";
  }
}

/** Draws items of a list at random. */
function drawn(list, count) {
  const rest = [...list];
  return Array.from({ length: Math.min(count, rest.length) }, () =>
    rest.splice(Math.floor(Math.random() * rest.length), 1)[0],
  );
}

async function showStudy(state, network) {
  const charts = await (await fetch("study.json")).json();
  const blocks = new Map(network.units.map((unit, k) => [unit.name, k]));
  const pick = (name) => blocks.has(name) && state.toggle(blocks.get(name));
  find("study").hidden = false;
  find("charts").replaceChildren(...charts.map((chart) => draw(chart, chart.series[0].kind === "stems" ? pick : null)));
}

try {
  const network = await (await fetch("network.json")).json();
  await show(network);
} catch (error) {
  fail(error);
}
