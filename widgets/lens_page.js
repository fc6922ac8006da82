// The lens in a page with no kernel: the same module over a model that only this page knows. The static form is below
// until the module has drawn, and for good where it cannot.
(async (place) => {
  const sealed = JSON.parse(place.querySelector('script[type="application/json"]').textContent);
  const view = (text) => new DataView(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const values = { ...sealed.state, columns: sealed.columns.map(view) };
  const listeners = {};
  const tell = (name, ...said) => { for (const listener of [...(listeners[name] ?? [])]) listener(...said); };
  const model = {
    get: (name) => values[name],
    set: (name, value) => {
      values[name] = value;
      tell(`change:${name}`);
      if (name === "asked") setTimeout(() => { for (const text of sealed.texts) tell("msg:custom", { do: "text" }, [view(text)]); });
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
})(document.currentScript.parentElement);
