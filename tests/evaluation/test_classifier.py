"""A network in one line of Python, and `bn-inception predict`: evaluation's pixels and results."""

import os
from pathlib import Path

import pytest
import torch
from evaluation.networks import refusal, small_network, write_run
from PIL import Image

import bn_inception
from bn_inception.cli.main import dispatch, main
from bn_inception.data import (
    Backend,
    OnError,
    UnreadableImage,
    preprocessing,
    to_input,
    validation_batches,
)
from bn_inception.data.pixels import crops
from bn_inception.evaluation.crops import SINGLE
from bn_inception.evaluation.evaluate import evaluate_source

CLASSES = ["red\x1b[2J", "green", "blue" * 30]


def write(folder, backend=Backend.pillow):
    read = {"backend": backend.value}
    return write_run(folder, small_network(), classes=CLASSES, preprocessing=read)


@pytest.mark.parametrize("backend", Backend)
def test_pixels_and_probabilities_are_those_of_evaluation(tmp_path, source, backend):
    classifier = bn_inception.load(write(tmp_path / "run", backend))
    (batch,) = validation_batches(
        source, image_size=16, batch=99, workers=0, on_error=OnError.fail, backend=backend
    )
    paths = [source.name(index) for index in range(len(source))]
    for path, expected in zip(paths, to_input(batch.images), strict=True):
        assert torch.equal(classifier.transform(path), expected)
        if path.endswith(".png"):
            # A JPEG is decoded by Pillow here, and in evaluation by the backend.
            assert torch.equal(classifier.transform(Image.open(path)), expected)
    expected = evaluate_source(
        classifier.network, source, SINGLE, image_size=16, batch_size=4, workers=0,
        device=torch.device("cpu"), backend=backend,
    ).probabilities  # fmt: skip
    for likeliest, row in zip(classifier.predict(paths), expected, strict=True):
        assert [p for _, p in likeliest] == sorted((p for _, p in likeliest), reverse=True)
        assert dict(likeliest) == pytest.approx(dict(zip(CLASSES, row, strict=True)), abs=1e-3)
    assert [len(found) for found in classifier.predict(paths[:2], top=1)] == [1, 1]


def test_images_that_cannot_be_read_are_named(tmp_path, source):
    classifier = bn_inception.load(write(tmp_path / "run"))
    cut = tmp_path / "cut.png"
    cut.write_bytes(source.read(5)[:200])
    nowhere = str(tmp_path / "nowhere.jpg")
    for image, name in (
        (nowhere, nowhere),
        (cut, str(cut)),
        (Image.open(cut), str(cut)),
        (Image.new("F", (20, 20)), "the image"),
    ):
        with pytest.raises(UnreadableImage) as caught:
            classifier.predict([image])
        assert caught.value.name == name
    assert "give a list" in refusal(classifier.predict, str(cut))
    # Nor does a diverged network predict.
    classifier.network.classifier.bias.data[1] = float("nan")
    assert "not finite" in refusal(classifier.predict, [source.name(0)])


def test_the_command_shows_a_block_an_image_and_goes_on_after_a_bad_one(tmp_path, source, capsys):
    run = write(tmp_path / "run")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "good.jpg").write_bytes(Path(source.name(0)).read_bytes())
    bad = [str(tmp_path / "pipe.jpg"), str(tmp_path / "a\nb.jpg")]
    good = os.path.relpath(tmp_path / "good.jpg")
    with pytest.raises(SystemExit) as caught:
        main(["predict", f"run={run}", good, *bad, good])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    first, second, end = out.split("\n\n")
    assert first == second and end == "" and first.splitlines()[0] == good
    assert "red\\x1b[2J" in first and len(first.splitlines()) == 4
    assert all(len(line) <= 80 for line in first.splitlines()[1:])
    assert err.count("\n") == 2 and "pipe.jpg cannot be read: not a regular file" in err
    file = run / "checkpoints" / "best.pt"
    assert dispatch(["predict", f"checkpoint={file}", "top=1", good]) == 0
    assert capsys.readouterr().out.splitlines() == [*first.splitlines()[:2], ""]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict a.jpg", "one of run=FOLDER and checkpoint=FILE"),
        ("predict run=x", "no images"),
        ("predict run=x a.jpg top=0", "top: 0"),
        ("predict run=nowhere a.jpg", "nowhere: there is no such file"),
        ("export output=out", "one of run=FOLDER and checkpoint=FILE"),
        ("export run=. output=out", "has no checkpoints/best.pt"),
        ("export run=x", "output: not set"),
        ("export run=x output=y format=onnx", "there is no key format"),
        ("export somewhere output=y", "key=value only"),
    ],
)
def test_what_is_missing_is_said(tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(dispatch, line.split())


def test_another_resize_is_seen_in_the_description(monkeypatch):
    now = preprocessing.describe(Backend.pillow)
    assert preprocessing.differences(now, preprocessing.describe(Backend.pillow)) == []

    def nearest(picture, size):
        box = crops.single_crop(picture.width, picture.height, size)
        return picture.resized(box, size, Image.Resampling.NEAREST).transpose(2, 0, 1)

    monkeypatch.setattr(preprocessing, "cut_single", nearest)
    after = preprocessing.describe(Backend.pillow)
    assert {key for key in now if now[key] != after[key]} == {"crops", "values"}
