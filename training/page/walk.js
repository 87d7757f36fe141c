// Runs the parts of a network with blocks deleted or swapped.

/**
 * Walks from a place in the network to its output.
 *
 * It yields tasks, `{place, record, gates, inputs}`, and takes their outputs. A
 * task is a block, or a part between blocks, without `gates`. The outputs are
 * tensors if the network runs, or counts of paths.
 *
 * @param network the contents of `network.json`.
 * @param layout for each place, the `block` that runs there and its `gates`,
 *   one boolean per branch.
 * @param values Map from the numbers of tensors to their values; it is changed.
 * @param from the place to start from.
 */
export function* walk(network, layout, values, from = 0) {
  const take = (numbers) => numbers.map((number) => values.get(number));
  const give = (numbers, outputs) => numbers.forEach((number, k) => values.set(number, outputs[k]));
  for (let place = from; place < layout.length; place++) {
    const here = network.units[place];
    const { lead } = here;
    if (lead) give(lead.outputs, yield { place, record: lead, inputs: take(lead.inputs) });
    const { block, gates } = layout[place];
    give(here.exit, yield { place, record: network.units[block], gates, inputs: take(here.entry) });
    for (const number of values.keys()) if (!here.live.includes(number)) values.delete(number);
  }
  const { head } = network;
  if (head) give(head.outputs, yield { place: layout.length, record: head, inputs: take(head.inputs) });
  return values.get(network.output);
}
