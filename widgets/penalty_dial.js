// The penalty dial: what a person turns goes to Python as `asked`, numbered; what comes back says of each page what it was
// heard of last, and nothing older than the page's latest wish is drawn.
const SETTLE_MS = 60, PATIENCE_MS = 5000;

class DialView {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.page = Math.random().toString(36).slice(2);
    this.wishes = 0;
    this.settings = {}; // what was turned here and is not heard of yet
    this.revealed = false;
    this.opened = null; // the token whose ledger is open: { c, i }
    this.at = { c: 2, i: 0 };
    this.dial = model.get("dial");
    this.state = { position: null, pinned: [], span: null };
    this.card = floatingCard();
    this.build();
    this.take(model.get("shown"), [...model.get("still"), model.get("moving")]);
    this.follow();
    this.ask({ do: "hello" }); // from its echo on the page is heard while a cell runs
  }

  build() {
    const { dial } = this;
    this.controls = makeDial(dial, (settings) => this.turn(settings));
    this.fill = chooser("wb-fill", dial.quantities.map((q) => [q.name, q.title]), () => this.update());
    this.stopButton = control(make("button", "wb-stop", "Stop"));
    this.stopButton.type = "button";
    this.stopButton.addEventListener("click", () => this.ask({ do: "stop" }, false));
    this.status = make("span", "wb-status");
    this.status.setAttribute("role", "status");
    this.count = make("span", "wb-count wb-soft");
    this.count.setAttribute("aria-hidden", "true");
    const actions = make("div", "wb-actions");
    actions.append(field("Fill", this.fill), this.stopButton, this.status, this.count);
    this.controls.root.append(actions);
    const title = make("p", "wb-title");
    title.append(make("span", `wb-tag wb-${dial.label}`, dial.label), make("span", "wb-id", dial.name), make("span", "wb-soft", ` ${dial.given} tokens given`));
    const prompt = make("div", "wb-prompt");
    prompt.append(make("span", "wb-role", "prompt"), dial.prompt);
    this.cover = make("div", "wb-cover-place");
    this.place = make("div", "wb-place");
    this.panel = make("div", "wb-panel-place");
    this.branches = make("section", "wb-branches");
    this.branches.setAttribute("aria-label", "Branches");
    this.root.append(this.controls.root);
    addAlert(this.model, this.root);
    this.root.append(title, prompt, this.cover, this.place, this.panel, this.branches, this.legend(), this.card);
  }

  legend() {
    const more = make("details"), list = make("dl", "wb-signs");
    more.append(control(make("summary", "", "Signs, keys and how to read this")));
    const sign = (css, sample, said) => {
      const dt = make("dt");
      dt.append(make("span", css, sample));
      list.append(dt, make("dd", "", said));
    };
    this.scale = make("div", "wb-legend");
    sign("wb-t wb-match", "dashed frame", "the penalty chose another token than there would have been without it, after the same tokens");
    sign("wb-t wb-favored", "underlined", "base-favored: likelier under base than under aligned");
    sign("wb-t wb-given", "dotted below", "given, not generated; ▸ marks where it continues");
    sign("wb-t wb-here", "framed", "the current token");
    for (const [word, [mark, means]] of Object.entries(this.dial.verdicts)) sign("wb-tag", `${mark} ${word}`, means);
    for (const [name, said] of Object.entries(this.dial.ledger)) sign("wb-soft", name, said);
    more.append(list);
    more.append(make("p", "wb-note", "Keys: arrows move from token to token, c to the same position of the next text; Enter opens the ledger of a token, Esc closes it. " +
      "In the tree arrows move and Enter shows a branch. Turning the dial begins a new tree: a tree belongs to one penalty."));
    more.append(make("p", "wb-note", "A penalty can only amplify a difference that exists: where base and aligned agree it does nothing at any strength, and the leverage is 0."));
    const box = make("div", "wb-legends");
    box.append(this.scale, more);
    return box;
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

  follow() {
    const changed = () => {
      if (this.revealed) return; // then the text comes as a message
      this.take(this.model.get("shown"), [...this.model.get("still"), this.model.get("moving")]);
    };
    const formed = () => { if (!this.waits()) this.controls.show(this.model.get("form")); };
    const message = (content, buffers) => {
      if (content?.do === "text" && this.revealed) this.take(content.shown, buffers.map((b) => (b instanceof DataView ? b : new DataView(b.buffer ?? b))));
    };
    const listeners = [["change:shown", changed], ["change:moving", changed], ["change:form", formed], ["msg:custom", message]];
    for (const [name, listener] of listeners) this.model.on(name, listener);
    const outside = (event) => {
      if (event.type === "scroll" && !this.card.contains(event.target)) this.placeCard();
      if (event.key === "Escape" && this.shown && !this.root.contains(document.activeElement)) this.hide();
    };
    document.addEventListener("scroll", outside, { capture: true, passive: true });
    document.addEventListener("keydown", outside);
    this.stop = () => {
      for (const [name, listener] of listeners) this.model.off(name, listener);
      document.removeEventListener("scroll", outside, { capture: true });
      document.removeEventListener("keydown", outside);
      clearTimeout(this.settling);
      clearTimeout(this.patience);
      this.text.stop();
    };
  }

  /** Tell whether the answer to this page's latest wish has not come yet. */
  waits(shown = this.model.get("shown")) { return (shown.heard[this.page] ?? 0) < this.wishes; }

  /** Draw what has come, once it is there as a whole, unless it is older than what this page asked for last. */
  take(shown, buffers) {
    if (this.text && (this.waits(shown) || this.drawn === shown.serial)) return;
    const columns = buffers.map((view) => new Column(view, this.dial.cover));
    if (columns.at(-1).head.serial !== shown.serial) return; // text and state came apart: the rest is on its way
    [this.picture, this.columns, this.drawn] = [shown, columns, shown.serial];
    this.settings = {};
    this.controls.show(this.model.get("form"));
    this.draw();
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

  draw() {
    const focused = this.text?.root.contains(document.activeElement), scrolled = this.text?.root.scrollTop ?? 0;
    this.reach = Math.max(...this.columns.map((column) => column.tokens));
    this.text?.stop();
    this.hide();
    this.text = new RunningText(this.columns, `Base, aligned and penalised side by side: ${this.reach} positions, arrow keys move from token to token`);
    this.place.replaceChildren(this.heads(), this.text.root);
    listenToHands(this);
    this.text.root.classList.toggle("wb-long", this.reach > 100);
    this.text.start(this.look());
    if (this.at.i >= this.columns[this.at.c].tokens) this.at = { c: this.at.c, i: Math.max(0, this.columns[this.at.c].tokens - 1) };
    if (this.columns[this.at.c].tokens) this.rove(this.at.c, this.at.i);
    this.text.root.scrollTop = scrolled;
    if (focused) this.text.element(this.at.c, this.at.i)?.focus({ preventScroll: true });
    if (this.opened && this.opened.i >= this.columns[this.opened.c].tokens) this.opened = null;
    this.update();
    this.drawCover();
    this.drawPanel();
    this.drawTree();
  }

  heads() {
    const row = make("div", "wb-row10 wb-heads");
    row.style.setProperty("--wb-columns", this.columns.length);
    row.append(make("span", "wb-gutter"));
    this.columns.forEach((column, c) => {
      const cell = make("div", "wb-cell10");
      const name = c < 2 ? column.head.name : this.picture.title;
      cell.append(make("b", "", name), make("span", "wb-soft", ` ${column.head.how}`));
      if (c === 2) {
        const changed = column.arrays.changed.reduce((n, x) => n + x, 0);
        cell.append(make("span", "wb-soft", `, ${wholeText(changed)} changed`));
        if (this.picture.branch) cell.append(make("span", "wb-tag", `branch ${this.picture.branch}`));
      }
      row.append(cell);
    });
    return row;
  }

  drawCover() {
    const { treatment } = this.dial, parts = [];
    if (treatment === "redact") parts.push(make("span", "", "The text of these harmful responses is withheld; their numbers are shown."));
    if (treatment === "blur") {
      parts.push(make("span", "", this.revealed ? "Harmful text, revealed by you." : "Harmful text, covered. Its numbers are shown."));
      const button = control(make("button", "wb-reveal-button", this.revealed ? "Cover it again" : "Reveal this harmful text"));
      button.type = "button";
      button.addEventListener("click", () => {
        this.revealed = !this.revealed;
        if (!this.revealed) this.coverNow();
        this.ask({ do: "reveal" });
      });
      parts.push(button);
    }
    const had = this.cover.contains(document.activeElement), box = make("div", "wb-cover");
    box.append(...parts);
    this.cover.replaceChildren(...(parts.length ? [box] : []));
    if (had) this.cover.querySelector("button")?.focus();
  }

  /** Cover the text at once, whether or not Python answers: what is in the state is covered. */
  coverNow() {
    this.picture = this.model.get("shown");
    this.columns = [...this.model.get("still"), this.model.get("moving")].map((view) => new Column(view, this.dial.cover));
    this.draw();
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
      const judge = this.dial.judge ? `judged by ${this.dial.judge}` : "nobody judges";
      parts.push(make("p", "wb-title", "Branches: did a token matter?"), make("p", "wb-note wb-soft", `${judge}; only what was generated is judged. ` +
        (tree.length > 1 ? "" : "Open a token of the penalised text and continue from another one.")));
      const at = inside && tree.some((node) => String(node.branch) === focused) ? Number(focused) : branch;
      parts.push(branchTree(tree, branch, { verdicts: this.dial.verdicts, open: (b) => this.ask({ do: "open", branch: b }), at: tree.some((n) => n.branch === at) ? at : 0 }));
    }
    this.branches.replaceChildren(...parts);
    if (inside) this.branches.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  quantity() { return this.dial.quantities.find((q) => q.name === this.fill.value) ?? this.dial.quantities[0]; }

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
    const swatches = make("span");
    for (const [, css, said] of quantity.levels) swatches.append(make("span", `wb-swatch ${css}`, said));
    this.scale.replaceChildren(make("b", "", quantity.title), swatches, make("span", "wb-soft", quantity.means));
  }

  // --------------------------------------------------------------------- what hands do (see lens_hands.js)

  rove(c, i) {
    const before = this.text.root.querySelector('[tabindex="0"]');
    if (before) before.tabIndex = -1;
    this.at = { c, i };
    control(this.text.element(c, i)).tabIndex = 0;
  }

  go(c, i, focus = false) {
    i = Math.max(0, Math.min(this.columns[c].tokens - 1, i));
    this.rove(c, i);
    this.state.position = i + 1;
    this.update();
    if (!this.pressed) this.text.bring(c, i);
    if (!focus) return;
    const element = this.text.element(c, i);
    element.setAttribute("aria-label", this.spoken(c, i));
    element.setAttribute("aria-describedby", this.card.id);
    element.focus({ preventScroll: true });
    this.show(c, i, true);
  }

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

  set() {}

  step() {}

  // ------------------------------------------------------------------------------------------------ the card

  show(c, i, byKey = false) {
    this.shown = { c, i, byKey };
    fillDialCard(this.card, this.columns[c], i);
    openCard(this.card);
    this.placeCard();
  }

  placeCard() {
    if (this.shown && !putBeside(this.card, this.text.element(this.shown.c, this.shown.i), this.text.root)) this.hide();
  }

  hide() {
    if (!this.shown) return;
    this.shown = null;
    closeCard(this.card);
  }
}

function render({ model, el }) {
  const root = make("section", "wb wb-lens wb-dial mathjax_ignore tex2jax_ignore");
  root.setAttribute("aria-label", "Penalty dial");
  el.append(root);
  try {
    const view = new DialView(model, root);
    return () => view.stop();
  } catch (error) {
    root.remove(); // the static form shows as long as nothing is drawn
    throw error;
  }
}

export default { render };
