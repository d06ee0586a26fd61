"""A composed configuration, checked against its dataclasses and turned into them."""

import dataclasses
import re
import typing
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bn_inception.config.compose import Config, flatten
from bn_inception.config.saved import refuse_numbers
from bn_inception.errors import UserError, close_matches
from bn_inception.training.settings import RunConfig

Schema = TypeVar("Schema")


def run_config(config: Config) -> RunConfig:
    """A training configuration, checked, as plain typed objects."""
    return checked(config, RunConfig)


def checked(config: Config, schema: type[Schema]) -> Schema:
    """`config` as the dataclass `schema`; a UserError names the first thing that does not fit."""
    refuse_numbers(config)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), config)
        for missing in sorted(OmegaConf.missing_keys(merged)):
            raise UserError(f"{missing}: not set; give {missing}=VALUE")
        built = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(_explain(error, config, schema)) from error
    assert isinstance(built, schema)
    return built


def _explain(error: OmegaConfBaseException, config: Config, schema: type[Any]) -> str:
    key = error.full_key or error.key or "configuration"
    if isinstance(error, ConfigKeyError):
        return f"{key}: there is no such key{close_matches(key, schema_keys(schema))}"
    key = re.sub(r"\[\d+\]$", "", key)
    value = dict(flatten(config)).get(key)
    reason = (error.msg or str(error)).strip().splitlines()[0]
    if allowed := re.search(r"(?:must be|expected) one of \[([^\]]*)\]", reason):
        reason = f"choose from {allowed[1]}"
    if "is not a ListConfig" in reason:
        reason = f"write a list, {key}=[{value}]"
    return f"{key}: {value!r} does not fit; {reason}"


def schema_keys(schema: type[Any], prefix: str = "") -> list[str]:
    """Every leaf key of a dataclass of dataclasses, dotted."""
    keys: list[str] = []
    for name, hint in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(hint):
            keys += schema_keys(typing.cast(type[Any], hint), f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
