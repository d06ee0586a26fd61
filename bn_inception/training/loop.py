"""The training loop, top to bottom."""

import math
from collections.abc import Callable
from contextlib import closing, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bn_inception.errors import AgreedError, UserError
from bn_inception.evaluation.evaluate import evaluate
from bn_inception.network import Inception, population_statistics, running_statistics
from bn_inception.paper.results import MINI_BATCH
from bn_inception.record.metrics import ValidationRecord
from bn_inception.record.summary import RunStatus, Summary
from bn_inception.training.batches import on_device
from bn_inception.training.console import Console
from bn_inception.training.schedule import Due
from bn_inception.training.session import Session, Stopped, StopRequest
from bn_inception.training.step import (
    LOSS,
    Diverged,
    first_nonfinite_layer,
    require_finite,
    train_step,
)

STARTED_BELOW = 0.98
"""A dead start leaves the loss at ln(classes). Where a network learns, its mean over a log interval
falls below this fraction of that; noise alone does not bring it there."""


def train(session: Session, console: Console, stop: StopRequest) -> Summary:
    """Train until the last step, a stop request, or divergence; record everything on the way.

    A UserError (an image that cannot be read, a loader's worker that died, a full disk) passes
    through: what was done up to there is saved, where it still can be, and the run can be resumed.

    Returns:
        The summary as written, its status `finished`, `interrupted` or `diverged`.
    """
    diverged = None
    console.start(session)
    try:
        status = _loop(session, console, stop)
    except Diverged as error:
        # Not saved: resumed from its last checkpoint, the run diverges at the same step again.
        session.share_replaced()
        status, diverged = RunStatus.diverged, error.where
    except BaseException as error:
        # Bad input strikes between two updates: the state is whole and worth saving. What went
        # wrong is the news, not that it could not be written either.
        # Saving is a meeting of all processes: only where all of them have come here.
        together = session.world.size == 1 or isinstance(error, AgreedError)
        # A network that has broken since the last look is not: it breaks again when resumed.
        if isinstance(error, UserError) and together and not session.meter.first_nonfinite():
            with suppress(UserError, Diverged):
                best = session.recorder.summary.best
                if best is not None and best.step == session.step:
                    session.save_best()  # before `last.pt` counts on it
                session.save()
        with suppress(UserError):
            session.recorder.finish(RunStatus.interrupted, step=session.step)
        raise
    return session.world.agreed(
        lambda: session.recorder.finish(status, step=session.step, diverged=diverged)
    )


def _loop(session: Session, console: Console, stop: StopRequest) -> RunStatus:
    learner, meter, schedule = session.learner, session.meter, session.schedule
    try:
        if session.step and Due.EVALUATE in schedule.due(session.step) and not session.evaluated:
            _evaluate(session, console, stop)  # stopped before it could
            session.save()  # at the last step no other follows, and it carries what was evaluated
        batches = session.batches.training(
            session.step, schedule.steps, agree=session.check_every_step
        )
        with closing(batches):
            meter.start_clock()
            for batch in on_device(batches, learner.device):
                images = learner.execution.to_input(batch.images, batch.factors)
                if session.step == 0:
                    session.recorder.training_batch(_pixels(images))
                rate = _update(session, images, batch.labels)
                session.replaced += batch.replaced

                due = session.due(stop)
                if Due.CHECK in due:
                    _check_finite(session, images)
                if Due.LOG in due:
                    _log(session, console, rate)
                for record in learner.probe.records:
                    session.recorder.append(record)
                if Due.STOP in due:
                    raise Stopped
                with meter.clock_stopped():
                    if Due.EVALUATE in due:
                        _evaluate(session, console, stop)
                    if Due.SAVE in due:
                        session.save()
    except Stopped:
        session.save()
        return RunStatus.interrupted
    return RunStatus.finished


def _update(session: Session, images: Tensor, labels: Tensor) -> float:
    """Make the next update; return its learning rate."""
    learner, rate = session.learner, session.schedule.learning_rate(session.step)
    learner.seed_dropout(session.step)
    with learner.probe.watching(session.step + 1):
        result = train_step(
            learner.model,
            learner.optimizer,
            images,
            labels,
            rate,
            session.world,
            forward=learner.execution.forward,
        )
    session.step += 1
    session.meter.add(result, session.step)
    return rate


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """Inputs (N, 3, S, S) in [-1, 1] as RGB bytes (N, S, S, 3)."""
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def _check_finite(session: Session, images: Tensor) -> None:
    step = session.meter.first_nonfinite()
    if step is not None:
        # The layer is found on the processes whose images overflow.
        with session.learner.execution.computing():
            layer = first_nonfinite_layer(session.learner.network, images)
        layers = session.world.gathered(layer)
        raise Diverged(step, next((layer for layer in layers if layer != LOSS), LOSS))


def _log(session: Session, console: Console, rate: float) -> None:
    session.share_replaced()
    recorder, record = session.recorder, session.meter.record(session.step, rate)
    recorder.train(record)
    console.show_training(record)
    chance = math.log(len(session.batches.sources.train.classes))
    session.loss_has_fallen |= record.loss is not None and record.loss < STARTED_BELOW * chance
    if session.step >= session.schedule.start_check:
        if recorder.summary.started_learning and not session.loss_has_fallen:
            console.say(
                f"warning: {session.config.run.name} has not started to learn: after "
                f"{session.step} steps the loss is {record.loss:.3f}, and chance is ln(classes) = "
                f"{chance:.3f}; the run goes on"
            )
        recorder.started_learning(session.loss_has_fallen)


def _evaluate(session: Session, console: Console, stop: StopRequest) -> None:
    """Judge the network; raises `Stopped` in the middle: half an evaluation counts for nothing."""
    step, recorder = session.step, session.recorder
    require_finite(session.learner.network, step)

    def stopped() -> bool:
        return Due.STOP in session.ordered(stop)

    network = judged_network(session, stopped)
    if network is None:
        raise Stopped
    with closing(session.batches.validation()) as batches:
        device, total = session.learner.device, session.world.total
        result = evaluate(network, batches, device, stopped, total)
    if result is None:
        raise Stopped
    session.population = running_statistics(network)
    session.population_batches = session.config.train.population_batches
    record = ValidationRecord(
        step=step,
        equivalent_steps=step * session.config.batch.images / MINI_BATCH,
        loss=result.loss,
        top1=result.top1,
        top5=result.top5,
        count=result.count,
        statistics="population" if session.population else None,
        population_batches=session.config.train.population_batches if session.population else None,
    )
    is_best = recorder.validation(record, result.unreadable)
    console.show_evaluation(record, recorder.summary)
    if is_best:
        session.save_best()


def judged_network(session: Session, stopped: Callable[[], bool]) -> Inception | None:
    """A run's network as an evaluation judges it: its weights, and the population's statistics.

    Training is not touched: the statistics are a copy's, and nothing random is drawn. A network
    without BN is returned itself, and no image is read. None if `stopped` said so, after a batch.
    """
    network = session.learner.network
    if not running_statistics(network):
        return network
    inputs = session.batches.population(session.learner.device, session.replaced.extend)
    with closing(inputs):
        return population_statistics(network, inputs, stopped=stopped, total=session.world.total)
