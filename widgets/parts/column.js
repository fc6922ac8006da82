// What payload.py sends, read: one Column a response.
const ARRAY_TYPES = { "<f4": Float32Array, "<i4": Int32Array, "|u1": Uint8Array, u1: Uint8Array };
/** Count the edges that a value reaches: 0 for none, negative where a signed quantity is below zero. */
function levelOf(quantity, value) {
  if (Number.isNaN(value)) return 0;
  const size = quantity.signed ? Math.abs(value) : value;
  let level = 0;
  while (level < quantity.edges.length && size >= quantity.edges[level]) level += 1;
  return quantity.signed && value < 0 ? -level : level;
}

class Column {
  /** Read one buffer of payload.py. `cover` replaces withheld text. */
  constructor(view, cover) {
    const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    const size = new DataView(bytes).getUint32(0, true);
    this.head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
    this.arrays = {};
    for (const [name, [type, at, length]] of Object.entries(this.head.arrays)) {
      this.arrays[name] = new ARRAY_TYPES[type](bytes, 4 + size + at, length);
    }
    this.cover = cover;
    this.tokens = this.head.tokens;
    this.width = this.tokens ? this.arrays.alternative.length / this.tokens : 0;
    this.made = new Map();
  }

  get covered() { return this.head.covered; }
  get response() { return this.head.response; }

  /** Return all tokens' values of a scalar, sent or derived. */
  values(name) {
    if (this.arrays[name]) return this.arrays[name];
    return this.once(name, () => {
      const { arrays } = this;
      if (name === "retention") return Float64Array.from(arrays.excess_mass, (x) => 1 - x);
      if (name === "logprob_shift_nats") {
        return Float64Array.from(arrays.logprob_aligned_nats, (x, i) => Math.fround(x - arrays.logprob_base_nats[i]));
      }
      if (name === "probability_base") return Float64Array.from(arrays.logprob_base_nats, Math.exp);
      if (name === "probability_aligned") return Float64Array.from(arrays.logprob_aligned_nats, Math.exp);
      if (name === "position") return Float64Array.from({ length: this.tokens }, (_, i) => i + 1);
      throw new Error(`no scalar ${name}`);
    });
  }

  /** Tell of each token whether it is base-favored, special, partial or given. */
  flags(name) {
    return this.once(name, () => {
      if (name === "base-favored") return Array.from(this.values("logprob_shift_nats"), (x) => x < 0);
      if (name === "given") return Array.from({ length: this.tokens }, (_, i) => i < this.head.given);
      const kind = name === "special" ? 1 : 2;
      return Array.from({ length: this.tokens }, (_, i) => this.kind(i) === kind);
    });
  }

  form(i) { return this.head.forms[this.arrays.form[i]]; }
  text(i) { return this.form(i)[0]; }
  label(i) { return this.covered ? this.cover : this.form(i)[1]; }
  kind(i) { return this.form(i)[2]; }
  id(i) { return this.form(i)[3]; }
  texts() { return this.once("texts", () => Array.from({ length: this.tokens }, (_, i) => this.text(i))); }

  /** Return the stored alternatives at a token, with what they are called under both models. */
  alternatives(i) {
    const { alternative, alternative_base_nats, alternative_aligned_nats, observed } = this.arrays, found = [];
    for (let j = i * this.width; j < (i + 1) * this.width; j += 1) {
      if (alternative[j] < 0) continue;
      found.push({
        at: j,
        label: this.covered ? this.cover : this.head.labels[alternative[j]],
        base: Math.exp(alternative_base_nats[j]),
        aligned: Math.exp(alternative_aligned_nats[j]),
        observed: j - i * this.width === observed[i],
      });
    }
    return found;
  }

  /** Cut the tokens into units: every token one, or words, or sentences. Returns each token's unit and units' starts. */
  units(granularity) {
    return this.once(`units ${granularity}`, () => {
      const of = new Int32Array(this.tokens), starts = [];
      for (let i = 0; i < this.tokens; i += 1) {
        if (i === 0 || granularity === "token" || this.covered || this.begins(i, granularity)) starts.push(i);
        of[i] = starts.length - 1;
      }
      return { of, starts };
    });
  }

  /** Tell whether a new word or sentence begins with a token. Scripts without spaces have a word a token. */
  begins(i, granularity) {
    const text = this.text(i), before = this.text(i - 1);
    if (this.kind(i) === 1 || this.kind(i - 1) === 1) return true;
    if (granularity === "word") return /^\s/.test(text) || /\s$/.test(before) || /^[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}]/u.test(text);
    if (!text.trim()) return false; // what ends a line ends its sentence
    if (before.includes("\n")) return true;
    return /[。！？]["'”’)\]]*$/.test(before) || (/[.!?…]["'”’)\]]*\s*$/.test(before) && (/^\s/.test(text) || /\s$/.test(before)));
  }

  /** Return a quantity's mean over each unit, missing values left out. */
  means(name, granularity) {
    return this.once(`${name} by ${granularity}`, () => {
      const values = this.values(name);
      if (granularity === "token") return values;
      const { of, starts } = this.units(granularity);
      const sum = new Float64Array(starts.length), n = new Int32Array(starts.length);
      for (let i = 0; i < this.tokens; i += 1) {
        if (Number.isNaN(values[i])) continue;
        sum[of[i]] += values[i];
        n[of[i]] += 1;
      }
      return sum.map((x, u) => (n[u] ? x / n[u] : NaN));
    });
  }

  /** Return every token's level of a quantity: that of its unit. */
  levels(quantity, granularity) {
    return this.once(`levels ${quantity.name} ${granularity}`, () => {
      const means = this.means(quantity.name, granularity), { of } = this.units(granularity);
      const level = Int8Array.from(means, (x) => levelOf(quantity, x));
      return Int8Array.from(of, (u) => level[u]);
    });
  }

  once(key, make) {
    if (!this.made.has(key)) this.made.set(key, make());
    return this.made.get(key);
  }
}
