"""Draws a Keras network as one column of boxes: layers, output shapes and parameters."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_exp.evaluation.plots import BLUE, INK, MUTED, new_canvas, shorten

if TYPE_CHECKING:
    import keras

# Parts of the types of layers that are named in the box of the layer before them
SMALL = ("Activation", "Dropout", "Noise", "Normalization", "Random", "ReLU", "Rescaling", "Softmax")
WIDTH, HEIGHT, PITCH, LEFT, TOP = 5.2, 0.52, 0.7, 0.35, 0.85  # inches; PITCH: from the top of one box to the next


@dataclass
class Box:
    """A layer and the small layers after it. parents: the places of the boxes that feed it, counted from 1."""

    title: str
    details: list[str]
    shape: str
    parameters: int
    parents: list[int]


def architecture(model: "keras.Model") -> Figure:
    """Draws the layers from input to output. A box names the boxes that feed it, unless it is only the one above."""
    boxes = list_boxes(model)
    figure, axes = new_canvas(WIDTH + 2 * LEFT, TOP + len(boxes) * PITCH)
    size = f"{model.count_params():,} parameters" if model.built else "not built yet, parameters unknown"
    size += "" if any(box.parents for box in boxes) else "; connections of the layers unknown"
    axes.text(LEFT, 0.3, shorten(model.name, 36), size=12, weight="bold", color=INK, va="center", parse_math=False)
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


def list_boxes(model: "keras.Model") -> list[Box]:
    """Returns the boxes in an order in which they can be computed, one for each use of a layer that is not small."""
    import keras

    if not getattr(model, "inputs", None):  # a subclassed model, or one that is not built
        return [Box(type(x).__name__, [], "", x.count_params() if x.built else 0, []) for x in model.layers]
    depths = keras.Model(model.inputs, model.outputs)._nodes_by_depth  # unlike `layers`, has every use of a layer
    nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    uses = Counter(id(parent) for node in nodes for parent in node.parent_nodes)
    boxes, places, seen = list[Box](), dict[int, int](), set[int]()  # places: of the box of each node
    for node in nodes:
        layer, kind, parents = node.operation, type(node.operation).__name__, list(map(id, node.parent_nodes))
        window = getattr(layer, "kernel_size", getattr(layer, "pool_size", ()))
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        small = any(word in kind for word in SMALL) and len(parents) == 1 and uses[parents[0]] == 1
        if not small:
            boxes.append(Box(kind, [], "", 0, sorted({places[parent] for parent in parents})))
        place = places[id(node)] = places[parents[0]] if small else len(boxes)
        box = boxes[place - 1]
        details = ["x".join(map(str, window if isinstance(window, tuple) else ())), activation.replace("linear", "")]
        box.details += list(filter(None, details)) or [kind] * small
        box.shape = "x".join(map(str, node.outputs[0].shape[1:]))
        box.parameters += layer.count_params() if getattr(layer, "built", False) and id(layer) not in seen else 0
        seen.add(id(layer))
    return boxes
