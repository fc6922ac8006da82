"""Say how far a batch is: a table that stays in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from io import TextIOBase

from workbench.core.legible import sentence
from workbench.running.batch.drive import Progress, State
from workbench.running.batch.plan import Plan

STATES: tuple[State, ...] = ("done", "running", "elsewhere", "failed", "blocked", "waiting")
EVERY_S = {True: 0.25, False: 30.0}
"""How often it is said, on a terminal and elsewhere."""


def duration(seconds: float) -> str:
    """Return seconds in words that fit: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def summary(progress: Progress) -> str:
    """Return the counts, the time spent and the time left in one line."""
    counts = progress.counts()
    said = ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s] or s in ("done", "failed"))
    total = sum(counts.values())
    still = counts["waiting"] + counts["running"] + counts["elsewhere"]
    left = (
        ""
        if not still
        else ", time left unknown"
        if progress.left is None
        else f", about {duration(progress.left)} left"
    )
    return f"{total} cell{'' if total == 1 else 's'}: {said}; {duration(progress.seconds)} so far{left}"


class Status:
    """Show a batch's progress on a stream: `tell` as often as it likes, `note` for what happens once."""

    def __init__(self, plan: Plan, stream: TextIOBase) -> None:
        self.plan = plan
        self.stream = stream
        self.live = stream.isatty()
        self._drawn = 0
        self._last = 0.0
        self._said = ""

    def note(self, text: str) -> None:
        """Say a line that stays."""
        if self.live and text.startswith("started"):
            return  # it stands in the table
        self._erase()
        self._write(sentence(text, 2_000) + "\n")

    def tell(self, progress: Progress) -> None:
        """Draw the table anew, or say the summary, when it is time."""
        now = time.monotonic()
        counts = progress.counts()
        over = not (counts["waiting"] + counts["running"] + counts["elsewhere"])
        if now - self._last < EVERY_S[self.live] and not over:
            return
        self._last = now
        if self.live:
            self._erase()
            lines = self._table(progress)
            self._write("".join(f"{line}\n" for line in lines))
            self._drawn = len(lines)
        elif (line := summary(progress)) != self._said:
            self._said = line
            self._write(line + "\n")

    def _table(self, progress: Progress) -> list[str]:
        size = shutil.get_terminal_size((100, 24))
        stages = [s.name for s in self.plan.grid.stages]
        by_stage: dict[str, Counter[str]] = {s: Counter() for s in stages}
        for cell in self.plan.cells:
            by_stage[cell.stage][progress.states[cell.key]] += 1
        shown = [s for s in STATES if any(by_stage[n][s] for n in stages) or s in ("done", "failed")]
        wide = max(map(len, stages))
        lines = [summary(progress), " " * wide + "".join(f"{s:>11}" for s in shown)]
        lines += [f"{n:<{wide}}" + "".join(f"{by_stage[n][s] or '-':>11}" for s in shown) for n in stages]
        running = [c for c in self.plan.cells if progress.states[c.key] == "running"]
        for cell in running[: max(size.lines - len(lines) - 3, 1)]:
            spent = duration(progress.since.get(cell.key, 0.0))
            said = sentence(progress.said.get(cell.key, ""), 300)
            lines.append(f"  {cell.name}  {sentence(cell.said(), 80)}  {spent}  {said}")
        return [line[: size.columns - 1] for line in lines]

    def _erase(self) -> None:
        if self._drawn:
            self._write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
