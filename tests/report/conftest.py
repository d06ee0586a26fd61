import json

import pytest

from bn_inception.record.metrics import MetricsLog, TrainRecord, ValidationRecord
from bn_inception.record.summary import Divergence, RunStatus, Summary
from bn_inception.report.runs import read_run


def write_run(
    folder, recipe, curve, *, every=100, batch=32, count=100, training=(), config=None, **summary
):
    """Write a run folder, evaluated every `every` steps along `curve`; a divergence ends it."""
    folder.mkdir(parents=True)
    log = MetricsLog(folder / "metrics.jsonl")
    for number, top1 in enumerate(curve, start=1):
        step, x = number * every, number * every * batch / 32
        if training:
            log.append(TrainRecord(step, x, 1.0, 0.1, 1.0, training[number - 1]))
        log.append(ValidationRecord(step, x, 1.0, top1, top1, count))
    log.close()
    diverged = summary.get("diverged")
    step = len(curve) * every if diverged is None else diverged.step
    status = RunStatus.finished if diverged is None else RunStatus.diverged
    usual = {"scale": "cpu", "seed": 0, "classes": 100, "status": status, "step": step}
    Summary(recipe, **{**usual, "images_seen": step * batch, **summary}).write(
        folder / "summary.json"
    )
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run folder, as `write_run` does, and reads it."""

    def make(name, recipe, curve, *, fingerprint=None, **others):
        folder = write_run(tmp_path / "outputs" / name, recipe, curve, **others)
        if fingerprint is not None:
            environment = json.dumps({"data_fingerprint": fingerprint})
            (folder / "environment.json").write_text(environment)
        return read_run(folder)

    return make


@pytest.fixture
def figure3_runs(make_run):
    """Runs of every outcome that a Figure 3 can have."""
    return [
        make_run("sigmoid", "bn_x5_sigmoid", [0.05, 0.1, 0.15]),
        make_run("control", "inception_x5", [0.01], diverged=Divergence(1234, "4e.pool")),
        make_run("plain", "inception", [0.05, 0.1, 0.2, 0.25, 0.24, *[0.25] * 7]),
        make_run("fast", "bn_x5", [0.2, 0.3, 0.35, 0.4]),
        make_run("faster", "bn_x30", [0.1, 0.22, 0.5]),
        make_run("dead", "inception_sigmoid", [0.01, 0.01], started_learning=False),
        make_run("early", "bn_baseline", [], status=RunStatus.running),
    ]


def write_evaluation(path, crops, top5, *, models=1, count=10_000, **others):
    """What `bn-inception evaluate` and `ensemble` write."""
    values = {
        "crops": crops, "statistics": "population", "models": models, "count": count,
        "top1_error": 0.5, "top5_error": top5, "top1_interval": [0.49, 0.51],
        "top5_interval": [top5 - 0.01, top5 + 0.01],
        **others,
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def evaluated(run, *evaluations, **others):
    """The run again, with evaluations (crops, top-5 error) beside it."""
    for crops, top5 in evaluations:
        write_evaluation(run.path / "evaluation" / f"{crops}.json", crops, top5, **others)
    return read_run(run.path)
