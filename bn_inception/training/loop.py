"""The training loop, top to bottom."""

import math
from contextlib import closing, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bn_inception.errors import AgreedError, UserError
from bn_inception.evaluation import evaluate
from bn_inception.network import running_statistics
from bn_inception.record import Divergence, RunStatus, Summary
from bn_inception.training.console import Console
from bn_inception.training.divergence import (
    LOSS,
    Diverged,
    first_nonfinite_layer,
    require_finite,
)
from bn_inception.training.optimizer import learning_rate
from bn_inception.training.population import judged_network
from bn_inception.training.session import Session
from bn_inception.training.signals import StopRequest
from bn_inception.training.step import train_step
from bn_inception.training.transfer import on_device

STARTED_BELOW = 0.98
"""A dead start leaves the loss at ln(classes). Where a network learns, its mean over a log interval
falls below this fraction of that; noise alone does not bring it there."""


def train(session: Session, console: Console, stop: StopRequest) -> Summary:
    """Train until the last step, a stop request, or divergence; record everything on the way.

    Returns:
        The summary as written, its status `finished`, `interrupted` or `diverged`.

    Raises:
        UserError: an unreadable image with data.on_error=fail, a loader's worker that died, or a
            disk that takes no more. What was done up to there is saved, where it still can be, and
            the run can be resumed.
    """
    try:
        finished = _loop(session, console, stop)
    except Diverged as error:
        # Not saved: resumed from its last checkpoint, the run diverges at the same step again.
        session.share_replaced()
        diverged = Divergence(error.step, error.layer)
        return session.world.agreed(
            lambda: session.recorder.finish(
                RunStatus.diverged, step=session.step, diverged=diverged
            )
        )
    except BaseException as error:
        # Bad input strikes between two updates: the state is whole and worth saving. What went
        # wrong is the news, not that it could not be written either.
        # Saving is a meeting of all processes: only where all of them have come here.
        together = session.world.size == 1 or isinstance(error, AgreedError)
        # A network that has broken since the last look is not: it breaks again when resumed.
        if isinstance(error, UserError) and together and not session.interval.first_nonfinite():
            with suppress(UserError):
                session.save()
        with suppress(UserError):
            session.recorder.finish(RunStatus.interrupted, step=session.step)
        raise
    status = RunStatus.finished if finished else RunStatus.interrupted
    return session.world.agreed(lambda: session.recorder.finish(status, step=session.step))


def _loop(session: Session, console: Console, stop: StopRequest) -> bool:
    """Return whether the run is finished; False if it was stopped and saved."""
    plan, interval = session.plan, session.interval
    images_per_step = session.config.batch.images
    resumed_before_evaluation = _evaluation_is_due(session)
    if not _evaluate_if_due(session, console, stop):
        return False
    if resumed_before_evaluation:
        session.save()  # at the last step no other follows, and it carries what was evaluated
    with closing(session.training_batches()) as batches:
        interval.start_clock()
        for batch in on_device(batches, session.device):
            images = session.execution.to_input(batch.images, batch.factors)
            if session.step == 0:
                session.recorder.training_batch(_pixels(images))
            rate = learning_rate(
                session.config.optimizer, session.step, plan.decay_steps, plan.warmup_steps
            )
            session.seed_step()
            result = train_step(
                session.model,
                session.optimizer,
                images,
                batch.labels,
                rate,
                session.world,
                forward=session.execution.forward,
                graph=session.execution.graph,
            )
            session.step += 1
            interval.add(result, images_per_step, session.step)
            session.replaced(batch.replaced)

            at_log = session.step % plan.log_every == 0 or session.step == plan.steps
            at_save = session.step % plan.checkpoint_every == 0 or session.step == plan.steps
            orders = session.orders(stop, ask=session.check_every_step or at_log)
            # A network that has broken is neither judged nor saved.
            at_check = at_log or at_save or any(orders) or _evaluation_is_due(session)
            if session.check_every_step or at_check:
                _check_finite(session, images)
            if at_log:
                _log(session, console, rate)
            if orders.stop:
                session.save()
                return False
            with interval.clock_stopped():
                if not _evaluate_if_due(session, console, stop):
                    return False
                if at_save or orders.save:
                    session.save()
    return True


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """Inputs (N, 3, S, S) in [-1, 1] as RGB bytes (N, S, S, 3)."""
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def _check_finite(session: Session, images: Tensor) -> None:
    step = session.interval.first_nonfinite()
    if step is not None:
        # The layer is found on the processes whose images overflow.
        with session.execution.computing():
            layer = first_nonfinite_layer(session.network, images)
        layers = session.world.gathered(layer)
        raise Diverged(step, next((layer for layer in layers if layer != LOSS), LOSS))


def _log(session: Session, console: Console, rate: float) -> None:
    session.share_replaced()
    interval, recorder = session.interval, session.recorder
    loss, speed = interval.loss(), interval.images_per_second()
    recorder.train(
        session.step, loss=loss, learning_rate=rate, images_per_second=speed, top1=interval.top1()
    )
    console.train(session.step, loss, rate, speed)
    chance = math.log(len(session.sources.train.classes))
    session.loss_has_fallen |= loss < STARTED_BELOW * chance
    if session.step >= session.plan.start_check:
        if recorder.summary.started_learning and not session.loss_has_fallen:
            console.say(
                f"warning: {session.config.run.name} has not started to learn: after "
                f"{session.step} steps the loss is {loss:.3f}, and chance is ln(classes) = "
                f"{chance:.3f}; the run goes on"
            )
        recorder.started_learning(session.loss_has_fallen)
    interval.reset()


def _evaluation_is_due(session: Session) -> bool:
    plan, step = session.plan, session.step
    due = step > 0 and (step % plan.evaluate_every == 0 or step == plan.steps)
    return due and session.evaluated_step != step


def _evaluate_if_due(session: Session, console: Console, stop: StopRequest) -> bool:
    """Evaluate where it is due at this step; False if stopped meanwhile, with all saved."""
    step = session.step
    if not _evaluation_is_due(session):
        return True
    require_finite(session.network, step)

    def stopped() -> bool:
        return session.orders(stop).stop

    network = judged_network(session, stopped)
    result = None
    if network is not None:
        with closing(session.validation_batches()) as batches:
            result = evaluate(network, batches, session.device, stopped, session.world.total)
    if network is None or result is None:
        session.save()
        return False
    session.evaluated_step = step
    session.population = running_statistics(network)
    is_best = session.recorder.validation(
        step,
        loss=result.loss,
        top1=result.top1,
        top5=result.top5,
        count=result.count,
        unreadable=result.unreadable,
        population_batches=session.config.train.population_batches if session.population else None,
    )
    best = session.recorder.best
    assert best is not None
    console.validation(step, result.top1, best.top1)
    if is_best:
        session.save(best=True)
    return True
