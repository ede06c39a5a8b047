"""Draws the Mermaid flowcharts of the pages as SVG while the site is built; the theme would load a renderer from another server.

Understands what the pages use: `flowchart` and a direction, then chains such as `a --> b["a label"] --> c`.
"""

import itertools
import re
from html import escape
from typing import Any

_BLOCK = re.compile(r"^```mermaid\nflowchart (LR|RL|TB|TD|BT)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r'^([\w.-]+)(?:\["?([^"\]]*)"?\])?$')
_HEIGHT, _CHARACTER, _GAP_X, _GAP_Y = 32, 8, 28, 44


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace every flowchart by its drawing."""
    return _BLOCK.sub(lambda block: flowchart(block[2], block[1]), markdown)


def flowchart(text: str, direction: str) -> str:
    """An SVG element, nodes in rows by their longest path from a source.

    Args:
        text: the chains, one in each line.
        direction: the first row is at the bottom for BT, and at the top for all others.

    Raises:
        ValueError: a line is no chain, or the arrows form a cycle.
    """
    labels: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        chain = []
        for part in line.split("-->"):
            node = _NODE.match(part.strip())
            if node is None:
                raise ValueError(f"{line}: expected a chain such as a --> b --> c")
            labels[node[1]] = node[2] or labels.get(node[1], node[1])
            chain.append(node[1])
        edges += itertools.pairwise(chain)

    level = dict.fromkeys(labels, 0)
    for round_ in range(len(labels) + 1):
        moved = [(a, b) for a, b in edges if level[b] <= level[a]]
        if not moved:
            break
        if round_ == len(labels):
            raise ValueError(f"the arrows form a cycle: {moved[0]}")
        for a, b in moved:
            level[b] = max(level[b], level[a] + 1)

    rows = [[node for node in labels if level[node] == i] for i in range(max(level.values()) + 1)]
    width = {node: _CHARACTER * len(labels[node]) + 24 for node in labels}
    lengths = [sum(width[node] + _GAP_X for node in row) - _GAP_X for row in rows]
    total_x, total_y = max(lengths) + 4, len(rows) * (_HEIGHT + _GAP_Y) - _GAP_Y + 4
    center: dict[str, float] = {}
    y: dict[str, float] = {}
    for i, row in enumerate(rows):
        sources = {node: [center[a] for a, b in edges if b == node and a in center] for node in row}
        row.sort(key=lambda node: sum(sources[node]) / len(sources[node]) if sources[node] else 0)
        x = (total_x - lengths[i]) / 2
        for node in row:
            center[node] = x + width[node] / 2
            y[node] = 2 + (len(rows) - 1 - i if direction == "BT" else i) * (_HEIGHT + _GAP_Y)
            x += width[node] + _GAP_X

    leave, enter = (0, _HEIGHT) if direction == "BT" else (_HEIGHT, 0)
    drawn = [
        f'<line x1="{center[a]:.0f}" y1="{y[a] + leave:.0f}" x2="{center[b]:.0f}" y2="{y[b] + enter:.0f}" '
        'stroke="currentColor" stroke-opacity="0.5" marker-end="url(#arrow)"/>'
        for a, b in edges
    ]
    for node, label in labels.items():
        drawn.append(
            f'<rect x="{center[node] - width[node] / 2:.0f}" y="{y[node]:.0f}" width="{width[node]}" height="{_HEIGHT}" rx="4" '
            'fill="var(--md-default-bg-color, white)" stroke="currentColor"/>'
            f'<text x="{center[node]:.0f}" y="{y[node] + _HEIGHT / 2 + 5:.0f}" text-anchor="middle" fill="currentColor">'
            f"{escape(label)}</text>"
        )
    marker = (
        '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker>'
    )
    return (
        f'<svg role="img" aria-label="flowchart" viewBox="0 0 {total_x:.0f} {total_y:.0f}" style="max-width: {total_x:.0f}px; width: 100%" '
        f'font-size="14" font-family="sans-serif"><defs>{marker}</defs>{"".join(drawn)}</svg>'
    )
