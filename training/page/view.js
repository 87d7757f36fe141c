// Shows the network as boxes. Stages are rows, and shortcuts are arches over the blocks.

import { element, find } from "./dom.js";

export class View {
  /**
   * @param network the contents of `network.json`.
   * @param state is shown, and changed by clicks.
   */
  constructor(network, state) {
    this.network = network;
    this.state = state;
    this.chosen = null; // the first block of a swap
    this.swapping = false;
    this.blocks = network.units.map((unit, k) => this.block(unit, k));
    this.rows = new Map();
    for (const unit of network.units) if (!this.rows.has(unit.stage)) this.rows.set(unit.stage, this.row(unit));
    find("network").replaceChildren(...[...this.rows.values()].map((row) => row.parentElement));
    find("network").addEventListener("keydown", (event) => this.key(event));
    const rows = network.units.map((unit) => network.units.filter(({ stage }) => stage === unit.stage).length);
    find("network").style.setProperty("--most", Math.max(...rows));
    this.weigh("parameters");
    this.show();
  }

  row({ stage, shape }) {
    const line = element("div", { class: "row" });
    const name = element("h3", {}, `Stage ${stage} `, element("small", {}, shape.join(" × ")));
    element("div", { class: "stage", role: "group", "aria-label": `Stage ${stage}` }, name, line);
    return line;
  }

  /** Creates a block: a track for each branch, and a box for all of several branches. */
  block(unit, k) {
    const several = unit.branches.length > 1;
    const boxes = several
      ? unit.branches.map((branch, j) => this.box(k, j, branch, `${k + 1}.${j + 1}`))
      : [this.box(k, null, unit, `${k + 1}`)];
    const whole = several ? this.box(k, null, unit, `${k + 1}`) : null;
    const skip = () => element("span", { class: "skip", "aria-hidden": "true" });
    const tracks = boxes.map((box) => element("div", { class: "track" }, unit.branches.length ? skip() : [], box));
    const made = element(
      "div",
      { class: "block", draggable: "true" },
      unit.merge ? element("span", { class: "merge", title: "The streams are averaged here" }, "mean") : [],
      element("div", { class: "tracks" }, whole ?? [], tracks),
    );
    whole?.classList.add("whole");
    this.draggable(made, k);
    return { made, boxes, whole };
  }

  box(k, branch, { name, parameters }, number) {
    const many = `${parameters.toLocaleString("en")} parameters`;
    return element(
      "button",
      {
        class: "box",
        tabindex: "-1",
        title: name,
        "data-block": k,
        "data-branch": branch,
        "data-what": `${name}, ${many}`,
        onclick: () => this.click(k, branch),
      },
      number,
      element("small", {}, many),
    );
  }

  click(k, branch) {
    if (this.swapping || this.chosen !== null) this.choose(k);
    else this.state.toggle(k, branch);
  }

  /** Takes the first block of a swap, or swaps it with a second. */
  choose(k) {
    const first = this.chosen;
    this.chosen = null;
    if (first === null) this.chosen = k;
    else if (first !== k && !this.state.swap(first, k)) {
      find("message").textContent = "These two blocks cannot be swapped: their shapes differ.";
    }
    this.show();
  }

  draggable(made, k) {
    made.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", `block ${k}`));
    made.addEventListener("dragover", (event) => event.preventDefault());
    made.addEventListener("drop", (event) => {
      const [, from] = event.dataTransfer.getData("text/plain").match(/^block (\d+)$/) ?? [];
      if (from === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.chosen = Number(from);
      this.choose(k);
    });
  }

  key(event) {
    const boxes = [...find("network").querySelectorAll(".box")];
    const here = boxes.indexOf(document.activeElement);
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: boxes.length - 1 }[event.key];
    if (here < 0) return;
    if (to !== undefined) this.focus(boxes, boxes[to]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      this.focus(boxes, nextRow(boxes, here, event.key === "ArrowDown"));
    } else if (event.key.toLowerCase() === "s") this.choose(Number(boxes[here].dataset.block));
    else if (event.key === "Escape") {
      this.chosen = null;
      this.show();
    } else return;
    event.preventDefault();
  }

  /** Moves the focus to a box, the only one that Tab reaches. */
  focus(boxes, box) {
    if (!box) return;
    for (const other of boxes) other.tabIndex = -1;
    box.tabIndex = 0;
    box.focus();
  }

  /** Sets the widths of boxes by their parameters, or by the error after their deletion. */
  weigh(what) {
    const { units, intact, costs } = this.network;
    const lost = units.map((_, k) => Math.max(0, (costs?.[k] ?? intact) - intact || 0));
    const weights = what === "cost" ? lost : units.map(({ parameters }) => parameters);
    const [most, worst] = [Math.max(...weights, 1e-9), Math.max(...lost, 1e-9)];
    this.blocks.forEach(({ made }, k) => {
      made.style.setProperty("--weight", Math.sqrt(weights[k] / most));
      made.style.setProperty("--cost", `${Math.round((100 * lost[k]) / worst)}%`);
    });
  }

  show() {
    const { state } = this;
    const active = document.activeElement;
    for (const line of this.rows.values()) line.replaceChildren();
    state.order.forEach((block, place) => {
      const { made } = this.blocks[block];
      this.rows.get(this.network.units[place].stage).append(made);
      made.classList.toggle("moved", block !== place);
      made.classList.toggle("chosen", block === this.chosen);
    });
    const lines = [...this.rows.values()];
    lines.at(0).prepend(element("span", { class: "end" }, "image"));
    lines.at(-1).append(element("span", { class: "end" }, "classes"));
    if (find("network").contains(active)) active.focus();
    this.blocks.forEach(({ made, boxes, whole }, k) => {
      const gates = state.gates[k];
      boxes.forEach((box, j) => this.mark(box, gates[j], k));
      if (whole) this.mark(whole, gates.some(Boolean), k);
    });
    const boxes = [...find("network").querySelectorAll(".box")];
    if (!boxes.some((box) => box.tabIndex === 0)) boxes[0].tabIndex = 0;
    find("swap").setAttribute("aria-pressed", this.swapping);
  }

  mark(box, present, k) {
    const place = this.state.order.indexOf(k);
    const moved = place === k ? "" : `, in place ${place + 1}`;
    box.setAttribute("aria-pressed", present);
    box.setAttribute("aria-label", `${box.dataset.what}${moved}: ${present ? "there" : "deleted"}`);
  }
}

/** Returns the box below or above another, in the nearest row. */
function nextRow(boxes, here, down) {
  const middle = (box) => {
    const { left, width, top } = box.getBoundingClientRect();
    return { x: left + width / 2, y: top };
  };
  const from = middle(boxes[here]);
  const beyond = boxes
    .map((box) => ({ box, ...middle(box) }))
    .filter(({ y }) => (down ? y > from.y + 4 : y < from.y - 4))
    .sort((a, b) => Math.abs(a.y - from.y) - Math.abs(b.y - from.y) || Math.abs(a.x - from.x) - Math.abs(b.x - from.x));
  return beyond[0]?.box;
}
