"""Composition of the YAML files in `configs/` into checked, plain, typed objects.

Only this package and `cli` know Hydra and OmegaConf.
"""

from bn_inception.config.build import build_network
from bn_inception.config.compose import compose, write_yaml
from bn_inception.config.convert import run_config
from bn_inception.config.saved import read_yaml

__all__ = ["build_network", "compose", "read_yaml", "run_config", "write_yaml"]
