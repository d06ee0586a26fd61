import json

import pytest

from bn_inception.record import (
    Divergence,
    MetricsLog,
    RunStatus,
    Summary,
    TrainRecord,
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
        count=100,
        training=(),
        data=None,
        planned=None,
    ):
        folder = tmp_path / root / name
        folder.mkdir(parents=True)
        log = MetricsLog(folder / "metrics.jsonl")
        for number, top1 in enumerate(curve, start=1):
            step = number * every
            if training:
                log.append(
                    TrainRecord(step, step * batch / 32, 1.0, 0.1, 1.0, training[number - 1])
                )
            log.append(ValidationRecord(step, step * batch / 32, 1.0, top1, top1, count))
        log.close()
        step = len(curve) * every if diverged is None else diverged.step
        Summary(
            recipe=recipe,
            scale=scale,
            seed=seed,
            data=data,
            classes=classes,
            planned_steps=planned,
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
        make_run("plain", "inception", [0.05, 0.1, 0.2, 0.25, 0.24, 0.25, 0.25, 0.25]),
        make_run("fast", "bn_x5", [0.2, 0.3, 0.35, 0.4]),
        make_run("faster", "bn_x30", [0.1, 0.22, 0.5]),
        make_run("dead", "inception_sigmoid", [0.01, 0.01], started_learning=False),
        make_run("early", "bn_baseline", [], status=RunStatus.running),
    ]


def evaluation_json(crops, top5, *, models=1, count=10_000, **others):
    """What `bn-inception evaluate` and `ensemble` write."""
    return json.dumps(
        {
            "crops": crops,
            "statistics": "population",
            "models": models,
            "count": count,
            "top1_error": 0.5,
            "top5_error": top5,
            "top1_interval": [0.49, 0.51],
            "top5_interval": [top5 - 0.01, top5 + 0.01],
            **others,
        }
    )


@pytest.fixture
def add_evaluation():
    """A function that puts an evaluation beside a run."""

    def add(run, crops, top5, **others):
        folder = run / "evaluation"
        folder.mkdir(exist_ok=True)
        path = folder / f"{crops}-{len(list(folder.iterdir()))}.json"
        path.write_text(evaluation_json(crops, top5, **others))
        return path

    return add
