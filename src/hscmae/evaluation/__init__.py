"""Judging embeddings: exact ranking metrics, the structure of the space, and label-free criteria."""

from hscmae.evaluation.metrics import chance_ap, evaluate_embeddings, per_class_ap, per_query, precision_recall
from hscmae.evaluation.ranking import Ranking, rank
from hscmae.evaluation.selection import (
    alignment_gap,
    effective_rank,
    held_out_correlation,
    linear_cka,
    mean_rank,
    mutual_knn,
    paired_mrr,
)

__all__ = [
    "Ranking",
    "alignment_gap",
    "chance_ap",
    "effective_rank",
    "evaluate_embeddings",
    "held_out_correlation",
    "linear_cka",
    "mean_rank",
    "mutual_knn",
    "paired_mrr",
    "per_class_ap",
    "per_query",
    "precision_recall",
    "rank",
]
