"""Completion in the shell, which is Hydra's own, told which command is being typed."""

import os
from collections.abc import Sequence

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from bn_inception.cli.help import COMMANDS, file_name
from bn_inception.errors import UserError
from bn_inception.files import configs_folder


def complete(words: Sequence[str]) -> None:
    """Print the shell's function (`install=bash`), or what can follow the line typed so far."""
    line = os.environ.get("COMP_LINE", "")
    typed = f"{' '.join(line.split()[1:])} "
    name = next((name for name in COMMANDS if typed.startswith(f"{name} ")), None)
    if name is None and any(word.startswith("query=") for word in words):
        print(*COMMANDS)
        return
    # Hydra takes one program to be one configuration: the command's name goes.
    os.environ["COMP_LINE"] = line.replace(f" {name}", "", 1)
    with initialize_config_dir(str(configs_folder()), "bn-inception", "1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            hydra.shell_completion(file_name(name or "train"), list(words))
        except ValueError as error:
            given = " ".join(words) or "nothing"
            raise UserError(f"-sc: {given}; write install=bash, =zsh or =fish") from error
