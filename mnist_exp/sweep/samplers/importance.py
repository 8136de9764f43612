"""How much each parameter explains of the scores."""

from collections.abc import Sequence

import optuna

from mnist_exp.sweep.samplers.base import Direction
from mnist_exp.sweep.samplers.tpe import Tpe
from mnist_exp.sweep.space import Space, Values


def importances(space: Space, direction: Direction, scores: Sequence[tuple[Values, float]]) -> dict[str, float]:
    """How much each parameter explains of the scores (Optuna's fANOVA), by name; those of a condition within it.

    Parameters that never changed, or in fewer than 4 trials, are left out.
    """
    tpe, found = Tpe(space, direction, 0), dict[str, float]()
    free = [p for p in space.parameters if p.when is None]
    conditions = dict.fromkeys(p.when for p in space.parameters if p.when)
    for parameters in [free, *([p for p in space.parameters if p.when == when] for when in conditions)]:
        names = {p.name for p in parameters}
        kept = [(v, s) for v, s in scores if names <= v.keys()]
        varied = {name for name in names if len({v[name] for v, _ in kept}) > 1}
        if len(kept) < 4 or not varied or len({score for _, score in kept}) < 2:
            continue
        study = tpe.study_of([({name: values[name] for name in varied}, score) for values, score in kept])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found |= optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found
