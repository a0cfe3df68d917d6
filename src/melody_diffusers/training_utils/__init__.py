"""What every training script shares: strict YAML configuration, and TrainingRun, which owns the mechanics of a run.

A script owns its loop and its losses. `TrainingRun` counts steps, orders the data, applies optimiser, schedule and
weight averaging, logs, and saves checkpoints from which a run continues as if it had never stopped. It never calls a
model.
"""

from .config import Config, OptimConfig, RunConfig, load_config, parse_args
from .run import TrainingRun

__all__ = ["Config", "OptimConfig", "RunConfig", "TrainingRun", "load_config", "parse_args"]
