"""The embedded demo: a corpus of real media files made on the spot, offline, with known truth."""
