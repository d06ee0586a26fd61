import json

import pytest

from bn_inception.record import (
    Divergence,
    MetricsLog,
    RunStatus,
    Summary,
    ValidationRecord,
)


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run folder, evaluated every `every` steps along `curve`."""

    def make(
        name,
        recipe,
        curve,
        *,
        every=100,
        batch=32,
        diverged=None,
        status=RunStatus.finished,
        scale="cpu",
        seed=0,
        classes=100,
        started_learning=True,
        fingerprint=None,
        root="outputs",
    ):
        folder = tmp_path / root / name
        folder.mkdir(parents=True)
        log = MetricsLog(folder / "metrics.jsonl")
        for number, top1 in enumerate(curve, start=1):
            step = number * every
            log.append(ValidationRecord(step, step * batch / 32, 1.0, top1, top1, 100))
        log.close()
        step = len(curve) * every if diverged is None else diverged.step
        Summary(
            recipe=recipe,
            scale=scale,
            seed=seed,
            classes=classes,
            status=status if diverged is None else RunStatus.diverged,
            step=step,
            images_seen=step * batch,
            diverged=diverged,
            started_learning=started_learning,
        ).write(folder / "summary.json")
        if fingerprint is not None:
            environment = json.dumps({"data_fingerprint": fingerprint})
            (folder / "environment.json").write_text(environment)
        return folder

    return make


@pytest.fixture
def figure3_runs(make_run):
    """Runs of every outcome that a Figure 3 can have."""
    return [
        make_run("sigmoid", "bn_x5_sigmoid", [0.05, 0.1, 0.15]),
        make_run("control", "inception_x5", [0.01], diverged=Divergence(1234, "4e.pool")),
        make_run("plain", "inception", [0.05, 0.1, 0.2, 0.25, 0.24]),
        make_run("fast", "bn_x5", [0.2, 0.3, 0.35, 0.4]),
        make_run("faster", "bn_x30", [0.1, 0.25, 0.5]),
        make_run("dead", "inception_sigmoid", [0.01, 0.01], started_learning=False),
        make_run("early", "bn_baseline", [], status=RunStatus.running),
    ]
