"""``hscmae serve``: a page and an HTTP API over an archive, made to be put before strangers.

A request passes ``observe`` (id, log, metrics), ``guard`` (who may ask) and ``limits`` (how much of it), then a route
of ``api``. ``snapshot`` holds the archive and takes over one that was rebuilt; ``searching`` answers many queries with
one matrix product; ``uploads`` and ``media`` decode in the jail of ``extract``; ``decisions`` keeps what people judge;
``background`` computes suspicious pairs and the map in a child process; ``page/`` is what a browser is given.
"""
