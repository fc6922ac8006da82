// Mouse and keyboard on the text of a lens: hover, pin, select positions, move about.
const PAGE_KEY_TOKENS = 50;

/** Let mouse and keyboard move a lens. */
function listenToHands(view) {
  const { root } = view.text;
  const tokenOf = (event) => event.target instanceof Element && event.target.closest("[role=option]");
  root.addEventListener("mouseover", (event) => {
    const token = tokenOf(event);
    if (token) { if (view.shown?.c !== token.column || view.shown?.i !== token.index) view.show(token.column, token.index); }
    else if (!view.shown?.byKey) view.hide();
  });
  root.addEventListener("mouseleave", () => { if (!view.shown?.byKey) view.hide(); });
  root.addEventListener("mousedown", (event) => {
    view.pressed = event.button === 0 ? tokenOf(event) : null;
    if (event.shiftKey && view.pressed) event.preventDefault();
    addEventListener("mouseup", () => setTimeout(() => { view.pressed = null; }), { once: true }); // after the click
  });
  root.addEventListener("mouseup", (event) => {
    const token = tokenOf(event), from = view.pressed;
    if (!token || !from || token === from) return;
    view.set({ span: [Math.min(from.index, token.index) + 1, Math.max(from.index, token.index) + 1] });
  });
  root.addEventListener("click", (event) => {
    const token = tokenOf(event);
    if (!token) return;
    const { column: c, index: i } = token;
    if (event.shiftKey && view.state.position) {
      const anchor = view.state.position;
      view.set({ span: [Math.min(anchor, i + 1), Math.max(anchor, i + 1)] });
      return;
    }
    view.go(c, i, true);
    view.pin(i + 1);
  });
  root.addEventListener("focusin", (event) => {
    const token = tokenOf(event);
    if (token && (token.column !== view.at.c || token.index !== view.at.i || !view.shown)) view.go(token.column, token.index, true);
  });
  root.addEventListener("focusout", () => view.hide());
  root.addEventListener("keydown", (event) => keyPressed(view, event, tokenOf(event)));
}

function keyPressed(view, event, token) {
  if (!token || !plainKey(event)) return;
  const { column: c, index: i } = token, last = view.columns[c].tokens - 1;
  const to = {
    ArrowRight: () => i + 1, ArrowLeft: () => i - 1, ArrowDown: () => view.text.byLine(c, i, 1), ArrowUp: () => view.text.byLine(c, i, -1),
    Home: () => 0, End: () => last, PageDown: () => i + PAGE_KEY_TOKENS, PageUp: () => i - PAGE_KEY_TOKENS,
  }[event.key];
  if (to) {
    const next = Math.max(0, Math.min(last, to()));
    if (event.shiftKey) {
      view.anchor ??= i;
      view.go(c, next, true, { span: [Math.min(view.anchor, next) + 1, Math.max(view.anchor, next) + 1] });
    } else {
      view.anchor = null;
      view.go(c, next, true);
    }
  } else if (event.key === "Enter" || event.key === " ") view.pin(i + 1);
  else if (event.key === "Escape") {
    if (view.shown) view.hide();
    else view.unpin(i + 1);
  } else if (event.key === "n") view.step(1, true);
  else if (event.key === "p") view.step(-1, true);
  else if (event.key === "c" && view.columns.length > 1) {
    for (let d = 1; d <= view.columns.length; d += 1) {
      const other = (c + d) % view.columns.length;
      if (i < view.columns[other].tokens) { view.go(other, i, true); break; }
    }
  } else return;
  consume(event);
}
