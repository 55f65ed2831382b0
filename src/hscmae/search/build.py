"""From media to an archive that can be searched: extract, inspect, train, embed, report, each kept when it is done.

``ARCHIVE/`` holds ``features/``, ``run/``, ``embeddings/``, ``report.html``, and ``archive.json``, which says where the
media were and which features and model the embeddings were made of: so a build that was interrupted goes on where it
was, and an update does no more than it must.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hscmae.artifact import is_artifact, read_config
from hscmae.data.inspect import inspect_file
from hscmae.data.pairs import Pairs
from hscmae.data.readers import read
from hscmae.data.recipe import recipe_of, require_same_recipe
from hscmae.data.splits import exclude_ids, read_ids, without_clips_of
from hscmae.data.store import MANIFEST, is_store, open_store
from hscmae.embedding import embed_file
from hscmae.errors import InputError
from hscmae.extract.job import Settings
from hscmae.extract.job import run as extract
from hscmae.files import FolderKind, partial_folder, require_apart, write_atomic
from hscmae.hub import from_pretrained
from hscmae.methods import get_method, load
from hscmae.report import write_report
from hscmae.runs import train_run
from hscmae.search.archive import ARCHIVE, EMBEDDINGS, FEATURES, FORMAT, REPORT, RUN, read_about
from hscmae.training.checkpoint import NAME as CHECKPOINT

log = logging.getLogger(__name__)

KIND = FolderKind("an archive", [ARCHIVE], FORMAT, [])
FEW_PAIRS = 100
Progress = Callable[[str, int, int], None]


@dataclass
class Built:
    """What a build did.

    Attributes:
        output: the archive.
        rows, pairs: clips in it, and those that have both modalities.
        described, kept, dropped: recordings described now, taken over, and gone.
        trained: whether a model was trained now.
        warnings: what to know about the data, a line each.
        example: the id of a clip, to begin with.
    """

    output: Path
    rows: int = 0
    pairs: int = 0
    described: int = 0
    kept: int = 0
    dropped: int = 0
    trained: bool = False
    warnings: list[str] = field(default_factory=list)
    example: str = ""


def build(
    media: Sequence[str | Path],
    output: Path,
    *,
    update: bool = False,
    retrain: bool = False,
    settings: Settings | None = None,
    labels: Path | None = None,
    background: Path | None = None,
    run: str | None = None,
    exclude: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = log.info,
) -> Built:
    """Make an archive of media files, or go on with one that was interrupted.

    Args:
        media: files and folders; those of the archive where none are given.
        output: the archive's folder.
        update: take new and changed files into an archive that is there, drop vanished ones; the model stays.
        retrain: learn a model anew from what the archive then holds.
        settings: how features are extracted.
        labels: a CSV file of clips' labels, for ``--where label=...`` and the report; never trained on.
        background: unlabelled pairs of other sources with the same features, for when pairs are few.
        run: a trained model to use instead of training one: a folder, or a repository on the hub.
        exclude: a text or feature file of ids that are kept out of training.
        seed: of training.
        jobs: see ``extract``.
        progress: called with a stage, what is done and what there is.
        say: told what to know on the way.

    Raises:
        InputError: no media, too few pairs to learn from, or an archive that is there and not to be updated.
    """
    show = progress or (lambda stage, done, total: None)
    if exclude is not None:
        read_ids(exclude)  # not after minutes of work
    about = _begin(output, media, update or retrain, settings or Settings(), labels, background)
    named = [Path(p) for p in about["media"]]
    done = Built(output)

    features = output / FEATURES
    model = None if run is None else from_pretrained(run)
    found = extract(
        named,
        features,
        _settings(settings or Settings(), about, None if run is None else recipe_of(run), features),
        labels=Path(about["labels"]) if "labels" in about else None,
        jobs=jobs,
        resume=not features.exists(),
        update=features.exists(),
        progress=lambda n, total: show("extract", n, total),
        say=say,
    )
    done.rows, done.described, done.kept, done.dropped = found.rows, found.described, found.kept, found.dropped
    for line in found.problems:
        done.warnings.append(line)

    show("inspect", 0, 1)
    inspected = inspect_file(features)
    if inspected.faults:
        raise InputError(inspected.faults[0].line(str(features)))
    done.warnings += [problem.line("features") for problem in inspected.problems]
    pairs = open_store(features)
    done.pairs, done.example = int(pairs.complete().sum()), pairs.ids[0].decode("utf-8", "backslashreplace")
    show("inspect", 1, 1)

    folder = output / RUN
    if model is not None:
        require_same_recipe(recipe_of(features), recipe_of(str(run)), str(features), model.dims_)
        if retrain or not is_artifact(folder) or read_config(folder)["sha256"] != _weights_of(str(run)):
            model.save(folder)
        show("train", 1, 1)
    elif retrain or not is_artifact(folder):
        _train(pairs, folder, done, background, exclude, seed, retrain and is_artifact(folder), show, say)
        show("train", 1, 1)
    else:
        show("train", 1, 1)

    state = {"features": _digest(features / MANIFEST), "model": read_config(folder)["sha256"]}
    if about.get("embedded") != state or not is_store(output / EMBEDDINGS):
        embed_file(
            load(folder),
            features,
            output / EMBEDDINGS,
            overwrite=True,
            run=folder,
            progress=lambda n, total: show("embed", n, total or done.rows),
        )
        _write_about(output, about := about | {"embedded": state})
    show("embed", done.rows, done.rows)

    if about.get("reported") != state or not (output / REPORT).is_file():
        show("report", 0, 1)
        # The report reads media from one folder.
        shown = next((p for p in named if p.is_dir()), None) if len(named) == 1 else None
        whole = replace(pairs, split=None)
        report = write_report(
            folder, output / REPORT, file=features, pairs=whole, split="all", media=shown, overwrite=True
        )
        _write_about(output, about | {"reported": state, "metrics": report.get("metrics")})
    show("report", 1, 1)
    return done


def _begin(
    output: Path,
    media: Sequence[str | Path],
    changes: bool,
    settings: Settings,
    labels: Path | None,
    background: Path | None,
) -> dict[str, Any]:
    """The archive's file ``archive.json``, written if there was none."""
    if output.exists() and (output.is_file() or any(output.iterdir())) and not KIND.marks(output):
        raise InputError(f"{output}: exists and is not an archive; name another folder")
    about = read_about(output)
    if about.get("reported") is not None and not changes:
        raise InputError(f"{output}: is built already; --update takes in new files, --retrain learns a model anew")
    if not media and not about:
        raise InputError("name the media files or folders that the archive is to be made of")
    named = [Path(p) for p in media] if media else [Path(p) for p in about["media"]]
    require_apart(output, *named)
    for path in (*named, labels, background):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    about = about | {"format": FORMAT, "version": 1, "media": [str(p.resolve()) for p in named]}
    weights = [str(Path(w).resolve()) for w in settings.weights]
    about["weights"] = sorted({*about.get("weights", []), *weights})
    about |= {} if labels is None else {"labels": str(labels.resolve())}
    output.mkdir(parents=True, exist_ok=True)
    _write_about(output, about)
    return about


def _settings(settings: Settings, about: dict[str, Any], recipe: dict[str, Any] | None, features: Path) -> Settings:
    """What is asked for; where nothing is, what the model to be used was trained on."""
    settings = replace(settings, weights=[Path(w) for w in about["weights"]])
    if recipe is None or features.exists():
        return settings
    return replace(
        settings,
        audio=settings.audio or recipe.get("audio", {}).get("extractor", "none"),
        visual=settings.visual or recipe.get("visual", {}).get("extractor", "none"),
        window=settings.window or recipe.get("window"),
        hop=settings.hop or recipe.get("hop"),
        pool=settings.pool or recipe.get("pool"),
        frames=settings.frames or recipe.get("visual", {}).get("frames"),
    )


def _train(
    pairs: Pairs,
    folder: Path,
    done: Built,
    background: Path | None,
    exclude: Path | None,
    seed: int,
    again: bool,
    show: Progress,
    say: Callable[[str], None],
) -> None:
    helps = (
        "--background F (many unlabelled pairs of other sources with the same features) helps, "
        "or --run RUN (a model that was trained elsewhere)"
    )
    if len(pairs.modalities) < 2 or done.pairs < 8:
        raise InputError(f"{done.pairs} clips with sound and picture are too few to learn from: {helps}")
    if done.pairs < FEW_PAIRS and background is None:
        say(f"{done.pairs} clips with sound and picture are few to learn from: {helps}")
    training = pairs if exclude is None else exclude_ids(pairs, read_ids(exclude).tolist())
    others = None if background is None else without_clips_of(read(background), pairs)
    train_run(
        get_method("hscmae").from_settings({"seed": seed}, "default"),
        training,
        folder,
        background=others,
        resume=(partial_folder(folder) / CHECKPOINT).is_file() or (folder.exists() and not again),
        overwrite=again,
        data={
            "source": FEATURES,
            "split": "all",
            "excluded": exclude and exclude.name,
            "background": background and background.name,
        },
        recipe=recipe_of(folder.parent / FEATURES),
        progress=lambda record: show("train", record["step"], record["steps"]),
    )
    done.trained = True


def _weights_of(run: str) -> str | None:
    return str(read_config(Path(run))["sha256"]) if Path(run).is_dir() else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_about(output: Path, about: dict[str, Any]) -> None:
    write_atomic(output / ARCHIVE, (json.dumps(about, indent=1) + "\n").encode())
