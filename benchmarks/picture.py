"""Draw docs/images/open_ticket.svg: the next actions of one simulated ticket, event by event.

python -m benchmarks.picture RUN     (RUN: the run folder of `hiddenstate demo`)
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

import numpy as np

from hiddenstate.job.model import load
from hiddenstate.tasks import END, simulator

OUT = Path(__file__).parents[1] / "docs" / "images" / "open_ticket.svg"
TICKET_SEED = 7
ACTIONS = 16
CELL, LEFT, TOP, BOTTOM = 22, 190, 46, 150
INK, PALE = "#1f2937", "#6b7280"


def main() -> None:
    """Predict after every event of a fresh ticket and draw what is expected next."""
    model = load(sys.argv[1])
    log = simulator.simulate(1, TICKET_SEED)
    classes = model.artifact.spec.heads[0].classes
    p = np.zeros((log.events, len(classes)))
    for rows, outputs in model.runtime.predict(log):
        p[rows] = np.exp(outputs[0])
    events = [str(name) for name in log.activities.names()]
    truth = [classes.index(name) for name in [*events[1:], END]]
    kept = np.argsort(-(p.max(axis=0) + np.isin(np.arange(len(classes)), truth)))[:ACTIONS]
    first = [min([t for t, k in enumerate(truth) if k == action] or [99]) for action in kept]
    kept = kept[np.argsort(first, kind="stable")]
    OUT.write_text(draw(events, [classes[k] for k in kept], p[:, kept], truth, kept.tolist()))


def draw(
    events: list[str], actions: list[str], p: np.ndarray, truth: list[int], kept: list[int]
) -> str:
    """Return the picture: a column an event, a row an action, darker means more probable."""
    width = LEFT + CELL * len(events) + 40
    height = TOP + CELL * len(actions) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14" font-weight="600">What comes next for one open '
        "ticket, after each of its events</text>",
        f'<text x="{LEFT}" y="35" fill="{PALE}">darker: more probable; ring: what then happened'
        "</text>",
    ]
    for row, action in enumerate(actions):
        y = TOP + CELL * row
        parts.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(action)}</text>')
        for column in range(len(events)):
            x, chance = LEFT + CELL * column, float(p[column, row])
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}" rx="3" '
                f'fill="#1d4ed8" fill-opacity="{0.04 + 0.96 * chance:.3f}"/>'
            )
            if truth[column] == kept[row]:
                centre = f'cx="{x + CELL / 2}" cy="{y + CELL / 2}"'
                parts.append(
                    f'<circle {centre} r="5" fill="none" stroke="#f59e0b" stroke-width="2"/>'
                )
    base = TOP + CELL * len(actions) + 12
    for column, event in enumerate(events):
        x = LEFT + CELL * column + CELL / 2
        parts.append(
            f'<text x="{x}" y="{base}" text-anchor="end" '
            f'transform="rotate(-50 {x} {base})">{escape(event)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
