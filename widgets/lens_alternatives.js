// Which stored alternatives count as base-favored under the thresholds: what lens_settings.py says, here for the page.

/** Sum the weights (null: 1 each) of the likelier ones of each entry, within each token. */
function likelier(p, weight, width) {
  const out = new Float64Array(p.length);
  for (let from = 0; from < p.length; from += width) {
    for (let j = from + 1; j < from + width; j += 1) {
      const mine = p[j];
      if (mine < 0) continue;
      for (let l = from; l < j; l += 1) {
        const other = p[l];
        if (other < 0) continue;
        if (other > mine) out[j] += weight === null ? 1 : weight[l];
        else if (mine > other) out[l] += weight === null ? 1 : weight[j];
      }
    }
  }
  return out;
}

/** Return both models' probabilities of the alternatives, -1 where there is none. */
function alternativeProbabilities(column) {
  return column.once("alternative p", () => {
    const { alternative, alternative_base_nats, alternative_aligned_nats } = column.arrays;
    const there = (nats) => Float64Array.from(nats, (x, j) => (alternative[j] < 0 ? -1 : Math.exp(x)));
    return [there(alternative_base_nats), there(alternative_aligned_nats)];
  });
}

/** Tell which entries a sampler of the aligned probabilities could pick. */
function sampled(column, k, temperature, topP) {
  return column.once(`sampled ${temperature} ${topP}`, () => {
    const [, p] = alternativeProbabilities(column), { width, tokens } = column;
    const out = new Uint8Array(p.length), power = 1 / temperature;
    const weight = temperature === 0 ? null : p.map((x) => (x < 0 ? 0 : x ** power));
    const before = temperature === 0 ? null : likelier(p, weight, width);
    for (let i = 0; i < tokens; i += 1) {
      const here = p.subarray(i * width, (i + 1) * width), sorted = here.slice().sort().reverse();
      const least = Math.max(0, sorted[Math.min(k, width) - 1]);
      let stored = 0, total = 0;
      for (let j = 0; j < width; j += 1) {
        if (here[j] < 0) continue;
        stored += here[j];
        if (weight) total += weight[i * width + j];
      }
      const rest = Math.max(0, 1 - stored);
      if (rest > 0 && least > 0) total += rest * least ** (power - 1);
      for (let j = 0; j < width; j += 1) {
        const at = i * width + j;
        if (p[at] >= 0) out[at] = (weight === null ? here[j] === sorted[0] : before[at] < topP * total) ? 1 : 0;
      }
    }
    return out;
  });
}

/** Return which alternatives count (a flag each) and how many of them at each token. */
function countAlternatives(column, settings, storedK) {
  const [base, aligned] = alternativeProbabilities(column), { width } = column;
  const limit = settings.top_k === null || settings.top_k >= storedK ? null : settings.top_k;
  const byBase = limit === null ? null : column.once("before base", () => likelier(base, null, width));
  const byAligned = limit === null ? null : column.once("before aligned", () => likelier(aligned, null, width));
  const picked = settings.only_sampled ? sampled(column, storedK, settings.temperature, settings.top_p) : null;
  const flags = new Uint8Array(base.length), counts = new Int32Array(column.tokens);
  for (let j = 0; j < base.length; j += 1) {
    if (base[j] < 0 || !(base[j] > settings.ratio * aligned[j]) || base[j] < settings.minimum_base) continue;
    if (limit !== null && byBase[j] >= limit && byAligned[j] >= limit) continue;
    if (picked !== null && !picked[j]) continue;
    flags[j] = 1;
    counts[Math.floor(j / width)] += 1;
  }
  return { flags, counts };
}

/** Tell whether the thresholds ask for more than base-favored. */
const narrowed = (settings, storedK) =>
  settings.minimum_base > 0 || settings.ratio > 1 || settings.only_sampled || (settings.top_k !== null && settings.top_k < storedK);
