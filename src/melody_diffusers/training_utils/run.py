"""TrainingRun: the mechanics of a training run, around a loop that the script owns."""

import contextlib
import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, broadcast, send_to_device
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, SequentialSampler
from tqdm.auto import tqdm

from .checkpoint import named_tensors, newest_checkpoint, read_checkpoint, write_checkpoint
from .config import Config, OptimConfig, RunConfig, learning_rate


class TrainingRun:
    """Steps, resume, averaging of weights, checkpoints and logs of one training run.

    Every random number of a step is a function of (seed, step, process, name): the order of the data, `generator()`
    and, through torch's global generator, dropout. A resumed run therefore needs no stored random state. Gradients are
    averaged over processes in `backward`, so models are called directly, by any of their methods.

    Args:
        run: lengths, places and precision.
        models: what is trained, by name; moved to `run.device`. All of them are checkpointed.
        config: the whole configuration, written to output_dir/run.yaml.
        ema: names of the models whose weights are averaged where `run.ema_decay` is set; all by default.
    """

    def __init__(
        self,
        run: RunConfig,
        models: Mapping[str, nn.Module],
        config: Config | None = None,
        ema: Iterable[str] | None = None,
    ) -> None:
        self.run, self.models = run, dict(models)
        self.output_dir = Path(run.output_dir)
        self.stage = self.output_dir.name
        folders = ProjectConfiguration(project_dir=str(self.output_dir), logging_dir=str(self.output_dir / "logs"))
        self.accelerator = Accelerator(log_with="tensorboard", project_config=folders)
        self.device = self.accelerator.device
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            if config is not None:
                resolved = json.loads(json.dumps(vars(config), default=vars))
                text = yaml.safe_dump(resolved, sort_keys=False)
                (self.output_dir / "run.yaml").write_text(text, encoding="utf-8")
        self.accelerator.wait_for_everyone()
        self.accelerator.init_trackers("")
        for model in self.models.values():
            model.to(self.device).train()
            if self.accelerator.num_processes > 1:
                for tensor in named_tensors(model).values():
                    tensor.copy_(broadcast(tensor))
        names = () if run.ema_decay is None else self.models if ema is None else ema
        self._averages = {
            name: {key: p.detach().clone() for key, p in self.models[name].named_parameters() if p.requires_grad}
            for name in names
        }
        self._optimizers: dict[torch.optim.Optimizer, OptimConfig] = {}
        self._micro_step, self._minutes = 0, 0.0  # all that a checkpoint holds besides tensors
        self._sums: dict[str, list[float | Tensor]] = {}
        self._signal: int | None = None
        self._checkpoints = self.output_dir / "checkpoints"

    # -- what a script calls

    @property
    def step(self) -> int:
        """Optimiser steps finished."""
        return self._micro_step // self.run.gradient_accumulation_steps

    def optimizer(self, parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
        """AdamW over `parameters`, registered for schedule and checkpoints; create all before `steps`."""
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
        self._optimizers[optimizer] = config
        return optimizer

    def steps(self, loader: DataLoader) -> Iterator[Any]:
        """Batches on the device, epoch after epoch, until max_steps or max_minutes; continues from a checkpoint.

        Batch size, workers and collate function are the loader's; the order comes from (seed, epoch), or from 0 to
        the end where the loader does not shuffle. A dataset with `set_epoch` is told each epoch, and one with
        `order(generator)` says itself how it is shuffled.
        """
        self._restore()
        self._started = time.monotonic() - 60.0 * self._minutes
        hidden = not self.accelerator.is_main_process
        pace = 0.5 if sys.stderr.isatty() else 30.0  # a log file wants few lines
        with (
            self._catch_signals(),
            tqdm(
                total=self.run.max_steps,
                initial=self.step,
                desc=self.stage,
                unit="step",
                disable=hidden,
                mininterval=pace,
                dynamic_ncols=True,
            ) as self._bar,
        ):
            while not self._is_done():
                for batch in self._epoch(loader):
                    torch.manual_seed(self._seed("torch", self._micro_step, self.accelerator.process_index))
                    before = self._micro_step
                    yield send_to_device(batch, self.device)
                    if self._micro_step == before:
                        raise RuntimeError("Call run.finish_step() at the end of each iteration over run.steps().")
                    if self._is_done():
                        break
        self._save_checkpoint()

    def autocast(self) -> torch.autocast:
        """The context for forward passes: bf16 where run.mixed_precision says so."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.run.mixed_precision == "bf16")

    def generator(self, name: str) -> torch.Generator:
        """A generator on the device, seeded by (seed, step, process, name): the same draw again after a resume."""
        seed = self._seed(name, self._micro_step, self.accelerator.process_index)
        return torch.Generator(device=self.device).manual_seed(seed)

    def backward(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer,
        clip: float | None = None,
        terms: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Gradients of `loss` for this optimiser's parameters only; steps it when the accumulation is full.

        Args:
            clip: largest gradient norm; the optimiser's own setting by default.
            terms: parts of the loss to name in an error.

        Raises:
            FloatingPointError: loss or gradient norm is not finite; the optimiser has not stepped.
        """
        config = self._optimizers[optimizer]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # `inputs` keeps a generator's loss from adding to the gradients of its discriminators
        (loss / self.run.gradient_accumulation_steps).backward(inputs=parameters)
        if (self._micro_step + 1) % self.run.gradient_accumulation_steps:
            return
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        norm = nn.utils.clip_grad_norm_(parameters, config.clip if clip is None else clip)
        if not math.isfinite(float(loss.detach()) + float(norm)):
            given = {} if terms is None else terms
            parts = "".join(f", {key} {float(torch.as_tensor(value).detach()):.4g}" for key, value in given.items())
            raise FloatingPointError(
                f"{self.stage}, step {self.step}: loss {float(loss.detach()):.4g}, gradient norm {float(norm):.4g}"
                f"{parts}. The optimiser has not stepped; the last checkpoint in {self._checkpoints} is intact."
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step, self._progress())
        optimizer.step()
        optimizer.zero_grad()
        which = "" if len(self._optimizers) == 1 else f"_{list(self._optimizers).index(optimizer)}"
        self._add({f"grad_norm{which}": norm, f"learning_rate{which}": optimizer.param_groups[0]["lr"]})

    def finish_step(self, **scalars: float | Tensor) -> None:
        """Ends an iteration: counts it, averages weights, logs means of the named scalars, saves when it is due.

        After SIGTERM or SIGINT it saves, prints how to resume, and leaves the program.
        """
        self._add(scalars)
        self._micro_step += 1
        self._agree((time.monotonic() - self._started) / 60.0)
        if self._micro_step % self.run.gradient_accumulation_steps:
            return
        self._update_averages()
        if self.step % self.run.log_every == 0:
            self._log_means()
        self._bar.update()
        if self._signal is not None:
            self._save_checkpoint()
            self._bar.close()
            self.accelerator.print(f"Stopped at step {self.step}. To resume: python {shlex.join(sys.argv)}")
            raise SystemExit(0)
        if self.step % self.run.checkpoint_every == 0:
            self._save_checkpoint()

    def log(self, **scalars: float | Tensor) -> None:
        """Writes figures of the present step (a validation, say) to tensorboard."""
        self.accelerator.log({name: float(value) for name, value in scalars.items()}, step=self.step)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within the context the models carry their averaged weights, where averages are kept."""
        live = self._load_averages()
        try:
            yield
        finally:
            for parameter, weights in live.items():
                parameter.data.copy_(weights)

    def save(self) -> None:
        """Writes every model that has `save_pretrained`, with averaged weights where kept: into output_dir/<name>, or
        into output_dir itself if there is only one. Discriminators without it live in the checkpoints alone.

        Once training is over the models keep the weights that were written, so that a script measures what it saved.
        """
        savable: dict[str, Any] = {
            name: model for name, model in self.models.items() if hasattr(model, "save_pretrained")
        }
        if self.accelerator.is_main_process:
            with self.averaged_weights():
                for name, model in savable.items():
                    folder = self.output_dir if len(savable) == 1 else self.output_dir / name
                    aside = self.output_dir / f".tmp-{name}"
                    shutil.rmtree(aside, ignore_errors=True)
                    model.save_pretrained(aside)
                    folder.mkdir(exist_ok=True)
                    for file in sorted(aside.iterdir(), reverse=True):  # weights before config.json
                        os.replace(file, folder / file.name)
                    aside.rmdir()
        self.accelerator.wait_for_everyone()
        if self._is_done():
            self._load_averages()

    # -- mechanics

    def _load_averages(self) -> dict[nn.Parameter, Tensor]:
        """Puts averaged weights into the models; gives back the weights that were there."""
        live = {}
        for name, average in self._averages.items():
            for key, parameter in self.models[name].named_parameters():
                if key in average:
                    live[parameter] = parameter.detach().clone()
                    parameter.data.copy_(average[key])
        return live

    def _seed(self, *parts: str | int) -> int:
        key = json.dumps([self.run.seed, *parts]).encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1

    def _epoch(self, loader: DataLoader) -> DataLoader:
        """What remains of the present epoch: the loader's workers and collate function, our order, no seen batches."""
        dataset: Any = loader.dataset
        size, processes = loader.batch_size, self.accelerator.num_processes
        if size is None or not hasattr(dataset, "__len__"):
            raise ValueError("steps needs a DataLoader with a batch_size over a dataset of known length.")
        total = len(dataset)
        stride = size * processes
        per_epoch = total // stride if loader.drop_last or processes > 1 else -(-total // stride)
        if per_epoch == 0:
            raise ValueError(f"{total} items do not fill one batch of {size} on each of {processes} processes.")
        epoch, seen = divmod(self._micro_step, per_epoch)
        if isinstance(loader.sampler, SequentialSampler):
            order = list(range(total))
        else:
            generator = torch.Generator().manual_seed(self._seed("order", epoch))
            shuffled = (
                dataset.order if hasattr(dataset, "order") else lambda g: torch.randperm(total, generator=g).tolist()
            )
            order = shuffled(generator)
        first = size * self.accelerator.process_index
        starts = range(seen * stride + first, per_epoch * stride, stride)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        return DataLoader(
            dataset,
            batch_sampler=[order[start : start + size] for start in starts],
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=self.device.type == "cuda",
        )

    def _progress(self) -> float:
        by_time = 0.0 if self.run.max_minutes is None else self._minutes / self.run.max_minutes
        return min(1.0, max(self.step / self.run.max_steps, by_time))

    def _is_done(self) -> bool:
        return self._progress() >= 1.0 and self._micro_step % self.run.gradient_accumulation_steps == 0

    def _agree(self, minutes: float) -> None:
        """All processes take the same clock, and stop when one of them is told to."""
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([minutes, float(self._signal or 0)], device=self.device)
            minutes, told = self.accelerator.reduce(mine, reduction="mean").tolist()
            self._signal = self._signal or (signal.SIGTERM if told > 0 else None)
        self._minutes = minutes

    def _add(self, scalars: Mapping[str, float | Tensor]) -> None:
        for name, value in scalars.items():
            total = self._sums.setdefault(name, [0.0, 0])
            total[0] = total[0] + (value.detach().float() if isinstance(value, Tensor) else value)
            total[1] += 1

    def _log_means(self) -> None:
        means = {name: float(total) / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        self.log(**means)
        shown = {name: f"{mean:.4g}" for name, mean in means.items() if not name.startswith("learning_rate")}
        if self.run.max_minutes is not None:
            shown["minutes"] = f"{self._minutes:.1f}/{self.run.max_minutes:g}"
        self._bar.set_postfix(shown, refresh=False)

    def _update_averages(self) -> None:
        if self.run.ema_decay is None:
            return
        decay = min(self.run.ema_decay, self.step / (9 + self.step))  # early averages follow closely
        for name, average in self._averages.items():
            live = {key: parameter.detach() for key, parameter in self.models[name].named_parameters()}
            get_ema_multi_avg_fn(decay)(list(average.values()), [live[key] for key in average], None)

    @contextlib.contextmanager
    def _catch_signals(self) -> Iterator[None]:
        def note(number: int, frame: types.FrameType | None) -> None:
            self._signal = number
            for each in previous:  # a second signal acts as usual
                signal.signal(each, previous[each])

        try:
            previous = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: signals are somebody else's
            previous = {}
        try:
            yield
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds besides the optimisers, by file; the tensors themselves."""
        files = {f"model.{name}": named_tensors(model) for name, model in self.models.items()}
        return files | {f"ema.{name}": average for name, average in self._averages.items()}

    def _save_checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            files = self._tensors()
            for index, optimizer in enumerate(self._optimizers):
                states = optimizer.state_dict()["state"].items()
                files[f"optimizer.{index}"] = {
                    f"{i}.{key}": value for i, state in states for key, value in state.items()
                }
            counters = {"micro_step": self._micro_step, "minutes": self._minutes}
            write_checkpoint(self._checkpoints, self.step, files, counters, self.run.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _restore(self) -> None:
        if not self.run.resume:
            if self.accelerator.is_main_process:
                shutil.rmtree(self._checkpoints, ignore_errors=True)
            self.accelerator.wait_for_everyone()
        checkpoint = newest_checkpoint(self._checkpoints)
        if checkpoint is None:
            return
        try:
            files, counters = read_checkpoint(checkpoint)
            for name, tensors in self._tensors().items():
                saved = files.get(name, {})  # nothing for a model or an average that was not there then
                if different := sorted(saved.keys() ^ tensors.keys()):
                    raise ValueError(f"{name} differs in {', '.join(different[:4])}")
                for key, tensor in tensors.items():
                    if saved[key].shape != tensor.shape:
                        raise ValueError(f"{name}, {key} is {tuple(saved[key].shape)}, not {tuple(tensor.shape)}")
                    tensor.copy_(saved[key])
            for index, optimizer in enumerate(self._optimizers):
                states: dict[int, dict[str, Tensor]] = {}
                if f"optimizer.{index}" not in files:
                    raise ValueError(f"it has no optimizer {index}")
                for key, tensor in files[f"optimizer.{index}"].items():
                    parameter, _, kind = key.partition(".")
                    states.setdefault(int(parameter), {})[kind] = tensor
                optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} does not fit this run: {error}. Use another run.output_dir, or run.resume=false."
            ) from error
        self._micro_step, self._minutes = counters["micro_step"], counters["minutes"]
        self.accelerator.print(f"{self.stage}: resumed at step {self.step} from {checkpoint}")
