"""Recordings that somebody has changed on purpose: well-formed MCAP, other content than it should have."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"


@dataclass
class Channel:
    topic: str
    encoding: str
    schema: tuple[str, str, bytes]
    metadata: dict[str, str]
    messages: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """Log time, publish time, sequence, data."""


@dataclass
class Content:
    """All that is in a file."""

    channels: dict[str, Channel]
    records: dict[str, dict[str, str]]

    @classmethod
    def of(cls, path: Path) -> Content:
        with path.open("rb") as file:
            reader = make_reader(file)
            summary = reader.get_summary()
            assert summary is not None
            channels = {}
            for each in summary.channels.values():
                schema = summary.schemas[each.schema_id]
                about = (schema.name, schema.encoding, schema.data)
                channels[each.topic] = Channel(each.topic, each.message_encoding, about, dict(each.metadata))
            for _, channel, message in reader.iter_messages(log_time_order=False):
                entry = (message.log_time, message.publish_time, message.sequence, message.data)
                channels[channel.topic].messages.append(entry)
            records = {record.name: dict(record.metadata) for record in reader.iter_metadata()}
        return cls(channels, records)

    def write(self, path: Path) -> Path:
        with path.open("wb") as out:
            writer = Writer(out, compression=CompressionType.NONE, chunk_size=200_000)
            writer.start()
            for name, values in self.records.items():
                writer.add_metadata(name, values)
            for channel in self.channels.values():
                schema = writer.register_schema(*channel.schema)
                number = writer.register_channel(channel.topic, channel.encoding, schema, channel.metadata)
                for log_ns, publish_ns, sequence, data in channel.messages:
                    writer.add_message(number, log_ns, data, publish_ns, sequence)
            writer.finish()
        return path


NONSENSE = (
    "",
    "null",
    "7",
    "-1",
    "1e400",
    "NaN",
    "9" * 5000,
    str(2**63),
    "[]",
    "{}",
    '["a"]',
    '{"a": {"b": null}}',
    "[" * 3000,
    json.dumps(ESCAPE),
    "not json",
    '{"model": "/dev/zero.xml", "joint_names": 3}',
    "[[0, 1]]",
    '[["x", null]]',
)


def change(content: Content, chance: random.Random) -> str:
    """One thing is made otherwise; returns which."""
    how = chance.choice(CHANGES)
    return f"{how.__name__} {how(content, chance)}"


def some(content: Content, chance: random.Random) -> Channel:
    filled = [each for each in content.channels.values() if each.messages]
    return chance.choice(filled or list(content.channels.values()))


def drop_topic(content: Content, chance: random.Random) -> str:
    return content.channels.pop(some(content, chance).topic).topic


def drop_record(content: Content, chance: random.Random) -> str:
    name = chance.choice(list(content.records))
    del content.records[name]
    return name


def drop_messages(content: Content, chance: random.Random) -> str:
    channel = some(content, chance)
    channel.messages = channel.messages[: chance.choice((0, 1, 2))]
    return channel.topic


def value(content: Content, chance: random.Random) -> str:
    name = chance.choice([name for name, values in content.records.items() if values])
    key = chance.choice(list(content.records[name]))
    content.records[name][key] = chance.choice(NONSENSE)
    return f"{name}.{key} = {content.records[name][key][:40]!r}"


def inner(content: Content, chance: random.Random) -> str:
    """Deep inside the recorded configuration."""
    table = json.loads(content.records["config"]["json"])
    here = table
    while True:
        key = chance.choice(list(here))
        if not isinstance(here[key], dict) or not here[key] or chance.random() < 0.2:
            break
        here = here[key]
    here[key] = chance.choice([None, -1, 1e300, [], {}, "x", ESCAPE, [[1]], True])
    content.records["config"]["json"] = json.dumps(table)
    return f"{key} = {here[key]!r}"


def drop_key(content: Content, chance: random.Random) -> str:
    name = chance.choice([name for name, values in content.records.items() if values])
    key = chance.choice(list(content.records[name]))
    del content.records[name][key]
    return f"{name}.{key}"


def about(content: Content, chance: random.Random) -> str:
    """What a channel says of itself."""
    channel = chance.choice([each for each in content.channels.values() if each.metadata])
    key = chance.choice(list(channel.metadata))
    layout = {"stamp": [[10**9], "<f8"], "position": [[6], "O"], "x": [[-3], "<f8"], "y": ["a", 3]}
    few = dict(chance.sample(sorted(layout.items()), chance.choice((1, 2))))
    channel.metadata[key] = chance.choice((*NONSENSE, json.dumps(few)))
    return f"{channel.topic}.{key} = {channel.metadata[key][:40]!r}"


def rename_topic(content: Content, chance: random.Random) -> str:
    channel = some(content, chance)
    names = ("/cameras/x", "/cameras//color", "/mask/", ESCAPE, "/ticks", "/cameras/a/b/color", "/chunks", "")
    channel.topic = chance.choice(names)
    return channel.topic


def schema(content: Content, chance: random.Random) -> str:
    channel, other = some(content, chance), some(content, chance)
    channel.schema = chance.choice((other.schema, ("", "", b""), (ESCAPE, "protobuf", b"\xff")))
    channel.encoding = chance.choice((channel.encoding, other.encoding, "json", ""))
    return f"{channel.topic} as {channel.schema[0]!r}"


def swap_data(content: Content, chance: random.Random) -> str:
    channel, other = some(content, chance), some(content, chance)
    channel.messages = [
        (*one[:3], chance.choice(other.messages)[3] if other.messages else b"") for one in channel.messages
    ]
    return f"{channel.topic} from {other.topic}"


def garble(content: Content, chance: random.Random) -> str:
    channel = some(content, chance)
    if not channel.messages:
        return channel.topic
    for place in chance.sample(range(len(channel.messages)), min(3, len(channel.messages))):
        *head, data = channel.messages[place]
        changed = bytearray(data)
        for _ in range(chance.choice((1, 3, 20))):
            if changed:
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        cut = chance.choice((len(changed), len(changed), chance.randrange(len(changed) + 1), 0))
        channel.messages[place] = (*head, bytes(changed[:cut]))  # type: ignore[assignment]
    return channel.topic


def numbers(content: Content, chance: random.Random) -> str:
    """Eight bytes somewhere in every row are another number: a stamp, an index, a position."""
    channel = some(content, chance)
    other = chance.choice(
        (
            struct.pack("<d", float("nan")),
            struct.pack("<d", 1e308),
            struct.pack("<q", 2**62),
            bytes(8),
            b"\xff" * 8,
        )
    )
    changed = []
    at = chance.randrange(200)
    for *head, data in channel.messages:
        changed.append((*head, data[:at] + other + data[at + 8 :] if len(data) >= at + 8 else data))
    channel.messages = changed  # type: ignore[assignment]
    return f"{channel.topic} at {at}"


def times(content: Content, chance: random.Random) -> str:
    channel = some(content, chance)
    to = chance.choice((0, 1, 2**62, 2**64 - 1))
    channel.messages = [
        (to if chance.random() < 0.3 else log_ns, publish_ns, sequence, data)
        for log_ns, publish_ns, sequence, data in channel.messages
    ]
    return f"{channel.topic} at {to}"


def huge_picture(content: Content, chance: random.Random) -> str:
    """A JPEG that says it is 65,500 pixels wide and high, a PNG of 2**31, depth of 2**32."""
    pictures = [each for each in content.channels.values() if "Image" in each.schema[0] and each.messages]
    if not pictures:
        return "none"
    channel = chance.choice(pictures)
    place = chance.choice((0, len(channel.messages) - 1))
    *head, data = channel.messages[place]
    for mark, at, size in (
        (b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500)),
        (b"IHDR", 4, struct.pack(">II", 2**31 - 1, 2**31 - 1)),
        (b"\x15", 1, struct.pack("<I", 2**32 - 1)),
    ):
        found = data.find(mark)
        if found >= 0:
            data = data[: found + at] + size + data[found + at + len(size) :]
            break
    channel.messages[place] = (*head, data)  # type: ignore[assignment]
    return channel.topic


CHANGES: tuple[Callable[[Content, random.Random], Any], ...] = (
    drop_topic,
    drop_record,
    drop_messages,
    value,
    value,
    value,
    inner,
    drop_key,
    about,
    about,
    rename_topic,
    schema,
    swap_data,
    garble,
    garble,
    numbers,
    numbers,
    times,
    huge_picture,
)
