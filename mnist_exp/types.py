"""The kinds of values a config may hold, as annotations that `checks` enforces and a reader understands."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Lt(2**31)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
UpToOne = Annotated[float, Ge(0), Le(1)]
Part = Annotated[float, Gt(0), Lt(1)] | Count  # a fraction of the whole, or a count

Schedule = Literal["constant", "cosine"]
Monitor = Literal["val_accuracy", "val_loss", "accuracy", "loss"]

# Random changes of a training image: shares of its side, of a full turn and of its size; 0 switches one off.
Augmentation = dict[Literal["translation", "rotation", "zoom"], Share]
