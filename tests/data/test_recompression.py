"""Images encoded again: what they become, and that the shards say so."""

import io
from pathlib import Path

import numpy as np
import pytest
from imagenets import WNIDS, made, refused
from pictures import encoded, photo
from PIL import Image

from bn_inception.data import DataConfig, DataKind, open_sources
from bn_inception.data.intake import recompression
from bn_inception.data.intake.recompression import Recompression
from bn_inception.data.pixels.decode import UnreadableImage


def test_recompression() -> None:
    small = encoded(photo(1, (64, 40)))
    assert Recompression(40, 90).encode(small, "x") == small
    wide = Image.open(io.BytesIO(Recompression(40, 90).encode(encoded(photo(1, (129, 80))), "x")))
    assert (wide.size, wide.format, wide.mode) == ((64, 40), "JPEG", "RGB")
    tall = Image.open(io.BytesIO(Recompression(40, 90).encode(encoded(photo(1, (80, 240))), "x")))
    assert tall.size == (40, 120)
    original = np.asarray(photo(1, (129, 80)).resize((64, 40), Image.Resampling.LANCZOS), float)
    assert np.abs(np.asarray(wide, float) - original).mean() < 3
    # CMYK and PNG become what any JPEG reader understands.
    cmyk = Recompression(20, 90).encode(encoded(photo(1).convert("CMYK")), "x")
    assert Image.open(io.BytesIO(cmyk)).mode == "RGB"


def test_an_image_too_long_for_a_jpeg_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompression, "_JPEG_SIDE", 100)
    path = images / "train" / WNIDS[0] / "long.JPEG"
    path.write_bytes(encoded(photo(1, (300, 30))))
    text = refused(images, tmp_path / "shards", shorter_side=20)
    assert f"{path} cannot be encoded again: 300 x 30 pixels would become 200 x 20" in text
    assert "JPEG holds 100 a side" in text


def test_the_longest_side_of_a_jpeg() -> None:
    long = encoded(Image.new("L", (65_600, 2)), "PNG")
    with pytest.raises(UnreadableImage, match="holds 65,500 a side"):
        Recompression(1, 90).encode(encoded(Image.new("L", (131_100, 2)), "PNG"), "x")
    half = Image.open(io.BytesIO(Recompression(1, 90).encode(long, "x")))
    assert half.size == (32_800, 1)


def test_recompressed_shards_are_smaller_and_other(images: Path, tmp_path: Path) -> None:
    train, _ = made(images, tmp_path / "small", shorter_side=20, quality=80)
    kept, _ = made(images, tmp_path / "kept")
    assert train.images == kept.images
    small = open_sources(DataConfig(DataKind.shards, str(tmp_path / "small"))).train
    same = open_sources(DataConfig(DataKind.shards, str(tmp_path / "kept"))).train
    assert small.fingerprint() != same.fingerprint()
    assert small.meta.source_fingerprint == same.fingerprint()
    assert "shorter side 20, JPEG quality 80" in small.meta.encoding
    for index in range(len(small)):
        assert min(Image.open(io.BytesIO(small.read(index))).size) == 20
    train, _ = made(images, tmp_path / "small", shorter_side=20, quality=80)
    assert train.written == 0


def test_held_out_images_may_keep_the_bytes_that_training_images_lose(
    images: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shards"
    for split, own in (("train", {"shorter_side": 20}), ("val", {})):
        alone = tmp_path / split
        alone.mkdir()
        (alone / split).symlink_to(images / split)
        made(alone, target, **own)
    both = open_sources(DataConfig(DataKind.shards, str(target)))
    assert min(Image.open(io.BytesIO(both.train.read(0))).size) == 20
    original = open_sources(DataConfig(DataKind.folder, str(images))).validation
    assert both.validation.fingerprint() == original.fingerprint()
