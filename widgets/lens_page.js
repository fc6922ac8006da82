// The lens in a page with no kernel: the same module over a model that only this page knows. The static form is below
// until the module has drawn, and for good where it cannot. Other parts of the page open a response with the event
// "wb-open" and follow what is read with "wb-reading"; the address holds response, position and fill of the first lens.
(async (place) => {
  const sealed = JSON.parse(place.querySelector('script[type="application/json"]').textContent);
  const packed = async (text) => {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new DataView(await new Response(stream).arrayBuffer());
  };
  const first = document.querySelector(".wb-sealed") === place;
  const asked = () => {
    const said = new URLSearchParams(location.hash.slice(1)), number = (name) => (/^\d+$/.test(said.get(name) ?? "") ? Number(said.get(name)) : null);
    return { response: number("response"), position: number("position"), quantity: said.get("fill") };
  };
  const state = { ...sealed.state.state };
  const begin = ({ response, position, quantity }) => {
    if (response === null || !(response in sealed.columns)) return;
    const fill = sealed.state.lens.quantities.some(({ name }) => name === quantity) ? quantity : state.quantity;
    Object.assign(state, { response, position: position || null, pinned: [], span: null, quantity: fill });
  };
  let shown = sealed.shown;
  if (first) begin(asked());
  if (state.response !== shown[0]) shown = [state.response];
  const values = { ...sealed.state, state, columns: await Promise.all(shown.map((r) => packed(sealed.columns[r]))) };
  const listeners = {};
  const tell = (name, ...said) => { for (const listener of [...(listeners[name] ?? [])]) listener(...said); };
  const reading = () => {
    const { response, position, quantity } = values.state;
    document.dispatchEvent(new CustomEvent("wb-reading", { detail: { response, position, quantity } }));
    if (!first) return;
    const parts = { response, ...(position ? { position } : {}), fill: quantity };
    try { history.replaceState(null, "", `#${new URLSearchParams(parts)}`); } catch { /* a page in a sandboxed frame has no address of its own */ }
  };
  const open = async (response) => {
    shown = [response];
    const columns = [await packed(sealed.columns[response])];
    if (values.state.response !== response) return; // another one was opened meanwhile
    values.columns = columns;
    tell("change:columns");
  };
  const reveal = async () => {
    for (const r of shown) if (r in sealed.texts) tell("msg:custom", { do: "text" }, [await packed(sealed.texts[r])]);
  };
  const model = {
    get: (name) => values[name],
    set: (name, value) => {
      values[name] = value;
      tell(`change:${name}`);
      if (name === "asked") reveal();
      if (name === "state" && value.response !== shown[0]) open(value.response);
      if (name === "state") reading();
    },
    save_changes: () => {},
    on: (name, listener) => { (listeners[name] ??= new Set()).add(listener); },
    off: (name, listener) => { listeners[name]?.delete(listener); },
    send: () => {},
  };
  const url = URL.createObjectURL(new Blob([sealed.module], { type: "text/javascript" }));
  const module = await import(url);
  URL.revokeObjectURL(url);
  module.default.render({ model, el: place.querySelector(".wb-live") });
  place.querySelector(".wb-still").hidden = true;
  if (!first) return;
  const go = (wish) => {
    const before = values.state;
    begin({ quantity: before.quantity, ...wish });
    model.set("state", { ...before, ...state });
  };
  document.addEventListener("wb-open", ({ detail }) => {
    Object.assign(state, values.state);
    go({ position: null, ...detail });
  });
  addEventListener("hashchange", () => { Object.assign(state, values.state); go(asked()); });
  document.dispatchEvent(new CustomEvent("wb-reading", { detail: { ...values.state } }));
})(document.currentScript.parentElement);
