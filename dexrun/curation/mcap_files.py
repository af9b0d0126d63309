"""Recordings put together anew: whole episodes are linked, changed ones written again message by message."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexrun.curation.links import link, link_tree
from dexrun.curation.pieces import Excerpt
from runtime.clock import NS_PER_S
from runtime.recording.annotations import ANNOTATIONS, annotation_files, annotation_path
from runtime.recording.bounds import reading
from runtime.recording.mcap_file import Batch, Channel, McapFile
from runtime.recording.schemas import Schema
from runtime.recording.source import RecordingFile

FOLDER = "episodes"
_TOLD_ONCE = ("/info",)
"""Topics whose one message is of the whole episode."""


@dataclass(frozen=True)
class _Span:
    """Of the times since the epoch that are kept."""

    start_ns: int
    end_ns: int


def assemble_mcap(pieces: list[Excerpt], draft: Path) -> None:
    """A run's folder with one file for each piece; what else was in the run is there, too."""
    roots = {each.source.path for each in pieces}
    (root,) = roots if len(roots) == 1 else (None,)
    if root is not None and root.is_dir() and (root / FOLDER).is_dir():
        link_tree(root, draft, leave=(FOLDER, ANNOTATIONS))
    for number, piece in enumerate(pieces):
        source, target = piece.episode.path, draft / FOLDER / f"episode_{number:06d}.mcap"
        episode = piece.episode
        same = (piece.task, piece.label) == (episode.task, episode.label)
        target.parent.mkdir(parents=True, exist_ok=True)
        for annotation in annotation_files(source):  # by time, so it fits what is left of the recording
            beside = annotation_path(target, annotation.parent.name)
            beside.parent.mkdir(parents=True, exist_ok=True)
            link(annotation, beside)
        if piece.whole and same and _index(source) == number:
            link(source, target)
            continue
        said = {"index": str(number), "task": piece.task, "label": piece.label or "none"}
        rewrite(source, target, said, None if piece.whole else _span(piece))


def _index(source: Path) -> int:
    file = RecordingFile(source)
    try:
        return int(file.records.get("episode", {}).get("index", -1))
    finally:
        file.close()


def _span(piece: Excerpt) -> _Span:
    """From a little before the piece's first row on, so that every sensor has given something by then."""
    row_ns = NS_PER_S / piece.source.rate_hz
    file = RecordingFile(piece.episode.path)
    try:
        offset_ns = int(file.records.get("clock", {}).get("offset_ns", 0))
    finally:
        file.close()
    begin_ns = piece.episode.begin_ns + offset_ns
    return _Span(
        begin_ns + round((piece.first - 1) * row_ns) + 1, begin_ns + round((piece.end - 0.5) * row_ns)
    )


def rewrite(source: Path, target: Path, said: Mapping[str, str], span: _Span | None = None) -> None:
    """The recording `source` at `target`, with other words about it, and of `span` alone.

    Raises:
        RecordingError: it is damaged. OSError: `target` cannot be written.
    """
    file = RecordingFile(source)
    with reading(source):
        channels, numbers, compressions = _channels(file)
        out = McapFile(target, channels)
        try:
            messages = dict.fromkeys((channel.topic for channel in channels), 0)
            for batch in _batches(file, numbers, compressions, span, messages):
                out.write(batch)
            for name, values in _records(file.records, said, span, messages).items():
                out.write_metadata(name, values)
            out.finish()
        except BaseException:
            out.discard()
            raise
        finally:
            file.close()


def _channels(file: RecordingFile) -> tuple[list[Channel], dict[str, int], dict[int, str]]:
    """Channels as they were, each topic's number, and each chunk's compression by its offset."""
    from mcap.reader import SeekingReader

    with file.path.open("rb") as stream:
        summary = SeekingReader(stream).get_summary()
    if summary is None:
        raise ValueError("there is no summary")
    channels = []
    for entry in summary.channels.values():
        schema = summary.schemas[entry.schema_id]
        made = Schema(schema.name, schema.encoding, schema.data, entry.message_encoding)
        channels.append(Channel(entry.topic, made, dict(entry.metadata)))
    compressions = {chunk.chunk_start_offset: chunk.compression for chunk in summary.chunk_indexes}
    return channels, {channel.topic: n for n, channel in enumerate(channels, 1)}, compressions


def _batches(
    file: RecordingFile,
    numbers: Mapping[str, int],
    compressions: Mapping[int, str],
    span: _Span | None,
    messages: dict[str, int],
) -> Iterator[Batch]:
    """The messages that are kept, in chunks as they were."""
    where: dict[int, list[tuple[int, str, int]]] = {}
    for name, topic in file.topics.items():
        for place, (chunk, offset) in enumerate(
            zip(topic.chunks.tolist(), topic.offsets.tolist(), strict=True)
        ):
            where.setdefault(chunk, []).append((offset, name, place))
    for chunk in sorted(where):
        batch = Batch("zstd" if compressions[chunk] == "zstd" else "")
        for _, name, place in sorted(where[chunk]):
            topic = file.topics[name]
            time_ns = int(topic.times[place])
            if span is not None and name.endswith(_TOLD_ONCE):
                time_ns = max(span.start_ns, time_ns)
            if span is None or span.start_ns <= time_ns <= span.end_ns:
                sequence, publish_ns, data = file.message(topic, place)
                batch.add(numbers[name], sequence, time_ns, publish_ns, [bytes(data)])
                messages[name] += 1
        yield batch


def _records(
    records: Mapping[str, Mapping[str, str]],
    said: Mapping[str, str],
    span: _Span | None,
    messages: Mapping[str, int],
) -> dict[str, dict[str, str]]:
    """What the file says about itself."""
    out = {name: dict(values) for name, values in records.items()}
    episode: dict[str, Any] = {**out.get("episode", {}), **said}
    if span is not None:
        offset_ns = int(out.get("clock", {}).get("offset_ns", 0))
        episode |= {
            "start_time_ns": str(span.start_ns),
            "end_time_ns": str(span.end_ns),
            "start_ns": str(span.start_ns - offset_ns),
            "end_ns": str(span.end_ns - offset_ns),
            "duration_s": f"{(span.end_ns - span.start_ns) / NS_PER_S:.6f}",
            "messages": json.dumps({topic: count for topic, count in messages.items() if count}),
        }
        out.pop("episode_start", None)  # what control remembered when the whole episode began
    return {**out, "episode": episode}
