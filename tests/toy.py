"""A small GAN-like training with dropout, noise, averages and two optimisers."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun

DATA = TensorDataset(*torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(7)))


def train(
    folder: Any,
    max_steps: int,
    on_step: Callable[[TrainingRun], None] | None = None,
    poison: Callable[[TrainingRun, str, Tensor], Tensor] = lambda run, name, loss: loss,
    dropout: float = 0.3,
    stop_after: int | None = None,
    **settings: Any,
) -> tuple[Tensor, TrainingRun, list[float]]:
    """All weights at the end, the run, and the loss of each step, averaged over processes.

    `stop_after`: that step, without saving, as a crash would.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    settings = {"batch_size": 4, "checkpoint_every": 3, "log_every": 2, "ema_decay": 0.9} | settings
    run = TrainingRun(
        RunConfig(output_dir=str(folder), max_steps=max_steps, **settings), {"model": model, "critic": critic}
    )
    optimizer = run.optimizer(
        model.parameters(), OptimConfig(learning_rate=1e-2, weight_decay=0.1, warmup_steps=3, schedule="cosine")
    )
    critic_optimizer = run.optimizer(critic.parameters(), OptimConfig(learning_rate=1e-2, clip=0.1))
    losses = []
    for x, y in run.steps(DataLoader(DATA, batch_size=settings["batch_size"], shuffle=True, drop_last=True)):
        with run.autocast():
            fake = model(x + run.randn("noise", *x.shape))
            critic_loss = critic(fake.detach()).mean() - critic(y).mean()
            adversarial = poison(run, "adversarial", -critic(fake).mean())
            loss = (fake - y).pow(2).mean() + 0.1 * adversarial
        run.backward(poison(run, "critic", critic_loss), critic_optimizer)
        run.backward(poison(run, "loss", loss), optimizer)
        losses.append(run.accelerator.reduce(loss.detach(), reduction="mean").item())
        if on_step is not None:
            on_step(run)
        run.finish_step(loss=loss, adversarial=adversarial)
        if stop_after == run.step:
            break
    return torch.cat([p.detach().flatten() for m in (model, critic) for p in m.parameters()]), run, losses


def in_another_process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts `target`, a function of this module, as a fork of a server without threads: a copy
    of a process with threads, pytest say, can wait for ever for a lock that one of them held.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["melody_diffusers.training_utils", "torch.utils.tensorboard"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def train_slowly(folder: Path, max_steps: int, log: Path) -> None:
    with open(log, "w") as sys.stdout:
        train(folder, max_steps, checkpoint_every=5, on_step=lambda run: time.sleep(0.01))


def train_and_die(folder: Path, max_steps: int, step: int) -> None:
    train(folder, max_steps, on_step=lambda run: os.kill(os.getpid(), signal.SIGKILL) if run.step == step else None)
