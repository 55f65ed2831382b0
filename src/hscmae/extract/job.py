"""``extract``: from media to a store, resumable and updatable; ``features_of``: a query, extracted by a recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from hscmae.data.pairs import Pairs
from hscmae.data.recipe import Recipe, recipe_of, require_same_recipe
from hscmae.data.store import is_store, open_store
from hscmae.data.table import concatenate
from hscmae.errors import InputError, printable
from hscmae.extract import assemble
from hscmae.extract.assemble import ClipLabels, Source
from hscmae.extract.base import AudioExtractor, VisualExtractor
from hscmae.extract.jail import Jail
from hscmae.extract.media import Frames, Limits, MediaClip, find_clips
from hscmae.extract.pipeline import Job, Pool, describe_all, file_state
from hscmae.extract.recipe import choose, job_for, recipe_for
from hscmae.extract.registry import get_extractor
from hscmae.extract.spool import Kept, Recording, Spool, interrupted_job
from hscmae.extract.windows import Sampling
from hscmae.extras import require

log = logging.getLogger(__name__)

Engine = Literal["plain", "ray"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What a user asks for; ``None`` is the default, or what the store that is updated or gone on with has.

    Attributes:
        audio, visual: an extractor's name; "auto" for the best at hand, "none" to leave the modality out.
        window, hop: seconds; see ``windows``.
        pool: "mean" for one vector a window.
        frames: "second" for a picture a second, "key" for key frames alone, which is faster.
        weights: files and folders with networks' weights.
        limits: of one file.
    """

    audio: str | None = None
    visual: str | None = None
    window: float | None = None
    hop: float | None = None
    pool: Pool | None = None
    frames: Frames | None = None
    weights: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass
class Summary:
    """What an extraction did.

    Attributes:
        output: the store.
        clips, rows: recordings found, and rows in the store.
        described, kept, dropped: recordings described in this run, taken over from before, and gone from the media.
        problems: a line about each file, or part of one, that could not be used.
        missing: for each modality, rows that lack it.
        recipe: as in the store's manifest.
        notes: which extractors were chosen, and how to get better ones.
    """

    output: Path
    clips: int
    rows: int = 0
    described: int = 0
    kept: int = 0
    dropped: int = 0
    problems: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def extract(
    paths: Sequence[str | Path] | str | Path,
    output: str | Path,
    *,
    audio: str | None = None,
    visual: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    pool: Pool | None = None,
    frames: Frames | None = None,
    weights: Sequence[str | Path] = (),
    labels: str | Path | None = None,
    jobs: int | None = None,
    engine: Engine = "plain",
    strict: bool = False,
    resume: bool = False,
    update: bool = False,
    overwrite: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """Describe media files by trained networks and write their features to a store, a row a window.

    A file that cannot be read is logged as a warning, one line each, and its clip lacks that modality; a clip of which
    nothing can be read is a line in the store's ``media.csv`` alone.

    Args:
        paths: media files and folders; see ``find_clips``.
        output: the store's folder.
        audio, visual: an extractor's name: "light", "yamnet", "efficientnet-lite0", "transformers:ID", ...; "none"
            leaves the modality out; the best one at hand where not given.
        window, hop: seconds of a window, and from one to the next; 10 where not given.
        pool: "mean" for a vector a window; sequences of a vector a second where not given.
        frames: "key" for key frames alone; a picture a second where not given.
        weights: files and folders with networks' weights.
        labels: a CSV file of clips' labels, and split; see ``ClipLabels``.
        jobs: decoding processes and threads a network; one a core where not given.
        engine: "ray" spreads the files over a Ray cluster (extra ``ray``); the same bytes.
        strict: stop at the first file with a problem.
        resume: go on with an extraction that was interrupted.
        update: read new and changed files only, drop vanished ones; settings not given are the store's.
        overwrite: replace a store that is there.
        limits: of one file.
        progress: called with (clips done, clips in all).

    Returns:
        The pairs in the store, memory-mapped: modalities "audio" and "visual", or the one that there is.

    Raises:
        InputError: no media files, none that can be read, an extra or weights missing, or ``output`` exists.
    """
    named = [paths] if isinstance(paths, (str, Path)) else paths
    settings = Settings(audio, visual, window, hop, pool, frames, [Path(w) for w in weights], limits or Limits())
    run(
        named,
        Path(output),
        settings,
        labels=None if labels is None else Path(labels),
        jobs=jobs,
        engine=engine,
        strict=strict,
        resume=resume,
        update=update,
        overwrite=overwrite,
        progress=progress,
    )
    return open_store(output)


def run(
    paths: Sequence[str | Path],
    output: Path,
    settings: Settings,
    *,
    labels: Path | None = None,
    jobs: int | None = None,
    engine: Engine = "plain",
    strict: bool = False,
    resume: bool = False,
    update: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = log.info,
) -> Summary:
    """``extract``, with what it did as the result; ``say`` is told which extractors were chosen.

    Raises:
        InputError: as ``extract``.
    """
    for module in ("av", "PIL.Image", "threadpoolctl"):
        require(module, "media")
    _check_output(output, overwrite or update or resume)
    unused: list[str] = []
    clips = find_clips(paths, unused=unused)
    # One that was killed at its very end has left a store: there is nothing left to go on with, which is no error.
    there = output.exists() and (update or (resume and not overwrite))
    before = recipe_of(output) if there else interrupted_job(output) if resume or update else None
    if there and before is None:
        raise InputError(f"{output}: was not written by extract, so it cannot be updated")
    job, notes = _job(settings, before, clips)
    for note in notes:
        say(note)
    recipe = recipe_for(job)
    if there:
        _require_same_job(recipe, before, output)
    marks = None if labels is None else ClipLabels(labels)
    if marks is not None:
        marks.require_some(clip.key for clip in clips)
    elif there and update and _is_labelled(output):
        raise InputError(f"{output}: has labels: name them again with --labels")
    summary = Summary(output, len(clips), recipe=recipe, notes=notes)
    for line in unused:
        _report(line, summary, strict)
    old = assemble.old_recordings(output) if there else None
    if old is not None and not update:
        _require_finished(clips, _unchanged(clips, job, old.recordings), old.recordings, output)
    without_versions = {key: value for key, value in recipe.items() if key != "versions"}
    with Spool(output, without_versions, job.dims, resume=resume or update, restart=overwrite) as spool:
        try:
            kept = _unchanged(clips, job, {} if old is None else old.recordings)
            done = _unchanged(clips, job, spool.done)
            todo = [clip for clip in clips if clip.id not in kept and clip.id not in done]
            summary.kept, summary.described = len(kept), len(clips) - len(kept)
            summary.dropped = 0 if old is None else len(set(old.recordings) - {clip.id for clip in clips})
            for clip in clips:
                if (found := kept.get(clip.id) or done.get(clip.id)) is not None:
                    summary.problems += _lines(found, clip)
            finished = len(clips) - len(todo)
            if progress is not None and finished:
                progress(finished, len(clips))
            by_id = {clip.id: clip for clip in todo}
            with closing(_described(todo, job, settings.weights, spool, jobs, engine)) as recordings:
                for recording in recordings:
                    for line in _lines(recording, by_id[recording.id]):
                        _report(line, summary, strict)
                    spool.finish(recording)
                    done[recording.id] = recording
                    finished += 1
                    if progress is not None:
                        progress(finished, len(clips))
            sources = [Source(done, spool.features())]
            if old is not None:
                sources.append(Source(kept, old.arrays))
            if old is None or (update and (todo or done or summary.dropped or marks is not None)):
                assemble.write(output, sources, recipe, list(job.dims), marks, overwrite=overwrite or update)
            spool.remove()
        except BaseException as error:
            if not spool.done or (isinstance(error, InputError) and not strict):
                spool.remove()
            raise
    pairs = open_store(output)
    summary.rows = len(pairs)
    summary.missing = {m: int((~p).sum()) for m, p in pairs.present.items() if not p.all()}
    return summary


def features_of(
    paths: Sequence[str | Path] | str | Path,
    recipe: Recipe | None = None,
    *,
    weights: Sequence[str | Path] = (),
    at: float | None = None,
    jobs: int | None = None,
    job: Job | None = None,
    jail: Jail | None = None,
) -> Pairs:
    """Features of media in memory, for a query: extracted as ``recipe`` says.

    Args:
        paths: media files and folders; a sound, a picture, or both of one clip.
        recipe: an archive's or a model's, see ``hscmae.data.recipe.recipe_of``; the best at hand where not given.
        weights: files and folders with networks' weights.
        at: seconds; only the window that begins there.
        jobs: as in ``extract``.
        job: the recipe's job (``extract.recipe.job_for``), so that several queries load the networks once.
        jail: a decoder that was started before; it is closed afterwards.

    Returns:
        A row a window.

    Raises:
        InputError: a file that cannot be read, or extractors that are not to be had here.
    """
    clips = find_clips([paths] if isinstance(paths, (str, Path)) else paths)
    places = [Path(w) for w in weights]
    if job is None:
        job = job_for(recipe, places) if recipe is not None else _job(Settings(weights=places), None, clips)[0]
    if at is not None:
        job = Job(job.audio, job.visual, job.sampling, job.pool, job.limits, at)
    kept = Kept(job.dims)
    found: dict[str, Recording] = {}
    by_id = {clip.id: clip for clip in clips}
    with closing(describe_all(clips, job, kept.append, jobs, jail)) as recordings:
        for recording in recordings:
            if not recording.rows:
                lines = _lines(recording, by_id[recording.id]) or [f"{recording.id}: holds neither sound nor picture"]
                raise InputError(lines[0])
            found[recording.id] = recording
    source = Source(found, kept.arrays())
    return concatenate(list(assemble.blocks([source], list(job.dims), None)))


EXISTS = "exists already (--overwrite replaces it, --update takes in new files)"


def _check_output(output: Path, replaces: bool) -> None:
    if output.exists() and not replaces:
        raise InputError(f"{output}: {EXISTS}")
    if output.exists() and not is_store(output) and (output.is_file() or any(output.iterdir())):
        raise InputError(f"{output}: is not a store, so it is not replaced")


def _job(settings: Settings, before: Mapping[str, Any] | None, clips: Sequence[MediaClip]) -> tuple[Job, list[str]]:
    """The job that is asked for, and what to say about it."""
    past = before or {}
    notes, extractors = [], {}
    for m in ("audio", "visual"):
        name = getattr(settings, m)
        if name is None and before is not None:
            name = past[m]["extractor"] if m in past else "none"
        if name is None or name == "auto":
            name, note = choose(m, settings.weights)
            if any(getattr(clip, m) for clip in clips):
                notes.append(note)
        if name != "none":
            extractors[m] = get_extractor(name, m, settings.weights)
    if not extractors:
        raise InputError("neither sound nor pictures are to be extracted")

    def setting(given: Any, key: str, default: Any) -> Any:
        return given if given is not None else past.get(key, default)

    window = float(setting(settings.window, "window", 10.0))
    hop = float(setting(settings.hop, "hop", window))
    frames = settings.frames or past.get("visual", {}).get("frames", "second")
    job = Job(
        cast(AudioExtractor | None, extractors.get("audio")),
        cast(VisualExtractor | None, extractors.get("visual")),
        Sampling(window, hop, frames),
        setting(settings.pool, "pool", "none"),
        settings.limits,
    )
    return job, notes


def _require_same_job(recipe: Recipe, before: Recipe | None, output: Path) -> None:
    """Refuse to update a store with features of another kind."""
    require_same_recipe(recipe, before, f"{output}: cannot be updated: the features that are asked for")
    for key in ("audio", "visual", "hop", "pool"):
        if (before or {}).get(key) != recipe.get(key):
            raise InputError(f"{output}: cannot be updated with another {key} than it has")


def _require_finished(
    clips: Sequence[MediaClip], kept: Mapping[str, Recording], known: Mapping[str, Recording], output: Path
) -> None:
    """Refuse to go on with a store that is of other recordings: nothing is taken in or dropped without being asked."""
    if len(kept) < len(clips) or len(known) > len(clips):
        raise InputError(f"{output}: {EXISTS}")


def _is_labelled(output: Path) -> bool:
    pairs = open_store(output)
    return pairs.labels is not None or pairs.split is not None


def _unchanged(clips: Sequence[MediaClip], job: Job, known: Mapping[str, Recording]) -> dict[str, Recording]:
    """What is known of recordings whose files are still the same."""
    found = {}
    for clip in clips:
        recording = known.get(clip.id)
        if recording is None:
            continue
        wanted = [(m, path) for m, path in clip.files().items() if m in job.extractors]
        try:
            if {m: file_state(clip, path) for m, path in wanted} == dict(recording.files):
                found[clip.id] = recording
        except OSError:
            continue
    return found


def _described(
    clips: Sequence[MediaClip], job: Job, weights: Sequence[Path], spool: Spool, jobs: int | None, engine: Engine
) -> Generator[Recording, None, None]:
    if engine == "ray" and clips:
        from hscmae.extract.on_ray import describe_on_ray

        yield from describe_on_ray(clips, recipe_for(job), weights, job.limits, spool.append)
    elif clips:
        yield from describe_all(clips, job, spool.append, jobs)


def _lines(recording: Recording, clip: MediaClip) -> list[str]:
    files = clip.files()
    return [f"{files.get(m, clip.id)}: {text}" for m, text in recording.problems]


def _report(line: str, summary: Summary, strict: bool) -> None:
    if strict:
        raise InputError(line)
    summary.problems.append(line)
    log.warning(printable(line))
