"""A Keras network as a picture: boxes, arrows, shapes and parameters, drawn by matplotlib alone."""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mnist_exp.evaluation.plots import BLUE, INK, MUTED, canvas, short

if TYPE_CHECKING:
    import keras

# Layers that need no box of their own: one line in the box of the layer before says it.
FOLDED = {
    "Rescaling": "rescaled",
    "Normalization": "normalized",
    "BatchNormalization": "batch norm",
    "LayerNormalization": "layer norm",
    "GroupNormalization": "group norm",
    "Activation": "",
    "ReLU": "relu",
    "LeakyReLU": "leaky relu",
    "PReLU": "prelu",
    "ELU": "elu",
    "Softmax": "softmax",
    "Dropout": "dropout",
    "SpatialDropout2D": "spatial dropout",
    "GaussianNoise": "noise",
}

WIDTH, HEIGHT, GAP = 3.7, 0.56, 0.34  # of a box, and between two rows, in inches
MARGIN, TOP = 0.35, 0.95
TRACK = 0.16  # inches between two shortcuts that run side by side
WEIGHTED, UNWEIGHTED = "#e6eff9", "#f6f6f6"

UNKNOWN = "how the layers are connected is not known"

Places = list[tuple[int, int]]  # row and lane of each box, counted from the top left


@dataclass(frozen=True)
class Step:
    """One use of a layer. shape: of its output, in words; parents: the numbers of the steps before it."""

    operation: Any
    shape: str
    parents: tuple[int, ...]
    repeated: bool


@dataclass(frozen=True)
class Box:
    """A layer and the small ones after it. parents: the numbers of the boxes that feed it, all lower than its own."""

    title: str
    details: str
    shape: str
    parameters: int
    parents: tuple[int, ...]


def architecture(model: "keras.Model") -> Figure:
    """The network from pixels to probabilities: layers, output shapes (without the batch), parameters and branches.

    A subclassed model keeps no graph: its layers are drawn without arrows, and the picture says so.
    """
    found = boxes(model)
    places = _places(found)
    tracks = _tracks(found, places)
    lanes = 1 + max(lane for _, lane in places)
    rows = 1 + max(row for row, _ in places)
    room = TRACK * (1 + max(tracks.values())) if tracks else 0.0
    width = 2 * MARGIN + lanes * (WIDTH + MARGIN) - MARGIN + room
    figure, axes = canvas(width, TOP + rows * (HEIGHT + GAP) - GAP + MARGIN)
    axes.text(MARGIN, 0.32, short(model.name, 36), size=12, weight="bold", color=INK, va="center", parse_math=False)
    words = _total(model) if any(box.parents for box in found) else f"{_total(model)}\n{UNKNOWN}"
    axes.text(MARGIN, 0.52, words, size=9, color=MUTED, va="top", linespacing=1.4)
    for box, (row, lane) in zip(found, places, strict=True):
        _draw_box(axes, box, _left(lane, room), _top(row))
        for parent in box.parents:
            _draw_arrow(axes, places[parent], (row, lane), room, tracks.get((parent, row)))
    return figure


def boxes(model: "keras.Model") -> list[Box]:
    """What the picture shows, from input to output."""
    steps = _steps(model)
    groups = _groups(steps)
    home = {member: number for number, group in enumerate(groups) for member in group}
    return [
        _box(
            [steps[member] for member in group],
            tuple(dict.fromkeys(home[parent] for parent in steps[group[0]].parents)),
        )
        for group in groups
    ]


def _steps(model: "keras.Model") -> list[Step]:
    """Every use of a layer, or of an operation such as `+`, in an order in which they can be computed."""
    import keras

    try:
        ends = model.inputs, model.outputs
    except AttributeError:  # a subclassed model, or a Sequential that never saw its input shape
        return [Step(layer, "", (), False) for layer in model.layers]
    # Only the nodes know every use of a layer; `layer.input` is the first, and for a nested model one inside it.
    by_depth = keras.Model(*ends, name=model.name)._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    numbers = {id(node): number for number, node in enumerate(nodes)}
    steps: list[Step] = []
    for node in nodes:
        repeated = any(node.operation is step.operation for step in steps)
        parents = tuple(numbers[id(parent)] for parent in node.parent_nodes)
        steps.append(Step(node.operation, _times(node.outputs[0].shape[1:]), parents, repeated))
    return steps


def _groups(steps: list[Step]) -> list[list[int]]:
    """Numbers of steps box by box: a layer with a box of its own, then those folded into it."""
    used = Counter(parent for step in steps for parent in step.parents)
    home: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        before = step.parents[0] if len(step.parents) == 1 else None
        if before is not None and used[before] == 1 and _folds(step.operation, steps[home[before][0]].operation):
            home[number] = home[before]
            home[number].append(number)
            continue
        home[number] = [number]
    return [group for number, group in home.items() if group[0] == number]


def _folds(operation: Any, head: Any) -> bool:
    return _kind(operation) in FOLDED or (_augments(operation) and _augments(head))


def _kind(operation: Any) -> str:
    return type(operation).__name__


def _augments(operation: Any) -> bool:
    return _kind(operation).startswith("Random")


def _box(steps: list[Step], parents: tuple[int, ...]) -> Box:
    head, *rest = steps
    words = [
        _activation(head.operation),
        *(_words(step.operation) for step in (steps if _augments(head.operation) else rest)),
    ]
    return Box(
        title=short(_title(head.operation), 28),
        details="the same weights again" if head.repeated else short(", ".join(filter(None, words)), 40),
        shape=steps[-1].shape,
        parameters=sum(_parameters(step.operation) for step in steps if not step.repeated),
        parents=parents,
    )


def _parameters(operation: Any) -> int:
    """0 for an operation that is no layer, and for a layer not built yet."""
    return int(operation.count_params()) if getattr(operation, "built", False) else 0


def _title(operation: Any) -> str:
    """The layer's type and, where it has one, its window and stride: `Conv2D 3x3, stride 2`."""
    kind = operation.name if hasattr(operation, "layers") else _kind(operation)  # a net within the net
    if kind == "InputLayer":
        return "Input"
    if _augments(operation):
        return "Augmentation, in training"
    window = getattr(operation, "kernel_size", getattr(operation, "pool_size", None))
    strides = getattr(operation, "strides", window)
    title = f"{kind} {_times(window)}" if isinstance(window, tuple) else kind
    if not isinstance(strides, tuple) or strides == window or set(strides) == {1}:
        return title
    return f"{title}, stride {strides[0] if len(set(strides)) == 1 else _times(strides)}"


def _words(operation: Any) -> str:
    """A folded layer in a word or two."""
    if _augments(operation):
        return _kind(operation).removeprefix("Random").lower()
    words = FOLDED[_kind(operation)] or _activation(operation)
    rate = getattr(operation, "rate", None)
    return f"{words} {rate:g}" if isinstance(rate, int | float) else words


def _activation(operation: Any) -> str:
    name = getattr(getattr(operation, "activation", None), "__name__", "")
    return "" if name == "linear" else name.replace("_", " ")


def _times(sizes: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes)


def _total(model: "keras.Model") -> str:
    if not model.built:
        return "not built yet, parameters unknown"
    fixed = sum(math.prod(variable.shape) for variable in model.non_trainable_weights)
    return f"{model.count_params():,} parameters" + (f", {fixed:,} of them not trained" if fixed else "")


def _places(found: list[Box]) -> Places:
    """Rows by the longest way from the input; lane 0 for that way, the lowest free lane for what branches off."""
    if not any(box.parents for box in found):
        return [(number, 0) for number in range(len(found))]
    rows: list[int] = []
    for box in found:
        rows.append(1 + max((rows[parent] for parent in box.parents), default=-1))
    main, last = _longest_way(found, rows), _last_rows(found, rows)
    lanes: list[int] = []
    taken: set[tuple[int, int]] = set()
    for number, box in enumerate(found):
        held = range(rows[number], max(last[number], rows[number] + 1))
        wanted = [lanes[parent] for parent in box.parents if lanes[parent]]
        free = (lane for lane in (*wanted, *range(1, len(found) + 1)) if not any((row, lane) in taken for row in held))
        lanes.append(0 if number in main else next(free))
        taken.update((row, lanes[number]) for row in held)
    return list(zip(rows, lanes, strict=True))


def _longest_way(found: list[Box], rows: list[int]) -> set[int]:
    """The numbers of the boxes on the longest way from the input to the lowest box."""
    box = max(range(len(found)), key=rows.__getitem__)
    way = {box}
    while found[box].parents:
        box = max(found[box].parents, key=rows.__getitem__)
        way.add(box)
    return way


def _last_rows(found: list[Box], rows: list[int]) -> list[int]:
    """The row down to which each box's arrows reach."""
    last = list(rows)
    for number, box in enumerate(found):
        for parent in box.parents:
            last[parent] = max(last[parent], rows[number])
    return last


def _tracks(found: list[Box], places: Places) -> dict[tuple[int, int], int]:
    """A track right of lane 0 for each shortcut past its boxes, by parent and the row it reaches; none overlap."""
    ends: list[int] = []  # the row at which each track is free again
    tracks: dict[tuple[int, int], int] = {}
    shortcuts = [
        (places[parent][0], row, parent)
        for box, (row, _) in zip(found, places, strict=True)
        for parent in box.parents
        if places[parent][1] == 0 and row - places[parent][0] > 1
    ]
    for start, end, parent in sorted(shortcuts):
        track = next(number for number in count() if number == len(ends) or ends[number] <= start)
        ends[track : track + 1] = [end]
        tracks[parent, end] = track
    return tracks


def _left(lane: int, room: float) -> float:
    """Where a lane begins; the tracks take their room between the first two."""
    return MARGIN + lane * (WIDTH + MARGIN) + (room if lane else 0)


def _top(row: int) -> float:
    return TOP + row * (HEIGHT + GAP)


def _draw_box(axes: Axes, box: Box, x: float, y: float) -> None:
    """Type and details on the left, output shape and parameters on the right; blue where there are weights."""
    face, edge = (WEIGHTED, BLUE) if box.parameters else (UNWEIGHTED, MUTED)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, style, facecolor=face, edgecolor=edge, linewidth=0.9))
    upper, lower = (y + 0.18, y + 0.39) if box.details or box.parameters else (y + HEIGHT / 2, y)
    left, right = x + 0.13, x + WIDTH - 0.13
    axes.text(left, upper, box.title, size=9.5, weight="bold", color=INK, va="center", parse_math=False)
    axes.text(right, upper, box.shape, size=9, color=INK, va="center", ha="right")
    if box.details:
        axes.text(left, lower, box.details, size=8.5, color=MUTED, va="center", parse_math=False)
    if box.parameters:
        axes.text(right, lower, f"{box.parameters:,} parameters", size=8.5, color=MUTED, va="center", ha="right")


def _draw_arrow(axes: Axes, start: tuple[int, int], end: tuple[int, int], room: float, track: int | None) -> None:
    """From under one box to the top of another; a shortcut leaves and comes back through the gaps between rows."""
    x, x_end = (_left(lane, room) + WIDTH / 2 for _, lane in (start, end))
    y, y_end = _top(start[0]) + HEIGHT, _top(end[0])
    out, back = y + 0.25 * GAP, y_end - 0.5 * GAP
    way = [(x, y), (x, back), (x_end, back)]
    if track is not None:
        beside = MARGIN + WIDTH + 0.5 * MARGIN + track * TRACK
        way = [(x, y), (x, out), (beside, out), (beside, back), (x_end, back)]
    axes.plot(
        *zip(*way, (x_end, y_end - 0.03), strict=True), color=MUTED, linewidth=1.1, solid_joinstyle="round", zorder=0
    )
    axes.plot(x_end, y_end - 0.045, color=MUTED, marker="v", markersize=6, markeredgewidth=0)
