// Counts paths by their lengths exactly, by polynomials with BigInt coefficients.

import { walk } from "./walk.js";

/**
 * Counts the paths that a layout leaves.
 *
 * @returns a list of BigInts: how many paths have 0, 1, 2, ... blocks.
 */
export function countPaths(network, layout) {
  const steps = walk(network, layout, new Map([[network.source, [1n]]]));
  let step = steps.next();
  while (!step.done) step = steps.next(through(step.value));
  return step.value;
}

/** Returns the paths to the outputs of a part or a block from those to its inputs. */
function through({ record, gates, inputs }) {
  const open = gates ? record.branches.filter((_, k) => gates[k]) : [];
  const ways = [record.paths, ...open.map((branch) => branch.paths)];
  return record.paths.map((_, output) => {
    const sum = [];
    for (const matrix of ways) {
      matrix[output].forEach((factor, input) => addProduct(sum, inputs[input], factor));
    }
    return Array.from(sum, (count) => count ?? 0n);
  });
}

/** Adds the product of a polynomial and one that is given as pairs of length and count. */
function addProduct(sum, polynomial, factor) {
  for (const [length, count] of factor) {
    polynomial.forEach((paths, k) => {
      sum[k + length] = (sum[k + length] ?? 0n) + paths * BigInt(count);
    });
  }
}

/** Returns the number of all paths. */
export const total = (counts) => counts.reduce((sum, count) => sum + count, 0n);

/** Divides BigInts, which may exceed the range of floats. */
export const ratio = (part, whole) => Number((part * 10n ** 12n) / whole) / 1e12;

/** Formats a number of paths, such as 36 or 1.80 × 10^16. */
export function readable(count) {
  const digits = String(count);
  if (digits.length < 8) return count.toLocaleString("en");
  const superscript = [...String(digits.length - 1)].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("");
  return `${digits[0]}.${digits.slice(1, 3)} × 10${superscript}`;
}
