"""Judging embeddings: exact ranking metrics, the structure of the space, and label-free criteria."""
