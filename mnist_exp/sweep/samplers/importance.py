"""How much each parameter explains of the scores."""

from collections.abc import Sequence

import optuna

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.samplers.tpe import TpeSampler
from mnist_exp.sweep.space import Parameter, Space, Values


def importances(
    space: Space, objective: Objective, scores: Sequence[tuple[Values, float]], trees: int = 64
) -> dict[str, float]:
    """Returns how much each parameter explains of the scores (Optuna's fANOVA), by name. trees: of its forest.

    Parameters under a condition are compared among the trials that meet it. A parameter that never changed, or in fewer
    than 4 trials, is left out.
    """
    sampler, found = TpeSampler(space, objective, 0), dict[str, float]()
    groups: dict[str, list[Parameter]] = {}
    for parameter in space.parameters:
        groups.setdefault(str(parameter.when or ""), []).append(parameter)
    for parameters in groups.values():
        names = [p.name for p in parameters]
        kept = [(v, s) for v, s in scores if v.keys() >= set(names)]
        varied = [name for name in names if len({format_value(v[name]) for v, _ in kept}) > 1]
        if len(kept) < 4 or not varied or len({score for _, score in kept}) < 2:
            continue
        study = sampler.create_study([({name: values[name] for name in varied}, score) for values, score in kept])
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0)
        found |= optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found
