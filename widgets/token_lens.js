// The lens: it keeps the state that it shares with Python, and lets text, map, card, pins and controls follow it. All but
// opening another response and fetching covered text works without Python.
class LensView extends ReaderView {
  constructor(model, root) {
    super(model, root);
    this.texts = new Map(); // response -> its column with text, where the page was given one
    this.revealed = new Set();
    this.search = { text: "", node: null, error: "" };
    this.unsent = {}; // what was set here and is not sent yet
    this.build();
    this.load();
    this.listen();
    this.ask();
  }

  // ------------------------------------------------------------------------------------------------ layout

  build() {
    this.lens = this.model.get("lens");
    this.state = this.standing();
    this.controls = makeControls(this.lens, {
      reach: () => this.reach, set: (patch, soon) => this.set(patch, soon), step: (by) => this.step(by, false),
    });
    this.map?.stop();
    this.map = new PositionMap({ go: (position) => this.go(this.at.c, position - 1), brush: (span) => this.set({ span }) });
    this.waiting = make("p.wb-waiting", { role: "status" });
    this.head = make("div.wb-head");
    this.place = make("div.wb-place");
    this.pins = make("section.wb-pins", { "aria-label": "Pinned tokens" });
    this.legend = make("div");
    const { top, find, bar, tally, mean } = this.controls;
    const folded = this.lens.sealed && make("details.wb-settings", make("summary", "search, settings"), find, mean, bar, tally);
    this.root.classList.toggle("wb-sealed-lens", Boolean(folded));
    if (folded) top.append(folded);
    const panel = make("div.wb-panel", top, ...(folded ? [] : [find, bar]));
    this.root.replaceChildren(panel, alertLine(this.model), this.waiting, this.head, ...(folded ? [] : [tally]), this.map.root, this.place,
      this.legend, this.pins, this.card);
  }

  /** Read the columns and draw them from the beginning. */
  load() {
    const before = this.columns?.[0]?.response;
    const columns = this.model.get("columns").map((view) => {
      const column = new Column(view, this.lens.cover), text = this.texts.get(column.response);
      return column.covered && text && this.revealed.has(column.response) ? text : column;
    });
    const [first] = columns, same = before === first.response, names = columns.map((column) => column.head.name).join(", ");
    const name = (reach) => `Response (${names}): ${reach} tokens, arrow keys move from token to token`;
    const put = () => {
      this.waiting.hidden = true;
      this.drawHead();
      const heads = columns.length > 1 ? [columnHeads(columns, (c) => [make("b", c.head.name), make("span.wb-soft", ` ${c.head.how}`), this.cover(c)])] : [];
      this.place.replaceChildren(...heads, this.reach ? this.text.root : make("p.wb-note", "This response has no tokens."));
      this.place.classList.toggle("wb-thinking", first.head.segment === "thinking");
    };
    const here = () => {
      const i = Math.min(same ? this.at.i : (this.state.position ?? 1) - 1, Math.max(0, first.tokens - 1));
      return { c: same && this.at.c < columns.length && i < columns[this.at.c].tokens ? this.at.c : 0, i };
    };
    const { ended, scrolled, focus } = this.renew(columns, name, columns.length > 1 ? 100 : 600, put, here);
    this.text.root.scrollTop = same ? (ended ? this.text.root.scrollHeight : scrolled) : 0;
    focus();
    if (!same && this.state.position) this.text.bring(this.at.c, this.at.i);
  }

  drawHead() {
    const [first] = this.columns, { head } = first, several = this.columns.length > 1;
    const brief = this.lens.sealed && head.prompt.length < 200 && !head.prompt.includes("\n"); // in one line with the label
    const role = (name, text) => text && make("div.wb-prompt", make("span.wb-role", name), text,
      { role: "group", "aria-label": `${name}: scrolls`, tabIndex: text.length > 600 ? 0 : null });
    const parts = [
      make("p.wb-title", make(`span.wb-tag.wb-${head.label}`, head.label), head.segment === "thinking" && make("span.wb-tag", "thinking block"),
        make("span.wb-id", brief ? head.prompt : head.prompt_id),
        make("span.wb-soft", ` ${brief ? head.prompt_id : ""} ${several ? "" : head.how}`)),
      role("system", head.system), !brief && role("prompt", head.prompt), ...(several ? [] : this.cover(first))];
    this.head.replaceChildren(...parts.filter(Boolean));
  }

  /** Say that a response is covered, with the button that reveals it where that may be. */
  cover(column) {
    const boxes = coverBox(column.head.treatment, !column.covered, {
      withheld: `The text of this harmful response is withheld. SHA-256: ${column.head.digest}… (first 12 digits).`,
      covered: "Harmful text, covered. Its scores are shown.", reveal: "Reveal this harmful response",
      turn: (open) => this.reveal(column.response, open),
    });
    for (const button of boxes.flatMap((box) => [...box.querySelectorAll("button")])) button.dataset.response = column.response;
    return boxes;
  }

  // ------------------------------------------------------------------------------------------------ covered text

  /** Ask for the texts of covered responses. As a change of a trait: its echo is what lets the page be heard while a
      cell runs, so it is asked even where nothing is covered. */
  ask() {
    this.model.set("asked", this.model.get("asked") + 1);
    this.model.save_changes();
  }

  reveal(response, open) {
    if (open) this.revealed.add(response);
    else this.revealed.delete(response);
    if (open && !this.texts.has(response)) {
      this.ask();
      this.wait("Asking Python for the text…");
      return;
    }
    this.load();
    this.root.querySelector(`button.wb-reveal-button[data-response="${response}"]`)?.focus();
  }

  /** Take the text of a covered response: it comes as a message, so that it is in no saved state. */
  received(message, buffers) {
    if (message?.do !== "text" || !buffers?.length) return;
    const column = new Column(asViews(buffers)[0], this.lens.cover);
    this.texts.set(column.response, column);
    if (this.revealed.has(column.response)) this.load();
  }

  /** Say what is being waited for, and after a while that the kernel does not answer. */
  wait(said) {
    this.waiting.textContent = said;
    this.waiting.hidden = false;
    clearTimeout(this.patience);
    this.patience = setTimeout(() => {
      if (!this.waiting.hidden) this.waiting.textContent = "Python does not answer: is the kernel still there? What was sent can still be read.";
    }, PATIENCE_MS);
  }

  // ------------------------------------------------------------------------------------------------ state

  /** Change the state here and in Python, `soon` where more of the same is likely to come. */
  set(patch, soon = false) {
    if (patch.search !== undefined) patch = { search: this.read(patch.search) };
    if (patch.span && patch.span[0] === 1 && patch.span[1] === this.reach) patch = { ...patch, span: null };
    if (patch.response !== undefined && patch.response !== this.columns[0].response) {
      patch = { ...patch, position: null, pinned: [], span: null };
      this.wait("Asking Python for this response…");
    }
    this.unsent = { ...this.unsent, ...patch };
    this.state = this.standing();
    this.model.set("state", { ...this.state });
    clearTimeout(this.saving);
    if (soon) this.saving = setTimeout(() => this.save(), 120);
    else this.save();
    this.update();
  }

  /** Return the current state: what came last, and over it what was set here since. */
  standing() { return { ...this.model.get("state"), ...this.unsent }; }

  /** Send the current state: an echo of an earlier one may have come between. */
  save() {
    this.model.set("state", this.standing());
    this.unsent = {};
    this.model.save_changes();
  }

  /** Read a search; return it where it can be read, else nothing, with the reason said in place. */
  read(text) {
    this.search = { text, node: null, error: "" };
    if (!text.trim()) return "";
    try {
      this.search.node = readSearch(text, this.lens.search_words);
      return text;
    } catch (error) {
      if (!(error instanceof SearchError)) throw error;
      this.search.error = error.message;
      return "";
    }
  }

  /** Follow what Python and other views of this lens change. */
  listen() {
    const changed = () => {
      const state = this.standing(), before = this.state;
      if (JSON.stringify(state) === JSON.stringify(before)) return;
      this.state = { ...state };
      if (state.search !== before.search) this.read(state.search);
      if (state.response !== this.columns[0].response) return;
      this.waiting.hidden = true;
      this.update();
      if (state.position && state.position !== before.position) {
        const i = Math.min(state.position, this.columns[this.at.c].tokens) - 1;
        this.rove(this.at.c, i);
        this.text.bring(this.at.c, i);
      }
    };
    const loaded = () => {
      if (this.model.get("state").response !== this.state.response) this.unsent = {}; // it was set of another response
      this.state = this.standing();
      this.texts.clear();
      this.load();
      this.ask();
    };
    const renewed = () => {
      this.build();
      this.load();
    };
    const message = (content, buffers) => this.received(content, buffers);
    this.follow({ "change:state": changed, "change:columns": loaded, "change:lens": renewed, "msg:custom": message });
  }

  // ------------------------------------------------------------------------------------------------ what it looks like

  quantity() { return this.lens.quantities.find((q) => q.name === this.state.quantity); }

  look() {
    const { state, lens } = this;
    if (state.search.trim() && this.search.text !== state.search) this.read(state.search);
    this.narrowed = narrowed(state, lens.stored_k);
    const settings = [state.minimum_base, state.ratio, state.top_k, state.only_sampled, state.temperature, state.top_p].join();
    if (this.counted?.settings !== settings || this.counted.columns !== this.columns) {
      this.counted = { settings, columns: this.columns, each: this.columns.map((column) => countAlternatives(column, state, lens.stored_k)) };
    }
    const { node } = this.search;
    const usesCounts = node && JSON.stringify(node).includes('"alternatives"');
    const key = node ? `${this.search.text}\u0000${usesCounts ? settings : ""}` : "";
    if (this.matched?.key !== key || this.matched.columns !== this.columns) {
      this.matched = { key, columns: this.columns, each: this.columns.map((column, c) => {
        const values = (name) => (name === "alternatives" ? this.counted.each[c].counts : column.values(name));
        return node ? runSearch(node, values, (name) => column.flags(name), column.texts()) : null;
      }) };
    }
    return {
      columns: this.columns, several: this.columns.length > 1, quantity: this.quantity(), granularity: state.granularity,
      floor: lens.entropy_floor_nats, notable: lens.notable_shift_nats, span: state.span, position: state.position,
      pinned: new Set(state.pinned), counts: this.counted.each.map(({ counts }) => (this.narrowed ? counts : null)), matches: this.matched.each,
    };
  }

  update() {
    const look = this.look();
    this.text.paint(look);
    this.map.show(this.columns, look, this.counted.each.map(({ counts }) => counts));
    const matches = this.matches();
    const here = matches.findIndex(([c, i]) => c === this.at.c && i + 1 === this.state.position);
    const found = !this.search.node ? "" : matches.length === 0 ? "no token matches" : here >= 0 ? `${here + 1} of ${matches.length} tokens` : `${wholeText(matches.length)} token${matches.length === 1 ? "" : "s"} match`;
    this.controls.show({
      state: this.state, reach: this.reach, covered: this.columns.every((column) => column.covered), searchError: this.search.error,
      found, matching: matches.length > 0, counted: this.countedText(),
    });
    this.drawPins();
    const legend = `${look.quantity.name} ${look.granularity} ${this.columns.length}`;
    if (this.legendOf !== legend || !this.legend.childElementCount) {
      const open = this.legend.querySelector("details")?.open;
      this.legend.replaceChildren(makeLegend(this.lens, look.quantity, look));
      this.legend.querySelector("details").open = Boolean(open);
      this.legendOf = legend;
    }
    if (this.shown) this.show(this.shown.c, this.shown.i, this.shown.byKey);
  }

  /** Say how many alternatives count, at how many positions, within what is stored. */
  countedText() {
    const parts = this.columns.map((column, c) => {
      const { counts } = this.counted.each[c];
      const places = counts.reduce((n, x) => n + (x > 0 ? 1 : 0), 0), all = counts.reduce((n, x) => n + x, 0);
      const name = this.columns.length > 1 ? `${column.head.name}: ` : "";
      return `${name}${wholeText(all)} alternatives at ${wholeText(places)} of ${wholeText(column.tokens)} positions`;
    });
    const what = this.narrowed ? "count as base-favored under these thresholds (tokens with none are soft)" : "are base-favored";
    return `${parts.join("; ")} ${what}, within the stored top ${this.lens.stored_k} of either model.`;
  }

  drawPins() {
    const key = `${this.state.pinned.join()} ${this.columns.map((column) => `${column.response}${column.covered}`)}`;
    if (this.pinsOf === key && this.pinColumns === this.columns) return;
    [this.pinsOf, this.pinColumns] = [key, this.columns];
    const tools = {
      go: (position) => this.go(Math.max(0, this.columns.findIndex((column) => position <= column.tokens)), position - 1, true),
      unpin: (position) => { this.pin(position); this.text.element(this.at.c, this.at.i).focus({ preventScroll: true }); },
    };
    const boxes = this.state.pinned.filter((p) => p <= this.reach).map((p) => pinned(this.columns, p, this.lens, tools));
    this.pins.hidden = boxes.length === 0;
    this.pins.replaceChildren(...boxes);
  }

  // ------------------------------------------------------------------------------------------------ moving about

  pin(position) {
    const kept = this.state.pinned.filter((p) => p !== position);
    if (kept.length === this.state.pinned.length) kept.push(position);
    this.set({ pinned: kept.sort((a, b) => a - b) });
  }

  unpin(position) {
    const { pinned } = this.state;
    if (pinned.length) this.pin(pinned.includes(position) ? position : pinned.at(-1));
  }

  matches() {
    const found = [];
    this.matched.each.forEach((each, c) => each?.forEach((is, i) => { if (is) found.push([c, i]); }));
    return this.columns.length > 1 ? found.sort(([c, i], [d, j]) => i - j || c - d) : found;
  }

  /** Go to the next (1) or previous (-1) match, round the ends. */
  step(by, focus) {
    const matches = this.matches();
    if (!matches.length) return;
    const { c, i } = this.at, order = ([d, j]) => j - i || d - c;
    const here = this.state.position === i + 1;
    const next = by > 0
      ? matches.find((m) => (here ? order(m) > 0 : order(m) >= 0)) ?? matches[0]
      : matches.findLast((m) => order(m) < 0) ?? matches.at(-1);
    this.go(next[0], next[1], focus);
  }

  // ------------------------------------------------------------------------------------------------ one token in words

  spoken(c, i) { return spoken(this.columns[c], i, this.look()); }

  fill(c, i) {
    fillCard(this.card, this.columns[c], i, { look: this.text.look, counting: this.counted.each[c], isNarrowed: this.narrowed, lens: this.lens });
  }
}

export default { render: mount(LensView, "wb-lens", "Token lens") };
