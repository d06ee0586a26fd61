#!/usr/bin/env bash
# docs/imagenet.md from end to end, its commands as printed there, on a small machine in minutes: archives of 300 drawn
# images in ten classes, a quarter of the width, 64 pixels, one step for a million of the paper's.
#   PYTHON=python scripts/rehearse_imagenet.sh FOLDER
# What it shows is that the commands go together, not how long they take and nothing about accuracy.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
PATH=$(dirname "$(command -v "$python")"):$PATH
mkdir -p "$1/downloads"
cd "$1"
export OMP_NUM_THREADS=1 PYTHONPATH=$repository

"$python" - <<'PYTHON'
"""The three archives that ImageNet is downloaded as, with gratings of one direction in each class."""
import io
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = [f"n{1440764 + 17 * label:08d}" for label in range(10)]
rng = np.random.default_rng(0)


def jpeg(label: int) -> bytes:
    y, x = np.mgrid[:96, :120] / 8
    angle = np.pi * label / len(WNIDS)
    wave = np.sin(x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 6))
    pixels = 128 + 60 * wave[..., None] + rng.normal(0, 20, (96, 120, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


train = {
    f"{wnid}.tar": tar({f"{wnid}_{number}.JPEG": jpeg(label) for number in range(26)})
    for label, wnid in enumerate(WNIDS)
}
labels = rng.permutation(np.repeat(np.arange(len(WNIDS)), 4))
val = {f"ILSVRC2012_val_{n + 1:08d}.JPEG": jpeg(label) for n, label in enumerate(labels)}
rows = [(number + 1, wnid, "drawn") for number, wnid in enumerate(WNIDS)]
kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
meta = io.BytesIO()
savemat(meta, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
kit = {
    "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(
        f"{label + 1}\n" for label in labels
    ).encode(),
}
for name, content in (
    ("ILSVRC2012_img_train.tar", tar(train)),
    ("ILSVRC2012_img_val.tar", tar(val)),
    ("ILSVRC2012_devkit_t12.tar.gz", tar(kit, "w:gz")),
):
    with open(f"downloads/{name}", "wb") as file:
        file.write(content)
PYTHON

# The page's blocks in their order. The members that it says to start later follow the other runs.
small="scale=paper scale.image_size=64 scale.width=0.25 scale.compression=1000000"
runs="scale.evaluate_every=3000000 scale.population_batches=2 data.workers=1 machine.threads=1"
members='for member in 2 3 4 5 6; do bn-inception train recipe=ensemble/$member run.seed=$member $images; done'
sed -n '/^```sh$/,/^```$/p' "$repository/docs/imagenet.md" | sed "
    s#/downloads/ILSVRC2012#downloads#
    s#/data/imagenet#shards#
    s#scripts/train.py#$repository/scripts/train.py run.root=x8#
    s#data.workers=8##
    s#scale=paper data=#$small $runs data=#
    s#scale=paper output#$small output#
    /^CUDA_VISIBLE_DEVICES=7/a wait\n$members
    /^\`\`\`/d" >page.sh
bash -euxo pipefail page.sh
