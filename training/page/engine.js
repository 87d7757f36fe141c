// Brings the network, and shares the images out among workers.

const MOST_WORKERS = 4;
const WASM = "onnxruntime/ort-wasm-simd-threaded.wasm";

/**
 * Brings files, and tells how far it is.
 *
 * @param sizes their sizes in bytes, by their names.
 * @param told is called with a number from 0 to 1.
 * @returns the bytes by the names.
 */
export async function bring(sizes, told) {
  const whole = Object.values(sizes).reduce((a, b) => a + b, 0);
  let arrived = 0;
  const files = Object.keys(sizes).map(async (name) => {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
    const bytes = new Uint8Array(sizes[name]);
    let length = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes.set(value, length);
      length += value.length;
      arrived += value.length;
      told(arrived / whole);
    }
    if (length !== bytes.length) throw new Error(`${name}: ${length} of ${bytes.length} bytes`);
    return [name, bytes];
  });
  return Object.fromEntries(await Promise.all(files));
}

export class Engine {
  /**
   * @param network what `network.json` says.
   * @param files its files' bytes, by their names.
   * @param onprogress is called with a number from 0 to 1 while images run.
   */
  constructor(network, files, onprogress, onfailure) {
    this.network = network;
    this.requests = { samples: null, own: null };
    this.id = 0;
    const size = network.input.reduce((a, b) => a * b);
    const images = files["images.bin"] ?? new Uint8Array();
    const cores = Math.min(navigator.hardwareConcurrency || 1, MOST_WORKERS);
    const each = Math.ceil(images.length / size / cores);
    const parts = Array.from({ length: cores }, (_, k) => images.slice(k * each * size, (k + 1) * each * size));
    const shared = { network, wasm: files[WASM], files: withoutFolder(files) };
    // One at least: a visitor's image needs no sample images.
    this.workers = parts
      .filter((part, k) => part.length || !k)
      .map((part, k) => {
        const worker = new Worker("worker.js", { type: "module" });
        worker.onmessage = ({ data }) => this.receive(k, data, onprogress, onfailure);
        worker.onerror = (event) => onfailure(event.message ?? "The network does not run here.");
        worker.postMessage({ type: "start", images: part, ...shared });
        return worker;
      });
    this.done = this.workers.map(() => 0);
  }

  /** The probabilities of all sample images, or null if asked anew meanwhile. */
  samples(layout) {
    return this.ask("samples", { layout }, this.workers);
  }

  /** The probabilities of one image, likewise. */
  own(layout, image) {
    return this.ask("own", { layout, image }, this.workers.slice(0, 1));
  }

  ask(kind, message, workers) {
    this.requests[kind]?.resolve(null);
    const id = ++this.id;
    if (kind === "samples") this.done.fill(0);
    return new Promise((resolve) => {
      this.requests[kind] = { id, resolve, outputs: workers.map(() => null) };
      for (const worker of workers) worker.postMessage({ type: "run", kind, id, ...message });
    });
  }

  receive(k, { type, kind, id, outputs, done, message }, onprogress, onfailure) {
    if (type === "failure") onfailure(message);
    if (type === "progress") {
      this.done[k] = done;
      onprogress(Math.min(...this.done));
    }
    const request = this.requests[kind];
    if (type !== "answer" || request?.id !== id) return;
    request.outputs[k] = this.probabilities(outputs);
    if (request.outputs.every(Boolean)) {
      this.requests[kind] = null;
      request.resolve(request.outputs.flat());
    }
  }

  /** The network's outputs as a list of probabilities for each image. */
  probabilities(outputs) {
    const classes = this.network.classes.length;
    return Array.from({ length: outputs.length / classes }, (_, k) => {
      const row = Array.from(outputs.subarray(k * classes, (k + 1) * classes));
      if (!this.network.softmax) return row;
      const highest = Math.max(...row);
      const exponentials = row.map((logit) => Math.exp(logit - highest));
      const sum = exponentials.reduce((a, b) => a + b);
      return exponentials.map((value) => value / sum);
    });
  }
}

/** The parts of the network, as `network.json` names them. */
function withoutFolder(files) {
  const parts = Object.entries(files).filter(([name]) => name.startsWith("parts/"));
  return Object.fromEntries(parts.map(([name, bytes]) => [name.slice("parts/".length), bytes]));
}
