"""The report of ``dexrun data check``: one HTML page, its plots and pictures inside; it loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from dexrun.curation.checks import Finding, Looked
from policies.data.dataset import Array, Dataset
from runtime.messages import Floats

_COLORS = ("#4682e6", "#f0963c", "#3aa655", "#c2452d", "#8a5bd1", "#2aa5a5", "#b08b2e", "#666")
_POINTS = 240
_SHOWN = 60
"""Episodes that are drawn; more make a page that no browser likes."""

_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body{{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222}}
h1{{font-size:1.4em}}h2{{font-size:1.1em;margin-top:2em}}table{{border-collapse:collapse}}
td,th{{padding:.2em .7em;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}}
.bad{{color:#b3261e}}.good{{color:#2e7d32}}figure{{display:inline-block;margin:.4em 1em .4em 0}}
figcaption{{font-size:.85em;color:#555}}svg{{background:#fafafa}}
@media(prefers-color-scheme:dark){{body{{background:#1c1c1c;color:#ddd}}svg{{background:#262626}}
td,th{{border-color:#444}}}}
</style></head><body>
"""


def write_report(path: Path, dataset: Dataset, looked: Sequence[Looked], findings: Sequence[Finding]) -> None:
    """Write the page.

    Raises:
        OSError: it cannot be written.
    """
    title = f"{dataset.path.name}: {len(looked)} episodes"
    parts = [_HEAD.format(title=escape(title)), f"<h1>{escape(title)}</h1>", _facts(dataset, looked)]
    parts.append("<h2>Checks</h2>" + _findings(findings, looked))
    parts.append("<h2>Lengths</h2>" + histogram([e.length / dataset.rate_hz for e in looked], "s"))
    found = {n for finding in findings for n in finding.episodes if n >= 0}
    order = sorted(looked, key=lambda each: (each.number not in found, each.number))
    more = len(order) - _SHOWN
    parts.append("<h2>Episodes</h2>" + (f"<p>The first {_SHOWN}; {more} more.</p>" if more > 0 else ""))
    parts += [_episode(each, findings, dataset) for each in order[:_SHOWN]]
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text("".join(parts) + "</body></html>\n", encoding="utf-8")
    draft.replace(path)


def _facts(dataset: Dataset, looked: Sequence[Looked]) -> str:
    seconds = sum(each.length for each in looked) / dataset.rate_hz
    tasks = sorted({each.task for each in looked if each.task})
    rows = {
        "where": str(dataset.path),
        "format": dataset.format,
        "rows a second": f"{dataset.rate_hz:g}",
        "in all": f"{seconds / 60:.1f} min",
        "tasks": ", ".join(tasks[:8]) + (f" and {len(tasks) - 8} more" if len(tasks) > 8 else ""),
        "features": ", ".join(
            f"{name} {list(about.shape)} {about.unit}" for name, about in dataset.features.items()
        ),
    }
    return "<table>" + "".join(f"<tr><th>{k}<td>{escape(v)}" for k, v in rows.items()) + "</table>"


def _findings(findings: Sequence[Finding], looked: Sequence[Looked]) -> str:
    out = []
    for each in findings:
        told = "<br>".join(
            (f'<a href="#e{n}">{escape(looked[n].name)}</a>: ' if n >= 0 else "") + escape(what)
            for n, what in each.episodes.items()
        )
        mark = "bad" if told else "good"
        out.append(f'<tr><th>{escape(each.check)}<td class="{mark}">{told or "nothing found"}')
    return f"<table>{''.join(out)}</table>"


def _episode(each: Looked, findings: Sequence[Finding], dataset: Dataset) -> str:
    told = [f"{f.check}: {f.episodes[each.number]}" for f in findings if each.number in f.episodes]
    about = f"{each.length} rows, {each.length / dataset.rate_hz:.1f} s"
    about += f", {each.label}" if each.label else ""
    head = f'<h3 id="e{each.number}">{each.number}: {escape(each.name)}</h3><p>{escape(about)}'
    head += f"<br>{escape(each.task)}" if each.task else ""
    head += "".join(f'<br><span class="bad">{escape(one)}</span>' for one in told) + "</p>"
    plots = [curves(values, name) for name, values in (("state", each.state), ("action", each.action))]
    return head + "".join(plots) + "".join(_picture(c, image) for c, image in each.pictures.items())


def curves(values: Floats, title: str) -> str:
    """A plot of ``[T, D]``, each column over its own range."""
    if len(values) < 2:
        return ""
    thin = values[np.unique(np.linspace(0, len(values) - 1, _POINTS).astype(int))]
    width, height, lines = 440, 120, []
    for column, color in zip(thin.T, _COLORS * (1 + thin.shape[1] // len(_COLORS)), strict=False):
        finite = column[np.isfinite(column)]
        low = float(finite.min()) if len(finite) else 0.0
        size = max(float(np.ptp(finite)) if len(finite) else 0.0, 1e-9)
        points = [
            f"{i * width / (len(column) - 1):.1f},{height - 6 - (y - low) / size * (height - 12):.1f}"
            for i, y in enumerate(column.tolist())
            if np.isfinite(y)
        ]
        lines.append(f'<polyline fill="none" stroke="{color}" points="{" ".join(points)}"/>')
    return _figure(width, height, "".join(lines), title)


def histogram(values: Sequence[float], unit: str) -> str:
    """Bars of how often which value occurs."""
    counts, edges = np.histogram(values or [0.0], bins=min(30, max(4, len(values) // 2)))
    width, height = 440, 100
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{height - c / max(1, counts.max()) * (height - 8):.1f}" '
        f'width="{step - 1:.1f}" height="{c / max(1, counts.max()) * (height - 8):.1f}" fill="{_COLORS[0]}"/>'
        for i, c in enumerate(counts.tolist())
    )
    return _figure(width, height, bars, f"{edges[0]:.3g} to {edges[-1]:.3g} {unit}")


def _figure(width: int, height: int, inside: str, title: str) -> str:
    svg = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{inside}</svg>'
    return f"<figure>{svg}<figcaption>{escape(title)}</figcaption></figure>"


def _picture(camera: str, image: Array) -> str:
    import cv2

    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    source = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{source}"><figcaption>{escape(camera)}'
        "</figcaption></figure>"
    )
