// Cards on hover and keyboard focus for token texts. It reads the data table that stands under each text and sets text
// as text; without it the titles and the table say the same.
(() => {
  if (window.workbenchTokens) return;
  window.workbenchTokens = true;
  let card = null, owner = null, byKey = false;
  const tokenOf = (event) => event.target instanceof Element && event.target.closest(".wb-text > .t, .wb-text .t");
  const tokensOf = (token) => [...token.closest(".wb-text").querySelectorAll(".t")];
  const hide = () => { if (card) card.remove(); card = owner = null; };
  const place = () => {
    if (!card) return;
    const spot = owner.getClientRects()[0], box = card.getBoundingClientRect();
    if (!spot) return hide();
    if (!byKey && (spot.bottom < 0 || spot.top > innerHeight)) return hide();
    card.style.left = Math.max(8, Math.min(spot.left, innerWidth - box.width - 8)) + "px";
    const below = spot.bottom + 8;
    const top = below + box.height < innerHeight ? below : spot.top - box.height - 8;
    card.style.top = Math.max(8, Math.min(top, innerHeight - box.height - 8)) + "px";
  };
  const here = (token) => {
    const before = token.closest(".wb-text").querySelector('.t[tabindex="0"]');
    if (before) before.tabIndex = -1;
    token.tabIndex = 0;
    token.dataset.lmSuppressShortcuts = "true";
  };
  const show = (token, key) => {
    if (token === owner && card) return;
    hide();
    const view = token.closest(".wb-tokens");
    const table = view && view.querySelector("table.wb-data");
    const row = table && table.tBodies[0].rows[tokensOf(token).indexOf(token)];
    if (!row) return;
    token.removeAttribute("title");
    const list = document.createElement("dl");
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      const name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = head.textContent;
      value.textContent = row.cells[i].textContent;
      list.append(name, value);
    });
    card = document.createElement("div");
    card.className = "wb-card wb";
    card.setAttribute("role", "status");
    card.append(list);
    view.append(card);
    if (card.showPopover) {  // the top layer: a front end's own containers neither move nor clip it there
      card.popover = "manual";
      card.showPopover();
    }
    [owner, byKey] = [token, key];
    place();
  };
  document.addEventListener("mouseover", (event) => {
    const token = tokenOf(event);
    if (token) show(token, false); else if (!byKey) hide();
  });
  document.addEventListener("focusin", (event) => { const token = tokenOf(event); if (token) { here(token); show(token, true); } });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", place, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => {
    const token = tokenOf(event);
    if (!token) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") hide();
    if (step === undefined) return;
    const all = tokensOf(token);
    const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(token) + step))];
    here(next);
    next.focus();
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("input", (event) => {
    const dial = event.target instanceof Element && event.target.closest(".wb-film .wb-dial");
    if (!dial) return;
    const film = dial.closest(".wb-film");
    const step = dial.dataset.steps.split(" ")[dial.value];
    film.querySelector("output").textContent = step;
    dial.setAttribute("aria-valuetext", "step " + step);
    for (const token of film.querySelectorAll("[data-levels]")) {
      const level = token.dataset.levels[dial.value];
      token.className = { 0: "t", s: "t wb-sure" }[level] ?? "t wb-slate" + level;
    }
  });
})();
