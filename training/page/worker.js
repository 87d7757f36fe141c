// Runs the network on some of the images, in a separate thread.

import { walk } from "./walk.js";

const MOST_FLOATS = 2 ** 24; // in one tensor
const MOST_KEPT = 2 ** 26; // floats, of the inputs of blocks

let ort, network, files, runtime, samples, stride;
let started; // resolves when the network can run
const sessions = new Map();
const wanted = new Map(); // the latest request of each kind
let busy = false;

onmessage = async ({ data }) => {
  if (data.type === "start") {
    started = start(data);
    return;
  }
  wanted.set(data.kind, data);
  if (busy) return; // the running loop will take the request
  busy = true;
  while (wanted.size) {
    const [request] = wanted.values();
    wanted.delete(request.kind);
    try {
      await started;
      await answer(request);
    } catch (error) {
      postMessage({ type: "failure", message: String(error) });
    }
  }
  busy = false;
};

async function start(given) {
  ({ network, files, runtime } = given);
  ort = await import(`./${given.module}`);
  ort.env.wasm.numThreads = given.threads;
  ort.env.wasm.wasmBinary = given.wasm;
  ort.env.wasm.wasmPaths = new URL("./onnxruntime/", import.meta.url).href;
  samples = batchesOf(given.images);
  const floats = network.units.reduce((sum, unit) => sum + unit.floats, 0);
  stride = Math.ceil((floats * count(given.images)) / MOST_KEPT) || 1;
}

const size = () => network.input.reduce((a, b) => a * b);
const count = (images) => images.length / size();

/** Returns images as tensors that are not too large for the widest layer. */
function batchesOf(images) {
  const most = Math.max(1, Math.floor(MOST_FLOATS / network.widest));
  const parts = Math.ceil(count(images) / most);
  const each = Math.ceil(count(images) / parts) * size();
  return Array.from({ length: parts || 0 }, (_, k) => {
    const floats = Float32Array.from(images.subarray(k * each, (k + 1) * each));
    const tensor = new ort.Tensor("float32", floats, [count(floats), ...network.input]);
    return { tensor, kept: [], keys: [], made: new Set() };
  });
}

async function answer({ kind, id, layout, image }) {
  const batches = image ? batchesOf(image) : samples;
  const outputs = [];
  for (const batch of batches) {
    const output = await run(batch, layout, () => wanted.has(kind));
    if (output) outputs.push(...(await output.getData()));
    if (image) release(batch, []);
    if (!output) return; // another request has come
  }
  postMessage({ type: "answer", kind, id, outputs: Float32Array.from(outputs) });
}

/**
 * Runs a layout on a batch, from the last place that has not changed.
 *
 * @param isStale returns whether a newer request has come.
 * @returns the output, or null if one has come.
 */
async function run(batch, layout, isStale) {
  const keys = layout.map(({ block, gates }) => `${block}:${gates}`);
  let place = 0;
  while (place < keys.length && keys[place] === batch.keys[place]) place++;
  while (place > 0 && !batch.kept[place]) place--;
  batch.kept.length = Math.min(batch.kept.length, place + 1);
  const values = new Map(batch.kept[place] ?? [[network.source, batch.tensor]]);
  batch.keys = keys.slice(0, place);
  const steps = walk(network, layout, values, place);
  let step = steps.next();
  while (!step.done) {
    if (step.value.place > place) {
      place = step.value.place;
      batch.keys = keys.slice(0, place);
      if (place % stride === 0) batch.kept[place] = new Map(values);
      release(batch, [values, ...batch.kept]);
      postMessage({ type: "progress", done: place / keys.length });
      await messages();
      if (isStale()) return null;
    }
    const outputs = await compute(step.value);
    for (const tensor of outputs) if (tensor !== batch.tensor) batch.made.add(tensor);
    step = steps.next(outputs);
  }
  return step.value;
}

/** Frees the tensors of a batch that are in none of the maps, since a GPU has no garbage collector. */
function release(batch, maps) {
  const held = new Set(maps.flatMap((map) => (map ? [...map.values()] : [])));
  for (const tensor of batch.made) {
    if (held.has(tensor)) continue;
    tensor.dispose();
    batch.made.delete(tensor);
  }
}

/** Computes the outputs of a part, or of a block with some of its branches. */
async function compute({ record, gates, inputs }) {
  if (!gates) return feed(record.file, inputs);
  if (!gates.some(Boolean)) {
    const { deleted } = record; // a file, or the indices of inputs
    return Array.isArray(deleted) ? deleted.map((k) => inputs[k]) : feed(deleted, inputs);
  }
  if (gates.length === 1) return feed(record.file, inputs);
  const numbers = Float32Array.from(gates, Number);
  return feed(record.file, [...inputs, new ort.Tensor("float32", numbers, [1, gates.length])]);
}

/** Returns the options of a session. On a GPU, tensors between parts stay there. */
function options() {
  const location = runtime === "webgpu" ? { preferredOutputLocation: "gpu-buffer" } : {};
  return { executionProviders: [runtime], ...location };
}

async function feed(file, inputs) {
  if (!sessions.has(file)) {
    sessions.set(file, await ort.InferenceSession.create(files[file], options()));
    delete files[file];
  }
  const session = sessions.get(file);
  // They are named input0, input1, ... in the order of `inputs`.
  const feeds = session.inputNames.map((name) => [name, inputs[name.slice("input".length)]]);
  const results = await session.run(Object.fromEntries(feeds));
  return session.outputNames.map((name) => results[name]);
}

/** Waits until messages that have arrived are handled. */
function messages() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
