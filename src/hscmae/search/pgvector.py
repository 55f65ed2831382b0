"""PostgreSQL with pgvector: an index that many programs share, searched and changed at any time.

A table of clips (``id``, ``digest``, ``tags``, a ``vector`` column a space with an HNSW index), and a row about it in
``hscmae_indexes``, whose version says which migrations it had. Values are parameters and names ``sql.Identifier``:
nothing is pasted into a statement. Every change is one transaction and may be done twice, so where a connection breaks
it is done again a few times; what was acknowledged is in the database once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from hscmae.errors import InputError, RunError
from hscmae.extras import require
from hscmae.search.backend import Backend, Float32Array, Tags, digests_of

META = "hscmae_indexes"
TRIES, FIRST_WAIT = 6, 0.25  # seconds, doubled each time: 8 in all
CONNECT_SECONDS = 10
STATEMENT_SECONDS = 600
EFFORT = 200  # hnsw.ef_search
MOST_EFFORT = 1000  # pgvector's own limit
TEMPORARY = ("08", "57P01", "57P02", "57P03", "40001", "40P01", "55P03")
HELP = {
    "25006": "the database is read-only",
    "53100": "the database's disk is full",
    "57014": "the database took longer than the time allowed",
    "42501": "the database's user may not do this",
    "42P01": "the table is gone",
    "28P01": "the database refuses the password",
    "3D000": "there is no such database",
}

T = TypeVar("T")


class PgBackend(Backend):
    """An index in a table.

    Args:
        dsn: a connection string, ``postgresql://user@host/database``.
        table: its name, ``schema.table`` for one of another schema.
        dim, spaces: of a new index; those of an old one must be the same.
        seconds: a statement may take.

    Raises:
        InputError: no index there and no ``dim``, or one of other spaces or of a newer version.
        RunError: the database cannot be reached, or refuses.
    """

    in_folder: ClassVar[bool] = False

    def __init__(
        self, dsn: str, table: str, dim: int = 0, spaces: Sequence[str] = (), *, seconds: float = STATEMENT_SECONDS
    ) -> None:
        self._psycopg = require("psycopg", "pgvector")
        self._sql = require("psycopg.sql", "pgvector")
        self._dsn, self.table, self._seconds = dsn, table, seconds
        self._connection: Any = None
        self._name = self._sql.Identifier(*table.split("."))
        self.dim, self.spaces, self.about = dim, tuple(spaces), {}
        found = self._transaction(self._find)
        if found is None and not dim:
            raise InputError(f"{self._where}: no such index; hscmae index --backend pgvector makes it")
        if found is not None:
            version, old = found
            if version > len(MIGRATIONS):
                raise InputError(f"{self._where}: of version {version}, this release knows {len(MIGRATIONS)}")
            if (dim and old["dim"] != dim) or (spaces and tuple(old["spaces"]) != tuple(spaces)):
                raise InputError(f"{self._where}: an index of {old['dim']} dimensions in {', '.join(old['spaces'])}")
            self.dim, self.spaces, self.about = old["dim"], tuple(old["spaces"]), old["about"]
        if found is None or found[0] < len(MIGRATIONS):
            self._transaction(self._migrate)

    @classmethod
    def at(cls, place: str, table: str, dim: int = 0, spaces: Sequence[str] = ()) -> Self:
        return cls(place, table, dim, spaces)

    @classmethod
    def knows(cls, place: str) -> bool:
        return place.startswith(("postgresql://", "postgres://"))

    def add(self, ids: Sequence[str], vectors: Mapping[str, Float32Array], tags: Sequence[Tags]) -> None:
        s = self._sql
        digests = digests_of(vectors, tags, self.spaces)
        columns = ["id", "digest", "tags", *self.spaces]
        statement = s.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
            self._name,
            s.SQL(", ").join(map(s.Identifier, columns)),
            s.SQL(", ").join([s.Placeholder()] * 3 + [s.SQL("{}::vector").format(s.Placeholder())] * len(self.spaces)),
            s.SQL(", ").join(s.SQL("{0} = EXCLUDED.{0}").format(s.Identifier(c)) for c in columns[1:]),
        )
        rows = [
            (name, digests[i], list(tags[i]), *(_vector(vectors[space][i]) for space in self.spaces))
            for i, name in enumerate(ids)
        ]
        self._transaction(lambda cursor: cursor.executemany(statement, rows))

    def remove(self, ids: Sequence[str]) -> None:
        statement = self._sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._name)
        self._transaction(lambda cursor: cursor.execute(statement, [list(ids)]))

    def search(
        self, space: str, queries: Float32Array, k: int, where: Sequence[str] = ()
    ) -> list[list[tuple[str, float]]]:
        s = self._sql
        statement = s.SQL(
            "SELECT id, 1 - ({0} <=> %(query)s::vector) FROM {1} WHERE {0} IS NOT NULL{2} "
            "ORDER BY {0} <=> %(query)s::vector LIMIT %(k)s"
        ).format(s.Identifier(space), self._name, s.SQL(" AND tags @> %(where)s::text[]" if where else ""))

        def ask(cursor: Any) -> list[list[tuple[str, float]]]:
            # With a filter the graph is walked on, in order, until k clips match.
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor.execute("SET LOCAL hnsw.max_scan_tuples = 2147483647")
            cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(min(max(EFFORT, 2 * k), MOST_EFFORT))])
            found, exact = [], False
            for query in queries:
                values = {"query": _vector(query), "k": k, "where": list(where)}
                rows = cursor.execute(statement, values).fetchall()
                if len(rows) < k and not exact:  # what the graph did not reach, or all there is
                    cursor.execute("SET LOCAL enable_indexscan = off")
                    exact = True
                    rows = cursor.execute(statement, values).fetchall()
                found.append([(str(name), float(score)) for name, score in rows])
            return found

        return self._transaction(ask)

    def count(self) -> int:
        statement = self._sql.SQL("SELECT count(*) FROM {}").format(self._name)
        return int(self._transaction(lambda cursor: cursor.execute(statement).fetchone())[0])

    def digests(self) -> dict[str, str]:
        statement = self._sql.SQL("SELECT id, digest FROM {}").format(self._name)
        return dict(self._transaction(lambda cursor: cursor.execute(statement).fetchall()))

    def bind(self, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        statement = self._sql.SQL("UPDATE {} SET about = %s WHERE name = %s").format(self._sql.Identifier(META))
        self._transaction(lambda cursor: cursor.execute(statement, [self._meta(), self.table]))

    def finish(self) -> None:
        self._transaction(lambda cursor: cursor.execute(self._sql.SQL("ANALYZE {}").format(self._name)))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---------------------------------------------------------------------------------------------------------- inside

    @property
    def _where(self) -> str:
        return f"PostgreSQL table {self.table}"

    def _meta(self) -> str:
        return json.dumps({"dim": self.dim, "spaces": list(self.spaces), "about": self.about})

    def _find(self, cursor: Any) -> tuple[int, dict[str, Any]] | None:
        if cursor.execute("SELECT to_regclass(%s)", [META]).fetchone()[0] is None:
            return None
        select = self._sql.SQL("SELECT version, about FROM {} WHERE name = %s").format(self._sql.Identifier(META))
        row = cursor.execute(select, [self.table]).fetchone()
        return None if row is None else (row[0], row[1])

    def _migrate(self, cursor: Any) -> None:
        """Bring the table to this release's version; several programs at once do it one after the other."""
        s = self._sql
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [META])
        cursor.execute(
            s.SQL(
                "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, version int NOT NULL, about jsonb NOT NULL)"
            ).format(s.Identifier(META))
        )
        found = self._find(cursor)
        for step in MIGRATIONS[found[0] if found else 0 :]:
            step(self, cursor)
        cursor.execute(
            s.SQL(
                "INSERT INTO {} (name, version, about) VALUES (%s, %s, %s) "
                "ON CONFLICT (name) DO UPDATE SET version = EXCLUDED.version"
            ).format(s.Identifier(META)),
            [self.table, len(MIGRATIONS), self._meta()],
        )

    def _make_table(self, cursor: Any) -> None:
        s = self._sql
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        if cursor.execute("SELECT to_regclass(%s)", [self._name.as_string(cursor)]).fetchone()[0] is not None:
            raise InputError(f"{self._where}: is there already and was not made by hscmae; name another with --table")
        columns = [s.SQL("{} vector({})").format(s.Identifier(m), s.Literal(self.dim)) for m in self.spaces]
        cursor.execute(
            s.SQL("CREATE TABLE {} (id text PRIMARY KEY, digest text NOT NULL, {})").format(
                self._name, s.SQL(", ").join(columns)
            )
        )
        for space in self.spaces:
            cursor.execute(
                s.SQL("CREATE INDEX ON {} USING hnsw ({} vector_cosine_ops)").format(self._name, s.Identifier(space))
            )

    def _add_tags(self, cursor: Any) -> None:
        s = self._sql
        cursor.execute(s.SQL("ALTER TABLE {} ADD COLUMN tags text[] NOT NULL DEFAULT '{{}}'").format(self._name))
        cursor.execute(s.SQL("CREATE INDEX ON {} USING gin (tags)").format(self._name))

    def _transaction(self, work: Callable[[Any], T]) -> T:
        """``work`` in a transaction; begun again on a new connection, a few times, where the connection breaks."""
        for attempt in range(TRIES):
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = self._psycopg.connect(
                        self._dsn,
                        connect_timeout=CONNECT_SECONDS,
                        options=f"-c statement_timeout={int(self._seconds * 1000)}",
                    )
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    return work(cursor)
            except self._psycopg.Error as error:
                state = getattr(error, "sqlstate", None)
                lost = isinstance(error, (self._psycopg.OperationalError, self._psycopg.InterfaceError))
                temporary = (lost and state is None) or (state or "").startswith(TEMPORARY)
                self._drop()
                if not temporary or attempt == TRIES - 1:
                    what = HELP.get(state or "", " ".join(str(error).split())[:200])
                    tried = f" (tried {TRIES} times)" if temporary else ""
                    raise RunError(f"{self._where}: {what}{tried}") from error
            except BaseException:
                self._drop()
                raise
            time.sleep(FIRST_WAIT * 2**attempt)
        raise AssertionError("unreachable")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


MIGRATIONS: tuple[Callable[[PgBackend, Any], None], ...] = (PgBackend._make_table, PgBackend._add_tags)


def _vector(x: Any) -> str | None:
    """A vector as pgvector reads it; ``None`` for zeros, which have no direction."""
    row = np.asarray(x, np.float32)
    return "[" + ",".join(map(repr, row.tolist())) + "]" if row.any() else None
