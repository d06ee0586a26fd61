"""Files of the run folder, and images, that somebody deleted, exchanged, added or damaged."""

import functools
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults import BACKWARD, IN_STEP_8, Fault, only
from faults_bench import Bench


def files(bench: Bench) -> Iterator[Fault]:
    """Files of the run folder that somebody deleted, exchanged or added."""
    for names, refusal in (
        (("config.yaml",), r"config\.yaml: missing"),
        (("environment.json",), r"environment\.json: cannot be read"),
        (("metrics.jsonl",), r"metrics\.jsonl: 0 lines, but the checkpoint was made with"),
        (("checkpoints/last.pt", "checkpoints/previous.pt"), r"holds no last\.pt or previous\.pt"),
    ):
        spoil = functools.partial(_hidden, names, bench.root / "hidden")
        yield Fault("deleted file", " and ".join(names), spoil=spoil, refusal=refusal, **IN_STEP_8)
    for name, says, more in (
        ("summary.json", "", {}),
        ("tensorboard", "", {}),
        ("checkpoints/last.pt", r"last\.pt: missing; continuing from previous\.pt", {"older": 1}),
        ("checkpoints/best.pt", r"best\.pt is missing", {"without": ("best.pt",)}),
    ):
        heal = functools.partial(_delete, name)
        yield Fault("deleted file", name, heal=heal, resumed_says=says, **IN_STEP_8, **more)
    for name, refusal in (
        ("checkpoints/last.pt", r"checkpoint is of another run \(bn_baseline, seed 1"),
        ("metrics.jsonl", r"metrics\.jsonl: other lines than those"),
    ):
        spoil = functools.partial(_of_another_run, bench, name)
        detail = f"another run's {name}"
        yield Fault("foreign file", detail, spoil=spoil, refusal=refusal, **IN_STEP_8)
    yield Fault(
        "foreign file",
        "best.pt in the place of last.pt",
        **IN_STEP_8,
        heal=lambda folder: shutil.copy(
            folder / "checkpoints" / "best.pt", folder / "checkpoints" / "last.pt"
        ),
        resumed_says="last.pt: holds no optimizer.*continuing from previous.pt at step 3",
        older=1,
    )
    yield Fault("foreign file", "unfinished files", heal=_strew, **IN_STEP_8)
    spoil = functools.partial(_linked_out, bench.root)
    refusal = "a link that leads out of the run folder"
    yield Fault("foreign file", "a link that leads out", spoil=spoil, refusal=refusal, **IN_STEP_8)


def _hidden(names: tuple[str, ...], place: Path, folder: Path) -> Callable[[], None]:
    place.mkdir(exist_ok=True)
    moved = [(folder / name, place / Path(name).name) for name in names]
    for here, there in moved:
        shutil.move(here, there)

    def undo() -> None:
        for here, there in moved:
            here.unlink(missing_ok=True)
            shutil.move(there, here)

    return undo


def _delete(name: str, folder: Path) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _of_another_run(bench: Bench, name: str, folder: Path) -> Callable[[], None]:
    other = bench.root / "another"
    if not other.exists():
        started = bench.run(other, "run.seed=1", "train.steps=8")
        assert set(started.statuses.values()) == {0}, started.said()
    undo = _hidden((name,), bench.root / "hidden", folder)
    shutil.copy(other / name, folder / name)
    return undo


def _strew(folder: Path) -> None:
    for name in ("last.pt.part", ".last.pt.tmp", ".previous.pt.tmp", ".best.pt.1.tmp"):
        (folder / "checkpoints" / name).write_bytes(b"half a checkp")
    (folder / "metrics.jsonl.part").write_bytes(b'{"kind": "tr')


def _linked_out(place: Path, folder: Path) -> Callable[[], None]:
    (folder / "notes").symlink_to(place)
    return (folder / "notes").unlink


def damage(seed: int, *, flipped: int, cut: int) -> Iterator[Fault]:
    """Bytes that are others or missing, in the checkpoints, the log and the configuration."""
    draw = random.Random(seed)
    previous = r"damaged.*continuing from previous\.pt at step 3"
    kinds = ("flipped", flipped, _flip_in_zip), ("missing", cut, _shorten)
    for kind, count, harm in kinds:
        for number in range(count):
            yield Fault(
                "damaged file",
                f"{kind} bytes in last.pt, number {number + 1}",
                **IN_STEP_8,
                heal=lambda folder, harm=harm: harm(draw, folder / "checkpoints" / "last.pt"),
                resumed_says=previous,
                older=1,
            )
    both = ("checkpoints/last.pt", "checkpoints/previous.pt")
    for names, harm, refusal in (
        (both, _shorten, r"previous\.pt: damaged \(.*?\); use another checkpoint"),
        (("metrics.jsonl",), _shorten, r"metrics\.jsonl: \d lines, but the checkpoint at step 6"),
        (("metrics.jsonl",), _change_digit, r"metrics\.jsonl: other lines than those"),
        (("config.yaml",), _change_digit, "was started with another configuration"),
    ):
        spoil = functools.partial(_harmed, names, functools.partial(harm, draw))
        detail = f"{' and '.join(names)}, {harm.__name__.strip('_').replace('_', ' ')}"
        yield Fault("damaged file", detail, spoil=spoil, refusal=refusal, **IN_STEP_8)
    yield Fault(
        "damaged file", "metrics.jsonl, half a line at its end", heal=_half_a_line, **IN_STEP_8
    )


def _harmed(
    names: tuple[str, ...], harm: Callable[[Path], None], folder: Path
) -> Callable[[], None]:
    kept = {folder / name: (folder / name).read_bytes() for name in names}
    for path in kept:
        harm(path)

    def undo() -> None:
        for path, content in kept.items():
            path.write_bytes(content)

    return undo


def _flip_in_zip(draw: random.Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Inside an entry: the padding between them carries nothing.
    with zipfile.ZipFile(path) as archive:
        entry = draw.choice([entry for entry in archive.infolist() if entry.file_size])
    names = struct.unpack_from("<HH", content, entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(names)
    content[start + draw.randrange(entry.file_size)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _shorten(draw: random.Random, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) // 2)])


def _change_digit(draw: random.Random, path: Path) -> None:
    """In the first line or setting where it goes unnoticed by the form alone."""
    content = path.read_text()
    before = '"loss": ' if path.suffix == ".jsonl" else "seed: "
    start = content.index(before) + len(before)
    changed = "7" if content[start] != "7" else "5"
    path.write_text(content[:start] + changed + content[start + 1 :])


def _half_a_line(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("ab") as log:
        log.write(b'{"kind": "train", "st')


def images(bench: Bench) -> Iterator[Fault]:
    """A gradient that is no number, and images that cannot be read."""
    for ranks, which in ((1, 0), (2, 1)):
        yield Fault(
            "NaN in a gradient",
            f"rank {which} of {ranks}",
            ranks=ranks,
            at=(BACKWARD, 8, False),
            act=only(which, _no_number),
            says=r"diverged at step \d+ in layer",
        )
    for split, ranks in (("train", 1), ("val", 1), ("train", 2)):
        image = sorted((bench.images / split).rglob("*.JPEG"))[3]
        harm = functools.partial(_unreadable, image)
        yield Fault(
            "unreadable image",
            f"{split}, {ranks} processes",
            ranks=ranks,
            at=("os.mkdir", 1, False),
            act=only(0, harm),
            statuses=frozenset({2}),
            says="cannot be read",
            heal=lambda folder, image=image: shutil.move(image.with_suffix(".whole"), image),
            loses=0,
        )


def _no_number(rank: int, loss: Any, *_: Any) -> None:
    loss.register_hook(lambda gradient: gradient * float("nan"))


def _unreadable(image: Path, rank: int, *_: Any) -> None:
    """Its bytes are zero, its size and place are the same."""
    size = image.stat().st_size
    image.rename(image.with_suffix(".whole"))
    image.write_bytes(bytes(size))
