"""What every command is: keys with their defaults in a YAML file, a schema, and what is done."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from bn_inception.cli.help import file_name
from bn_inception.config import compose, write_yaml
from bn_inception.config.compose import Config
from bn_inception.config.convert import checked
from bn_inception.config.own import search_path
from bn_inception.errors import AgreedError, UserError

Schema = TypeVar("Schema")


@dataclass(frozen=True)
class Call(Generic[Schema]):
    """A command as it was called.

    Attributes:
        config: checked.
        composed: the same before the check, as a saved configuration has it.
        overrides: the `key=value` that were given.
    """

    config: Schema
    composed: Config
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Command(Generic[Schema]):
    """One command.

    Attributes:
        name: as it is typed; `configs/<name>.yaml` holds its keys, their defaults and its help.
        schema: the dataclass of its keys.
        body: does the work and returns the exit status.
        plain: the key to whose list arguments without `=` are added, or which is the only one;
            None: there are none.
        read: from the overrides to the configuration, where a part of it lies elsewhere, as in a
            run's folder.
        multirun: makes every run of a sweep instead, with Hydra's `-m`.
    """

    name: str
    schema: type[Schema]
    body: Callable[[Call[Schema]], int]
    plain: str | None = None
    read: Callable[[Sequence[str]], Config] | None = None
    multirun: Callable[[Sequence[str]], int] | None = None

    def __call__(self, arguments: Sequence[str]) -> int:
        """Read the arguments and do the work; return the exit status.

        Raises:
            UserError: something does not fit; the processes of torchrun agree on it.
        """
        try:
            options, words = _Options().parse_known_args(arguments)
            if options.multirun and self.multirun is None:
                raise UserError(f"--multirun: {self.name} has no runs to make; train has")
            plain = [word for word in words if "=" not in word and not word.startswith("-")]
            overrides = tuple(word for word in words if word not in plain)
            if plain and self.plain is None:
                names = {field.name for field in dataclasses.fields(self.schema)}  # type: ignore[arg-type]
                such = f", such as run={plain[0]}" if "run" in names else ""
                raise UserError(
                    f"{plain[0]}: {self.name} takes key=value only{such}; see bn-inception "
                    f"{self.name} --help"
                )
            if options.config_dir:
                overrides += (search_path(options.config_dir),)
            if options.multirun and self.multirun is not None:
                return self.multirun(overrides)
            composed = (self.read or self._read)(overrides)
            self._add(composed, plain)
            config = None if options.cfg else checked(composed, self.schema)
        except UserError as error:
            raise AgreedError(str(error)) from error
        if config is None:
            print(write_yaml(composed), end="")
            return 0
        return self.body(Call(config, composed, overrides))

    def _read(self, overrides: Sequence[str]) -> Config:
        return compose(file_name(self.name), overrides)

    def _add(self, composed: Config, plain: list[str]) -> None:
        before: Any = composed[self.plain] if self.plain else None
        if self.plain and isinstance(before, list):
            composed[self.plain] = [*before, *plain]
        elif self.plain and len(plain) == 1:
            composed[self.plain] = plain[0]
        elif plain and self.plain:
            raise UserError(f"{plain[1]}: {self.name} takes one {self.plain}")


class _Options(argparse.ArgumentParser):
    """Hydra's options; everything else is left for the configuration."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("--cfg", "-c", choices=["job"])
        self.add_argument("--config-dir", "-cd", action="append", default=[])
        self.add_argument("--multirun", "-m", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise UserError(message)
