"""Composition of the YAML files in `configs/` into checked, plain, typed objects.

Only this package and `cli` know Hydra and OmegaConf. torch is imported where a network is built.
"""

from bn_inception.config.compose import compose, run_config, write_yaml
from bn_inception.config.saved import read_yaml

__all__ = ["compose", "read_yaml", "run_config", "write_yaml"]
