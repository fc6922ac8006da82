"""Records, files, store, provenance, errors: nothing is lost, nothing is half written, every damage has a name."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.errors import refuses
from workbench.core import errors, files
from workbench.core.errors import NotPresent, RecordError, StorageFull, WorkbenchError, nearest
from workbench.core.files import atomic_file, atomic_folder, cache_folder
from workbench.core.progress import Progress
from workbench.core.provenance import Stopwatch, package_versions, settings_of, source_commit
from workbench.core.records import SCHEMA, Estimate, Row, RunRecord, load, save
from workbench.core.results import rows_json
from workbench.core.store import Store, key_of
from workbench.core.threads import SPINS, share_the_cores
from workbench.tracing.records import Curve, HeatMap

FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.floats(width=32)


def curve(**changes: Any) -> Curve:
    fields: dict[str, Any] = {
        "name": "kl_aligned_base_nats", "label": "harmful", "prefix_tokens": None, "unit": "nats",
        "position": np.arange(1, 4, dtype=np.int32), "value": np.array([1.0, np.nan, np.inf], np.float32),
        "low": np.array([0.5, np.nan, 0.0], np.float32), "high": np.array([1.5, np.nan, 0.0], np.float32),
        "n": np.array([8, 0, 2], np.int32),
    }  # fmt: skip
    return Curve(**{**fields, **changes})


def long_curve() -> Curve:
    long = np.zeros(100_000, np.float32)
    counts = np.zeros(100_000, np.int32)
    return curve(value=long, low=long, high=long, position=counts, n=counts)


@dataclasses.dataclass(frozen=True)
class Config:
    prefix_tokens: tuple[int, ...] = (0, 5)
    names: tuple[str, ...] = ("a", "ü")
    place: Path = Path("x")
    nested: Any = None


@given(
    value=hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=1, min_side=0), elements=ANYTHING),
    label=st.text(),
    prefix=st.none() | st.integers(0, 2**31),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_record_comes_back_equal(tmp_path: Path, value: np.ndarray, label: str, prefix: int | None) -> None:
    n = np.zeros(len(value), np.int32)
    made = curve(value=value, low=value, high=value, n=n, position=n, label=label, prefix_tokens=prefix)
    assert load(save(made, tmp_path / "curve"), Curve) == made


@given(
    st.lists(
        st.builds(Row, name=st.text(), arm=st.none() | st.text(), value=st.none() | FINITE),
        unique_by=lambda r: (r.name, r.arm),
    )
)
def test_rows_are_readable_json_and_missing_is_null_not_zero(rows: list[Row]) -> None:
    read = json.loads(rows_json(rows))["rows"]
    assert [Row(**r) for r in read] == rows
    assert all(r["position"] is None for r in read)


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"n": np.array([8, 0, 3], np.int32)}, {"low": np.zeros(3, np.float32)}]
)
def test_records_that_differ_anywhere_are_not_equal(change: dict[str, Any]) -> None:
    assert curve() != curve(**change)
    assert curve() != "a curve"


def test_records_come_back_equal_with_axes_and_sequences(tmp_path: Path) -> None:
    assert load(save(curve(), tmp_path / "curve"), Curve) == curve()
    record = Stopwatch("trace", Config(nested={"a": [1, [2, 3]]})).record(resolved={"batch": (4, 5)}, seed=1)
    assert load(save(record, tmp_path / "run"), RunRecord) == record
    made = HeatMap(
        name="retention",
        label="harmful",
        prefix_tokens=np.array([0, 5], np.int32),
        position=np.array([1, 2, 3], np.int32),
        value=np.arange(6, dtype=np.float32).reshape(2, 3),
        n=np.ones((2, 3), np.int32),
    )
    assert load(save(made, tmp_path / "map"), HeatMap).value.shape == (2, 3)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", ["record.json", "arrays.safetensors"])
@pytest.mark.parametrize("damage", [_cut, Path.unlink, lambda p: p.write_bytes(b"")], ids=["cut", "gone", "empty"])
def test_a_damaged_record_is_named_as_such(tmp_path: Path, file: str, damage: Any) -> None:
    folder = save(curve(), tmp_path / "curve")
    damage(folder / file)
    with pytest.raises((RecordError, NotPresent), match="curve"):
        load(folder, Curve)


def test_records_keep_axes_kinds_and_schemas(tmp_path: Path) -> None:
    refuses(lambda: curve(value=np.zeros((2, 2), np.float32)), Exception, "value")
    assert str(Estimate(value=None, low=None, high=None, n=0, unit="nats")) == "no data (n = 0)"
    assert str(Estimate(value=0.5, low=0.25, high=0.75, n=9, unit="nats")) == "0.5 [0.25, 0.75] nats (n = 9)"
    save(curve(), tmp_path / "curve")
    save(curve(name="other"), tmp_path / "curve")
    assert (load(tmp_path / "curve", Curve).name, [p.name for p in tmp_path.iterdir()]) == ("other", ["curve"])
    folder = save(curve(), tmp_path / "curve")
    refuses(lambda: load(folder, HeatMap), RecordError, "Curve", "HeatMap")
    text = (folder / "record.json").read_text("utf-8").replace(f'"schema": {SCHEMA}', '"schema": 99')
    (folder / "record.json").write_text(text, "utf-8")
    refuses(lambda: load(folder, Curve), RecordError, "schema 99", str(SCHEMA))
    refuses(lambda: load(tmp_path / "nowhere", Curve), NotPresent, "record.json")


def _write_half(partial: Path, error: BaseException) -> None:
    (partial / "record.json").write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_in_the_middle_leaves_the_old_content(tmp_path: Path, error: BaseException) -> None:
    save(curve(), tmp_path / "curve")
    with pytest.raises(type(error)), atomic_folder(tmp_path / "curve") as partial:
        _write_half(partial, error)
    assert (load(tmp_path / "curve", Curve), [p.name for p in tmp_path.iterdir()]) == (curve(), ["curve"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path, monkeypatch, number) -> None:
    save(curve(), tmp_path / "curve")

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    refuses(lambda: save(curve(name="other"), tmp_path / "curve"), StorageFull, "disk")
    store = Store(tmp_path / "store")
    refuses(lambda: store.write({"a" * 32: {"x": np.ones(3)}}), StorageFull, "disk")
    assert len(store) == 0
    monkeypatch.undo()
    assert load(tmp_path / "curve", Curve) == curve()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["arrays.safetensors", "record.json"]


def test_a_file_or_folder_appears_only_when_complete(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("new")
        assert not (tmp_path / "folder").exists()
    with atomic_file(tmp_path / "deep" / "file") as partial:
        partial.write_text("new")
        assert not (tmp_path / "deep" / "file").exists()
    assert (tmp_path / "folder" / "a").read_text() == (tmp_path / "deep" / "file").read_text() == "new"
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError), atomic_file(tmp_path / "file" / "below"):
        pass


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """Mount a file system of 64 KiB; skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(("umount", str(folder)), check=True)


def test_a_truly_full_disk_loses_nothing(tiny_disk: Path) -> None:
    save(curve(), tiny_disk / "curve")
    store = Store(tiny_disk / "store")
    store.write({"a" * 32: {"x": np.ones(8)}})
    large = np.zeros(100_000, np.float32)
    refuses(lambda: save(long_curve(), tiny_disk / "curve"), StorageFull, "disk")
    refuses(lambda: store.write({"b" * 32: {"x": large}}), StorageFull, "disk")
    assert load(tiny_disk / "curve", Curve) == curve()
    assert "a" * 32 in Store(tiny_disk / "store")
    assert "b" * 32 not in Store(tiny_disk / "store")


def test_a_file_larger_than_allowed_leaves_the_old_one(tmp_path: Path) -> None:
    """The same with a real limit that needs no rights: the process may write files of at most 64 KiB."""
    save(curve(), tmp_path / "curve")
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_foundations import long_curve, save\n"
        "print('go', flush=True); save(long_curve(), sys.argv[1])"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    words = (sys.executable, "-c", script, str(tmp_path / "curve"), str(Path(__file__).parent))
    done = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.stdout == "go\n"
    assert "File too large" in done.stderr
    assert load(tmp_path / "curve", Curve) == curve()


def entry(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"ids": rng.integers(0, 9, 5).astype(np.int32), "kl": rng.random((5, 3), dtype=np.float32)}


def test_a_store_keeps_whole_entries_or_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({key_of("a"): entry(1), key_of("b"): entry(2)})
    store.write({key_of("c"): entry(3)})
    for reader in (store, Store(tmp_path)):
        assert len(reader) == 3
        assert key_of("d") not in reader
        for name, seed in (("a", 1), ("b", 2), ("c", 3)):
            read = reader.read(key_of(name))
            assert read.keys() == entry(seed).keys()
            assert all(np.array_equal(read[k], v) for k, v in entry(seed).items())
    folder = tmp_path / "torn"
    store = Store(folder)
    store.write({key_of("a"): entry(1)})
    kept = set(folder.iterdir())
    store.write({key_of("b"): entry(2)})
    (torn,) = set(folder.iterdir()) - kept
    _cut(torn)
    again = Store(folder)
    assert key_of("a") in again
    assert key_of("b") not in again
    assert not torn.exists()
    store = Store(None)
    store.write({key_of("a"): entry(1)})
    assert key_of("a") not in store
    assert len(Store(tmp_path / "not yet there")) == 0


def test_a_writer_killed_at_any_moment_leaves_whole_entries(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_foundations import Store, entry, key_of\n"
        "store = Store(sys.argv[1]); print('go', flush=True)\n"
        "for i in range(10**6): store.write({key_of(i): entry(i)})"
    )
    words = (sys.executable, "-c", script, str(tmp_path / "store"), str(Path(__file__).parent))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        time.sleep(0.3)
        writer.kill()
    store = Store(tmp_path / "store")
    assert len(store) > 0
    for i in range(len(store)):
        read = store.read(key_of(i))
        assert all(np.array_equal(read[k], v) for k, v in entry(i).items())


@given(st.lists(st.text() | st.integers() | st.none()), st.lists(st.text() | st.integers() | st.none()))
def test_keys_are_equal_exactly_when_the_parts_are(one: list[Any], two: list[Any]) -> None:
    assert (key_of(*one) == key_of(*two)) == (one == two)


def test_a_run_record_states_settings_versions_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Stopwatch("trace", Config()).record(resolved={"names": ["b"]}, seed=7, device="cpu", fingerprint="f")
    assert record.asked["prefix_tokens"] == (0, 5)
    assert record.asked["names"] == ("a", "ü")
    assert record.resolved == {**record.asked, "names": ("b",)}
    assert (record.seed, record.device, record.fingerprint) == (7, "cpu", "f")
    assert record.seconds >= 0
    assert record.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    json.dumps(settings_of(Config()))
    assert {"torch", "transformers", "numpy", "safetensors"} <= package_versions().keys()
    commit, dirty = source_commit()
    assert commit is None or len(commit) == 40
    assert (dirty is None) == (commit is None)
    monkeypatch.setenv("PATH", "/nowhere")
    source_commit.cache_clear()
    assert source_commit() == (None, None)
    source_commit.cache_clear()


def test_the_cache_errors_and_progress_have_their_rules(root: Path, own_cache, monkeypatch) -> None:
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if k is not WorkbenchError]
    assert len(kinds) > 8
    for kind in kinds:
        assert issubclass(kind, WorkbenchError)
        assert any(base.__module__ == "builtins" and base is not Exception for base in kind.__mro__[1:-3]), kind
        assert kind.__doc__
    assert nearest("limt", ("limit", "seed")) == "did you mean 'limit'?"
    assert nearest("zzz", ("limit", "seed")) == "known: limit, seed"
    assert "*.partial-*" in (root / ".gitignore").read_text().split()
    assert ".partial-" in files._partial_name(Path("x")).name
    assert cache_folder() == own_cache
    monkeypatch.delenv("WORKBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/deep-alignment-workbench")
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("workbench.core.progress.time.monotonic", lambda: next(clock))
    progress = Progress(None, 100, "steps")
    progress.skip(80)
    progress.advance(5)
    assert progress._text() == ": 85/100 steps, about 30 s left"


def test_idle_threads_sleep_soon_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("workbench.core.threads._visible_cores", lambda: 8)
    quota = tmp_path / "cpu.max"
    for text, asked, want in (
        ("max 100000", {}, {"GOMP_SPINCOUNT": SPINS}),
        ("150000 100000", {}, {"GOMP_SPINCOUNT": SPINS, "OMP_NUM_THREADS": "2"}),
        ("1600000 100000", {}, {"GOMP_SPINCOUNT": SPINS}),
        ("50000 100000", {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "7"}, {}),
        ("max 100000", {"OMP_WAIT_POLICY": "active"}, {}),
    ):
        quota.write_text(text)
        found = dict(asked)
        share_the_cores(found, quota)
        assert found == asked | want
    found = {}
    share_the_cores(found, tmp_path / "no container")
    assert found == {"GOMP_SPINCOUNT": SPINS}
    monkeypatch.setitem(sys.modules, "torch", object())
    share_the_cores(found := {}, quota)
    assert found == {}  # too late: libgomp has read them


def test_every_process_that_imports_the_workbench_first_has_the_setting() -> None:
    code = "import workbench, os; print(os.environ['GOMP_SPINCOUNT'])"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == SPINS
