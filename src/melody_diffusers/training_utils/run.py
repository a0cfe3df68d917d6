"""TrainingRun: the mechanics of a training run, around a loop that the script owns."""

import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import sys
import time
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import (
    InitProcessGroupKwargs,
    ProjectConfiguration,
    broadcast,
    broadcast_object_list,
    send_to_device,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, SequentialSampler
from tqdm.auto import tqdm

from ..spectra import spectrogram_image
from .checkpoint import named_tensors, newest_checkpoint, read_checkpoint, write_checkpoint
from .config import Config, OptimConfig, RunConfig, learning_rate
from .sharding import full, shard, split_like, unsharded

FAILURES = 3  # this many steps that are not finite, or checkpoints that cannot be written, in a row end a run
SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class TrainingRun:
    """Steps, resume, averaging of weights, checkpoints and logs of one training run.

    Every random number is a function of (seed, sample, name), where samples are counted over all processes from the
    start: the order of the data, and what `generators`, `rand` and `randn` give. So a resumed run needs no stored
    random state, and a batch is the same however many processes share it. Dropout, through torch's global generator,
    depends on (seed, step, process). Gradients are averaged over processes, so models are called directly, by any of
    their methods.

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
        for tracker in run.trackers:
            if importlib.util.find_spec(tracker) is None:
                raise ValueError(f"run.trackers names {tracker}, which is not installed: pip install {tracker}")
        self.accelerator = Accelerator(
            log_with=list(run.trackers) or None,
            project_config=ProjectConfiguration(str(self.output_dir), logging_dir=str(self.output_dir / "logs")),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=run.timeout_minutes))],
        )
        self.device, self._processes = self.accelerator.device, self.accelerator.num_processes
        self._bf16 = run.mixed_precision == "bf16"
        if self._bf16 and self.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT"):
            self._bf16 = False
            self.accelerator.print("This processor has no bfloat16 and would imitate it, slowly: training in float32.")
        resolved = {} if config is None else json.loads(json.dumps(vars(config), default=vars))
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            if config is not None:
                text = yaml.safe_dump(resolved, sort_keys=False)
                (self.output_dir / "run.yaml").write_text(text, encoding="utf-8")
        self.accelerator.wait_for_everyone()
        options = {"wandb": {"name": self.stage, "config": resolved}, "trackio": {"name": self.stage}}
        self.accelerator.init_trackers("melody", init_kwargs={k: v for k, v in options.items() if k in run.trackers})
        for name, model in self.models.items():
            model.to(self.device).train()
            if self._processes > 1:
                if self.device.type == "cuda":
                    self.models[name] = model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
                for tensor in named_tensors(model).values():
                    tensor.copy_(broadcast(tensor))
            if run.fsdp:
                shard(model)
        names = () if run.ema_decay is None else self.models if ema is None else ema
        self._averages = {
            name: {key: p.detach().clone() for key, p in self.models[name].named_parameters() if p.requires_grad}
            for name in names
        }
        self._optimizers: dict[torch.optim.Optimizer, OptimConfig] = {}
        self._due: dict[torch.optim.Optimizer, float] = {}  # those that have gradients, and where these are clipped
        self._samples = self._steps = self._micro_step = self._skipped = 0  # all that a checkpoint holds ...
        self._minutes = 0.0  # ... besides tensors
        self._bad_steps = self._failed_saves = 0  # in a row
        self._means: dict[str, list[float | Tensor]] = {}
        self._checked: dict[str, float | Tensor] = {}
        self._batches: list[tuple[list[int], Any]] = []  # of the present step: rows of the data set, and the batch
        self._stop = 0.0
        self._created = time.monotonic()
        self._checkpoints = self.output_dir / "checkpoints"

    # -- what a script calls

    @property
    def step(self) -> int:
        """Optimiser steps finished."""
        return self._steps

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
        if self.run.fsdp and len(self._optimizers) > 1:
            raise ValueError("run.fsdp allows one optimiser; this stage has more.")
        return optimizer

    def steps(self, loader: DataLoader) -> Iterator[Any]:
        """Batches on the device, epoch after epoch, until max_steps or budget_minutes; continues from a checkpoint.

        Batch size, workers and collate function are the loader's; the order comes from (seed, epoch), or from 0 to
        the end where the loader does not shuffle. A dataset with `set_epoch` is told each epoch, and one with
        `order(generator)` says itself how it is shuffled.
        """
        if loader.batch_size is None or not hasattr(loader.dataset, "__len__"):
            raise ValueError("steps needs a DataLoader with a batch_size over a dataset of known length.")
        self._batch_size = loader.batch_size
        self._restore()
        self._started = time.monotonic() - 60.0 * self._minutes
        with (
            self._catch_signals(),
            tqdm(
                total=self.run.max_steps,
                initial=self.step,
                desc=self.stage,
                unit="step",
                disable=not self.accelerator.is_main_process,
                mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a log file wants few lines
                dynamic_ncols=True,
            ) as self._bar,
        ):
            while not self._is_done():
                rows_of_batches, epoch_loader = self._epoch(loader)
                for rows, batch in zip(rows_of_batches, epoch_loader):
                    seed = self._seed("torch", self._steps, self._micro_step, self.accelerator.process_index)
                    torch.manual_seed(seed)
                    batch = send_to_device(batch, self.device)
                    self._batches.append((rows, batch))
                    before = self._samples
                    yield batch
                    if self._samples == before:
                        raise RuntimeError("Call run.finish_step() at the end of each iteration over run.steps().")
                    if self._is_done():
                        break
        self._save_checkpoint(last=True)

    def autocast(self) -> torch.autocast:
        """The context for forward passes: bf16 where run.mixed_precision says so and the device knows it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def generators(self, name: str, count: int) -> list[torch.Generator]:
        """One generator for each sample of the batch, on the device, seeded by (seed, sample, name)."""
        first = self._samples + self.accelerator.process_index * self._batch_size
        seeds = (self._seed(name, first + i) for i in range(count))
        return [torch.Generator(device=self.device).manual_seed(seed) for seed in seeds]

    def rand(self, name: str, *shape: int) -> Tensor:
        """Uniform on [0, 1), the first axis being the samples of the batch: the same again after a resume."""
        draws = [torch.rand(shape[1:], generator=g, device=self.device) for g in self.generators(name, shape[0])]
        return torch.stack(draws)

    def randn(self, name: str, *shape: int) -> Tensor:
        """Normal deviates, as `rand`."""
        draws = [torch.randn(shape[1:], generator=g, device=self.device) for g in self.generators(name, shape[0])]
        return torch.stack(draws)

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes' tensors (B, ...), with gradients: for a loss that compares samples of a batch.

        Each process then computes the whole batch's loss, and the average of their gradients is that loss's.
        """
        return torch.cat(all_gather(tensor.contiguous())) if self._processes > 1 else tensor

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip: float | None = None) -> None:
        """Gradients of `loss` for this optimiser's parameters only; `finish_step` steps it when accumulation is full.

        Args:
            clip: largest gradient norm; the optimiser's own setting by default.
        """
        scaled = loss / self.run.gradient_accumulation_steps
        if self.run.fsdp:
            scaled.backward()
        else:  # `inputs` keeps a generator's loss from adding to the gradients of its discriminators
            scaled.backward(inputs=_parameters(optimizer))
        self._due[optimizer] = self._optimizers[optimizer].clip if clip is None else clip
        self._check(**{self._numbered("loss", optimizer): loss})

    def finish_step(self, **scalars: float | Tensor) -> None:
        """Ends an iteration: steps the optimisers, averages weights, logs means of the scalars, saves when it is due.

        No optimiser steps on any process unless all losses, gradient norms and scalars are finite on every one. A step
        that is not is skipped, and described in output_dir/diagnostics; three in a row end the run.
        After SIGTERM, SIGINT, SIGUSR1 or `max_minutes` it saves, prints how to resume, and leaves the program.

        Raises:
            FloatingPointError: three steps in a row were not finite.
            OSError: three checkpoints in a row could not be written.
        """
        self._check(**scalars)
        self._add(scalars)
        self._micro_step += 1
        self._samples += self._batch_size * self._processes
        if self._micro_step < self.run.gradient_accumulation_steps:
            return
        norms = {
            self._numbered("grad_norm", each): self._clip_gradients(each, clip) for each, clip in self._due.items()
        }
        self._check(**norms)
        bad = self._agree()
        if bad:
            self._describe(bad)
        else:
            for optimizer in self._due:
                rate = learning_rate(self._optimizers[optimizer], self._steps, self._progress())
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                norms[self._numbered("learning_rate", optimizer)] = rate
        for optimizer in self._due:
            optimizer.zero_grad()
        self._due.clear()
        self._checked.clear()
        self._batches.clear()
        self._micro_step, self._steps, self._skipped = 0, self._steps + 1, self._skipped + bool(bad)
        self._bad_steps = self._bad_steps + 1 if bad else 0
        if not bad:
            self._add(norms)
            self._update_averages()
        if self._bad_steps == FAILURES:
            raise FloatingPointError(
                f"{self.stage}: {', '.join(bad)} not finite in {FAILURES} steps in a row, up to step {self.step}. See "
                f"{self.output_dir / 'diagnostics'}; the last checkpoint in {self._checkpoints} is from before. Try a "
                "lower learning rate or clip, or run.mixed_precision=no."
            )
        if self.step % self.run.log_every == 0:
            self._log_means()
        self._bar.update()
        if self._stop and not self._is_done():
            self._save_checkpoint(last=True)
            self._bar.close()
            start = "python" if self._processes == 1 else f"accelerate launch --num_processes {self._processes}"
            self.accelerator.print(f"Stopped at step {self.step}. To resume: {start} {shlex.join(sys.argv)}")
            raise SystemExit(0)
        if self.step % self.run.checkpoint_every == 0:
            self._save_checkpoint()

    def log(self, **scalars: float | Tensor) -> None:
        """Hands figures of the present step (a validation, say) to the trackers."""
        self.accelerator.log({name: float(value) for name, value in scalars.items()}, step=self.step)

    def log_audio(self, name: str, waveform: Tensor, sample_rate: int) -> None:
        """Hands a waveform (1, T) and its spectrogram to the trackers."""
        samples = waveform.detach().float().cpu().clamp(-1, 1)
        image = spectrogram_image(samples, sample_rate)
        for tracker in self.accelerator.trackers if self.accelerator.is_main_process else ():
            if tracker.name == "tensorboard":
                tracker.writer.add_audio(name, samples, self.step, sample_rate)
                tracker.writer.add_image(f"{name}/spectrogram", image, self.step, dataformats="HWC")
            else:  # wandb and trackio, whose interface is the same
                library = importlib.import_module(tracker.name)
                audio = library.Audio(samples[0].numpy(), sample_rate=sample_rate)
                tracker.log({name: audio, f"{name}/spectrogram": library.Image(image)}, step=self.step)

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
        savable = {name: model for name, model in self.models.items() if hasattr(model, "save_pretrained")}
        with self.averaged_weights():
            for name, model in savable.items():
                whole: Any = unsharded(model)
                if not self.accelerator.is_main_process:
                    continue
                folder = self.output_dir if len(savable) == 1 else self.output_dir / name
                aside = self.output_dir / f".tmp-{name}"
                shutil.rmtree(aside, ignore_errors=True)
                whole.save_pretrained(aside)
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

    def _epoch(self, loader: DataLoader) -> tuple[list[list[int]], DataLoader]:
        """What remains of the present epoch: the rows of each batch, and the loader's workers and collate function."""
        dataset: Any = loader.dataset
        total, stride = len(dataset), self._batch_size * self._processes
        per_epoch = total // stride if loader.drop_last or self._processes > 1 else -(-total // stride)
        if per_epoch == 0:
            raise ValueError(
                f"{total} items do not fill one batch of {self._batch_size} on each of {self._processes} processes."
            )
        epoch, seen = divmod(self._samples // stride, per_epoch)
        if isinstance(loader.sampler, SequentialSampler):
            order = list(range(total))
        else:
            generator = torch.Generator().manual_seed(self._seed("order", epoch))
            shuffled = (
                dataset.order if hasattr(dataset, "order") else lambda g: torch.randperm(total, generator=g).tolist()
            )
            order = shuffled(generator)
        first = self._batch_size * self.accelerator.process_index
        starts = range(seen * stride + first, per_epoch * stride, stride)
        batches = [order[start : start + self._batch_size] for start in starts]
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        return batches, DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=self.device.type == "cuda",
        )

    def _progress(self) -> float:
        by_time = 0.0 if self.run.budget_minutes is None else self._minutes / self.run.budget_minutes
        return min(1.0, max(self.step / self.run.max_steps, by_time))

    def _is_done(self) -> bool:
        return self._progress() >= 1.0 and self._micro_step == 0

    def _numbered(self, name: str, optimizer: torch.optim.Optimizer) -> str:
        return name if len(self._optimizers) == 1 else f"{name}_{list(self._optimizers).index(optimizer)}"

    def _clip_gradients(self, optimizer: torch.optim.Optimizer, clip: float) -> Tensor:
        """The norm of this optimiser's gradients, averaged over processes and clipped."""
        parameters = _parameters(optimizer)
        if self._processes > 1 and not self.run.fsdp:
            has = torch.tensor([parameter.grad is not None for parameter in parameters], device=self.device).float()
            somewhere = self.accelerator.reduce(has, reduction="sum") > 0  # a process may have drawn no condition, say
            for parameter, needed in zip(parameters, somewhere.tolist()):
                if needed and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            for same in ([g for g in gradients if g.dtype == dtype] for dtype in {g.dtype for g in gradients}):
                flat = self.accelerator.reduce(torch.cat([g.flatten() for g in same]), reduction="mean")
                for gradient, mean in zip(same, flat.split([g.numel() for g in same])):
                    gradient.copy_(mean.view_as(gradient))
        return full(nn.utils.clip_grad_norm_(parameters, clip))

    def _check(self, **values: float | Tensor) -> None:
        """Notes values that have to be finite; NaN and infinity survive the sum."""
        for name, value in values.items():
            self._checked[name] = self._checked.get(name, 0.0) + (
                value.detach() if isinstance(value, Tensor) else value
            )

    def _agree(self) -> list[str]:
        """The names of what is not finite on some process; they, the clock and the will to stop are the same on all."""
        minutes = (time.monotonic() - self._started) / 60.0
        if self.run.max_minutes is not None and (time.monotonic() - self._created) / 60.0 >= self.run.max_minutes:
            self._stop = 1.0
        names = sorted(self._checked)
        values = [torch.as_tensor(self._checked[name], device=self.device) for name in names]
        facts = [torch.as_tensor(self._stop, device=self.device), torch.as_tensor(minutes, device=self.device)]
        facts = torch.stack([fact.double() for fact in (*facts, *(~value.isfinite() for value in values))])
        if self._processes > 1:
            facts = self.accelerator.reduce(facts, reduction="mean")
        self._stop, self._minutes, *bad = facts.tolist()
        return [name for name, share in zip(names, bad) if share > 0]

    def _describe(self, bad: list[str]) -> None:
        """A bundle of what was not finite: its names and values, the rows of the batch, gradients, and the batch."""
        folder = self.output_dir / "diagnostics"
        folder.mkdir(exist_ok=True)
        place = folder / f"step-{self.step:08d}-process-{self.accelerator.process_index}"
        gradients = [
            f"{name}.{key}"
            for name, model in self.models.items()
            for key, parameter in model.named_parameters()
            if parameter.grad is not None and not full(parameter.grad).isfinite().all()
        ]
        rows = [row for rows, _ in self._batches for row in rows]
        facts = {
            "step": self.step,
            "not_finite": bad,  # on any process
            "values": {name: str(float(value)) for name, value in self._checked.items()},  # on this one
            "rows": rows,  # of the data set
            "gradients_not_finite": gradients[:100],
        }
        place.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        tensors = {
            f"{i}.{key}": value.contiguous()
            for i, (_, batch) in enumerate(self._batches)
            for key, value in (batch.items() if isinstance(batch, Mapping) else enumerate(batch))
            if isinstance(value, Tensor)
        }
        save_file(tensors, place.with_suffix(".safetensors"))
        warnings.warn(
            f"{self.stage}, step {self.step}: {', '.join(bad)} not finite. No weight was changed; rows {rows[:8]} of "
            f"the data set and all else are in {place.with_suffix('.json')}",
            stacklevel=3,
        )

    def _add(self, scalars: Mapping[str, float | Tensor]) -> None:
        for name, value in scalars.items():
            total = self._means.setdefault(name, [0.0, 0])
            total[0] = total[0] + (value.detach().float() if isinstance(value, Tensor) else value)
            total[1] += 1

    def _log_means(self) -> None:
        means = {name: float(total) / count for name, (total, count) in self._means.items()}
        self._means.clear()
        if self._processes > 1:
            reduced = self.accelerator.reduce(torch.tensor(list(means.values()), device=self.device), reduction="mean")
            means = dict(zip(means, reduced.tolist()))
        if self._skipped:
            means["skipped_steps"] = self._skipped
        self.log(**means)
        shown = {name: f"{mean:.4g}" for name, mean in means.items() if not name.startswith("learning_rate")}
        if rate := self._bar.format_dict["rate"]:
            global_batch = self._batch_size * self._processes * self.run.gradient_accumulation_steps
            shown["samples/s"] = f"{rate * global_batch:.3g}"
        if self.run.budget_minutes is not None:
            shown["minutes"] = f"{self._minutes:.1f}/{self.run.budget_minutes:g}"
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
            self._stop = 1.0
            for each in previous:  # a second signal acts as usual
                signal.signal(each, previous[each])

        try:
            previous = {each: signal.signal(each, note) for each in SIGNALS}
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

    def _save_checkpoint(self, last: bool = False) -> None:
        """Writes one; what the disk refuses is a warning, and an error in the end."""
        files = self._tensors()
        for index, optimizer in enumerate(self._optimizers):
            states = optimizer.state_dict()["state"].items()
            files[f"optimizer.{index}"] = {f"{i}.{key}": value for i, state in states for key, value in state.items()}
        if self.run.fsdp:
            files = {name: {key: full(tensor) for key, tensor in tensors.items()} for name, tensors in files.items()}
        state = {"step": self._steps, "samples": self._samples, "skipped": self._skipped, "minutes": self._minutes}
        failure = None
        if self.accelerator.is_main_process:
            try:
                write_checkpoint(self._checkpoints, self.step, files, state, self.run.keep_checkpoints)
            except OSError as error:
                failure = error
        (failure,) = broadcast_object_list([failure]) if self._processes > 1 else (failure,)
        self._failed_saves = 0 if failure is None else self._failed_saves + 1
        if failure is not None:
            if last or self._failed_saves == FAILURES:
                raise failure
            self.accelerator.print(f"WARNING: {failure}. Training goes on; the checkpoint before is intact.")

    def _restore(self) -> None:
        found: list[str | None] = [None]
        if self.accelerator.is_main_process:
            if not self.run.resume:
                shutil.rmtree(self._checkpoints, ignore_errors=True)
            newest = newest_checkpoint(self._checkpoints)
            found = [None if newest is None else str(newest)]
        if self._processes > 1:
            broadcast_object_list(found)
        if found[0] is None:
            return
        checkpoint = Path(found[0])
        try:
            files, state = read_checkpoint(checkpoint)
            for name, tensors in self._tensors().items():
                saved = files.get(name, {})  # nothing for a model or an average that was not there then
                if different := sorted(saved.keys() ^ tensors.keys()):
                    raise ValueError(f"{name} differs in {', '.join(different[:4])}")
                for key, tensor in tensors.items():
                    if saved[key].shape != tensor.shape:
                        raise ValueError(f"{name}, {key} is {tuple(saved[key].shape)}, not {tuple(tensor.shape)}")
                    tensor.copy_(split_like(tensor, saved[key]))
            for index, optimizer in enumerate(self._optimizers):
                states: dict[int, dict[str, Tensor]] = {}
                if f"optimizer.{index}" not in files:
                    raise ValueError(f"it has no optimizer {index}")
                parameters = _parameters(optimizer)
                for key, tensor in files[f"optimizer.{index}"].items():
                    number, _, kind = key.partition(".")
                    parameter = parameters[int(number)]
                    like = split_like(parameter, tensor) if tensor.shape == parameter.shape else tensor
                    states.setdefault(int(number), {})[kind] = like
                optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
            if state["samples"] % (self._batch_size * self._processes):
                raise ValueError(f"its {state['samples']} samples are no whole number of batches")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"{checkpoint} does not fit this run: {error}. Use another run.output_dir, or run.resume=false."
            ) from error
        self._steps, self._samples, self._skipped = state["step"], state["samples"], state["skipped"]
        self._minutes = state["minutes"]
        self.accelerator.print(f"{self.stage}: resumed at step {self.step} from {checkpoint}")


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
