"""Search in embeddings: exact by default, and backends for what outgrows that.

``archive.Archive`` is what people use; ``exact`` finds in a memory-mapped store, with nothing to build and nothing to
go stale; ``faiss``, ``lancedb`` and ``pgvector`` are one file each behind the interface in ``backend``.
"""

from hscmae.search.archive import Archive, Result

__all__ = ["Archive", "Result"]
