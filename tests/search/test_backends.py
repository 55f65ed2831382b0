"""Every backend does what a dictionary and exact search do, whatever is added, removed, reopened or killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hscmae.errors import InputError, RunError
from hscmae.search import faiss as faiss_module
from hscmae.search import lancedb as lancedb_module
from hscmae.search.backend import Backend
from hscmae.search.exact import ExactSearch
from hscmae.search.faiss import FaissBackend
from hscmae.search.index import BACKENDS
from hscmae.search.lancedb import LanceBackend
from hscmae.search.pgvector import PgBackend
from search import writer
from search.server import Server, started
from search.writer import unit

DIM, SPACES = writer.DIM, writer.SPACES
MODULES = {"faiss": "faiss", "lancedb": "lancedb", "pgvector": "psycopg"}  # of backends that need an extra
Open = Callable[..., Backend]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    yield from started()


@pytest.fixture(params=BACKENDS)
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    return name


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "pgvector":
        return str(request.getfixturevalue("postgres").uri)
    return str(tmp_path / "index")


@pytest.fixture
def table() -> Iterator[str]:
    yield f'odd "{time.monotonic_ns()}; DROP TABLE'  # a name is an identifier, never a statement


def clips(rng: np.random.Generator, n: int, dim: int = DIM) -> dict[str, np.ndarray]:
    return {space: unit(rng.standard_normal((n, dim))) for space in SPACES}


def opened(kind: str, place: str, table: str, dim: int = DIM) -> Backend:
    return BACKENDS[kind].at(place, table, dim, SPACES)


def require_equal(backend: Backend, expected: dict[str, tuple[np.ndarray, ...]], tags: dict[str, list[str]]) -> None:
    """Counts, and results of some queries with and without a filter, equal exact search over a dictionary."""
    assert backend.count() == len(expected)
    assert backend.digests().keys() == expected.keys()
    queries = unit(np.random.default_rng(7).standard_normal((3, DIM)))
    for place, space in enumerate(SPACES):
        for where in ((), ("odd=yes",)):
            names = sorted(name for name, x in expected.items() if x[place].any() and set(where) <= set(tags[name]))
            found = backend.search(space, queries, 5, where)
            if not names:
                assert found == [[], [], []]
                continue
            best = ExactSearch(np.stack([expected[name][place] for name in names]))(queries, 5)
            for results, rows, scores in zip(found, best.rows, best.scores, strict=True):
                np.testing.assert_allclose([score for _, score in results], scores, atol=1e-5)
                assert len({name for name, _ in results}) == len(rows)
                if np.diff(scores).max(initial=-1) < -1e-4:  # no two so near that rounding may swap them
                    assert [name for name, _ in results] == [names[row] for row in rows]


STEP = st.tuples(st.sampled_from(["add", "add", "remove", "reopen"]), st.integers(0, 2**16))


@given(st.lists(STEP, min_size=1, max_size=8))
@example([("add", 0), ("reopen", 0), ("remove", 0)])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_like_a_dictionary(kind: str, place: str, steps: list[tuple[str, int]]) -> None:
    unique = time.monotonic_ns()
    here = place if kind == "pgvector" else f"{place}-{unique}"
    backend = opened(kind, here, f"t{unique}")
    expected: dict[str, tuple[np.ndarray, ...]] = {}
    tags: dict[str, list[str]] = {}
    for what, seed in steps:
        rng = np.random.default_rng(seed)
        ids = [f"it's {i}/ä" for i in rng.choice(12, rng.integers(1, 8), replace=False)]
        if what == "add":
            x = clips(rng, len(ids))
            x["visual"][rng.random(len(ids)) < 0.2] = 0
            own = [["odd=yes", "kind='x'"] if rng.random() < 0.5 else [] for _ in ids]
            backend.add(ids, x, own)
            expected |= {name: tuple(x[space][i] for space in SPACES) for i, name in enumerate(ids)}
            tags |= dict(zip(ids, own, strict=True))
        elif what == "remove":
            backend.remove([*ids, "never there"])
            for name in ids:
                expected.pop(name, None)
        else:
            backend.close()
            backend = opened(kind, here, f"t{unique}")
    require_equal(backend, expected, tags)
    backend.close()


def test_a_thousand_queries_equal_exact_search(kind: str, place: str, table: str) -> None:
    rng = np.random.default_rng(0)
    x, queries = clips(rng, 1500, 16), unit(rng.standard_normal((1000, 16)))
    with opened(kind, place, table, 16) as backend:
        names = [str(i) for i in range(1500)]
        backend.add(names, x, [[f"tenth={i % 10}"] for i in range(1500)])
        backend.finish()
        found = backend.search("audio", queries, 10)
        expected = ExactSearch(x["audio"])(queries, 10).rows
        hits = sum(len({int(n) for n, _ in a} & set(b)) for a, b in zip(found, expected.tolist(), strict=True))
        assert hits / expected.size >= (0.9999 if kind == "lancedb" else 0.98)
        rare = backend.search("audio", queries[:20], 20, ["tenth=3"])
        rows = np.arange(3, 1500, 10)
        best = ExactSearch(x["audio"])(queries[:20], 20, rows=rows).rows
        for results, row in zip(rare, best.tolist(), strict=True):
            assert len(results) == 20 and {int(n) % 10 for n, _ in results} == {3}
            assert len({int(n) for n, _ in results} & set(row)) >= 19


def test_a_graph_with_a_filter_gives_k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(faiss_module, "FEW", 10)
    rng = np.random.default_rng(0)
    x, queries = clips(rng, 3000, 16), unit(rng.standard_normal((100, 16)))
    with FaissBackend(tmp_path / "i", 16, SPACES) as backend:
        backend.add([str(i) for i in range(3000)], x, [[f"part={i % 5}"] for i in range(3000)])
        backend.remove([str(i) for i in range(0, 3000, 50)])
    backend = FaissBackend(tmp_path / "i")
    left = np.setdiff1d(np.arange(3000), np.arange(0, 3000, 50))
    for where, rows in (((), left), (("part=2",), left[left % 5 == 2])):
        found = backend.search("audio", queries, 10, where)
        best = ExactSearch(x["audio"])(queries, 10, rows=rows).rows
        hits = sum(len({int(n) for n, _ in a} & set(b)) for a, b in zip(found, best.tolist(), strict=True))
        assert all(len(results) == 10 for results in found)
        assert hits / best.size > 0.9
    assert backend.count() == len(left)


def test_an_index_of_lancedb_looks_into_labels_and_reads_no_other_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lancedb")
    monkeypatch.setattr(lancedb_module, "MANY", 1000)
    rng = np.random.default_rng(0)
    x, queries = clips(rng, 3000, 16), unit(rng.standard_normal((100, 16)))
    silent = np.arange(3000) % 7 == 0
    x["audio"][silent] = 0
    with LanceBackend(str(tmp_path / "i"), 16, SPACES) as backend:
        backend.add([str(i) for i in range(3000)], x, [[f"part={i % 5}", f"half={i % 2}"] for i in range(3000)])
        backend.finish()
        asked = backend._table.search(queries[0], vector_column_name="audio")
        assert "ScalarIndexQuery" in asked.where(lancedb_module.carries(["part=2"]), prefilter=True).explain_plan()
        heard = np.flatnonzero(~silent)
        for where, rows in (((), heard), (("part=2", "half=1"), heard[(heard % 5 == 2) & (heard % 2 == 1)])):
            found = backend.search("audio", queries, 10, where)
            best = ExactSearch(x["audio"])(queries, 10, rows=rows).rows
            hits = sum(len({int(n) for n, _ in a} & set(b)) for a, b in zip(found, best.tolist(), strict=True))
            assert all(len(results) == 10 for results in found)
            assert hits / best.size > 0.95


def test_another_dimension_or_other_spaces_are_refused(kind: str, place: str, table: str) -> None:
    opened(kind, place, table).close()
    with pytest.raises(InputError, match=f"an index of {DIM} dimensions in audio, visual"):
        opened(kind, place, table, DIM + 1)


# ---------------------------------------------------------------------------------------------------------------- kills


def acknowledged(kind: str, place: str, seed: int, while_running: Callable[[], None] = lambda: None) -> int:
    """Run the writer, kill it after a while; how many changes it acknowledged."""
    rng = np.random.default_rng(seed)
    process = subprocess.Popen(
        [sys.executable, "-m", "search.writer", kind, place, str(seed)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline().strip()]
    assert said == ["ready"]
    for _ in range(rng.integers(1, 8)):
        said.append(process.stdout.readline().strip())
    while_running()
    time.sleep(float(rng.uniform(0, 0.05)))
    process.kill()
    said += process.stdout.read().split()
    process.wait()
    return int(said[-1]) + 1


def require_replayed(backend: Backend, seed: int, changes: int) -> None:
    """The index is what the acknowledged changes make, or those and the one that was under way."""
    actual = backend.digests()
    assert backend.count() == len(actual)
    states = []
    for upto in (changes, changes + 1):
        state: dict[str, tuple[np.ndarray, ...]] = {}
        tags: dict[str, list[str]] = {}
        for number in range(upto):
            ids, vectors = writer.change(seed, number)
            for i, name in enumerate(ids):
                if vectors is None:
                    state.pop(name, None)
                else:
                    state[name] = tuple(vectors[space][i] for space in SPACES)
                    tags[name] = [f"number={number}"]
        states.append((state, tags))
    from hscmae.search.backend import digest_of

    for state, tags in states:
        if actual == {name: digest_of(x, tags[name]) for name, x in state.items()}:
            require_equal(backend, state, tags)
            return
    raise AssertionError("neither with nor without the change that was under way")


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 26))])
def test_a_killed_writer_loses_nothing_that_it_was_told_is_kept(
    kind: str, place: str, seed: int, request: pytest.FixtureRequest
) -> None:
    if kind == "pgvector":
        clear(place)
    changes = acknowledged(kind, place, seed)
    if kind == "pgvector":
        wait_for_the_last_statement(place)
    with opened(kind, place, writer.TABLE) as backend:
        require_replayed(backend, seed, changes)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 27))])
def test_a_killed_server_loses_and_doubles_nothing(postgres: Server, seed: int) -> None:
    clear(postgres.uri)
    rng = np.random.default_rng(seed)
    backend = PgBackend(postgres.uri, writer.TABLE, DIM, SPACES)
    done = 0

    def kill() -> None:
        time.sleep(float(rng.uniform(0, 0.1)))
        postgres.kill()
        postgres.start()

    threads = threading.Thread(target=kill)
    threads.start()
    for number in range(12):
        writer.apply(backend, seed, number)
        done = number + 1
        time.sleep(0.01)
    threads.join()
    backend.close()
    with PgBackend(postgres.uri, writer.TABLE) as again:
        require_replayed(again, seed, done)


def wait_for_the_last_statement(uri: str) -> None:
    """A server goes on with what a killed client asked last, and may commit it later than the first look."""
    import psycopg

    with psycopg.connect(uri, autocommit=True) as connection:
        others = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        while connection.execute(others).fetchone() is not None:
            time.sleep(0.02)


def clear(uri: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(uri) as connection:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(writer.TABLE)))
        if connection.execute("SELECT to_regclass('hscmae_indexes')").fetchone()[0] is not None:  # type: ignore[index]
            connection.execute("DELETE FROM hscmae_indexes WHERE name = %s", [writer.TABLE])


# ------------------------------------------------------------------------------------------------------------ damage


def test_faiss_reads_nothing_that_was_changed(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    folder = tmp_path / "index"
    with FaissBackend(folder, DIM, SPACES) as backend:
        backend.add(["a", "b"], clips(np.random.default_rng(0), 2), [[], []])
    files = sorted(folder.glob("*-*"))
    assert len(files) == 3
    for file in files:
        content = file.read_bytes()
        for damaged in (content[:-1], content[:10] + bytes([content[10] ^ 1]) + content[11:], b""):
            file.write_bytes(damaged)
            with pytest.raises(InputError, match="SHA-256 differs"):
                FaissBackend(folder)
        file.unlink()
        with pytest.raises(InputError, match="missing"):
            FaissBackend(folder)
        file.write_bytes(content)
    manifest = (folder / "manifest.json").read_text()
    for text in ("", "[]", "{}", manifest[:-9], manifest.replace('"version": 1', '"version": 9'), "[" * 10_000):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(InputError):
            FaissBackend(folder)
    (folder / "manifest.json").write_text(manifest.replace(files[0].name, "../" + files[0].name))
    with pytest.raises(InputError, match="missing"):
        FaissBackend(folder)


def test_lancedb_truncated_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    folder = tmp_path / "index"
    with LanceBackend(str(folder), DIM, SPACES) as backend:
        backend.add(["a", "b"], clips(np.random.default_rng(0), 2), [[], []])
    for file in (folder / "clips.lance").rglob("*.lance"):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises((InputError, RunError), match="LanceDB"):
        LanceBackend(str(folder)).search("audio", np.eye(1, DIM, dtype=np.float32), 1)


def test_lancedb_leaves_anothers_table_alone(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    lancedb.connect(str(tmp_path)).create_table("clips", [{"theirs": 1}])
    with pytest.raises(InputError, match="holds a table 'clips' that hscmae did not make"):
        LanceBackend(str(tmp_path), DIM, SPACES)
    assert lancedb.connect(str(tmp_path)).open_table("clips").to_arrow()["theirs"].to_pylist() == [1]


# ---------------------------------------------------------------------------------------------------------- PostgreSQL


def test_an_old_table_is_migrated(postgres: Server, table: str) -> None:
    from hscmae.search import pgvector

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgvector, "MIGRATIONS", pgvector.MIGRATIONS[:1])
        PgBackend(postgres.uri, table, DIM, SPACES).close()
    with PgBackend(postgres.uri, table, DIM, SPACES) as backend:
        backend.add(["a"], clips(np.random.default_rng(0), 1), [["x=y"]])
        assert [n for n, _ in backend.search("audio", np.eye(1, DIM, dtype=np.float32), 3, ["x=y"])[0]] == ["a"]


def test_what_the_database_refuses_is_said(postgres: Server, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg
    from psycopg import sql

    from hscmae.search import pgvector

    monkeypatch.setattr(pgvector, "FIRST_WAIT", 0.001)
    with PgBackend(postgres.uri, table, DIM, SPACES) as backend:
        one = clips(np.random.default_rng(0), 1)
        backend.add(["a"], one, [[]])
        with pytest.raises(RunError, match="read-only"):
            backend._transaction(
                lambda c: (c.execute("SET TRANSACTION READ ONLY"), c.execute("CREATE TABLE no (x int)"))
            )
        with pytest.raises(RunError, match="longer than the time allowed"):
            PgBackend(postgres.uri, table, seconds=0.05)._transaction(lambda c: c.execute("SELECT pg_sleep(5)"))
        assert backend.count() == 1
        with psycopg.connect(postgres.uri) as connection:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))
        with pytest.raises(RunError, match="the table is gone"):
            backend.count()
    with pytest.raises(RunError, match=r"tried 6 times"):
        PgBackend("postgresql://postgres@127.0.0.1:1/postgres", table)
    with pytest.raises(InputError, match="no such index"):
        PgBackend(postgres.uri, "never made")
    with psycopg.connect(postgres.uri) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS theirs (x int)")
    with pytest.raises(InputError, match="not made by hscmae"):
        PgBackend(postgres.uri, "theirs", DIM, SPACES)


def test_a_broken_connection_is_made_anew(postgres: Server, table: str) -> None:
    import psycopg

    with PgBackend(postgres.uri, table, DIM, SPACES) as backend:
        for number in range(3):
            ids, x = [f"{number} {i}" for i in range(5)], clips(np.random.default_rng(number), 5)
            with psycopg.connect(postgres.uri) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [backend._connection.info.backend_pid])
            backend.add(ids, x, [[]] * 5)
        assert backend.count() == 15
