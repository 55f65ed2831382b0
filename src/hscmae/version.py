"""The release, for the package's metadata, saved models and reports."""

__version__ = "0.1.0"
