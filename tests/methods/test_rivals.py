"""The deep rivals in the cases where one is another, and what each part of them reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import make_pairs
from hscmae.losses.contrastive import infonce
from hscmae.losses.correlation import correlation_loss
from hscmae.methods import CAVMAE, DCCA, DCCAE, MAE, InfoNCE, SoftCLIP
from hscmae.streams import Noise
from hscmae.training.features import Features

SMALL = {"dim": 5, "network_width": 16, "training_steps": 8, "training_batch_size": 64, "training_evaluations": 2}
SMALL |= {"training_validation_share": 0.0}


def fitted(method, **settings):
    return method(**SMALL | settings).fit(make_pairs(120))


def objective_and_batch(method, present=None, **settings):
    """A fresh objective of a method, and a batch of 40 rows."""
    model, data = fitted(method, **settings), make_pairs(120)
    if present is not None:
        data.present.update(present)
    features = Features(data, data.rows_of("train"), model.scalers_, torch.device("cpu"))
    return model._objective(), features.batch(torch.arange(40))


def assert_same_weights(first, second):
    a, b = first.network_.state_dict(), second.network_.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_dccae_without_reconstruction_is_deep_cca():
    shared = {"network_dropout": 0.2, "training_lr": 1e-3, "loss_ridge": 0.3}
    assert_same_weights(fitted(DCCAE, loss_reconstruction_weight=0.0, **shared), fitted(DCCA, **shared))


def test_softclip_with_hard_targets_is_infonce():
    # One step's gradients in float64: an optimiser may make a step of either sign out of a gradient's last bit.
    found = []
    for method, settings in ((SoftCLIP, {"loss_soft_share": 0.0}), (InfoNCE, {})):
        objective, batch = objective_and_batch(method, network_dropout=0.2, loss_tau=0.2, **settings)
        objective, batch = objective.double(), replace(batch, x={m: x.double() for m, x in batch.x.items()})
        loss = objective.losses(batch, Noise(0, 0))["contrastive"]
        weights = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        found.append(dict(zip(weights, torch.autograd.grad(loss, weights.values()), strict=True)))
    torch.testing.assert_close(*found)


def test_cav_mae_that_hides_and_reconstructs_nothing_is_infonce():
    shared = {"network_dropout": 0.0, "training_lr": 1e-3, "loss_tau": 0.2}
    alone = fitted(CAVMAE, masking_ratio=0.0, loss_contrastive_weight=1.0, loss_reconstruction_weight=0.0, **shared)
    assert_same_weights(alone, fitted(InfoNCE, **shared))


def test_cav_mae_contrasts_what_is_left_visible():
    objective, batch = objective_and_batch(CAVMAE, masking_ratio=0.6, network_dropout=0.0, loss_tau=0.2)
    found = objective.losses(batch, Noise(0, 3))["contrastive"]
    masked = {m: x * Noise(0, 3).keep(f"mask/{m}", x, 0.4) for m, x in batch.x.items()}
    a, v = (objective.embed(m, x) for m, x in masked.items())
    torch.testing.assert_close(found, infonce(a, v, tau=0.2))


def test_cav_mae_decodes_each_modality_from_both():
    objective, batch = objective_and_batch(CAVMAE)
    for weight in objective.decoders["visual"].parameters():
        torch.nn.init.zeros_(weight)
    loss = objective.losses(batch, Noise(0, 3))["reconstruction"]
    # With a visual decoder that says nothing, only the audio that is decoded can reach the visual encoder.
    gradients = torch.autograd.grad(loss, list(objective.student.tower("visual").encoder.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)


def test_mae_by_hand():
    objective, batch = objective_and_batch(MAE, masking_ratio=0.6, network_dropout=0.0)
    found = objective.losses(batch, Noise(0, 3))["reconstruction"]
    expected = 0.0
    for m, x in batch.x.items():
        visible = Noise(0, 3).keep(f"mask/{m}", x, 0.4)
        predicted = objective.decoders[m](objective.embed(m, x * visible))
        expected += (predicted - x)[visible == 0].square().mean()
    torch.testing.assert_close(found, expected)


def test_dccae_by_hand():
    objective, batch = objective_and_batch(DCCAE, network_dropout=0.0, loss_ridge=0.3)
    found = objective.losses(batch, Noise(0, 3))
    z = {m: objective.embed(m, x) for m, x in batch.x.items()}
    expected = sum((objective.decoders[m](z[m]) - x).square().mean() for m, x in batch.x.items())
    torch.testing.assert_close(found["reconstruction"], expected)
    torch.testing.assert_close(found["correlation"], correlation_loss(z["audio"], z["visual"], ridge=0.3))


@pytest.mark.parametrize("method", [MAE, CAVMAE, DCCAE])
def test_decoders_are_trained_and_not_saved(method):
    model = fitted(method)
    assert not any("decoder" in name for name in model._tensors())
    objective, _ = objective_and_batch(method)
    trained = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert any(name.startswith("decoders.audio") for name in trained)


@pytest.mark.parametrize("method", [DCCA, DCCAE, InfoNCE, SoftCLIP, MAE, CAVMAE])
def test_values_of_a_missing_modality_are_not_read(method):
    lacking = {"audio": torch.arange(120).numpy() % 3 != 0}
    objective, batch = objective_and_batch(method, present=lacking)
    before = objective.losses(batch, Noise(0, 1))
    batch.x["audio"][~batch.present["audio"]] = 100.0
    after = objective.losses(batch, Noise(0, 1))
    for name, loss in before.items():
        torch.testing.assert_close(after[name], loss)
