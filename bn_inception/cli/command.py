"""What every command is: keys with their defaults in a YAML file, a schema, and what is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bn_inception.cli.help import file_name
from bn_inception.config import compose, write_yaml
from bn_inception.config.compose import Config
from bn_inception.config.convert import checked
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


def _as_composed(composed: Config, overrides: Sequence[str]) -> Config:
    return composed


@dataclass(frozen=True)
class Command(Generic[Schema]):
    """One command.

    Attributes:
        name: as it is typed; `configs/<name>.yaml` holds its keys, their defaults and its help.
        schema: the dataclass of its keys.
        body: does the work and returns the exit status.
        plain: the key to whose list arguments without `=` are added, or which is the only one;
            None: there are none.
        complete: from the configuration and the overrides to the whole configuration, where a part
            of it lies elsewhere, as in a run's folder.
    """

    name: str
    schema: type[Schema]
    body: Callable[[Call[Schema]], int]
    plain: str | None = None
    complete: Callable[[Config, Sequence[str]], Config] = _as_composed

    def __call__(self, arguments: Sequence[str]) -> int:
        """Read the arguments and do the work; return the exit status.

        Raises:
            UserError: something does not fit; the processes of torchrun agree on it.
        """
        try:
            words, print_config = _take_print_config(arguments)
            plain = [word for word in words if "=" not in word and not word.startswith("-")]
            overrides = tuple(word for word in words if word not in plain)
            composed = compose(file_name(self.name), overrides)
            self._add(composed, plain)
            composed = self.complete(composed, overrides)
            config = None if print_config else checked(composed, self.schema)
        except UserError as error:
            raise AgreedError(str(error)) from error
        if config is None:
            print(write_yaml(composed), end="")
            return 0
        return self.body(Call(config, composed, overrides))

    def _add(self, composed: Config, plain: list[str]) -> None:
        before: Any = composed[self.plain] if self.plain else None
        if self.plain and isinstance(before, list):
            composed[self.plain] = [*before, *plain]
        elif self.plain and len(plain) == 1:
            composed[self.plain] = plain[0]
        elif plain and self.plain:
            raise UserError(f"{plain[1]}: {self.name} takes one {self.plain}")
        elif plain:
            raise UserError(
                f"{plain[0]}: {self.name} takes key=value only; see bn-inception {self.name} --help"
            )


def _take_print_config(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Split off Hydra's `--cfg job`; return the other arguments and whether it was there."""
    rest = list(arguments)
    at = next((place for place, word in enumerate(rest) if word in ("--cfg", "-c")), None)
    if at is None:
        return rest, False
    what = rest[at + 1 : at + 2]
    if what != ["job"]:
        given = what[0] if what else "nothing"
        raise UserError(f"--cfg: {given}; only 'job' is there to print")
    del rest[at : at + 2]
    return rest, True
