"""Searches a served archive: ``python client.py http://127.0.0.1:8000 dog.wav`` (a file, or a clip's id).

The token, if there is one, is read from HSCMAE_TOKEN.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx


class Client:
    """Asks a server; where it is busy, again when it says.

    >>> Client("http://127.0.0.1:8000").search("dogs/rex", to="visual", k=3)  # doctest: +SKIP
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60)

    def search(self, query: str | Path, **parameters: Any) -> list[dict[str, Any]]:
        """Results for a clip's id or a media file; parameters as ``/docs`` names them."""
        if Path(query).is_file():
            content = Path(query).read_bytes()
            answer = self.ask("POST", "/api/search", params=parameters, files={"file": (Path(query).name, content)})
        else:
            answer = self.ask("GET", "/api/search", params={"id": str(query), **parameters})
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def ask(self, method: str, path: str, tries: int = 4, **options: Any) -> httpx.Response:
        """One request.

        Raises:
            RuntimeError: what the server says is wrong.
        """
        while True:
            answer = self.http.request(method, path, **options)
            tries -= 1
            if answer.status_code != 503 or not tries:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.is_error:
            raise RuntimeError(answer.json()["detail"])
        return answer


if __name__ == "__main__":
    for result in Client(sys.argv[1], os.environ.get("HSCMAE_TOKEN")).search(sys.argv[2]):
        print(f"{result['rank']:3}  {result['score']:.3f}  {result['id']}")
