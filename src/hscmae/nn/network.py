"""The network: per modality an encoder, a projection, a decoder, and a canonical map.

``z_m = C_m x_m + scale * P_m f_m(x_m)``. With a canonical warm start ``C_m`` begins as the closed-form CCA map and the
nonlinear branch as a small correction to it; from random weights there is no ``C_m`` and the scale is 1. Both paths
of the student (clean and masked) and the teacher use these same modules.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hscmae.linear.cca import CanonicalMaps
from hscmae.nn.encoder import Encoder, decoder
from hscmae.nn.pooling import Pooling
from hscmae.streams import Noise, generator


class Tower(nn.Module):
    """One modality's weights.

    Args:
        dim: feature dimension d_m.
        embedding: embedding dimension.
        width: hidden width.
        depth: layers of the encoder.
        decoder_depth: layers of the decoder; 0 builds none.
        dropout: share of hidden units dropped in training.
        scale: factor on the nonlinear branch.
        canonical: whether the linear map ``C_m`` exists.
        pooling: how sequences become vectors: "mean", "max" or "attention".

    >>> shape = {"width": 8, "depth": 1, "decoder_depth": 1, "dropout": 0.0, "scale": 1.0, "canonical": True}
    >>> tower = Tower(12, embedding=4, **shape)
    >>> x = torch.ones(3, 12)
    >>> tower(x).shape, tower(x[:, None, :]).shape
    (torch.Size([3, 4]), torch.Size([3, 4]))
    >>> tower.project(x, tower.encoder(x)).equal(tower(x))
    True
    """

    def __init__(
        self,
        dim: int,
        embedding: int,
        *,
        width: int,
        depth: int,
        decoder_depth: int,
        dropout: float,
        scale: float,
        canonical: bool,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.pool = Pooling(dim, pooling)
        self.encoder = Encoder(dim, width, depth, dropout)
        self.projection = nn.Linear(width, embedding, bias=False)
        self.decoder = decoder(width, dim, decoder_depth) if decoder_depth else None
        self.canonical = nn.Linear(dim, embedding) if canonical else None
        self.scale = scale

    def project(self, x: Tensor, h: Tensor) -> Tensor:
        """Embedding of features ``x`` (n, d_m) with hidden representation ``h`` (n, width); shape (n, dim)."""
        z: Tensor = self.projection(h) * self.scale
        return z if self.canonical is None else z + self.canonical(x)

    def forward(
        self, x: Tensor, noise: Noise | None = None, purpose: str = "", *, valid: Tensor | None = None
    ) -> Tensor:
        """Embed features, (n, d_m) -> (n, dim); or sequences (n, t, d_m) whose ``valid`` steps (n, t) are pooled."""
        x = self.pool(x, valid)  # (n, d_m)
        return self.project(x, self.encoder(x, noise, purpose))


class ByModality(nn.Module):
    """Modules by modality name, which may be any string: torch takes neither dots nor its own attributes' names.

    Args:
        modules: modality -> its module.

    >>> layers = ByModality({"a.b": nn.Linear(2, 1), "type": nn.Linear(3, 1), "audio": nn.Linear(4, 1)})
    >>> layers["type"].in_features, layers.modalities
    (3, ('a.b', 'type', 'audio'))
    >>> [name for name, _ in layers.named_children()]
    ['a%2eb', '%type', 'audio']
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.modalities = tuple(modules)
        self._names: dict[str, str] = {}
        for modality, module in modules.items():
            escaped = modality.replace("%", "%25").replace(".", "%2e")
            self._names[modality] = f"%{escaped}" if not escaped or hasattr(self, escaped) else escaped
            self.add_module(self._names[modality], module)

    def __getitem__(self, modality: str) -> nn.Module:
        return self.get_submodule(self._names[modality])


class Network(ByModality):
    """The towers of all modalities; see ``build_network``."""

    def tower(self, modality: str) -> Tower:
        """One modality's weights."""
        tower = self[modality]
        assert isinstance(tower, Tower)
        return tower

    def pooled(self, x: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features by modality with sequences pooled to vectors."""
        return {m: self.tower(m).pool(rows, valid.get(m)) for m, rows in x.items()}

    @torch.no_grad()
    def warm_start(self, maps: CanonicalMaps) -> None:
        """Set the canonical maps ``C_m`` to a closed-form solution, and the branch's projection to 0.

        The network then begins exactly at the closed form, whatever the branch's scale.

        >>> shape = {"width": 8, "depth": 1, "decoder_depth": 0, "dropout": 0.0, "scale": 0.1, "canonical": True}
        >>> network = build_network({"audio": 2, "visual": 3}, 2, seed=0, **shape)
        >>> weight = {"audio": torch.eye(2), "visual": torch.eye(3)[:, :2]}
        >>> network.warm_start(CanonicalMaps({"audio": torch.ones(2), "visual": torch.ones(3)}, weight, torch.ones(2)))
        >>> network.tower("audio")(torch.tensor([[3.0, 5.0]]))
        tensor([[2., 4.]], grad_fn=<AddBackward0>)
        """
        for name in self.modalities:
            tower = self.tower(name)
            assert tower.canonical is not None
            tower.canonical.weight.copy_(maps.weight[name].T)
            tower.canonical.bias.copy_(-maps.mean[name] @ maps.weight[name])
            tower.projection.weight.zero_()


def build_network(dims: Mapping[str, int], embedding: int, seed: int, **tower: float | str) -> Network:
    """A network with weights drawn from the run's seed, whatever else has been drawn before.

    Args:
        dims: modality -> feature dimension d_m.
        embedding: embedding dimension.
        seed: of the weights.
        **tower: what else ``Tower`` takes.

    >>> shape = {"width": 8, "depth": 1, "decoder_depth": 0, "dropout": 0.0, "scale": 1.0, "canonical": False}
    >>> first, again = (build_network({"audio": 12, "visual": 20}, 4, seed=0, **shape) for _ in range(2))
    >>> first.modalities, first.tower("visual")(torch.ones(3, 20)).shape
    (('audio', 'visual'), torch.Size([3, 4]))
    >>> first.tower("audio").projection.weight.equal(again.tower("audio").projection.weight)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        return Network({m: Tower(d, embedding, **tower) for m, d in dims.items()})  # type: ignore[arg-type]
