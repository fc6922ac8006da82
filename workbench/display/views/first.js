// The first screen's drawings and the sealed text below them follow each other: a dot or a place on the curve opens the
// text there ("wb-open"), and what is read is marked in the drawings ("wb-reading").
(() => {
  if (window.workbenchFirst) return;
  window.workbenchFirst = true;
  const open = (detail) => document.dispatchEvent(new CustomEvent("wb-open", { detail }));
  const dotOf = (event) => event.target instanceof Element && event.target.closest(".wb-dot");
  const placeOf = (event) => {
    const drawing = event.target instanceof Element && event.target.closest(".wb-decay");
    if (!drawing) return null;
    const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    const { first, step, last } = drawing.dataset;
    const position = Math.round(1 + (spot.x - Number(first)) / Number(step));
    return position >= 1 && position <= Number(last) ? position : null;
  };
  let reading = null;
  document.addEventListener("wb-reading", ({ detail }) => {
    reading = detail;
    for (const drawing of document.querySelectorAll(".wb-dots")) {
      const dots = [...drawing.querySelectorAll(".wb-dot")];
      const here = dots.find((dot) => Number(dot.dataset.response) === detail.response);
      for (const dot of dots) {
        dot.classList.toggle("wb-on", dot === here);
        dot.setAttribute("aria-pressed", String(dot === here));
        dot.tabIndex = dot === (here ?? dots[0]) ? 0 : -1;
      }
      drawing.classList.add("wb-linked");
      if (here) drawing.append(here); // above the others
      drawing.querySelector(".wb-shown").textContent = here ? `read below: ${here.getAttribute("aria-label").split(" ").pop()}` : "";
    }
    for (const drawing of document.querySelectorAll(".wb-decay")) {
      drawing.classList.add("wb-linked");
      const mark = drawing.querySelector(".wb-mark"), { first, step, last } = drawing.dataset;
      const there = detail.position && detail.position <= Number(last);
      mark.toggleAttribute("hidden", !there);
      if (there) mark.setAttribute("transform", `translate(${Number(first) + (detail.position - 1) * Number(step)} 0)`);
    }
  });
  document.addEventListener("click", (event) => {
    const dot = dotOf(event);
    if (dot) return open({ response: Number(dot.dataset.response) });
    const position = placeOf(event);
    if (position && reading) open({ response: reading.response, position });
  });
  document.addEventListener("keydown", (event) => {
    const dot = dotOf(event);
    if (!dot) return;
    const all = [...dot.closest("svg").querySelectorAll(".wb-dot")].sort((a, b) => a.cx.baseVal.value - b.cx.baseVal.value);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") open({ response: Number(dot.dataset.response) });
    else if (step) all[Math.max(0, Math.min(all.length - 1, all.indexOf(dot) + step))].focus();
    else return;
    event.preventDefault();
  });
})();
