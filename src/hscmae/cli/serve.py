"""The verb ``serve``: a page and an HTTP API over an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hscmae.cli.output import say

verbs = typer.Typer()


@verbs.command(
    epilog="Example: hscmae serve archive\n\n"
    "For others: HSCMAE_TOKEN=$(openssl rand -hex 24) hscmae serve archive --host 0.0.0.0 (docs/serving.md)"
)
def serve(
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="Folder of build, or embeddings of embed.", show_default=False)
    ],
    media: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Where the media are, if not where they were when the archive was built; repeatable.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(metavar="INDEX", help="Search this index of hscmae index.", show_default=False),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="File or folder of networks' weights; repeatable.", show_default=False),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where decisions about pairs are kept. [default: ARCHIVE/serve]", show_default=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="HSCMAE_TOKEN",
            metavar="T",
            help="What visitors must know. Give it in the environment: a command line can be seen by others.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, max=4096, metavar="MB", help="Largest file to search by.")] = 64,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """A page to hear, see, search and judge an archive, and its HTTP API."""
    from hscmae.extras import require

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "sklearn"):
        require(module, "serve")

    from hscmae.serve.app import create_app
    from hscmae.serve.observe import log_to_stderr
    from hscmae.serve.server import listen, run
    from hscmae.serve.settings import MEGABYTE, Settings

    settings = Settings(
        archive=archive,
        media=tuple(media or ()),
        state=state,
        index=index,
        weights=tuple(weights or ()),
        host=host,
        port=port,
        token=token or None,
        most_upload=max_upload * MEGABYTE,
    )
    app = create_app(settings)
    place = listen(settings)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{place.getsockname()[1]}/"
    clips = len(app.state.services.snapshot.archive)

    def started() -> None:
        say(f"{archive}: {clips:,} clips, at {address} (Ctrl-C ends it)")
        if open_:
            typer.launch(address)

    log_to_stderr()
    run(app, settings, place, started)
