"""The recorder of a process that does not write."""

from pathlib import Path

from bn_inception.record import Recorder, RunFolder, RunStatus, SilentRecorder, Summary


def test_it_knows_what_the_writing_one_knows_and_writes_nothing(tmp_path: Path) -> None:
    folders = [RunFolder(tmp_path, name) for name in ("writes", "silent")]
    folders[0].create()
    recorders = [
        kind(folder, Summary("bn_x5", "demo", 0), batch=8, targets=[0.2])
        for kind, folder in zip((Recorder, SilentRecorder), folders, strict=True)
    ]
    for recorder in recorders:
        recorder.start()
        recorder.train(1, loss=1.0, learning_rate=0.1, images_per_second=3.0)
        assert recorder.validation(1, loss=1.0, top1=0.3, top5=0.5, count=10)
        assert not recorder.validation(2, loss=1.0, top1=0.3, top5=0.5, count=10)
    writes, silent = recorders
    assert silent.best == writes.best
    assert silent.milestones.as_list() == writes.milestones.as_list()
    state = writes.state()
    of_the_writing_one = ("metrics_lines", "metrics_checksum", "wall_seconds")
    assert silent.state() | {key: state[key] for key in of_the_writing_one} == state
    silent.restore(state, 2)
    assert silent.best == writes.best
    assert silent.finish(RunStatus.finished, step=2).step == 2
    writes.close()
    assert not folders[1].path.exists()
