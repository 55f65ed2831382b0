"""``index``, for what outgrows exact search."""

from __future__ import annotations

from typing import Annotated

import typer

from hscmae.cli.options import Archived, Json, Table
from hscmae.cli.output import command, print_json, say

verbs = typer.Typer()


@verbs.command(
    epilog="Example: hscmae index archive --output index --backend faiss\n\n"
    "In a shared database: hscmae index archive --backend pgvector --dsn postgresql://me@host/db --table clips\n\n"
    "Then: hscmae search archive dog.wav --index index"
)
def index(
    archive: Archived,
    backend: Annotated[
        str,
        typer.Option(
            help="faiss: fastest, one machine. lancedb: embedded, object storage. pgvector: shared, in PostgreSQL."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(metavar="INDEX", help="Folder of the index, or an address LanceDB knows.", show_default=False),
    ] = None,
    dsn: Annotated[
        str | None, typer.Option(metavar="DSN", help="Connection string of PostgreSQL.", show_default=False)
    ] = None,
    table: Table = "hscmae",
    update: Annotated[
        bool, typer.Option("--update", help="Bring an index up to date: replace what changed, remove what vanished.")
    ] = False,
    as_json: Json = False,
) -> None:
    """An index for what outgrows exact search: a million clips, thousands of queries a second, many users."""
    from hscmae.cli.progress import rows_progress
    from hscmae.errors import InputError
    from hscmae.search.archive import Archive
    from hscmae.search.index import make_index

    place = dsn if backend == "pgvector" else output
    if place is None or (dsn is not None and output is not None):
        raise InputError(f"--backend {backend} takes {'--dsn' if backend == 'pgvector' else '--output'} alone")
    with Archive.open(archive) as opened, rows_progress("index", enabled=not as_json) as progress:
        done = make_index(opened, backend, place, table=table, update=update, progress=progress)
    name = table if backend == "pgvector" else place
    if as_json:
        print_json({"index": name, "backend": backend, **vars(done)})
        return
    recall = ", ".join(f"{space} {value:.3f}" for space, value in done.recall.items())
    changes = f"{done.added} added, {done.changed} changed, {done.removed} removed, {done.kept} as they were"
    how = ("DSN", "--table", table) if backend == "pgvector" else (place,)
    say(
        f"{name}: {len(opened)} clips ({changes}); of the ten nearest it finds {recall}\n"
        f"Next: {command('search', archive, 'QUERY', '--index', *how)}"
    )
