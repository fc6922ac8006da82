// The penalty dial: what a person turns goes to Python as `asked`, numbered; what comes back says of each page what it was
// heard of last, and nothing older than the page's latest wish is drawn.
const SETTLE_MS = 60;

class DialView extends ReaderView {
  constructor(model, root) {
    super(model, root);
    this.page = Math.random().toString(36).slice(2);
    this.wishes = 0;
    this.settings = {}; // what was turned here and is not heard of yet
    this.revealed = false;
    this.opened = null; // the token whose ledger is open: { c, i }
    this.at = { c: 2, i: 0 };
    this.dial = model.get("dial");
    this.state = { position: null, pinned: [], span: null };
    this.build();
    this.take(model.get("shown"), this.standing());
    this.listen();
    this.ask({ do: "hello" }); // from its echo on the page is heard while a cell runs
  }

  build() {
    const { dial } = this;
    this.controls = makeDial(dial, (settings) => this.turn(settings));
    this.filled = chooser("wb-fill", dial.quantities.map((q) => [q.name, q.title]), () => this.update());
    this.stopButton = make("button.wb-stop", "Stop", { onclick: () => this.ask({ do: "stop" }, false) });
    this.status = make("span.wb-status", { role: "status" });
    this.count = make("span.wb-count.wb-soft", { "aria-hidden": "true" });
    this.controls.root.append(make("div.wb-actions", field("Fill", this.filled), this.stopButton, this.status, this.count));
    this.cover = make("div.wb-cover-place");
    this.place = make("div.wb-place");
    this.panel = make("div.wb-panel-place");
    this.branches = make("section.wb-branches", { "aria-label": "Branches" });
    this.root.append(this.controls.root, alertLine(this.model),
      make("p.wb-title", make(`span.wb-tag.wb-${dial.label}`, dial.label), make("span.wb-id", dial.name), make("span.wb-soft", ` ${dial.given} tokens given`)),
      make("div.wb-prompt", make("span.wb-role", "prompt"), dial.prompt),
      this.cover, this.place, this.panel, this.branches, this.legend(), this.card);
  }

  legend() {
    this.scale = make("div.wb-legend");
    const signs = signList([
      ["wb-t wb-match", "dashed frame", "the penalty chose another token than there would have been without it, after the same tokens"],
      ["wb-t wb-favored", "underlined", "base-favored: likelier under base than under aligned"],
      ["wb-t wb-given", "dotted below", "given, not generated; ▸ marks where it continues"],
      ["wb-t wb-here", "framed", "the current token"],
      ...Object.entries(this.dial.verdicts).map(([word, [mark, means]]) => ["wb-tag", `${mark} ${word}`, means]),
      ...Object.entries(this.dial.ledger).map(([name, said]) => ["wb-soft", name, said]),
    ]);
    return make("div.wb-legends", this.scale, make("details", make("summary", "Signs, keys and how to read this"), signs,
      make("p.wb-note", "Keys: arrows move from token to token, c to the same position of the next text; Enter opens the ledger of a token, Esc closes it. " +
        "In the tree arrows move and Enter shows a branch. Turning the dial begins a new tree: a tree belongs to one penalty."),
      make("p.wb-note", "A penalty can only amplify a difference that exists: where base and aligned agree it does nothing at any strength, and the leverage is 0.")));
  }

  // ------------------------------------------------------------------------------------------------ what is asked

  /**
   * Send a wish. Those that change the text (`numbered`) make everything that is on its way out of date. Of wishes that
   * come while Python is busy only the last arrives, so each says all that is not heard of yet.
   */
  ask(what, numbered = true) {
    clearTimeout(this.settling);
    if (numbered) this.wishes += 1;
    const standing = { settings: this.settings, revealed: this.revealed, page: this.page, n: this.wishes };
    this.model.set("asked", { ...what, ...standing, at: Date.now() + Math.random() });
    this.model.save_changes();
  }

  /** Turn the dial: at once on the screen, and in Python when the hand has come to rest. */
  turn(settings) {
    this.settings = { ...this.settings, ...settings };
    this.wishes += 1;
    this.controls.show({ ...this.model.get("form"), ...this.settings });
    this.say("waiting", "The dial is being turned.");
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.ask({ do: "turn" }, false), SETTLE_MS);
  }

  branch(tokenId) {
    const { i } = this.opened;
    this.say("waiting", "Another token is being taken.");
    this.ask({ do: "branch", branch: this.picture.branch, position: i + 1, token_id: tokenId });
  }

  // ------------------------------------------------------------------------------------------------ what comes

  /** Return the texts as they are in the state: base, aligned and penalised. */
  standing() { return [...this.model.get("still"), this.model.get("moving")]; }

  listen() {
    const changed = () => { if (!this.revealed) this.take(this.model.get("shown"), this.standing()); }; // else the text comes as a message
    const formed = () => { if (!this.waits()) this.controls.show(this.model.get("form")); };
    const message = (content, buffers) => {
      if (content?.do === "text" && this.revealed) this.take(content.shown, asViews(buffers));
    };
    this.follow({ "change:shown": changed, "change:moving": changed, "change:form": formed, "msg:custom": message });
  }

  /** Tell whether the answer to this page's latest wish has not come yet. */
  waits(shown = this.model.get("shown")) { return (shown.heard[this.page] ?? 0) < this.wishes; }

  /** Draw what has come, once it is there as a whole, unless it is older than what this page asked for last. */
  take(shown, buffers) {
    if (this.text && (this.waits(shown) || this.drawn === shown.serial)) return;
    const columns = buffers.map((view) => new Column(view, this.dial.cover));
    if (columns.at(-1).head.serial !== shown.serial) return; // text and state came apart: the rest is on its way
    [this.picture, this.drawn] = [shown, shown.serial];
    this.settings = {};
    this.controls.show(this.model.get("form"));
    this.draw(columns);
    this.say(shown.state, shown.said);
    this.count.textContent = shown.state === "running" && shown.tokens ? `${shown.tokens} tokens` : "";
  }

  say(state, said) {
    this.root.dataset.state = state;
    clearTimeout(this.patience);
    if (state === "waiting") this.patience = setTimeout(() => this.say("waiting", "Python does not answer: is the kernel still there?"), PATIENCE_MS);
    const busy = state === "running" || state === "waiting";
    this.stopButton.disabled = state !== "running";
    if (this.status.textContent !== said) this.status.textContent = said;
    for (const button of this.panel.querySelectorAll(".wb-branch")) button.disabled = busy;
  }

  // ------------------------------------------------------------------------------------------------ what is drawn

  draw(columns) {
    const name = (reach) => `Base, aligned and penalised side by side: ${reach} positions, arrow keys move from token to token`;
    const put = () => {
      this.place.replaceChildren(columnHeads(columns, (column, c) => this.head(column, c)), this.text.root);
      if (this.opened && this.opened.i >= columns[this.opened.c].tokens) this.opened = null;
    };
    const here = () => ({ c: this.at.c, i: Math.min(this.at.i, Math.max(0, columns[this.at.c].tokens - 1)) });
    const { scrolled, focus } = this.renew(columns, name, 100, put, here);
    this.text.root.scrollTop = scrolled;
    focus();
    this.drawCover();
    this.drawPanel();
    this.drawTree();
  }

  head(column, c) {
    const said = [make("b", c < 2 ? column.head.name : this.picture.title), make("span.wb-soft", ` ${column.head.how}`)];
    if (c < 2) return said;
    const changed = column.arrays.changed.reduce((n, x) => n + x, 0), { branch } = this.picture;
    return [...said, make("span.wb-soft", `, ${wholeText(changed)} changed`), branch > 0 && make("span.wb-tag", `branch ${branch}`)];
  }

  drawCover() {
    const had = this.cover.contains(document.activeElement);
    this.cover.replaceChildren(...coverBox(this.dial.treatment, this.revealed, {
      withheld: "The text of these harmful responses is withheld; their numbers are shown.",
      covered: "Harmful text, covered. Its numbers are shown.", reveal: "Reveal this harmful text",
      turn: (open) => {
        this.revealed = open;
        if (!open) this.coverNow();
        this.ask({ do: "reveal" });
      },
    }));
    if (had) this.cover.querySelector("button")?.focus();
  }

  /** Cover the text at once, whether or not Python answers: what is in the state is covered. */
  coverNow() {
    this.picture = this.model.get("shown");
    this.draw(this.standing().map((view) => new Column(view, this.dial.cover)));
  }

  drawPanel() {
    if (!this.opened) {
      this.panel.replaceChildren();
      return;
    }
    const { c, i } = this.opened, kept = this.panel.contains(document.activeElement);
    const box = tokenPanel(this.columns[c], i, {
      branch: (id) => this.branch(id), close: () => this.close(), busy: this.picture.state === "running",
    });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.close();
      event.stopPropagation();
    });
    this.panel.replaceChildren(box);
    if (kept) this.panel.querySelector("button")?.focus({ preventScroll: true });
  }

  drawTree() {
    const { tree, branch } = this.picture, focused = document.activeElement?.dataset?.branch;
    const inside = this.branches.contains(document.activeElement);
    const parts = [];
    if (tree.length) {
      const judge = this.dial.judge ? `judged by ${this.dial.judge}` : "not judged";
      const how = tree.length > 1 ? "" : "Open a token of the penalised text and continue from another one.";
      const wanted = inside && tree.some((node) => String(node.branch) === focused) ? Number(focused) : branch;
      const at = tree.some((node) => node.branch === wanted) ? wanted : 0;
      parts.push(make("p.wb-title", "Branches: did a token matter?"), make("p.wb-note.wb-soft", `${judge}; only what was generated is judged. ${how}`),
        branchTree(tree, branch, { verdicts: this.dial.verdicts, open: (b) => this.ask({ do: "open", branch: b }), at }));
    }
    this.branches.replaceChildren(...parts);
    if (inside) this.branches.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  quantity() { return this.dial.quantities.find((q) => q.name === this.filled.value) ?? this.dial.quantities[0]; }

  look() {
    const pinned = this.opened ? [this.opened.i + 1] : [];
    return {
      columns: this.columns, several: true, quantity: this.quantity(), granularity: "token", floor: 0,
      notable: this.dial.notable_shift_nats, span: null, position: this.state.position, pinned: new Set(pinned),
      counts: this.columns.map(() => null), matches: this.columns.map((column, c) => (c === 2 ? column.arrays.changed : null)),
    };
  }

  update() {
    const look = this.look(), quantity = look.quantity;
    this.text.paint(look);
    if (this.scaleOf === quantity.name) return;
    this.scaleOf = quantity.name;
    const levels = quantity.levels.map(([, ...level]) => level);
    this.scale.replaceChildren(make("b", quantity.title), swatches(levels), make("span.wb-soft", quantity.means));
  }

  // --------------------------------------------------------------------- what hands do (see lens_hands.js)

  spoken(c, i) {
    const column = this.columns[c], line = ledgerOf(column, i), name = `${column.head.name}, ${column.covered ? "withheld token" : column.label(i)}, position ${i + 1}`;
    if (!line) return `${name}, given`;
    const favored = line.base > line.aligned ? ", base-favored" : "";
    return `${name}${favored}${c === 2 && line.changed ? `, changed by the penalty, would have been ${line.instead}` : ""}`;
  }

  /** A click or Enter: open the ledger of the current token; with the keyboard go there. */
  pin() {
    const same = this.opened && this.opened.c === this.at.c && this.opened.i === this.at.i, byKey = !this.pressed;
    this.opened = same ? null : { ...this.at };
    this.update();
    this.drawPanel();
    if (!same && byKey) {
      this.hide();
      (this.panel.querySelector(".wb-branch:not([disabled])") ?? this.panel.querySelector("button"))?.focus();
    }
  }

  close() {
    const { c, i } = this.opened ?? this.at;
    this.opened = null;
    this.update();
    this.drawPanel();
    this.text.element(c, i)?.focus({ preventScroll: true });
  }

  unpin() { if (this.opened) this.close(); }

  set({ position }) {
    if (position === undefined) return;
    this.state.position = position;
    this.update();
  }

  step() {}

  fill(c, i) { fillDialCard(this.card, this.columns[c], i); }
}

export default { render: mount(DialView, "wb-lens.wb-dial", "Penalty dial") };
