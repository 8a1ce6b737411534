# SPDX-License-Identifier: Apache-2.0
"""`bench evaluate`: a data set's test clips, or folders of videos, to clips.csv and leaderboard.csv."""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd

from lipsync_bench.datamodules.clips.clip import ClipHeader, read_header
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.disk import remove_leftovers, sha256
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import SUFFIX, prepare
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.slices import WHOLE, Slice, rank_and_world
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation.candidates import Candidate, Checkpoint, GroundTruth, RepeatedFrame, VideoFolder
from lipsync_bench.evaluation.elsewhere.candidate import CommandVideos
from lipsync_bench.evaluation.features import pooled_values
from lipsync_bench.evaluation.networks import MetricNetworks
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Rules, Running, Selection
from lipsync_bench.evaluation.run import Evaluation, evaluate_pairs
from lipsync_bench.evaluation.several import Several
from lipsync_bench.evaluation.target.geometry import refuse_without_boxes
from lipsync_bench.evaluation.target.regions import Regions
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.evaluation.task.inputs import Standing
from lipsync_bench.evaluation.task.listing import list_pairs
from lipsync_bench.evaluation.task.pairs import Pair, draw_pairs
from lipsync_bench.evaluation.task.protocol import PAIRED_FACE_BOX, VIDEO_PAIRS, Protocol, load_protocol, rules_sha256
from lipsync_bench.evaluation.task.selection import Result, methods_of, pairs_of, refuse_names
from lipsync_bench.processes import device_of, has_meeting_place, return_memory, wait_for_all
from lipsync_bench.results import manifest
from lipsync_bench.results.leaderboard import write_leaderboard
from lipsync_bench.results.rows import (
    BOARD,
    GROUND_TRUTH,
    IDENTITY,
    REPEATED_FRAME,
    RowFile,
    join_rows,
    read_rows,
    rows_in,
)
from lipsync_bench.weights.methods import file_here, method_file

_log = logging.getLogger(__name__)

__all__ = ["Result", "evaluate_dataset", "evaluate_videos"]


def _meet(part: Slice) -> bool:
    """Whether the slices are processes that wait for each other, as those of torchrun."""
    return part.count > 1 and rank_and_world()[1] > 1 and part.said_by != "--slice" and has_meeting_place()


def _run(
    run: Evaluation,
    everything: Sequence[Pair],
    pairs: Sequence[Pair],
    headers: Mapping[Path, ClipHeader],
    identity: Mapping[str, object],
    config: Mapping[str, object],
    progress: bool,
    part: Slice,
) -> Result:
    meet = _meet(part)
    out, protocol, networks = run.out, run.regions.protocol, run.networks
    out.mkdir(parents=True, exist_ok=True)
    if part.count == 1:  # other processes may be writing
        remove_leftovers(out)
    shared = {"protocol": protocol.key, "rules": rules_sha256(protocol, run.dataset), "scorers": networks.identity}
    session = manifest.Run(
        identity={**shared, "boxes": run.regions.version, **identity},
        protocol=asdict(protocol),
        methods={candidate.name: candidate.sha256 for candidate in run.candidates},
        config=config,
        clips={headers[clip].id: headers[clip].source_sha256 for pair in pairs for clip in (pair.video, pair.audio)},
        weights=networks.identity,
        seeds={"pairs": protocol.seed},
        processes=part.count,
    )

    def standing(chosen: Sequence[Pair], again: bool) -> Standing:
        return Standing(
            run.source_root,
            run.regions,
            run.candidates,
            headers,
            everything,
            chosen,
            out=out,
            networks=networks.loaded,
            again=again,
        )

    return_memory()  # of preparing targets and loading weights
    with (manifest.session if part.index == 0 else manifest.other_process)(out, session) as ending:
        own = part.of(pairs)  # none twice: no padding to equal shares
        for candidate in run.candidates:
            candidate.make(own, progress and part.index == 0)
        name = "clips.csv" if part.count == 1 else f"clips.rank{part.index}.csv"
        rows = RowFile(out / name, standing(own, again=True))
        try:
            evaluate_pairs(own, run, rows, progress and part.index == 0)
            if meet:
                wait_for_all()
            holds, missing = standing(pairs, again=False), 0
            if part.count > 1:
                there = {tuple(row[name] for name in IDENTITY) for row in rows_in(out) if holds(row)}
                missing = len(holds.expected.keys() - there)
            table, order = read_rows(out), list(holds.expected)
            del holds  # which has the metric networks
        finally:  # not earlier: while its rows are open, no other process joins and removes files
            rows.close()
            run.regions.close()
        if meet:
            wait_for_all()  # until nobody reads
        if missing:
            ending.outcome = "share done"
            _log.info(
                "%s: %d rows of other processes are still to come; the last one writes leaderboard.csv", out, missing
            )
        if missing or (meet and rank_and_world()[0] != 0):
            return Result(out, pd.DataFrame(), table, missing)
        join_rows(out, order)
        networks.release()
        return_memory()  # for the statistics, and for FID's matrices of 34 MB each
        pooled = pooled_values(out, table, networks.loaded)
        result = Result(out, write_leaderboard(table, out / BOARD, pooled), table)
        manifest.finish(out)
        return result


def _checkpoints(given: Mapping[str, Path], wanted: Container[str], store: Store) -> dict[str, Path]:
    """The file of each method; one that is not here is left out, and named, unless it is wanted by its name.

    Raises:
        FileNotFoundError, ValueError: As `method_file`, of one that is wanted.
    """
    files, absent = {}, []
    for name, path in given.items():
        if name in wanted or file_here(name, path, store) is not None:
            files[name] = method_file(name, path, store)
        else:
            absent.append(f"{name} ({path})")
    if absent:
        _log.info("not here yet, and therefore left out: %s", ", ".join(absent))
    return files


def _regions(protocol: Protocol, store: Store, device: str) -> Regions:
    """The detectors of a protocol, with S3FD's weights where it needs them."""
    return Regions(protocol, store.need("s3fd").path if protocol.boxes == "s3fd" else None, device)


def _sources_of(clips: Iterable[Path]) -> Iterator[str]:
    """The videos of all clips that can be read."""
    for clip in clips:
        with suppress(ClipError):
            yield read_header(clip).source


def evaluate_dataset(
    dataset: str,
    out: Path,
    *,
    inputs: Inputs = Inputs(),
    rules: Rules = Rules(),
    recipe: RecipeOptions = RecipeOptions(),
    metrics: MetricOptions = MetricOptions(),
    weights: WeightOptions = WeightOptions(),
    select: Selection = Selection(),
    running: Running = Running(),
    splitting: Splitting = Splitting(),
    progress: bool = True,
    wanted: Container[str] | None = None,
) -> Result:
    """Rank methods on a data set. The ground truth always takes part, and the repeated frame unless left out.

    Args:
        dataset: Name or path of a benchmark YAML.
        out: Results folder; an interrupted run is resumed.
        inputs: Clips, checkpoints and folders of videos, beside or instead of the YAML's methods; see `VideoFolder`
            for the names of videos.
        rules: How clips are drawn, paired and compared.
        recipe: Parts of the methods' recipes that are replaced; the rows say so.
        metrics: Metrics beyond those that are always computed.
        weights: Where the networks' weights are looked for.
        select: A part of the methods or clips.
        running: Device, and what is kept.
        splitting: Which part is scored, and where.
        progress: Show progress and the means so far.
        wanted: Methods without which there is no evaluation; those that `inputs.methods` and `select.only` name if not
            given. Another one that lacks a file is left out, and named.

    Raises:
        FileNotFoundError: A benchmark, protocol, weight file or data folder is missing, or a file of a wanted method.
        ValueError: The results folder belongs to another protocol, data set or scorer; or a name is not known.
    """
    if Several.wanted(running, splitting):
        call = partial(
            evaluate_dataset,
            dataset,
            out,
            inputs=inputs,
            rules=rules,
            recipe=recipe,
            metrics=metrics,
            weights=weights,
            select=select,
            wanted=wanted,
        )
        return Several(call, running, splitting, progress).run()
    part = splitting.part()
    wanted = {*inputs.methods, *select.only} if wanted is None else wanted
    protocol = load_protocol(rules.protocol or PAIRED_FACE_BOX)
    benchmark = load_benchmark(dataset, inputs.root, inputs.methods, rules.split)
    folders = {name: Path(folder) for name, folder in inputs.pred.items()}
    given = {name: Path(path) for name, path in benchmark.methods.items() if name not in folders}
    store = weights.store
    checkpoints = _checkpoints(given, wanted, store)
    commands = {name: command for name, command in benchmark.commands.items() if name not in folders}
    refuse_names([*checkpoints, *folders, *commands])
    names = methods_of(select, [GROUND_TRUTH, REPEATED_FRAME, *checkpoints, *folders, *commands])
    for name, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"--pred {name}={folder} is no folder. Expected one that holds videos.")
    where = device_of(running.device)
    listing = list_pairs(benchmark, protocol, rules, select)
    all_sources = list(_sources_of(listing.clips)) if folders else []
    if recipe.enhance == "gfpgan":
        store.need("gfpgan_1_3")  # of all methods: without it none is begun
    left_out: dict[str, str] = {}

    def candidates() -> Iterator[Candidate]:
        root, sources = benchmark.data.source_root, listing.sources
        yield GroundTruth(root, sources)
        if REPEATED_FRAME in names:
            yield RepeatedFrame()
        for name, path in checkpoints.items():
            if name in names:
                try:
                    method = Checkpoint(name, path, where, store, recipe, protocol)
                    refuse_without_boxes(method.fed.crop, listing.clips)
                except FileNotFoundError as error:
                    left_out[name] = f"{name}: {error}"
                    if name in wanted:
                        raise FileNotFoundError(left_out[name]) from error
                    _log.warning("left out: %s", left_out[name])
                else:
                    yield method
        for name, folder in folders.items():
            if name in names:
                yield VideoFolder(name, folder, sources, (out, root, *folders.values()), all_sources)
        for name, command in commands.items():
            if name in names:
                yield CommandVideos(name, command, out, root, listing, running.command_workers)

    run = Evaluation(
        benchmark.data.source_root,
        list(candidates()),
        _regions(protocol, store, where),
        MetricNetworks(metrics, store, where),
        benchmark.name,
        out,
        running.save_videos,
        benchmark.lse == "wav2lip_real",
        benchmark.data.split_name(benchmark.split),
    )
    identity = {
        "dataset": benchmark.name,
        "split": run.split,
        "pairs_sha256": "" if rules.pairs is None else sha256(rules.pairs),
    }
    methods = {name: path for name, path in checkpoints.items() if name not in left_out}
    config = {
        "dataset": dataset,
        "out": out,
        **vars(replace(inputs, methods=methods, pred=folders)),
        **({"commands": {name: command.stated() for name, command in commands.items()}} if commands else {}),
        **vars(replace(rules, protocol=rules.protocol or PAIRED_FACE_BOX, split=benchmark.split)),
        **({"recipe": {name: value for name, value in asdict(recipe).items() if value is not None}} if recipe else {}),
        "metrics": asdict(metrics),
        **asdict(weights),
        "select": asdict(select),
        **vars(replace(running, device=where)),
    }
    result = _run(run, listing.everything, listing.chosen, listing.headers, identity, config, progress, part)
    return replace(result, left_out=left_out)


def evaluate_videos(
    pred: Path | Mapping[str, Path],
    target: Path,
    out: Path,
    *,
    rules: Rules = Rules(),
    metrics: MetricOptions = MetricOptions(),
    weights: WeightOptions = WeightOptions(),
    select: Selection = Selection(),
    running: Running = Running(),
    splitting: Splitting = Splitting(),
    workers: int | None = None,
    progress: bool = True,
) -> Result:
    """Score anybody's videos against their targets; no model and no data set needed.

    The targets are prepared into `out/targets` first (faces found once, failures counted). A prediction is matched by
    its path below the folder, or else its name; it is compared with the target at 25 fps from its first frame on,
    resized where the sizes differ, as far as the shorter of the two reaches (`frames` against `frames_target` in the
    row). A missing prediction is a failed row.

    Args:
        pred: Folder of generated videos, which gives the method its name; or several by name.
        target: Folder of the real videos.
        out: Results folder.
        rules: As for `evaluate_dataset`, and so the others; a paired protocol.
        workers: Processes that prepare the targets.

    Raises:
        FileNotFoundError: A folder or weight file is missing, or no target could be prepared.
        ValueError: As for `evaluate_dataset`.
    """
    part = splitting.part()
    protocol = load_protocol(rules.protocol or VIDEO_PAIRS)
    if protocol.pairing != "paired":
        raise ValueError(
            f"{protocol.key} dubs with the audio of other clips. Expected a paired protocol for --target; score dubbed "
            "videos with --dataset NAME --pred NAME=DIR"
        )
    folders = {name: Path(folder) for name, folder in pred.items()} if isinstance(pred, Mapping) else {}
    if not isinstance(pred, Mapping):
        folders = {Path(pred).resolve().name: Path(pred)}
    for label, folder in (*((f"--pred {name}", folder) for name, folder in folders.items()), ("--target", target)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{label} {folder} is no folder. Expected one that holds videos.")
    refuse_names(folders)
    names = methods_of(select, [GROUND_TRUTH, REPEATED_FRAME, *folders])
    others = (out, *folders.values())
    several = Several.wanted(running, splitting)
    in_turn, first = _meet(part), rank_and_world()[0] == 0
    if in_turn and not first:  # the first process prepares, the others find everything there
        wait_for_all()
    try:
        where_to = Splitting(WHOLE, splitting.executor, splitting.ray_gpus)
        preparing = PrepareOptions(workers=workers)
        report = prepare(target, out / "targets", preparing, splitting=where_to, progress=progress, exclude=others)
    finally:
        if in_turn and first:
            wait_for_all()
    if report.failed:
        _log.warning("%d of the targets could not be prepared; see %s", report.failed, out / "targets" / "failures.csv")
    if not report.clips:
        raise FileNotFoundError(
            f"none of the {report.failed} videos in --target {target} could be prepared. Expected at least one with a "
            f"face and audio. Reasons are in {out / 'targets' / 'failures.csv'}"
        )
    if several:
        call = partial(
            evaluate_videos,
            pred,
            target,
            out,
            rules=rules,
            metrics=metrics,
            weights=weights,
            select=select,
            workers=workers,
        )
        return Several(call, running, splitting, progress).run()
    everything = draw_pairs([out / "targets" / f"{name}{SUFFIX}" for name in report.clips], protocol, "videos")
    headers = {pair.video: read_header(pair.video) for pair in everything}
    chosen = pairs_of(select, everything, {clip: header.id for clip, header in headers.items()})
    sources = {header.id: header.source for header in headers.values()}
    candidates: list[Candidate] = [GroundTruth(target, sources)]
    candidates += [RepeatedFrame()] if REPEATED_FRAME in names else []
    others = (out, target, *folders.values())
    for name in (name for name in folders if name in names):
        candidates.append(VideoFolder(name, folders[name], sources, others, report.sources))
    where = device_of(running.device)
    store = weights.store
    regions = _regions(protocol, store, where)
    networks = MetricNetworks(metrics, store, where)
    run = Evaluation(target, candidates, regions, networks, "videos", out, running.save_videos, True, "all")
    config = {
        "pred": folders,
        "target": target,
        "out": out,
        "protocol": rules.protocol or VIDEO_PAIRS,
        "metrics": asdict(metrics),
        **asdict(weights),
        "select": asdict(select),
        **vars(replace(running, device=where)),
    }
    return _run(run, everything, chosen, headers, {"dataset": "videos", "split": run.split}, config, progress, part)
