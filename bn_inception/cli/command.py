"""What every command is: keys with their defaults in a YAML file, a schema, and what is done."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from bn_inception.cli.help import file_name
from bn_inception.config import compose, write_yaml
from bn_inception.config.compose import Config, checked, search_path
from bn_inception.errors import AgreedError, UserError

Schema = TypeVar("Schema")
# Hydra's options, and a switch for a key; the rest is left for the configuration.
_OPTIONS = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
_OPTIONS.add_argument("--cfg", "-c", choices=["job"])
_OPTIONS.add_argument("--config-dir", "-cd", action="append")
_OPTIONS.add_argument("--multirun", "-m", action="store_true")
_OPTIONS.add_argument(
    "--watch", dest="switches", action="append_const", const="watch=true", default=[]
)


@dataclass(frozen=True)
class Call(Generic[Schema]):
    """A command as it was called: its configuration checked, and `composed` as it is saved."""

    config: Schema
    composed: Config
    overrides: list[str]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as it is typed; `configs/<name>.yaml` holds its keys, their defaults and its help.
        schema: the dataclass of its keys.
        body: does the work and returns the exit status; None is 0.
        plain: the key to whose list arguments without `=` are added, or which is the only one;
            None: there are none.
        read: from the overrides to the configuration, where a part of it lies in a run's folder.
        multirun: makes every run of a sweep instead, with Hydra's `-m`.
    """

    name: str
    schema: type[Any]
    body: Callable[[Call[Any]], int | None]
    plain: str | None = None
    read: Callable[[list[str]], Config] | None = None
    multirun: Callable[[list[str]], int] | None = None

    def __call__(self, arguments: Sequence[str]) -> int:
        """Read the arguments and do the work; return the exit status."""
        try:
            options, words = _OPTIONS.parse_known_args(arguments)
            overrides = [word for word in words if "=" in word or word.startswith("-")]
            plain = [word for word in words if word not in overrides]
            if plain and self.plain is None:
                names = {field.name for field in dataclasses.fields(self.schema)}
                such = f", such as run={plain[0]}" if "run" in names else ""
                raise UserError(
                    f"{plain[0]}: {self.name} takes key=value only{such}; see bn-inception "
                    f"{self.name} --help"
                )
            overrides += options.switches
            if options.config_dir:
                overrides.append(search_path(options.config_dir))
            if options.multirun and not options.cfg:
                if self.multirun is None:
                    raise UserError(f"--multirun: {self.name} has no runs to make; train has")
                return self.multirun(overrides)
            composed = self._composed(overrides, plain)
            if options.cfg:
                print(write_yaml(composed), end="")
                return 0
            config = checked(composed, self.schema)
        except (UserError, argparse.ArgumentError) as error:
            raise AgreedError(str(error)) from error  # the processes of torchrun are given the same
        return self.body(Call(config, composed, overrides)) or 0

    def _composed(self, overrides: list[str], plain: list[str]) -> Config:
        composed = self.read(overrides) if self.read else compose(file_name(self.name), overrides)
        if plain and self.plain is not None:
            if isinstance(composed[self.plain], list):
                composed[self.plain] += plain
            elif len(plain) > 1:
                raise UserError(f"{plain[1]}: {self.name} takes one {self.plain}")
            else:
                composed[self.plain] = plain[0]
        return composed


def command(
    name: str, schema: type[Any] | None = None, **how: Any
) -> Callable[[Callable[..., int | None]], Command]:
    """Make a command of the function that does its work: its parameters are the keys.

    Where the keys have a dataclass of their own, `schema`, the function is given the whole `Call`.
    """

    def made(body: Callable[..., int | None]) -> Command:
        if schema is not None:
            return Command(name, schema, body, **how)
        keys = [(key, hint) for key, hint in get_type_hints(body).items() if key != "return"]
        own = dataclasses.make_dataclass(file_name(name), keys)
        return Command(name, own, lambda call: body(**vars(call.config)), **how)

    return made


def output_file(given: str | None, ending: str = "") -> Path | None:
    """The file that `output=` names; checked before a measurement of minutes, not after it."""
    if given is None:
        return None
    if not given.endswith(ending):
        raise UserError(f"output: {given}; give the name of an {ending} file")
    # os.path, unlike pathlib, has no errors of its own: an unknown ~user, a name that is too long.
    path = os.path.expanduser(given) or "."
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UserError(f"output: {folder} is no folder; make it first")
    if os.path.isdir(path):
        raise UserError(
            f"output: {path} is a folder; give the name of a file, such as a.json in it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"output: {folder} cannot be written to; choose another folder")
    return Path(path)
