// The test images with their predictions, and the confusion matrix.

import { element, find, paint, percent } from "./dom.js";

/** Returns the index of the largest number, the first of several. */
export const best = (row) => row.indexOf(Math.max(...row));

/** Counts the wrong answers, and averages their confidence. */
export function measure(probabilities, labels) {
  const wrong = probabilities.filter((row, k) => best(row) !== labels[k]).length;
  const sure = probabilities.reduce((sum, row) => sum + Math.max(...row), 0);
  return { wrong, error: wrong / labels.length, confidence: sure / labels.length };
}

export class Samples {
  constructor(network, bytes) {
    this.network = network;
    const size = network.input.reduce((a, b) => a * b);
    this.figures = network.labels.map((label, k) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      paint(canvas, bytes.subarray(k * size, (k + 1) * size), network.input);
      const answer = element("span", { class: "answer" });
      const bar = element("span", { class: "bar" });
      const made = element("li", {}, canvas, answer, bar);
      return { made, answer, bar, label };
    });
    find("samples").replaceChildren(...this.figures.map(({ made }) => made));
    find("wrong-first").addEventListener("change", () => this.sort());
  }

  show(probabilities) {
    const { classes } = this.network;
    this.figures.forEach((figure, k) => {
      const row = probabilities[k];
      const answer = best(row);
      figure.wrong = answer !== figure.label;
      figure.made.classList.toggle("wrong", figure.wrong);
      figure.answer.textContent = figure.wrong
        ? `✗ ${classes[answer]} (is ${classes[figure.label]})`
        : `${classes[answer]}`;
      figure.bar.style.setProperty("--share", row[answer]);
      figure.made.title = `${percent(row[answer])} sure`;
    });
    this.sort();
    if (classes.length <= 20) this.showConfusion(probabilities);
  }

  sort() {
    const first = find("wrong-first").checked;
    for (const { made, wrong } of this.figures) made.style.order = first && wrong ? -1 : 0;
  }

  showConfusion(probabilities) {
    const { classes, labels } = this.network;
    const counts = classes.map(() => classes.map(() => 0));
    probabilities.forEach((row, k) => counts[labels[k]][best(row)]++);
    const head = element("tr", {}, element("td", {}, "true ↓ predicted →"), classes.map((name) => header(name, "col")));
    const rows = counts.map((row, label) => {
      const all = row.reduce((a, b) => a + b) || 1;
      const cells = row.map((count, answer) => {
        const cell = element("td", { class: answer === label ? "right" : "mistaken" }, count ? `${count}` : "");
        cell.style.setProperty("--share", count / all);
        return cell;
      });
      return element("tr", {}, header(classes[label], "row"), cells);
    });
    find("confusion").classList.toggle("long", classes.some((name) => name.length > 3));
    find("confusion").replaceChildren(element("thead", {}, head), element("tbody", {}, rows));
  }
}

const header = (name, scope) => element("th", { scope }, element("span", {}, name));
