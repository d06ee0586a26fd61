"""The test-server file: class numbers, order of lines, form, and the command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bn_inception import UserError
from bn_inception.cli.main import dispatch, main
from bn_inception.evaluation.submission import (
    check_submission,
    class_numbers,
    read_devkit,
    submission,
    unlabelled_images,
)
from bn_inception.network import Inception, NetworkConfig, initialize
from bn_inception.network.checkpoint import plain, save

CLASSES = [f"n{number:04d}" for number in range(7)]
DEVKIT = [CLASSES[number] for number in (3, 0, 6, 1, 5, 2, 4)]


def test_numbers_are_the_kits_and_the_likeliest_class_is_first() -> None:
    numbers = class_numbers(CLASSES, DEVKIT)
    assert numbers.tolist() == [2, 4, 6, 1, 7, 5, 3]
    probabilities = np.array(
        [[0.0, 0.5, 0.1, 0.3, 0.04, 0.06, 0.0], [0.1] * 4 + [0.3, 0.15, 0.15], [0.0] * 7]
    )
    text = submission(probabilities, numbers)
    # Outputs 1, 3, 2, 5, 4; then 4, 5, 6 and of equal ones the lower; last an unreadable image.
    assert text == "4 1 6 5 7\n7 5 3 2 4\n2 4 6 1 7\n"
    check_submission(text, 3, 7)


def test_the_kit_may_name_more_than_the_networks_classes() -> None:
    assert class_numbers(CLASSES[:2], DEVKIT).tolist() == [2, 4]


def test_a_devkit_file(tmp_path: Path) -> None:
    file = tmp_path / "synsets.txt"
    file.write_text("n02 kit fox\n\nn01\tsetter\n")
    assert read_devkit(file) == ["n02", "n01"]
    sorted_kit = tmp_path / "sorted.txt"
    sorted_kit.write_text("".join(f"n{number:08d}\n" for number in range(1000)))
    twice = tmp_path / "twice.txt"
    twice.write_text("n1\nn2\nn1\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.mat").write_bytes(bytes(range(256)))
    for path, words in (
        (None, "devkit: not given"),
        (sorted_kit, "kit fox"),
        (twice, "names n1 as class 1 and 3"),
        (tmp_path / "empty.txt", "is empty"),
        (tmp_path / "binary.mat", "cannot be read as text"),
        (tmp_path / "missing.txt", "cannot be read"),
    ):
        with pytest.raises(UserError) as caught:
            read_devkit(path)
        assert words in str(caught.value) and "devkit=FILE" in str(caught.value)


def test_classes_that_the_kit_does_not_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"does not name 1 of the network's 7 classes.*n0006"):
        class_numbers(CLASSES, [name for name in DEVKIT if name != "n0006"])
    with pytest.raises(UserError, match="two outputs called n0001"):
        class_numbers([*CLASSES, "n0001"], DEVKIT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3 4 5\n1 2 3 4\n", "line 2 is '1 2 3 4'"),
        ("1 2 3 4 5\n1 2 3 4 8\n", "line 2"),
        ("0 2 3 4 5\n1 2 3 4 5\n", "line 1"),
        ("1 2 3 4 4\n1 2 3 4 5\n", "line 1"),
        ("1 2  3 4 5\n1 2 3 4 5\n", "line 1"),
        ("1,2,3,4,5\n1 2 3 4 5\n", "line 1"),
        ("1 2 3 4 5\n", "1 lines for 2 images"),
        ("1 2 3 4 5\n" * 3, "3 lines for 2 images"),
        ("1 2 3 4 5\n1 2 3 4 5", "does not end"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_submission(text, 2, 7)
    assert words in str(caught.value)


def test_a_network_of_few_classes_has_no_five_guesses() -> None:
    with pytest.raises(UserError, match="has 4 classes"):
        submission(np.ones((1, 4)), np.arange(4))


@pytest.fixture
def unlabelled(tmp_path: Path, images: Path) -> Path:
    """Images whose file names are not in the order in which they were made."""
    folder = tmp_path / "test"
    folder.mkdir()
    for number, path in enumerate(sorted((images / "val").rglob("*.JPEG"))[:6]):
        shutil.copy(path, folder / f"test_{(number * 5) % 6:08d}.JPEG")
    (folder / "readme.txt").write_text("not an image")
    (folder / "._test_0.JPEG").write_bytes(b"left by macOS")
    return folder


def test_images_are_taken_by_file_name(unlabelled: Path) -> None:
    source = unlabelled_images(unlabelled, CLASSES)
    names = [Path(source.name(index)).name for index in range(len(source))]
    assert names == [f"test_{number:08d}.JPEG" for number in range(6)]
    assert (source.labels == -1).all() and source.classes == tuple(CLASSES)
    with pytest.raises(UserError, match="holds no images"):
        unlabelled_images(unlabelled.parent, CLASSES)
    with pytest.raises(UserError, match="cannot be listed"):
        unlabelled_images(unlabelled / "nowhere", CLASSES)


def checkpoint(folder: Path, seed: int, classes: list[str] | None = CLASSES) -> Path:
    config = NetworkConfig(width=0.0625, image_size=16)
    network = Inception(config, len(CLASSES))
    initialize(network, torch.Generator().manual_seed(seed))
    state = {"network": network.state_dict(), "network_config": plain(config), "step": 1}
    (folder / "checkpoints").mkdir(parents=True)
    save(
        state | ({} if classes is None else {"classes": classes}), folder / "checkpoints", "best.pt"
    )
    return folder


def test_the_command(
    tmp_path: Path,
    unlabelled: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (unlabelled / "test_00000002.JPEG").write_bytes(b"\xff\xd8 damaged")
    Path("synsets.txt").write_text("\n".join(DEVKIT))
    for seed in range(2):
        checkpoint(tmp_path / f"run{seed}", seed)
    common = [
        "images=test",
        "devkit=synsets.txt",
        "data.workers=0",
        "machine.device=cpu",
        "crops=10",
    ]
    assert dispatch(["submission", "run=run0", *common, "batch_size=7", "output=one.txt"]) == 0
    assert dispatch(["submission", "run1", *common, "output=other.txt"]) == 0
    assert dispatch(["submission", "run0", "run1", *common, "output=both.txt"]) == 0
    out, err = capsys.readouterr()
    assert "6 images, 2 networks, crops=10" in out and "test_00000002.JPEG cannot be read" in err
    texts = [Path(name).read_text() for name in ("one.txt", "other.txt", "both.txt")]
    for text in texts:
        check_submission(text, 6, 7)
        assert text.splitlines()[2] == "2 4 6 1 7"
    assert len(set(texts)) == 3

    checkpoint(tmp_path / "nameless", 3, None)
    checkpoint(tmp_path / "others", 3, CLASSES[::-1])
    for arguments, words in (
        (["run=run0", *common[:1], "output=x.txt"], "devkit: not given"),
        (["run0", "run0", *common, "output=x.txt"], "the same network"),
        (["nameless", *common, "output=x.txt"], "classes=FILE"),
        (["run0", "others", *common, "output=x.txt"], "different classes"),
        (["run0", *common, "output=nowhere/x.txt"], "output: nowhere"),
        (["run0", *common, "images=run0", "output=x.txt"], "holds no images"),
        (["run0", *common, "crops=3", "output=x.txt"], "crops: '3'"),
        (["run7", *common, "output=x.txt"], "run7: has no checkpoints"),
        ([*common, "output=x.txt"], "no network"),
        (["run0", *common], "output: not set"),
    ):
        with pytest.raises(SystemExit):
            main(["submission", *arguments])
        assert words in capsys.readouterr().err
        assert not Path("x.txt").exists()
