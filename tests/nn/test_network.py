"""The network: no row depends on its batch, dropout only where asked for, and a warm start that is the closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hscmae.linear.cca import covariances, ridge_cca
from hscmae.nn.encoder import Encoder, decoder
from hscmae.nn.network import Network, build_network
from hscmae.streams import Noise

DIMS = {"audio": 7, "visual": 11}
SHAPE = {"width": 16, "depth": 2, "decoder_depth": 2, "dropout": 0.4, "scale": 0.1, "canonical": True}


def build(embedding=5, seed=0, **changes) -> Network:
    return build_network(DIMS, embedding, seed, **(SHAPE | changes))


def features(n=40, seed=1):
    source = torch.Generator().manual_seed(seed)
    cause = torch.randn(n, 3, generator=source)
    return {
        m: cause @ torch.randn(3, d, generator=source) + 0.5 * torch.randn(n, d, generator=source) + 2
        for m, d in DIMS.items()
    }


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("modality", DIMS)
def test_a_row_has_one_embedding_in_any_batch(modality, training):
    network = build().train(training)
    x = features(300)[modality]
    x[::2] *= 50  # batch statistics would be moved by these
    together = network.tower(modality)(x)
    for rows in (slice(3, 4), slice(0, 300, 2), slice(100, 107)):
        torch.testing.assert_close(network.tower(modality)(x[rows]), together[rows], rtol=1e-5, atol=1e-5)


def test_nothing_keeps_batch_statistics():
    network = build()
    assert not list(network.buffers())
    assert not [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def test_noise_is_on_only_where_it_is_given_whatever_the_mode():
    tower, x = build().train().tower("audio"), features()["audio"]
    assert torch.equal(tower(x), tower(x))
    noisy = tower(x, Noise(0, 0), "clean/audio")
    assert not torch.allclose(noisy, tower(x))
    assert torch.equal(tower.eval()(x, Noise(0, 0), "clean/audio"), noisy)


def test_dropout_drops_its_share_and_keeps_the_mean():
    encoder = Encoder(7, 400, 1, dropout=0.4)
    x = features(200)["audio"]
    clean, noisy = encoder(x), encoder(x, Noise(0, 0), "p")
    dropped = noisy == 0
    assert dropped.float().mean().item() == pytest.approx(0.4, abs=0.01)
    torch.testing.assert_close(noisy[~dropped], clean[~dropped] / 0.6)


def test_dropout_is_keyed_by_step_purpose_and_layer():
    encoder = Encoder(7, 16, 2, dropout=0.4)
    x = features()["audio"]
    first = encoder(x, Noise(0, 0), "clean/audio")
    assert torch.equal(first, encoder(x, Noise(0, 0), "clean/audio"))
    assert not torch.equal(first, encoder(x, Noise(0, 1), "clean/audio"))
    assert not torch.equal(first, encoder(x, Noise(0, 0), "masked/audio"))
    noise = RecordingNoise(0, 0)
    encoder(x, noise, "clean/audio")
    assert noise.asked == ["dropout/clean/audio/0", "dropout/clean/audio/1"]


class RecordingNoise(Noise):
    def __init__(self, seed, step):
        super().__init__(seed, step)
        self.asked = []

    def keep(self, purpose, like, probability):
        self.asked.append(purpose)
        return super().keep(purpose, like, probability)


def test_two_processes_drop_what_one_drops():
    tower, x = build().tower("audio"), features(30)["audio"]
    whole = tower(x, Noise(0, 2), "p")
    parts = [tower(x[a:b], Noise(0, 2, first=a, total=30), "p") for a, b in ((0, 12), (12, 30))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_warm_start_begins_at_the_closed_form_and_the_branch_can_leave_it(scale):
    x = features()
    maps = ridge_cca(covariances(x), 5, 1.0)
    network = build(scale=scale)
    network.warm_start(maps)
    for m in DIMS:
        z = network.tower(m)(x[m])
        torch.testing.assert_close(z, maps(m, x[m]), rtol=1e-5, atol=1e-5)
        (gradient,) = torch.autograd.grad(z.square().sum(), network.tower(m).projection.weight)
        assert gradient.abs().max() > 0


def test_the_branch_is_scaled():
    x, maps = features(), ridge_cca(covariances(features()), 5, 1.0)
    for m in DIMS:
        branch = {}
        for scale in (0.1, 0.2):
            network = build(scale=scale)
            network.warm_start(maps)
            torch.nn.init.ones_(network.tower(m).projection.weight)
            branch[scale] = network.tower(m)(x[m]) - maps(m, x[m])
        assert branch[0.1].abs().max() > 1e-3
        torch.testing.assert_close(branch[0.2], 2 * branch[0.1], rtol=1e-4, atol=1e-5)


def test_warm_start_with_more_dimensions_than_features():
    x = features()
    network = build(embedding=9)
    network.warm_start(ridge_cca(covariances(x), 9, 1.0))
    narrow = build(embedding=7)
    narrow.warm_start(ridge_cca(covariances(x), 7, 1.0))
    for m in DIMS:
        z = network.tower(m)(x[m])
        torch.testing.assert_close(z[:, :7], narrow.tower(m)(x[m]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(z[:, 7:], torch.zeros(40, 2), rtol=0, atol=1e-6)


def test_without_a_warm_start_there_is_no_linear_map():
    network = build(canonical=False, scale=1.0)
    assert network.tower("audio").canonical is None
    tower, x = network.tower("audio"), features()["audio"]
    torch.testing.assert_close(tower(x), tower.projection(tower.encoder(x)))


def test_one_modality_needs_nothing_of_the_other():
    network, x = build(), features()["visual"]
    expected = network.tower("visual")(x)
    del network.audio
    assert torch.equal(network.tower("visual")(x), expected)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build(seed=3).state_dict(), build(seed=4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["audio.projection.weight"], other["audio.projection.weight"])


def test_decoder_shapes():
    x = torch.ones(3, 16)
    assert decoder(16, 11, 1)(x).shape == decoder(16, 11, 3)(x).shape == (3, 11)
    assert len([layer for layer in decoder(16, 11, 3) if isinstance(layer, nn.Linear)]) == 3
    assert build(decoder_depth=0).tower("audio").decoder is None
