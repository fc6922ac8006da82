// The strip above the text: the quantity along all positions, how many alternatives count, and what is selected. Dragging
// over it selects positions; the two number fields do the same for the keyboard.
const MAP_TRACK = 16, MAP_COUNTS = 12, MAP_AXIS = 14;

class PositionMap {
  constructor({ go, brush }) {
    this.canvas = make("canvas.wb-map", { role: "img" });
    this.probe = make("span.wb-probe-colour", { "aria-hidden": "true" });
    this.root = make("div.wb-map-box", this.canvas, this.probe);
    this.drawn = null;
    this.dragged = null;
    this.listen(go, brush);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.root);
    this.theme = new MutationObserver(() => this.recolour());
    for (const node of [document.body, document.documentElement]) {
      this.theme.observe(node, { attributes: true, attributeFilter: ["class", "theme", "data-jp-theme-light"] });
    }
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = this.recolour.bind(this);
    this.scheme.addEventListener("change", this.recolour);
  }

  stop() {
    this.observer.disconnect();
    this.theme.disconnect();
    this.scheme.removeEventListener("change", this.recolour);
  }

  recolour() {
    this.colours = null;
    this.draw();
    requestAnimationFrame(() => this.draw()); // JupyterLab hides the page for a moment when it changes its theme
  }

  /** Read the colours of the theme that the page has now, each by its variable. */
  read(quantity) {
    if (this.colours?.quantity === quantity.name) return;
    const read = (name) => {
      this.probe.style.color = `var(--wb-${name})`;
      return getComputedStyle(this.probe).color;
    };
    const fill = (css) => (css ? css.replace(/^wb-([a-z]+)(\d)$/, "$1-$2") : "panel"); // wb-orange3 -> orange-3
    this.colours = {
      quantity: quantity.name,
      level: new Map(quantity.levels.map(([level, css]) => [level, read(fill(css))])),
      ...Object.fromEntries(["ink", "soft", "focus", "panel"].map((name) => [name, read(name)])),
    };
  }

  /** Draw columns as `look` (see RunningText.paint) paints them; `shown` are all counts, thresholds or not. */
  show(columns, look, shown) {
    this.drawn = { columns, look, shown, reach: Math.max(1, ...columns.map((column) => column.tokens)) };
    this.canvas.setAttribute("aria-label", `${look.quantity.short} and counted alternatives along ${this.drawn.reach} positions`);
    this.draw();
  }

  draw() {
    const width = this.root.clientWidth;
    if (!this.drawn || !width) return;
    const { columns, look, shown, reach } = this.drawn, ratio = devicePixelRatio || 1;
    const height = columns.length * (MAP_TRACK + MAP_COUNTS + 3) + MAP_AXIS;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.read(look.quantity);
    const pen = this.canvas.getContext("2d"), { colours } = this;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const x = (position) => ((position - 1) / reach) * width, step = width / reach, gap = step > 5 ? 1 : 0;
    columns.forEach((column, c) => {
      const top = c * (MAP_TRACK + MAP_COUNTS + 3), levels = column.levels(look.quantity, look.granularity);
      const { of } = column.units(look.granularity);
      const entropy = look.quantity.name === "retention" ? column.means("entropy_aligned_nats", look.granularity) : null;
      const most = shown[c].reduce((a, b) => Math.max(a, b), 5);
      for (let i = 0; i < column.tokens; ) {
        let last = i, level = 0, count = 0; // all tokens of one pixel: the strongest of them
        for (; last < column.tokens && (last === i || x(last + 2) - x(i + 1) <= 1); last += 1) {
          const sure = entropy && !(entropy[of[last]] > look.floor);
          if (!sure && Math.abs(levels[last]) > Math.abs(level)) level = levels[last];
          count = Math.max(count, shown[c][last]);
        }
        const from = x(i + 1), wide = Math.max(x(last + 1) - from - gap, 0.5);
        pen.fillStyle = colours.level.get(level) ?? colours.panel;
        pen.fillRect(from, top, wide, MAP_TRACK);
        const tall = (count / most) * MAP_COUNTS;
        pen.globalAlpha = 0.55;
        pen.fillStyle = colours.soft;
        pen.fillRect(from, top + MAP_TRACK + 1 + MAP_COUNTS - tall, wide, tall);
        pen.globalAlpha = 1;
        i = last;
      }
      const matches = look.matches[c];
      if (matches) {
        pen.fillStyle = colours.focus;
        matches.forEach((found, i) => { if (found) pen.fillRect(x(i + 1), top + MAP_TRACK - 3, Math.max(step - gap, 1.5), 3); });
      }
    });
    this.marks(pen, x, step, height - MAP_AXIS, width);
  }

  marks(pen, x, step, bottom, width) {
    const { look, reach } = this.drawn, { colours } = this;
    const span = this.dragged ?? look.span;
    if (span) {
      pen.strokeStyle = colours.focus;
      pen.lineWidth = 2;
      pen.strokeRect(x(span[0]) + 1, 1, Math.max(x(span[1] + 1) - x(span[0]) - 2, 2), bottom - 2);
    }
    pen.fillStyle = colours.ink;
    for (const pinned of look.pinned) {
      const middle = x(pinned) + step / 2;
      pen.beginPath();
      pen.moveTo(middle - 4, bottom + 6);
      pen.lineTo(middle + 4, bottom + 6);
      pen.lineTo(middle, bottom);
      pen.fill();
    }
    if (look.position) {
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 1.5;
      pen.strokeRect(x(look.position) + 0.5, 0.75, Math.max(step - 1, 2), bottom - 1.5);
    }
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    pen.fillStyle = colours.soft;
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000].find((n) => (n / reach) * width >= 44) ?? 50000;
    for (let p = 1; p <= reach; p = p === 1 && every > 1 ? every : p + every) {
      const said = wholeText(p);
      pen.fillText(said, Math.min(x(p), width - pen.measureText(said).width), bottom + MAP_AXIS);
    }
  }

  positionAt(event) {
    const box = this.canvas.getBoundingClientRect();
    return Math.min(this.drawn.reach, Math.max(1, 1 + Math.floor(((event.clientX - box.left) / box.width) * this.drawn.reach)));
  }

  listen(go, brush) {
    let from = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      if (!this.drawn || event.button) return;
      from = this.positionAt(event);
      this.canvas.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = this.positionAt(event);
      this.dragged = to === from ? null : [Math.min(from, to), Math.max(from, to)];
      this.draw();
    });
    const end = (event) => {
      if (from === null) return;
      const span = this.dragged, to = this.positionAt(event);
      from = this.dragged = null;
      if (event.type === "pointercancel") this.draw();
      else if (span) brush(span);
      else go(to);
    };
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
  }
}
