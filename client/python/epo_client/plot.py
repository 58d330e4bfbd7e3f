"""The companion page's figures. Imported only when one is drawn, since it needs matplotlib."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from epo_client.history import build_pareto_frontier

if TYPE_CHECKING:
    from epo_client.results import Results

_FONT_POINTS = 9.0
_LINE_POINTS = 1.45 * _FONT_POINTS
_LONGEST_LABEL = 72
_BLUE, _GREY = "#1f5a96", "0.65"
_XENTROPY = "cross-entropy (nats a token)"


def frontier(results: Results, ax: Axes | None) -> Axes:
    """Labels stand in a column beside the axes, in the points' order, each joined to its point by a line."""
    points = results.frontier
    if ax is None:
        height = max(4.2, len(points) * _LINE_POINTS / 72 + 1.2)
        _, ax = plt.subplots(figsize=(11, height), layout="constrained")
    ax.plot(points.xentropy, points.target, "-o", color=_BLUE, markersize=5, linewidth=1.5)
    _dress(ax, results, "Pareto frontier", _XENTROPY, results.objective.label)
    # Sizes are known only once the axes have been laid out.
    figure = ax.get_figure(root=True)
    assert figure, "the axes belong to no figure"
    figure.draw_without_rendering()
    line = _LINE_POINTS * figure.dpi / 72 / ax.get_window_extent().height
    shown = _spread(len(points), int(1 / line) + 1)
    heights = [ax.transAxes.inverted().transform(ax.transData.transform((0, points.target.iloc[i])))[1] for i in shown]
    for i, height in zip(shown, _declutter(heights, line)):
        ax.annotate(
            _label(points.text.iloc[i]),
            xy=(points.xentropy.iloc[i], points.target.iloc[i]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            annotation_clip=False,
            fontsize=_FONT_POINTS,
            verticalalignment="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)},
        )
    return ax


def evolution(results: Results, iterations: Sequence[int] | None, ax: Axes | None) -> Axes:
    history = results.history
    if iterations is None:
        iterations = sorted({round(count) for count in np.geomspace(1, len(history), 6)})
    wrong = [count for count in iterations if not 1 <= count <= len(history)]
    if wrong:
        raise ValueError(f"iterations: there is no frontier after {wrong[0]} of {len(history)} iterations; give 1 to {len(history)}")
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    colours = colormaps["viridis_r"](np.linspace(0.1, 1, len(iterations)))
    for count, colour in zip(iterations, colours):
        # Under a ceiling the first iterations may have no frontier.
        part = history.subset(slice(count))
        points = build_pareto_frontier(part) if part.eligible.any() else None
        name = f"{count} iteration{'s' if count > 1 else ''}"
        x, y = (points.xentropy.tolist(), points.target.tolist()) if points else ([], [])
        ax.plot(x, y, "-o", color=colour, markersize=4, linewidth=1.3, label=name)
    _dress(ax, results, "frontier over time", _XENTROPY, results.objective.label)
    _legend(ax, "after")
    return ax


def thresholds(results: Results, levels: Sequence[float] | None, ax: Axes | None) -> Axes:
    history = results.history
    if levels is None:
        known = history.xentropy if results.frontier.empty else results.frontier.xentropy
        low, high = np.nanmin(known), np.nanmax(known)
        # Above the most fluent point, below which there is nothing, by halves.
        levels = sorted({float(np.floor(2 * level) / 2 + 0.5) for level in np.linspace(low, high, 5)})
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
    period = results.job.spec.restart_period
    for restart in range(0, len(history), period) if period else ():
        ax.axvline(restart, color=_GREY, linestyle="--", linewidth=0.9, zorder=0, label="restart" if restart == 0 else None)
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(levels)))
    for level, colour in zip(levels, colours):
        below = np.where(history.xentropy < level, history.target, -np.inf).max(axis=1)
        best = np.where(np.isneginf(below), np.nan, below)
        ax.plot(np.arange(len(history)), best, color=colour, linewidth=1.3, label=f"below {level:g}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(ax, results, "best of each iteration", "iteration", results.objective.label)
    _legend(ax, "cross-entropy")
    return ax


def _dress(ax: Axes, results: Results, what: str, x: str, y: str) -> None:
    partial = f" (partial: {len(results.history)} of {results.job.spec.iterations} steps)" if results.partial else ""
    ax.set_title(f"{results.objective.label}: {what}{partial}", loc="left", fontsize=11, parse_math=False)
    ax.set_xlabel(x)
    ax.set_ylabel(y, parse_math=False)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _legend(ax: Axes, title: str) -> None:
    ax.legend(title=title, fontsize=_FONT_POINTS, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), alignment="left")


def _spread(count: int, room: int) -> list[int]:
    """As many of `count` indices as there is room for, evenly, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, max(room, 2)))})


def _declutter(wanted: Sequence[float], apart: float) -> list[float]:
    """Heights near those wanted, in the same order, at least `apart` and, where there is room, within 0 and 1."""
    heights: list[float] = []
    for height in wanted:
        heights.append(max(height, heights[-1] + apart) if heights else max(height, 0.0))
    limit = 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], limit)
        limit = heights[i] - apart
    return heights


def _label(text: str) -> str:
    """Quoted as the command line does, so that spaces at the ends show; what the font has no glyph for is shown by its number."""
    if len(text) > _LONGEST_LABEL:
        text = text[: _LONGEST_LABEL - 1] + "…"
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in quoted)
