"""Judging embeddings: exact ranking metrics, the structure of the space, and label-free criteria."""

from hscmae.evaluation.metrics import chance_ap, evaluate_embeddings, per_class_ap, per_query, precision_recall
from hscmae.evaluation.ranking import Ranking, rank
from hscmae.evaluation.selection import (
    alignment_gap,
    effective_rank,
    feature_knn,
    grounded_knn,
    held_out_correlation,
    linear_cka,
    mean_rank,
    mutual_knn,
    paired_mrr,
)
from hscmae.evaluation.structure import knn_purity, modality_gap, nmi, silhouette, structure

__all__ = [
    "Ranking",
    "alignment_gap",
    "chance_ap",
    "effective_rank",
    "evaluate_embeddings",
    "feature_knn",
    "grounded_knn",
    "held_out_correlation",
    "knn_purity",
    "linear_cka",
    "mean_rank",
    "modality_gap",
    "mutual_knn",
    "nmi",
    "paired_mrr",
    "per_class_ap",
    "per_query",
    "precision_recall",
    "rank",
    "silhouette",
    "structure",
]
