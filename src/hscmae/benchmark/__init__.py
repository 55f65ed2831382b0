"""Comparing methods under one protocol: ``benchmark``, ``tune`` and ``ablate``, each a folder of results."""
