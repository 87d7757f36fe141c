// The way through a network whose blocks are deleted or stand elsewhere.

/**
 * Walks from a place in the network to its output.
 *
 * It yields what is to be done, `{place, record, gates, inputs}`, and is given
 * the outputs: of a part between blocks (`gates` is undefined there), or of a
 * block. Who runs the network gives tensors; who counts paths gives counts.
 *
 * @param network what `network.json` says.
 * @param layout for each place, the `block` that runs there and its `gates`,
 *   one boolean a branch.
 * @param values Map from numbers of tensors to what they are; it is changed.
 * @param from the place to begin at.
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
