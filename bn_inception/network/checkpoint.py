"""Checkpoints that survive a kill at any moment and load without running anything.

A checkpoint is a dictionary of tensors and JSON-able values, written by `torch.save` and loadable
with `weights_only=True`. From the first save on `last.pt` always exists: a new file is written
under a temporary name, flushed to disk, read back, and only then renamed. The file before it stays
as `previous.pt`. `best.pt` holds the network of the best evaluation, without the optimizer.

`network` is ready for inference. If its weights were evaluated, its BN statistics are those of the
population (BN Algorithm 2), and `population_batches` is the number of mini-batches. Otherwise they
are running statistics, and `population_batches` is None. `running_statistics` always holds the
running statistics of training, by name.
"""

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor

from bn_inception.errors import UserError
from bn_inception.fields import Fields
from bn_inception.files import first_line, replacing
from bn_inception.network.inception import Inception
from bn_inception.network.normalization import running_statistics
from bn_inception.network.settings import NetworkConfig
from bn_inception.network.tensors import named_tensors, outputs_of, read_pickle, require_tensors

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
FORMAT = 1
_REMEDY = "use a checkpoint of bn-inception train"


def save(state: dict[str, Any], folder: Path, name: str = LAST) -> None:
    """Write `state` as `folder/name`, atomically; an earlier `last.pt` is kept as `previous.pt`.

    Raises:
        UserError: the disk is full, the folder cannot be written, or what was written does not
            read back. The checkpoints that were there stay.
    """
    target = folder / name
    try:
        # Through memory: on a full disk torch.save says only "unexpected pos".
        content = io.BytesIO()
        torch.save({"format": FORMAT, **state}, content)
        with replacing(target) as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # before previous.pt is touched: the disk may be full
            if (reason := damage(Path(file.name))) is not None:
                raise OSError(f"the file does not read back: {reason}")
            if name == LAST and target.exists():
                # A second link, then one rename, so that a whole last.pt exists at every moment.
                link = folder / f".{PREVIOUS}.tmp"
                link.unlink(missing_ok=True)
                _link_or_copy(target, link)
                link.replace(folder / PREVIOUS)
    except OSError as error:
        raise UserError(
            f"checkpoint {target}: could not be written ({error}); the earlier checkpoints are "
            "kept: free some space or check permissions, then continue with run.resume=must"
        ) from error


def _link_or_copy(target: Path, link: Path) -> None:
    try:
        link.hardlink_to(target)
    except OSError:
        # exFAT and some network file systems have no hard links, and report different errors.
        # If the disk is full, the copy reports it.
        shutil.copyfile(target, link)
        with link.open("rb") as file:
            os.fsync(file.fileno())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, by its stored CRC-32s; None if it is intact."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compress; a compressed entry of 350 KB could unpack to gigabytes.
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return "its entries are longer than the file"
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        # RuntimeError: one flipped bit makes an entry look encrypted, or compressed unknowably.
        return first_line(error)
    return None if broken is None else f"wrong checksum in {broken}"


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU.

    Raises:
        UserError: missing, damaged, in another format, or in need of unpickling arbitrary objects.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: there is no such file")
    if (reason := damage(path)) is not None:
        raise UserError(f"checkpoint {path}: damaged ({reason}); use another checkpoint")
    state = read_pickle(path, f"checkpoint {path}", "use another checkpoint")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path}: not written by bn-inception (format {FORMAT})")
    return state


def load_latest(
    folder: Path, warn: Callable[[str], None], keys: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Read the newest intact checkpoint of a run; None if none was ever written.

    If `last.pt` is missing, damaged, or without one of `keys`, `previous.pt` is read, and `warn`
    gets a line about it.

    Raises:
        UserError: there are checkpoints and none is intact.
    """
    reasons = []
    for name in (LAST, PREVIOUS):
        if not (folder / name).exists():
            if name == LAST and (folder / PREVIOUS).exists():
                reasons.append(f"checkpoint {folder / name}: missing")
            continue
        try:
            state = load(folder / name)
            _require_keys(state, ("step", "network", *keys), folder / name)
        except UserError as error:
            reasons.append(str(error))
            continue
        if reasons:
            warn(f"{'; '.join(reasons)}; continuing from {name} at step {state['step']}")
        return state
    if reasons:
        raise UserError("; ".join(reasons))
    return None


def _require_keys(state: Mapping[str, Any], keys: Sequence[str], path: Path) -> None:
    missing = [key for key in keys if key not in state]
    if missing or type(state["step"]) is not int:
        raise UserError(
            f"checkpoint {path}: holds no {(missing or ['step'])[0]}, as if it were another file "
            f"than {path.name}; restore it from a copy"
        )


@dataclass(frozen=True)
class LoadedNetwork:
    """A checkpoint's network with its description.

    Attributes:
        network: on the CPU, channels_last, in evaluation mode.
        classes: name of each output; None if the checkpoint has none.
        recipe: the recipe trained, empty if unknown.
        step: updates made.
        config: the network's settings.
        sha256: of the file, hexadecimal.
        preprocessing: how training read its images (`data.preprocessing.describe`); None if
            unknown.
        population_batches: training mini-batches over which BN Algorithm 2 computed the network's
            statistics; None if these are running statistics.
        running_statistics: of training, by their names in the network.
    """

    network: Inception
    classes: tuple[str, ...] | None
    recipe: str
    step: int
    config: NetworkConfig
    sha256: str
    preprocessing: dict[str, str] | None
    population_batches: int | None
    running_statistics: dict[str, Tensor]


def load_network(path: str | Path) -> LoadedNetwork:
    """Build the network that a checkpoint describes and load its parameters and statistics.

    The file is a dictionary with `network` (a state_dict), `network_config` (see `plain`) and,
    where known, `classes` (list of names), `recipe`, `step`, `preprocessing`,
    `population_batches` and `running_statistics`.

    Raises:
        UserError: as for `load`; settings, parameters or shapes that do not fit this network.
    """
    path = Path(path)
    where, size = f"checkpoint {path}", path.stat().st_size if path.is_file() else 0
    state = load(path)
    said = Fields(state, where)
    tensors = named_tensors(state.get("network"), where, _REMEDY)
    config = network_config(state.get("network_config"), where)
    outputs = outputs_of(tensors, "classifier.weight", where, _REMEDY)
    require_tensors(tensors, expected_tensors(config, outputs), where, _REMEDY, size)
    network = Inception(config, outputs)
    network.load_state_dict(tensors)
    own = {name: tensors[name] for name in running_statistics(network)}
    running = named_tensors(state.get("running_statistics", own), where, _REMEDY)
    require_tensors(running, own, where, _REMEDY, size)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedNetwork(
        network=network.to(memory_format=torch.channels_last).eval(),
        classes=class_names(state.get("classes"), outputs, where),
        recipe=said.get("recipe", str | None) or "",
        step=said.get("step", int | None) or 0,
        config=config,
        sha256=sha256,
        preprocessing=said.get("preprocessing", dict[str, str] | None) or None,
        population_batches=said.get("population_batches", int | None),
        running_statistics=running,
    )


def plain(config: NetworkConfig) -> dict[str, Any]:
    """Turn a network's settings into JSON-able values; `network_config` is the inverse."""
    values = asdict(config)
    return {key: v.value if isinstance(v, Enum) else v for key, v in values.items()}


def network_config(values: object, where: str) -> NetworkConfig:
    """Turn stored plain values into a network's settings; missing ones take their defaults.

    Args:
        values: a mapping from names to values, from a file.
        where: the file's name, for errors.

    Raises:
        UserError: not a mapping, an unknown setting, or a value that is not allowed.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: does not say which network it is of; use another checkpoint")
    hints = get_type_hints(NetworkConfig)
    unknown = sorted(str(key) for key in values.keys() - hints.keys())
    if unknown:
        raise UserError(
            f"{where}: the network setting {unknown[0]} is unknown to this version; update "
            "bn-inception, or use another checkpoint"
        )
    try:
        return NetworkConfig(
            **{key: _typed(key, value, hints[key]) for key, value in values.items()}
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _typed(key: str, value: object, kind: Any) -> Any:
    """`value` as the type of the setting `key`: an enum's value, a list of texts, or itself."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        values = [member.value for member in kind]
        if value not in values:
            raise UserError(f"{key} is {value!r}: allowed are {', '.join(map(str, values))}")
        return kind(value)
    if kind is float and type(value) is int and abs(value) < 1 << 63:
        return float(value)
    if kind in (bool, int, float):
        if type(value) is not kind:
            raise UserError(f"{key} is {value!r}: allowed is a value of type {kind.__name__}")
    elif not (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
        raise UserError(f"{key} is {value!r}: allowed is a list of texts")
    return value


def expected_tensors(config: NetworkConfig, outputs: int) -> dict[str, Tensor]:
    """The names and shapes of a network's parameters and statistics; allocates none of them."""
    with torch.device("meta"):
        return Inception(config, outputs).state_dict()


def class_names(names: object, outputs: int, where: str) -> tuple[str, ...] | None:
    """Stored names of the outputs; None where there are none; UserError if they do not fit."""
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != outputs:
        given = len(names) if isinstance(names, list) else "no"
        raise UserError(
            f"{where}: names {given} classes for {outputs} outputs; use another checkpoint"
        )
    return tuple(map(str, names))


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Hash every tensor's name and bytes: equal if and only if all weights are, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
