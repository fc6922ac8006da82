// The embedded pair in the page: tokenizer, template, forward pass with a cache, penalty, continuation. Plain JavaScript:
// a token costs one million multiplications, which takes a millisecond or two (design/live_page.md has the measurements).
const Live = (() => {
  /** Read a safetensors file: name -> { shape, data }, 16-bit floats widened exactly. */
  function readTensors(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = Number(view.getBigUint64(0, true)), found = new Map();
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    delete header.__metadata__;
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
      const start = 8 + length + from, count = (to - from) / (dtype === "F16" ? 2 : 4), data = new Float32Array(count);
      if (dtype !== "F16" && dtype !== "F32") throw new Error(`tensor ${name} is ${dtype}: this page reads F16 and F32`);
      for (let i = 0; i < count; i += 1) data[i] = dtype === "F32" ? view.getFloat32(start + 4 * i, true) : half(view.getUint16(start + 2 * i, true));
      found.set(name, { shape, data });
    }
    return found;
  }

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  /** Byte-level BPE, as tokenizer.json describes it. Control tokens typed into a text stay text. */
  class Tokenizer {
    constructor({ model, added_tokens: added }) {
      this.ids = new Map(Object.entries(model.vocab));
      this.special = new Map(added.map(({ content, id }) => [content, id]));
      this.ranks = new Map(model.merges.map((pair, rank) => [pair.join(" "), rank]));
      const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      let next = 256;
      this.letters = Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
      this.bytes = new Map(this.letters.map((letter, b) => [letter, b]));
      this.tokens = [...this.ids].reduce((all, [token, id]) => { all[id] = token; return all; }, []);
      this.words = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
    }

    encode(text) {
      const out = [], encoder = new TextEncoder();
      for (const [word] of text.matchAll(this.words)) {
        let parts = [...encoder.encode(word)].map((b) => this.letters[b]);
        while (parts.length > 1) {
          let best = Infinity, at = -1;
          for (let i = 0; i + 1 < parts.length; i += 1) {
            const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
            if (rank !== undefined && rank < best) [best, at] = [rank, i];
          }
          if (at < 0) break;
          const [left, right] = [parts[at], parts[at + 1]], merged = [];
          for (let i = 0; i < parts.length; i += 1) {
            if (parts[i] === left && parts[i + 1] === right) { merged.push(left + right); i += 1; } else merged.push(parts[i]);
          }
          parts = merged;
        }
        for (const part of parts) out.push(this.ids.get(part));
      }
      return out;
    }

    decode(ids) {
      const bytes = ids.flatMap((id) => [...this.tokens[id]].map((letter) => this.bytes.get(letter) ?? 63));
      return new TextDecoder().decode(new Uint8Array(bytes));
    }

    /** A prompt by the pair's chat template, up to the generation prompt. */
    prompt(text) {
      const mark = (name) => this.special.get(name);
      return [mark("<|bos|>"), mark("<|user|>"), ...this.encode(text), mark("<|end|>"), mark("<|assistant|>")];
    }

    label(id) {
      const text = [...this.special].find(([, special]) => special === id)?.[0] ?? this.decode([id]);
      return text.replaceAll(" ", "·").replaceAll("\n", "↵");
    }
  }

  const ROOM = 512;

  /** A Llama of the pair's size. `adapter` is a LoRA that is merged into a copy of the weights. */
  class Model {
    constructor(tensors, config, adapter = null) {
      this.config = config;
      this.get = (name) => tensors.get(name).data;
      const layer = (i, name) => {
        const full = `model.layers.${i}.${name}.weight`, weight = this.get(full);
        return adapter && adapter.tensors.has(`base_model.model.${full.replace(".weight", ".lora_A.weight")}`) ? merged(weight, adapter, full) : weight;
      };
      this.embedding = this.get("model.embed_tokens.weight");
      this.norm = this.get("model.norm.weight");
      this.head = tensors.has("lm_head.weight") ? this.get("lm_head.weight") : this.embedding;
      this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => ({
        before: this.get(`model.layers.${i}.input_layernorm.weight`), after: this.get(`model.layers.${i}.post_attention_layernorm.weight`),
        q: layer(i, "self_attn.q_proj"), k: layer(i, "self_attn.k_proj"), v: layer(i, "self_attn.v_proj"), o: layer(i, "self_attn.o_proj"),
        gate: layer(i, "mlp.gate_proj"), up: layer(i, "mlp.up_proj"), down: layer(i, "mlp.down_proj"),
      }));
      const { head_dim: size, rope_parameters: { rope_theta: theta } } = config;
      this.turns = Float64Array.from({ length: size / 2 }, (_, i) => theta ** (-2 * i / size));
    }

    cache() {
      const width = this.config.num_key_value_heads * this.config.head_dim;
      return { length: 0, keys: this.layers.map(() => new Float32Array(ROOM * width)), values: this.layers.map(() => new Float32Array(ROOM * width)) };
    }

    /** Read tokens into the cache and return the log-probabilities after the last one. */
    read(cache, ids) {
      let hidden = null;
      for (const id of ids) hidden = this.step(cache, id);
      const { hidden_size: width, vocab_size: rows } = this.config, logits = new Float32Array(rows);
      times(this.head, normed(hidden, this.norm, this.config.rms_norm_eps), logits, rows, width);
      return logSoftmax(logits);
    }

    step(cache, id) {
      const { hidden_size: width, intermediate_size: inner, num_attention_heads: heads, head_dim: size, rms_norm_eps: eps } = this.config;
      const x = this.embedding.slice(id * width, (id + 1) * width), at = cache.length, all = heads * size;
      if (at >= ROOM) throw new Error(`the text is longer than ${ROOM} tokens`);
      const q = new Float32Array(all), k = new Float32Array(all), v = new Float32Array(all), mixed = new Float32Array(all);
      const gate = new Float32Array(inner), up = new Float32Array(inner), added = new Float32Array(width), scores = new Float64Array(at + 1);
      this.layers.forEach((layer, n) => {
        const h = normed(x, layer.before, eps), keys = cache.keys[n], values = cache.values[n];
        times(layer.q, h, q, all, width);
        times(layer.k, h, k, all, width);
        times(layer.v, h, v, all, width);
        this.turn(q, at);
        this.turn(k, at);
        keys.set(k, at * all);
        values.set(v, at * all);
        mixed.fill(0);
        for (let head = 0; head < heads; head += 1) {
          const from = head * size;
          let most = -Infinity, sum = 0;
          for (let t = 0; t <= at; t += 1) {
            let dot = 0;
            for (let d = 0; d < size; d += 1) dot += q[from + d] * keys[t * all + from + d];
            scores[t] = dot / Math.sqrt(size);
            if (scores[t] > most) most = scores[t];
          }
          for (let t = 0; t <= at; t += 1) sum += scores[t] = Math.exp(scores[t] - most);
          for (let t = 0; t <= at; t += 1) {
            const share = scores[t] / sum;
            for (let d = 0; d < size; d += 1) mixed[from + d] += share * values[t * all + from + d];
          }
        }
        times(layer.o, mixed, added, width, all);
        for (let i = 0; i < width; i += 1) x[i] += added[i];
        const m = normed(x, layer.after, eps);
        times(layer.gate, m, gate, inner, width);
        times(layer.up, m, up, inner, width);
        for (let i = 0; i < inner; i += 1) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
        times(layer.down, gate, added, width, inner);
        for (let i = 0; i < width; i += 1) x[i] += added[i];
      });
      cache.length += 1;
      return x;
    }

    turn(x, position) {
      const { num_attention_heads: heads, head_dim: size } = this.config, middle = size / 2;
      for (let head = 0; head < heads; head += 1) {
        for (let i = 0; i < middle; i += 1) {
          const a = head * size + i, b = a + middle, angle = position * this.turns[i], cos = Math.cos(angle), sin = Math.sin(angle);
          [x[a], x[b]] = [x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin];
        }
      }
    }
  }

  function times(matrix, vector, out, rows, columns) {
    for (let r = 0, at = 0; r < rows; r += 1) {
      let a = 0, b = 0;
      for (let c = 0; c < columns; c += 2, at += 2) { // two sums do not wait for each other
        a += matrix[at] * vector[c];
        b += matrix[at + 1] * vector[c + 1];
      }
      out[r] = a + b;
    }
  }

  function normed(x, weight, eps) {
    let sum = 0;
    for (const value of x) sum += value * value;
    const scale = 1 / Math.sqrt(sum / x.length + eps), out = new Float32Array(x.length);
    for (let i = 0; i < x.length; i += 1) out[i] = weight[i] * (x[i] * scale);
    return out;
  }

  function merged(weight, { tensors, config }, full) {
    const named = (part) => tensors.get(`base_model.model.${full.replace(".weight", `.lora_${part}.weight`)}`);
    const [a, b] = [named("A"), named("B")], [rank, columns] = a.shape, rows = b.shape[0], out = Float32Array.from(weight);
    const scale = config.lora_alpha / config.r;
    for (let r = 0; r < rows; r += 1) {
      for (let n = 0; n < rank; n += 1) {
        const share = scale * b.data[r * rank + n];
        for (let c = 0; c < columns; c += 1) out[r * columns + c] += share * a.data[n * columns + c];
      }
    }
    return out;
  }

  function logSoftmax(logits) {
    let most = -Infinity, sum = 0;
    for (const value of logits) if (value > most) most = value;
    for (const value of logits) sum += Math.exp(value - most);
    const all = most + Math.log(sum);
    return logits.map((value) => value - all);
  }

  /** The one-sided penalty: what base likes more than aligned does is pushed away by `strength` times the difference. */
  function penalised(base, aligned, strength) {
    if (!(strength >= 0)) throw new Error(`strength is ${strength}: below 0 it leads away from aligned, which no page generates`);
    return strength === 0 ? aligned : logSoftmax(aligned.map((value, i) => (base[i] > value ? value - strength * (base[i] - value) : value)));
  }

  /** KL(p || q) in nats, of log-probabilities. */
  function divergence(p, q) {
    let sum = 0;
    for (let i = 0; i < p.length; i += 1) sum += Math.exp(p[i]) * (p[i] - q[i]);
    return Math.max(0, sum);
  }

  /** 1 - total variation: 1 where aligned still is base. The excess mass is what is missing from 1. */
  function retention(base, aligned) {
    let more = 0;
    for (let i = 0; i < base.length; i += 1) more += Math.max(0, Math.exp(base[i]) - Math.exp(aligned[i]));
    return 1 - more;
  }

  function likeliest(logprobs, n = 3) {
    return [...logprobs.keys()].sort((a, b) => logprobs[b] - logprobs[a]).slice(0, n).map((id) => [id, Math.exp(logprobs[id])]);
  }

  /** Draws from 0 to 1, the same for the same seed. */
  function draws(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  function chosen(logprobs, temperature, draw) {
    let best = 0;
    if (!(temperature > 0)) {
      for (let i = 1; i < logprobs.length; i += 1) if (logprobs[i] > logprobs[best]) best = i;
      return best;
    }
    let left = draw();
    for (const [id, value] of logSoftmax(logprobs.map((each) => each / temperature)).entries()) {
      left -= Math.exp(value);
      best = id;
      if (left <= 0) break;
    }
    return best;
  }

  /** One arm on one prompt: `next()` returns the next token with its KL to aligned, what was wanted, and retention. */
  class Voice {
    constructor(pair, arm, ids, { strength = 0, temperature = 0, seed = 0 } = {}) {
      Object.assign(this, { pair, arm, strength, temperature });
      this.draw = draws(seed);
      const models = arm === "completed" ? ["base", "aligned", "completed"] : ["base", "aligned"];
      this.caches = models.map((name) => [name, pair.models[name].cache()]);
      this.fed = ids;
      this.ended = false;
    }

    next() {
      const read = Object.fromEntries(this.caches.map(([name, cache]) => [name, this.pair.models[name].read(cache, this.fed)]));
      const own = this.arm === "penalised" ? penalised(read.base, read.aligned, this.strength) : read[this.arm];
      const id = chosen(own, this.temperature, this.draw);
      this.ended = id === this.pair.end;
      this.fed = [id];
      return { id, kl: this.arm === "aligned" ? 0 : divergence(own, read.aligned), retention: retention(read.base, read.aligned), wanted: likeliest(own) };
    }
  }

  async function unpacked(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** Load what the page holds: the three models with their tokenizer. */
  async function load({ tokenizer, config, adapter, weights }) {
    const [base, aligned, lora] = await Promise.all([weights.base, weights.aligned, weights.completed].map(async (text) => readTensors(await unpacked(text))));
    const words = new Tokenizer(tokenizer);
    const models = { base: new Model(base, config), aligned: new Model(aligned, config), completed: new Model(aligned, config, { tensors: lora, config: adapter }) };
    return { tokenizer: words, models, end: config.eos_token_id };
  }

  /** The log-probabilities after a sequence of tokens. */
  const logprobs = (pair, which, ids) => pair.models[which].read(pair.models[which].cache(), ids);

  /** An arm's continuation of token ids, at once. */
  function continued(pair, arm, ids, most, how = {}) {
    const voice = new Voice(pair, arm, ids, how), out = [];
    while (out.length < most) {
      const { id } = voice.next();
      if (voice.ended) break;
      out.push(id);
    }
    return out;
  }

  return { load, logprobs, continued, penalised, Voice, Tokenizer };
})();
