"""The README's film: it is there, it plays as long as promised, and it is small enough to load."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.film import LARGEST_MIB, LONGEST_S, OUT, SHORTEST_S, WIDTH

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_film_of_the_readme_is_short_small_and_shown_first() -> None:
    assert OUT.stat().st_size <= LARGEST_MIB * 2**20
    with Image.open(OUT) as film:
        seconds = 0.0
        for n in range(film.n_frames):
            film.seek(n)
            film.load()
            seconds += film.info["duration"] / 1000
        assert film.size[0] == WIDTH
        assert SHORTEST_S <= seconds <= LONGEST_S
    text = README.read_text("utf-8")
    assert text.index(f"](docs/{OUT.name})") < text.index("](docs/report.png)")
