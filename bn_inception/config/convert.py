"""A composed configuration, checked against its dataclasses and turned into them."""

import dataclasses
import re
import typing
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from bn_inception.config.compose import Config, flatten
from bn_inception.config.saved import refuse_numbers
from bn_inception.errors import UserError, close_matches
from bn_inception.training.settings import RunConfig

Schema = TypeVar("Schema")


def run_config(config: Config) -> RunConfig:
    """Check a composed training configuration and return it as plain typed objects.

    Raises:
        UserError: an unknown key, a wrong type, a missing or impossible value.
    """
    return checked(config, RunConfig)


def checked(config: Config, schema: type[Schema]) -> Schema:
    """Merge `config` into `schema`, a dataclass, and build it.

    Raises:
        UserError: the first thing that does not fit, with what is allowed.
    """
    refuse_numbers(config)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), config)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"{missing[0]}: not set; give {missing[0]}=VALUE")
        built = OmegaConf.to_object(merged)
    except UserError:
        raise
    except OmegaConfBaseException as error:
        raise UserError(_explain(error, config, schema)) from error
    assert isinstance(built, schema)
    return built


def _explain(error: OmegaConfBaseException, config: Config, schema: type[Any]) -> str:
    key = error.full_key or error.key or "configuration"
    if isinstance(error, ConfigKeyError):
        return f"{key}: there is no such key{close_matches(key, schema_keys(schema))}"
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: not set; give {key}=VALUE"
    key = re.sub(r"\[\d+\]$", "", key)
    value = dict(flatten(config)).get(key)
    reason = (error.msg or str(error)).strip().splitlines()[0]
    allowed = re.search(r"must be one of (\[[^\]]*\])|expected one of (\[[^\]]*\])", reason)
    if allowed:
        reason = f"choose from {(allowed[1] or allowed[2]).strip('[]')}"
    if "is not a ListConfig" in reason:
        reason = f"write a list, {key}=[{value}]"
    return f"{key}: {value!r} does not fit; {reason}"


def schema_keys(schema: type[Any], prefix: str = "") -> list[str]:
    """Return every leaf key of a dataclass of dataclasses, dotted."""
    keys: list[str] = []
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            keys += schema_keys(typing.cast(type[Any], hint), f"{prefix}{field.name}.")
        else:
            keys.append(f"{prefix}{field.name}")
    return keys
