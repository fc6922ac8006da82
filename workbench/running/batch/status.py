"""Show the progress of a batch: a table that stays in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from io import TextIOBase

from workbench.core.legible import sentence
from workbench.running.batch.drive import OPEN, Batch, State, last_line

STATES: tuple[State, ...] = ("done", "running", "elsewhere", "failed", "blocked", "waiting")
EVERY_S = {True: 0.25, False: 30.0}  # between two reports, on a terminal and elsewhere


def duration(seconds: float) -> str:
    """Return seconds as text: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class Status:
    """The progress of a batch on a stream: `tell` draws it when it is time, `note` writes a line that stays."""

    def __init__(self, batch: Batch, stream: TextIOBase) -> None:
        self.batch, self.stream, self.live = batch, stream, stream.isatty()
        self._drawn = 0
        self._last = 0.0

    def note(self, text: str) -> None:
        """Write a line that stays, except for starts, which the table shows."""
        if not (self.live and text.startswith("started")):
            self._write([sentence(text, 2_000)])

    def tell(self) -> None:
        """Draw the table anew, or write the summary, when it is time."""
        now, over = time.monotonic(), not OPEN & set(self.batch.states.values())
        if over or now - self._last >= EVERY_S[self.live]:
            self._last = now
            self._write(lines := self._table() if self.live else [self._summary()])
            self._drawn = len(lines) if self.live else 0

    def _summary(self) -> str:
        counts, left = Counter(self.batch.states.values()), self.batch.left()
        said = ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s] or s in ("done", "failed"))
        total, spent = len(self.batch.states), duration(time.monotonic() - self.batch.started)
        still = ", time left unknown" if left is None else f", about {duration(left)} left"
        cells = f"{total} cell{'' if total == 1 else 's'}"
        return f"{cells}: {said}; {spent} so far{still if OPEN & set(counts) else ''}"

    def _table(self) -> list[str]:
        size, plan, states = shutil.get_terminal_size((100, 24)), self.batch.plan, self.batch.states
        counts = {s.name: Counter(states[c.key] for c in plan.cells if c.stage == s.name) for s in plan.grid.stages}
        shown = [s for s in STATES if any(c[s] for c in counts.values()) or s in ("done", "failed")]
        wide = max(map(len, counts))
        lines = [self._summary(), " " * wide + "".join(f"{s:>11}" for s in shown)]
        lines += [f"{n:<{wide}}" + "".join(f"{c[s] or '-':>11}" for s in shown) for n, c in counts.items()]
        running = [c for c in plan.cells if c.key in self.batch.since]
        for cell in running[: max(size.lines - len(lines) - 3, 1)]:
            spent = duration(time.monotonic() - self.batch.since[cell.key])
            said = sentence(last_line(plan.log(cell)) or "starting", 300)
            lines.append(f"  {cell.name}  {sentence(cell.said(), 80)}  {spent}  {said}")
        return [line[: size.columns - 1] for line in lines]

    def _write(self, lines: list[str]) -> None:
        erased = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        self._drawn = 0
        self.stream.write(erased + "".join(f"{line}\n" for line in lines))
        self.stream.flush()
