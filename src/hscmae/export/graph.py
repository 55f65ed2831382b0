"""One modality of a fitted method as an ONNX graph: scaling, kernel, network, head, anchors and unit norm inside."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hscmae.extras import require
from hscmae.methods.base import Method
from hscmae.methods.deep import DeepMethod

if TYPE_CHECKING:
    import onnx

FEATURES, LENGTHS, EMBEDDING = "features", "lengths", "embedding"
EXAMPLE_ROWS, EXAMPLE_STEPS = 3, 5  # what the graph is traced with; it takes any number


def to_graph(method: Method, modality: str) -> onnx.ModelProto:
    """The graph that embeds one modality, for any number of rows.

    It takes ``features``, shape (rows, d), float32, as extracted, and gives ``embedding``, shape (rows, dim), float32:
    what ``Method.embed`` gives, and not a number in rows where that would refuse a row. Where the network itself pools
    sequences (``pooling`` is "attention") it takes ``features`` of shape (rows, steps, d) and ``lengths``, the valid
    steps of each row, shape (rows,), int64.

    Args:
        method: fitted.
        modality: one of ``method.dims_``.

    Raises:
        InputError: the extra ``onnx`` is not installed.

    >>> from hscmae import PCA, synthetic_pairs
    >>> pairs = synthetic_pairs(100, dims={"audio": 8, "visual": 12}, seed=0).pairs
    >>> graph = to_graph(PCA(dim=4).fit(pairs), "audio").graph
    >>> [value.name for value in (*graph.input, *graph.output)]
    ['features', 'embedding']
    """
    require("onnxscript", "onnx")
    rows = torch.export.Dim("rows")
    dim = method.dims_[modality]
    if takes_steps(method):
        example: tuple[Tensor, ...] = (
            torch.zeros(EXAMPLE_ROWS, EXAMPLE_STEPS, dim), torch.full((EXAMPLE_ROWS,), EXAMPLE_STEPS)
        )  # fmt: skip
        shapes: Sequence[Mapping[int, Any]] = ({0: rows, 1: torch.export.Dim("steps")}, {0: rows})
    else:
        example, shapes = (torch.zeros(EXAMPLE_ROWS, dim),), ({0: rows},)
    with _quietly():
        program = torch.onnx.export(
            _Embedding(method, modality).eval(),
            example,
            dynamo=True,
            dynamic_shapes=tuple(shapes),
            input_names=[FEATURES, LENGTHS][: len(example)],
            output_names=[EMBEDDING],
            verbose=False,
        )
    assert program is not None
    return _bare(program.model_proto)


def takes_steps(method: Method) -> bool:
    """Whether the graphs take sequences, which the network then pools itself, and not vectors."""
    return isinstance(method, DeepMethod) and method.config.pooling == "attention"


class _Embedding(nn.Module):
    """What ``Method.embed`` computes of one modality, whatever the method, in torch alone."""

    def __init__(self, method: Method, modality: str) -> None:
        super().__init__()
        self.method, self.modality = method, modality
        scaler = method.scalers_[modality]
        self.mean, self.scale = torch.from_numpy(scaler.mean), torch.from_numpy(scaler.scale)  # (d,)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        scaled = (x - self.mean) / self.scale  # (n, d) or (n, t, d)
        with _Unsplit():
            if lengths is not None:
                assert isinstance(self.method, DeepMethod)
                valid = torch.arange(x.shape[1]) < lengths[:, None]  # (n, t)
                steps = scaled.masked_fill(~valid[:, :, None], 0.0)
                scaled = self.method.network_.tower(self.modality).pool(steps, valid)  # (n, d)
            return self.method.unit_rows(self.modality, scaled)


class _Unsplit(TorchFunctionMode):
    """Rows stay together where Python takes them in blocks: a graph could hold a fixed number of blocks only."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (args[0],) if func is torch.split else func(*args, **(kwargs or {}))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch's exporter says of packages that we do not use."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes, which name files of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
