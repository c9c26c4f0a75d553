"""What is tried next: Optuna's multi-objective TPE, which repeats itself where it is told the same.

Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4; for several objectives
Ozaki et al. (GECCO 2020). The study lives in memory: what a trial found is in the store of stages.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress.search.space import Choices, Dimension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


class Sampler:
    """Ask for values, tell what they gave. Equal seeds and equal answers give equal proposals."""

    def __init__(self, space: Mapping[str, Dimension], seed: int, startup_trials: int) -> None:
        import optuna  # a second to import, and only searches need it

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.pruned = space, optuna.trial.TrialState.PRUNED
        self.study = optuna.create_study(
            directions=["maximize", "minimize"],
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials),
        )
        self.distributions = {path: _distribution(dimension) for path, dimension in space.items()}
        self.asked: Trial | None = None

    def ask(self) -> dict[str, Any]:
        """Values by path."""
        self.asked = self.study.ask(self.distributions)
        return {path: self._value(path, given) for path, given in self.asked.params.items()}

    def tell(self, values: tuple[float, int] | None) -> None:
        """(validation, parameters) of what was asked last; None where it was stopped, which counts as bad."""
        assert self.asked is not None
        if values is None:
            self.study.tell(self.asked, state=self.pruned)
        else:
            self.study.tell(self.asked, values)

    def _value(self, path: str, given: Any) -> Any:
        dimension = self.space[path]
        return dimension.values[given] if isinstance(dimension, Choices) else given


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):  # by place: a choice may be any YAML value
        return CategoricalDistribution(range(len(dimension.values)))
    if dimension.whole:
        return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step or 1)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
