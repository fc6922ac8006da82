// What the views of token texts share: running text with one token that Tab reaches, a card beside one, a button that
// reveals covered text, a legend.
const PATIENCE_MS = 5000;

const signList = (rows) => make("dl.wb-signs", rows.map(([css, sample, said]) => [make("dt", make("span", sample, { class: css })), make("dd", said)]));

const asViews = (buffers) => buffers.map((b) => (b instanceof DataView ? b : new DataView(b.buffer ?? b)));

/** The heads above columns of text; `cell(column, c)` says what is in each. */
function columnHeads(columns, cell) {
  const cells = columns.map((column, c) => make("div.wb-cell10", cell(column, c)));
  return make("div.wb-row10.wb-heads", { "--wb-columns": columns.length }, make("span.wb-gutter"), cells);
}

/** Say that a text is covered or withheld, with the button that reveals it where that may be. */
function coverBox(treatment, open, { withheld, covered, reveal, turn }) {
  if (treatment === "show") return [];
  if (treatment === "redact") return [make("div.wb-cover", make("span", withheld))];
  const button = make("button.wb-reveal-button", open ? "Cover it again" : reveal, { onclick: () => turn(!open) });
  return [make("div.wb-cover", make("span", open ? "Harmful text, revealed by you." : covered), button)];
}

/** A view of one or more columns. A subclass gives `look()`, `update()`, `spoken(c, i)`, `fill(c, i)` and `named()`. */
class ReaderView {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.at = { c: 0, i: 0 };
    this.card = floatingCard();
  }

  /** Call listeners of the model, and let the card follow the page; `stop` ends it. */
  follow(listeners) {
    const pairs = Object.entries(listeners);
    for (const [name, listener] of pairs) this.model.on(name, listener);
    const outside = (event) => {
      if (event.type === "scroll" && !this.card.contains(event.target)) this.placeCard();
      if (event.key === "Escape" && this.shown && !this.root.contains(document.activeElement)) this.hide();
    };
    document.addEventListener("scroll", outside, { capture: true, passive: true });
    document.addEventListener("keydown", outside);
    this.stop = () => {
      for (const [name, listener] of pairs) this.model.off(name, listener);
      document.removeEventListener("scroll", outside, { capture: true });
      document.removeEventListener("keydown", outside);
      clearTimeout(this.settling);
      clearTimeout(this.patience);
      this.text.stop();
      this.map?.stop();
    };
  }

  /** Make the text of new columns anew; `put()` places its root, and `here()` says which token is then the current one. */
  renew(columns, label, long, put, here) {
    const focused = this.text?.root.contains(document.activeElement), scrolled = this.text?.root.scrollTop ?? 0;
    const ended = this.text && scrolled + this.text.root.clientHeight >= this.text.root.scrollHeight - 4;
    this.columns = columns;
    this.reach = Math.max(0, ...columns.map((column) => column.tokens));
    this.text?.stop();
    this.hide();
    this.text = new RunningText(columns, label(this.reach));
    put();
    listenToHands(this);
    this.text.root.classList.toggle("wb-long", this.reach > long);
    this.text.start(this.look());
    const at = here();
    if (columns[at.c].tokens) this.rove(at.c, at.i);
    this.update();
    return { scrolled, ended, focus: () => { if (focused && columns[this.at.c].tokens) this.text.element(this.at.c, this.at.i).focus({ preventScroll: true }); } };
  }

  /** Let a token be the one that Tab reaches. */
  rove(c, i) {
    if (!this.reach) return;
    const before = this.text.root.querySelector('[tabindex="0"]');
    if (before) before.tabIndex = -1;
    this.at = { c, i };
    change(this.text.element(c, i), { tabIndex: 0 });
  }

  /** Make a token the current one; with `focus` the keyboard goes there too. Nothing scrolls under a pressed mouse. */
  go(c, i, focus = false, patch = {}) {
    i = Math.max(0, Math.min(this.columns[c].tokens - 1, i));
    this.rove(c, i);
    this.set({ position: i + 1, ...patch }, true);
    if (!this.pressed) this.text.bring(c, i);
    if (!focus) return;
    const element = this.text.element(c, i);
    change(element, { "aria-label": this.spoken(c, i), "aria-describedby": this.card.id });
    element.focus({ preventScroll: true });
    if (!this.pressed) element.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.show(c, i, true);
  }

  show(c, i, byKey = false) {
    const element = this.text.element(c, i);
    this.shown = { c, i, byKey };
    this.fill(c, i);
    openCard(this.card);
    for (const peer of this.peers ?? []) peer.classList.remove("wb-peer");
    this.peers = this.columns.length > 1 ? this.text.elements.map((each) => each[i]).filter((peer) => peer && peer !== element) : [];
    for (const peer of this.peers) peer.classList.add("wb-peer");
    this.placeCard();
  }

  placeCard() {
    if (this.shown && !putBeside(this.card, this.text.element(this.shown.c, this.shown.i), this.text.root)) this.hide();
  }

  hide() {
    if (!this.shown) return;
    this.shown = null;
    for (const peer of this.peers ?? []) peer.classList.remove("wb-peer");
    closeCard(this.card);
  }
}
