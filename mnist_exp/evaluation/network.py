"""What a figure of a Keras network shows: its layers, output shapes, parameters and connections."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import keras

# Parts of the types of layers that are named in the box of the layer before them
SMALL = ("Activation", "Dropout", "Noise", "Normalization", "Random", "ReLU", "Rescaling", "Softmax")


@dataclass
class Box:
    """A layer and the small layers after it. parents: the places of the boxes that feed it, counted from 1."""

    title: str
    details: list[str]
    shape: str
    parameters: int
    parents: list[int]


@dataclass(frozen=True)
class Network:
    """The boxes of a network, in an order in which they can be computed. parameters: None if it is not built."""

    name: str
    parameters: int | None
    boxes: list[Box]

    @classmethod
    def of(cls, model: "keras.Model") -> Self:
        """Returns the description of a model."""
        return cls(model.name, model.count_params() if model.built else None, list_boxes(model))


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
            title = layer.name if isinstance(layer, keras.Model) else kind  # a net within a net
            boxes.append(Box(title, [], "", 0, sorted({places[parent] for parent in parents})))
        place = places[id(node)] = places[parents[0]] if small else len(boxes)
        box = boxes[place - 1]
        details = ["x".join(map(str, window if isinstance(window, tuple) else ())), activation.replace("linear", "")]
        box.details += list(filter(None, details)) or [kind] * small
        box.shape = "x".join(map(str, node.outputs[0].shape[1:]))
        box.parameters += layer.count_params() if getattr(layer, "built", False) and id(layer) not in seen else 0
        seen.add(id(layer))
    return boxes
