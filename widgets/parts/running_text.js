// The running text: one span a token, in blocks that are built and repainted when they come near, or in rows of ten
// positions where responses are side by side. What a token looks like is one number; a class changes where that does.
const BLOCK_TOKENS = 400, ONE_BLOCK = 1500, ROW_TOKENS = 10, BLOCK_ROWS = 20;
const LOOK = {
  sure: 64, given: 128, dim: 256, span: 512, match: 1024, here: 2048, pinned: 4096, special: 8192, unit: 16384,
};
const LOOK_CLASSES = {
  sure: "wb-sure", given: "wb-given", dim: "wb-dim", span: "wb-in", match: "wb-match", here: "wb-here", pinned: "wb-pinned",
  special: "wb-special", unit: "wb-unit",
};

/** Call `work(deadline)` when there is time; where the browser cannot say when, for 10 ms at a time. */
function whenIdle(work) {
  if (window.requestIdleCallback) return requestIdleCallback(work);
  return setTimeout(() => {
    const end = performance.now() + 10;
    work({ timeRemaining: () => end - performance.now() });
  }, 30);
}

class RunningText {
  /** Draw `columns`; `look` (see `paint`) says how. `root` is a listbox, its tokens are options. */
  constructor(columns, label) {
    this.columns = columns;
    this.reach = Math.max(0, ...columns.map((column) => column.tokens));
    this.several = columns.length > 1;
    this.elements = columns.map((column) => new Array(column.tokens));
    this.keys = columns.map((column) => new Int32Array(column.tokens).fill(-1));
    this.every = this.reach <= 40 ? 5 : 10;
    this.classes = new Map();
    this.look = null;
    this.blocks = this.cut().map(([from, to], n) => this.block(from, to, n < 3));
    this.root = make(this.several ? "div.wb-running.wb-side" : "div.wb-running", this.blocks.map((block) => block.element),
      { role: "listbox", "aria-multiselectable": "true", "aria-label": label, "--wb-columns": columns.length });
    this.idle = null;
  }

  /** Start drawing: at once what is near the top, the rest when there is time or when it comes into sight. */
  start(look) {
    this.paint(look);
    for (const block of this.blocks.slice(0, 3)) this.freshen(block);
    const byElement = new Map(this.blocks.map((block) => [block.element, block]));
    this.observer = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          const block = byElement.get(entry.target);
          block.near = entry.isIntersecting || this.blocks.length === 1;
          if (block.near) this.freshen(block);
        }
      },
      { root: this.root, rootMargin: "800px" },
    );
    for (const block of this.blocks) this.observer.observe(block.element);
    let next = 0;
    const work = (deadline) => {
      while (next < this.blocks.length && deadline.timeRemaining() > 4) this.build(this.blocks[next++]);
      this.idle = next < this.blocks.length ? whenIdle(work) : null;
    };
    this.idle = whenIdle(work);
  }

  stop() {
    this.observer?.disconnect();
    if (this.idle !== null) (window.cancelIdleCallback ?? clearTimeout)(this.idle);
  }

  /** Cut the positions into blocks: whole rows, or up to where a line of the text ends. */
  cut() {
    const parts = [];
    const [column] = this.columns;
    let from = 0;
    while (from < this.reach) {
      let to = from + (this.several ? ROW_TOKENS * BLOCK_ROWS : BLOCK_TOKENS);
      if (!this.several && this.reach <= ONE_BLOCK) to = this.reach;
      if (!this.several && !column.covered && to < this.reach) {
        const last = Math.min(to + BLOCK_TOKENS, this.reach);
        let end = to;
        while (end < last && !column.text(end - 1).endsWith("\n")) end += 1;
        if (end === last) for (end = to; end < last && !column.text(end).startsWith(" "); ) end += 1;
        to = end;
      }
      parts.push([from, Math.min(to, this.reach)]);
      from = to;
    }
    return parts;
  }

  block(from, to, near) {
    const lines = Math.ceil((to - from) / (this.several ? ROW_TOKENS / 1.4 : 14));
    const element = make("div.wb-block", { role: "none", "--wb-lines": lines });
    return { from, to, element, near, built: false, stale: false };
  }

  build(block) {
    if (block.built) return;
    block.built = true;
    block.stale = false;
    const parts = document.createDocumentFragment();
    if (this.several) for (let i = block.from; i < block.to; i += ROW_TOKENS) parts.append(this.row(i, Math.min(i + ROW_TOKENS, block.to)));
    else this.tokens(parts, 0, block.from, block.to);
    block.element.append(parts);
  }

  row(from, to) {
    const cells = this.columns.map((column, c) => {
      const cell = make("div.wb-cell10", { role: "group", "aria-label": `${column.head.name}, positions ${from + 1} to ${to}` });
      this.tokens(cell, c, from, Math.min(to, column.tokens));
      return cell;
    });
    return make("div.wb-row10", { role: "none" }, make("span.wb-gutter", from + 1, { "aria-hidden": "true" }), cells);
  }

  tokens(parent, c, from, to) {
    const column = this.columns[c], { given, continued_by: by } = column.head;
    for (let i = from; i < to; i += 1) {
      if (given && i === given) parent.append(make("span.wb-turn", { "data-sign": `▸ ${by} continues`, "aria-hidden": "true" }));
      parent.append(this.token(c, i));
    }
  }

  token(c, i) {
    const column = this.columns[c], element = document.createElement("span");
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", this.look.pinned.has(i + 1) ? "true" : "false");
    element.tabIndex = -1;
    element.dataset.position = i + 1;
    if (this.several) element.dataset.response = column.response;
    else if (i === 0 || (i + 1) % this.every === 0) element.dataset.ruler = i + 1;
    element.column = c;
    element.index = i;
    const text = column.text(i);
    if (column.covered) {
      element.append(make("span.wb-hid", column.cover), " ");
      element.setAttribute("aria-label", `withheld token at position ${i + 1}`);
    } else if (column.kind(i) === 1) {
      element.textContent = column.label(i);
    } else {
      if (column.kind(i) === 2 || text === "") element.dataset.sign = "▫";
      const lines = text.split("\n");
      lines.forEach((line, n) => {
        if (line) element.append(line);
        if (n === lines.length - 1) return;
        element.append(make("span.wb-break"), "\n");
      });
      if (!text.trim()) element.setAttribute("aria-label", column.label(i) || "part of a character");
    }
    this.elements[c][i] = element;
    const key = this.keyOf(c, i);
    this.keys[c][i] = key;
    element.className = this.className(key);
    return element;
  }

  /** Return a token's element, built and painted if need be. */
  element(c, i) {
    this.freshen(this.blocks.find((block) => block.from <= i && i < block.to));
    return this.elements[c][i];
  }

  /** Bring a block up to date. */
  freshen(block) {
    if (!block.built) this.build(block);
    else if (block.stale) this.repaint(block);
  }

  /** Repaint what looks different now. `look`: quantity, granularity, floor, notable, span, position, pinned (a Set),
      and for each column counts (null: no thresholds) and matches (null: no search). */
  paint(look) {
    const before = this.look;
    this.look = look;
    this.brushes = this.columns.map((column, c) => this.brush(column, c));
    this.root.classList.toggle("wb-by-unit", look.granularity !== "token");
    this.root.classList.toggle("wb-searching", look.matches.some(Boolean));
    if (before?.quantity !== look.quantity) for (const keys of this.keys) keys.fill(-1); // a level has another colour
    for (const block of this.blocks) {
      if (block.built && block.near) this.repaint(block);
      else block.stale = true;
    }
    if (!before) return;
    const changed = [...before.pinned, ...look.pinned].filter((p) => before.pinned.has(p) !== look.pinned.has(p));
    for (const p of changed) for (const elements of this.elements) elements[p - 1]?.setAttribute("aria-selected", String(look.pinned.has(p)));
  }

  repaint(block) {
    block.stale = false;
    this.elements.forEach((elements, c) => {
      const keys = this.keys[c];
      for (let i = block.from; i < Math.min(block.to, elements.length); i += 1) {
        const key = this.keyOf(c, i);
        if (key === keys[i]) continue;
        keys[i] = key;
        elements[i].className = this.className(key);
      }
    });
  }

  /** Gather what a column's keys are made of, once a painting. */
  brush(column, c) {
    const { quantity, granularity } = this.look;
    return {
      levels: column.levels(quantity, granularity),
      certain: quantity.name === "retention" ? column.means("entropy_aligned_nats", granularity) : null,
      shift: column.values("logprob_shift_nats"),
      given: column.head.given,
      counts: this.look.counts[c],
      matches: this.look.matches[c],
      ...column.units(granularity),
    };
  }

  keyOf(c, i) {
    const { levels, certain, shift, given, counts, matches, of, starts } = this.brushes[c];
    const { span, floor, notable, position, pinned, granularity } = this.look;
    let level = levels[i], key = 0;
    if (certain && level && !(certain[of[i]] > floor)) {
      key |= LOOK.sure;
      level = 0;
    }
    if (counts && !counts[i]) {
      key |= LOOK.dim;
      level = 0;
    }
    if (shift[i] < 0) key |= shift[i] <= -notable ? 32 : 16;
    if (i < given) key |= LOOK.given;
    if (span && span[0] <= i + 1 && i < span[1]) key |= LOOK.span;
    if (matches && matches[i]) key |= LOOK.match;
    if (position === i + 1) key |= LOOK.here;
    if (pinned.has(i + 1)) key |= LOOK.pinned;
    if (!this.columns[c].covered && this.columns[c].kind(i) === 1) key |= LOOK.special;
    if (granularity !== "token" && starts[of[i]] === i) key |= LOOK.unit;
    return key | (level + 5);
  }

  className(key) {
    let name = this.classes.get(`${this.look.quantity.name} ${key}`);
    if (name !== undefined) return name;
    const parts = ["wb-t"], level = (key & 15) - 5;
    const found = this.look.quantity.levels.find(([at]) => at === level);
    if (level !== 0 && found) parts.push(found[1]);
    if (key & 16) parts.push("wb-lean");
    if (key & 32) parts.push("wb-favored");
    for (const [flag, bit] of Object.entries(LOOK)) if (key & bit) parts.push(LOOK_CLASSES[flag]);
    name = parts.join(" ");
    this.classes.set(`${this.look.quantity.name} ${key}`, name);
    return name;
  }

  /** Scroll the text, and only the text, so that a token is in sight. Blocks in between may turn out taller than was
      thought, so it looks again in the next frames. */
  bring(c, i, again = 3) {
    const spot = this.element(c, i).getBoundingClientRect(), box = this.root.getBoundingClientRect();
    if (spot.top < box.top + 12) this.root.scrollTop -= box.top + 40 - spot.top;
    else if (spot.bottom > box.bottom - 12) this.root.scrollTop += spot.bottom - box.bottom + 40;
    if (again && this.blocks.length > 1) requestAnimationFrame(() => this.bring(c, i, again - 1));
  }

  /** Return the token one line up or down (step -1, 1) that is nearest below or above. */
  byLine(c, i, step) {
    const from = this.element(c, i).getClientRects()[0], middle = from.left + from.width / 2;
    let best = i, distance = Infinity, line = null;
    for (let j = i + step; j >= 0 && j < this.columns[c].tokens && Math.abs(j - i) < 400; j += step) {
      const spot = this.element(c, j).getClientRects()[0];
      if (!spot || (step > 0 ? spot.top < from.bottom - 2 : spot.bottom > from.top + 2)) continue;
      line ??= spot.top;
      if (Math.abs(spot.top - line) > 8) break;
      const off = Math.abs(spot.left + spot.width / 2 - middle);
      if (off < distance) [best, distance] = [j, off];
    }
    return best;
  }
}
