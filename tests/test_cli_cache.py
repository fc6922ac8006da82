"""`workbench cache`: what is stored is listed by kind, and only what is asked for and idle is removed."""

from __future__ import annotations

import mmap
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.errors import refuses
from workbench import __main__ as cli
from workbench.core.errors import ParameterError, UnknownName
from workbench.core.files import cache_folder
from workbench.running.cache import KINDS, cached, chosen, clear, listing

DAY = 86_400


def put(where: str, size: int = 10, *, days: float = 3.0) -> Path:
    """Write a file into the cache that was last changed that many days ago, its folders too."""
    path = cache_folder() / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    for each in (path, *path.relative_to(cache_folder()).parents[:-1]):
        there = each if each.is_absolute() else cache_folder() / each
        os.utime(there, (time.time() - days * DAY,) * 2)
    return path


def kept() -> set[str]:
    return {str(p.relative_to(cache_folder())) for p in cache_folder().rglob("*") if p.is_file()}


def test_every_kind_is_listed_with_size_and_age(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache"]) == 0
    assert "0 in " in capsys.readouterr().out
    put("models/a/model.safetensors", 2_500_000)
    put("store/1.safetensors", 1000, days=5)
    put("store/2.safetensors", 1000, days=2)
    put("something-else/file")
    assert cli.main(["cache"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["a", "2.5", "MB", "3", "d", "ago"] in lines
    assert next(line for line in lines if line[0] == "store")[-5:] == ["2.0", "kB", "2", "d", "ago"]
    assert lines[-1][:2] == ["all", "3"]
    assert "something-else" not in out
    assert cli.main(["cache", "--all"]) == 0
    assert "1.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_has_just_changed_stays(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(f"{kind}/new", days=0)
    assert (cli.main(["cache", "clear", "--kind", kind, "--yes"]), kept()) == (0, {f"{kind}/new"})
    assert f"{kind}/new stays: changed under a minute ago" in capsys.readouterr().out


def test_what_is_being_written_or_trained_stays(capsys: pytest.CaptureFixture[str]) -> None:
    put("store/old.safetensors", days=30)
    put("store/new.safetensors", days=0)
    assert cli.main(["cache", "clear", "--older-than", "7d", "--yes"]) == 0
    assert kept() == {"store/old.safetensors", "store/new.safetensors"}
    shutil.rmtree(cache_folder() / "store")
    put("trainings/recovery-1.training/training.json", days=0.5)
    put("trainings/recovery-2.training/training.json", days=2)
    assert cli.main(["cache", "clear", "--kind", "trainings", "--yes"]) == 0
    assert kept() == {"trainings/recovery-1.training/training.json"}
    assert "an unfinished training" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say which files are mapped")
def test_weights_that_a_process_has_open_stay() -> None:
    file = put("models/a/model.safetensors", 10_000)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ):
        (item,) = cached()
        assert item.in_use == "open in a process"
        assert clear([item]) == (0, ["models/a stays: open in a process"])
    freed, left = clear(cached())
    assert (freed, left, kept()) == (10_000, [], set())


def test_nothing_outside_the_cache_is_removed(tmp_path: Path) -> None:
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / "thesis.txt").write_text("years of work")
    os.utime(outside / "thesis.txt", (0, 0))
    put("models/real/file")
    (cache_folder() / "models" / "link").symlink_to(outside)
    (cache_folder() / "trainings").symlink_to(outside)
    items = cached()
    assert {(i.kind, i.name) for i in items} == {("models", "link"), ("models", "real")}
    os.utime(cache_folder() / "models" / "link", (0, 0), follow_symlinks=False)
    clear(cached())
    assert (outside / "thesis.txt").read_text() == "years of work"
    assert not (cache_folder() / "models" / "link").is_symlink()
    shutil.rmtree(cache_folder())
    put("models/a/file")
    (item,) = cached()
    freed, left = clear([item], tmp_path)
    assert freed == 0
    assert "is not in the cache folder" in left[0]
    assert kept() == {"models/a/file"}


def test_clearing_takes_what_matches_and_asks_first(capsys, monkeypatch) -> None:
    put("trainings/recovery-1/adapter", days=9)
    put("trainings/recovery-2/adapter", days=2)
    put("trainings/paper-1/adapter", days=9)
    put("store/1.safetensors", days=9)
    command = ["cache", "clear", "--kind", "trainings", "--name", "recovery-*", "--older-than", "7d", "--yes"]
    assert cli.main(command) == 0
    assert kept() == {"trainings/recovery-2/adapter", "trainings/paper-1/adapter", "store/1.safetensors"}
    assert (cli.main(["cache", "clear", "--everything", "--yes"]), kept()) == (0, set())
    put("models/a/file")
    assert cli.main(["cache", "clear"]) == 2
    assert "--everything" in capsys.readouterr().err
    assert cli.main(["cache", "clear", "--everything"]) == 2
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, left in (("", {"models/a/file"}), ("no", {"models/a/file"}), ("y", set())):
        monkeypatch.setattr("builtins.input", lambda question, said=answer: said)
        assert (cli.main(["cache", "clear", "--everything"]), kept()) == (0, left)


def test_misspelt_options_are_named_and_no_match_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    refuses(lambda: chosen((), kinds=["stor"]), UnknownName, "'store'")
    for age in ("7", "d", "7 years", "-1d"):
        with pytest.raises(ParameterError):
            chosen((), older_than=age)
    assert cli.main(["cache", "clear", "--kind", "nothing", "--yes"]) == 2
    assert "'nothing'" in capsys.readouterr().err
    put("models/a/file")
    assert cli.main(["cache", "clear", "--name", "b*", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing in the cache matches\n"
    assert listing(()).splitlines()[-1].startswith("all")
