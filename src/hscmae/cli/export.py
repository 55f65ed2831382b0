"""The verb ``export``: a trained model for programs that have neither this package nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hscmae.cli.inputs import read_pairs
from hscmae.cli.options import DropBad, Holdout, Json, Overwrite, Run, Split
from hscmae.cli.output import print_json, say

verbs = typer.Typer()


@verbs.command(epilog="Example: hscmae export runs/ave AVE.h5 --output ave-onnx --precision float16")
def export(
    run: Run,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Pairs to measure the precisions on.", show_default=False),
    ] = None,
    *,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the ONNX files.", show_default=False)],
    precision: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="How matrices are held; arithmetic is in float32.")
    ] = "float32",
    split: Split = "test",
    holdout: Holdout = None,
    overwrite: Overwrite = False,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """An ONNX file a modality: raw features in, unit-norm embeddings out; checked against the model.

    With FILE it shows what float16 and int8 cost there.
    """
    from dataclasses import asdict

    from hscmae.export.cost import costs
    from hscmae.export.folder import export_onnx
    from hscmae.export.graph import to_graph
    from hscmae.methods import load

    model = load(run)
    pairs = None
    if file is not None:
        pairs = read_pairs(file, drop_bad_rows=drop_bad_rows, modalities=[*model.dims_], holdout=holdout, run=run)
    graphs = {m: to_graph(model, m) for m in model.dims_}
    told = export_onnx(model, output, precision=precision, overwrite=overwrite, run=run, graphs=graphs)
    measured = [] if pairs is None else costs(model, graphs, pairs, split=split)
    if as_json:
        print_json({"output": str(output), **told, "costs": [asdict(cost) for cost in measured]})
        return
    if measured:
        from hscmae.cli.tables import print_costs

        print_costs(measured, split)
    files = " and ".join(entry["file"] for entry in told["modalities"].values())
    apart = f"{told['largest_difference']:.1e}"
    say(f"{output}: {files}, {precision}; embeddings differ from the model's by {apart} at most")
