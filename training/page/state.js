// What is deleted and the order of the blocks, as in the address: #off=3,17.2&swap=4-5

export class State extends EventTarget {
  constructor(network) {
    super();
    this.units = network.units;
    this.clear();
  }

  clear() {
    // A plain layer has no branches, but one gate.
    this.gates = this.units.map(({ branches }) => Array(branches.length || 1).fill(true));
    this.order = this.units.map((_, k) => k);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  restore() {
    this.clear();
    this.changed();
  }

  /** Deletes or restores a block, or one of its branches. */
  toggle(block, branch = null) {
    const gates = this.gates[block];
    if (branch === null) gates.fill(!gates.some(Boolean));
    else gates[branch] = !gates[branch];
    this.changed();
  }

  remove(blocks) {
    for (const block of blocks) this.gates[block].fill(false);
    this.changed();
  }

  /** Returns the blocks that are not deleted completely. */
  left() {
    return this.order.filter((block) => this.gates[block].some(Boolean));
  }

  /** Returns whether two blocks can take each other's place. */
  fits(a, b) {
    return a !== b && this.units[a].fits === this.units[b].fits;
  }

  /** Swaps two blocks if they fit, and returns whether they do. */
  swap(a, b) {
    if (!this.fits(a, b)) return false;
    this.exchange(this.order.indexOf(a), this.order.indexOf(b));
    this.changed();
    return true;
  }

  exchange(i, j) {
    [this.order[i], this.order[j]] = [this.order[j], this.order[i]];
  }

  /** Returns, for each place, the block that runs there and its gates. */
  layout() {
    return this.order.map((block) => ({ block, gates: [...this.gates[block]] }));
  }

  /** Returns the state for the address, with blocks, branches and places from 1. */
  write() {
    const off = this.gates.flatMap((gates, k) => {
      if (!gates.some(Boolean)) return [`${k + 1}`];
      return gates.flatMap((open, j) => (open ? [] : [`${k + 1}.${j + 1}`]));
    });
    const order = this.units.map((_, k) => k);
    const swaps = this.order.flatMap((block, place) => {
      const other = order.indexOf(block);
      if (other === place) return [];
      [order[place], order[other]] = [order[other], order[place]];
      return [`${place + 1}-${other + 1}`];
    });
    const parts = [off.length && `off=${off}`, swaps.length && `swap=${swaps}`];
    return parts.filter(Boolean).join("&");
  }

  /** Sets the state from an address, and ignores invalid parts. */
  read(hash) {
    this.clear();
    const parts = new URLSearchParams(hash.replace(/^#/, ""));
    for (const token of (parts.get("off") ?? "").split(",")) {
      const [, block, branch] = token.match(/^(\d+)(?:\.(\d+))?$/) ?? [];
      const gates = this.gates[block - 1];
      if (gates && branch === undefined) gates.fill(false);
      else if (gates && branch - 1 in gates) gates[branch - 1] = false;
    }
    for (const token of (parts.get("swap") ?? "").split(",")) {
      const [i, j] = token.split("-").map((text) => text - 1);
      const known = i in this.order && j in this.order;
      if (known && this.fits(this.order[i], this.order[j])) this.exchange(i, j);
    }
    this.changed();
  }
}
