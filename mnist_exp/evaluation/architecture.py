"""Draws a network as one column of boxes: layers, output shapes and parameters."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_exp.evaluation.network import Network
from mnist_exp.evaluation.plots import BLUE, INK, MUTED, new_canvas, shorten

WIDTH, HEIGHT, PITCH, LEFT, TOP = 5.2, 0.52, 0.7, 0.35, 0.85  # inches; PITCH: from the top of one box to the next


def architecture(network: Network) -> Figure:
    """Draws the layers from input to output. A box names the boxes that feed it, unless it is only the one above."""
    boxes = network.boxes
    figure, axes = new_canvas(WIDTH + 2 * LEFT, TOP + len(boxes) * PITCH)
    size = "not built yet, parameters unknown" if network.parameters is None else f"{network.parameters:,} parameters"
    size += "" if any(box.parents for box in boxes) else "; connections of the layers unknown"
    axes.text(LEFT, 0.3, shorten(network.name, 36), size=12, weight="bold", color=INK, va="center", parse_math=False)
    axes.text(LEFT, 0.55, size, size=9, color=MUTED, va="center")
    for place, box in enumerate(boxes, 1):
        y, edge = TOP + (place - 1) * PITCH, BLUE if box.parameters else MUTED
        axes.add_patch(Rectangle((LEFT, y), WIDTH, HEIGHT, facecolor="#f4f7fb", edgecolor=edge, linewidth=0.9))
        if box.parents == [place - 1]:
            axes.plot([LEFT + WIDTH / 2] * 2, [y - PITCH + HEIGHT, y], color=MUTED, linewidth=1)
        note = [f"from {' and '.join(map(str, box.parents))}"] if box.parents not in ([], [place - 1]) else []
        parameters = f"{box.parameters:,} parameters" if box.parameters else ""
        rows = (f"{place}  {box.title}", box.shape, 9.5, INK), (", ".join(note + box.details), parameters, 8.5, MUTED)
        for line, (left, right, points, colour) in zip((y + 0.17, y + 0.37), rows, strict=True):
            style: dict[str, Any] = {"size": points, "color": colour, "va": "center", "parse_math": False}
            axes.text(LEFT + 0.12, line, shorten(left, 46 if right else 72), **style)
            axes.text(LEFT + WIDTH - 0.12, line, right, ha="right", **style)
    return figure
