// Downloads the network, and distributes the images among workers.

const MOST_WORKERS = 4;
const MOST_THREADS = 4; // of a worker
const LITTLE = 2 ** 24; // numbers between blocks, which a processor computes before a GPU starts
const TOLERANCE = 1e-3; // of probabilities

/**
 * Downloads files, and reports the progress.
 *
 * @param sizes their sizes in bytes, by their names.
 * @param told is called with a number from 0 to 1.
 * @returns the bytes, by their names.
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

/**
 * Starts the first engine that returns the same numbers as Keras.
 *
 * @param network the contents of `network.json`.
 * @param files the network's parts and the images, by their names.
 * @param names of `network.runtimes`, as `runtimesFor` returns them.
 * @param told is called with the activity, and a number from 0 to 1.
 */
export async function openEngine(network, files, names, told) {
  let refused;
  for (const name of names) {
    const { binary } = network.runtimes[name];
    const brought = await bring({ [binary]: network.sizes[binary] }, (share) => told("Loading", share));
    const engine = new Engine(network, files, name, brought[binary], (share) => told("Computing", share));
    try {
      await engine.check();
      return engine;
    } catch (error) {
      engine.close();
      console.warn(`${name}: ${error.message}`);
      refused ??= error;
    }
  }
  throw refused;
}

/** Returns the runtimes to try, the best first. `?run=wasm` in the address selects one. */
export async function runtimesFor(network) {
  const asked = new URLSearchParams(location.search).get("run");
  if (Object.hasOwn(network.runtimes, asked)) return [...new Set([asked, "wasm"])];
  const floats = network.units.reduce((sum, unit) => sum + unit.floats, 0) * network.labels.length;
  if (floats < LITTLE) return ["wasm"];
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  // A fallback adapter is a GPU in software, which is slower than WebAssembly.
  return adapter && !adapter.info.isFallbackAdapter ? ["webgpu", "wasm"] : ["wasm"];
}

class Engine {
  /**
   * @param runtime a name of `network.runtimes`.
   * @param wasm the bytes of its binary.
   * @param onprogress is called with a number from 0 to 1 while images run.
   */
  constructor(network, files, runtime, wasm, onprogress) {
    this.network = network;
    this.runtime = runtime;
    this.onprogress = onprogress;
    this.requests = {};
    this.id = 0;
    this.size = network.input.reduce((a, b) => a * b);
    const images = files["images.bin"] ?? new Uint8Array();
    const cores = navigator.hardwareConcurrency || 1;
    const most = runtime === "webgpu" ? 1 : Math.min(cores, MOST_WORKERS);
    const each = Math.ceil(images.length / this.size / most) * this.size;
    const shares = Array.from({ length: most }, (_, k) => images.slice(k * each, (k + 1) * each));
    // At least one worker, for the visitor's image.
    const used = shares.filter((share, k) => share.length || !k);
    // A worker is a thread. It has more if the page is isolated from other origins.
    this.threads = crossOriginIsolated ? Math.min(Math.ceil(cores / used.length), MOST_THREADS) : 1;
    const { module } = network.runtimes[runtime];
    const shared = { network, wasm, module, runtime, threads: this.threads, files: withoutFolder(files) };
    this.workers = used.map((share, k) => {
      const worker = new Worker("worker.js", { type: "module" });
      worker.onmessage = ({ data }) => this.receive(k, data);
      worker.onerror = (event) => this.fail(event.message ?? "The network does not run here.");
      worker.postMessage({ type: "start", images: share, ...shared });
      return worker;
    });
    this.done = this.workers.map(() => 0);
  }

  /** Describes what the network runs on. */
  get name() {
    if (this.runtime === "webgpu") return "WebGPU";
    const threads = this.workers.length * this.threads;
    return `WebAssembly, ${threads} ${threads > 1 ? "threads" : "thread"}`;
  }

  /** Compares the intact network with Keras, for an image that site.py uses too. */
  async check() {
    const { units, probe } = this.network;
    const layout = units.map(({ branches }, block) => ({ block, gates: Array(branches.length || 1).fill(true) }));
    const image = Float32Array.from({ length: this.size }, (_, k) => (97 * k) % 256);
    const answers = await this.ask("check", { layout, image }, this.workers);
    // NaN is not near anything.
    const near = answers.every((row) => row.every((value, k) => Math.abs(value - probe[k]) < TOLERANCE));
    if (!near) throw new Error("The network returns other numbers than in Keras.");
  }

  /** Returns the probabilities of all sample images, or null if a new request has come. */
  samples(layout) {
    return this.ask("samples", { layout }, this.workers);
  }

  /** Returns the probabilities of one image in the same way. */
  own(layout, image) {
    return this.ask("own", { layout, image }, this.workers.slice(0, 1));
  }

  ask(kind, message, workers) {
    this.requests[kind]?.resolve(null);
    const id = ++this.id;
    if (kind === "samples") this.done.fill(0);
    return new Promise((resolve, reject) => {
      this.requests[kind] = { id, resolve, reject, outputs: workers.map(() => null) };
      for (const worker of workers) worker.postMessage({ type: "run", kind, id, ...message });
    });
  }

  receive(k, { type, kind, id, outputs, done, message }) {
    if (type === "failure") this.fail(message);
    if (type === "progress") {
      this.done[k] = done;
      this.onprogress(Math.min(...this.done));
    }
    const request = this.requests[kind];
    if (type !== "answer" || request?.id !== id) return;
    request.outputs[k] = this.probabilities(outputs);
    if (request.outputs.every(Boolean)) {
      delete this.requests[kind];
      request.resolve(request.outputs.flat());
    }
  }

  /** Rejects all open requests. */
  fail(message) {
    const open = Object.values(this.requests);
    this.requests = {};
    for (const { reject } of open) reject(new Error(message));
  }

  close() {
    for (const worker of this.workers) worker.terminate();
  }

  /** Converts the network's outputs to a list of probabilities for each image. */
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

/** Returns the parts of the network by the names in `network.json`. */
function withoutFolder(files) {
  const parts = Object.entries(files).filter(([name]) => name.startsWith("parts/"));
  return Object.fromEntries(parts.map(([name, bytes]) => [name.slice("parts/".length), bytes]));
}
