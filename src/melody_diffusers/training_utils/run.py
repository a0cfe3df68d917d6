"""TrainingRun: the mechanics of a training run, around a loop that the script owns."""

import atexit
import contextlib
import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
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
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..devices import use_tensor_cores
from .averages import WeightAverages
from .checkpoint import named_tensors, newest_checkpoint, read_checkpoint, write_checkpoint, write_model
from .config import Config, OptimConfig, RunConfig, learning_rate
from .draws import batch_size_of, rest_of_epoch, seed_of
from .finite import FiniteCheck, read_numbers
from .gradients import average_gradients, checkpoint_gradients
from .sharding import full, shard, unsharded
from .signals import catch_signals
from .state import Files, model_tensors, optimizer_tensors, parameters_of, restore
from .tracking import RunningMeans, check_trackers, log_audio

FAILURES = 3  # this many steps that are not finite, or checkpoints that cannot be written, in a row end a run


class TrainingRun:
    """Steps, resume, averaging of weights, checkpoints and logs of one training run.

    Every random number is a function of (seed, sample, name), where samples are counted over all processes from the
    start: the order of the data, and what `generators`, `rand` and `randn` give. So a resumed run needs no stored
    random state, and a batch is the same however many processes share it. Dropout, through torch's global generator,
    depends on (seed, step, process). Gradients are averaged over processes, so models are called directly, by any of
    their methods.

    On a GPU, matrix products of float32 use TensorFloat-32 from then on in the whole process
    (`torch.set_float32_matmul_precision("high")`). Some of its backward kernels add in no fixed order, so that a
    resumed run is equal bit for bit on CPUs only.

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
        check_trackers(run.trackers)
        if run.gradient_checkpointing:
            checkpoint_gradients(self.models)
        self.accelerator = Accelerator(
            log_with=list(run.trackers) or None,
            project_config=ProjectConfiguration(str(self.output_dir), logging_dir=str(self.output_dir / "logs")),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=run.timeout_minutes))],
        )
        # a process that exits within its group aborts, now and then
        atexit.register(self.accelerator.state.destroy_process_group)
        self.device, self._processes = self.accelerator.device, self.accelerator.num_processes
        use_tensor_cores(self.device)
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
        self._averages = WeightAverages(self.models, self.models if ema is None else ema, run.ema_decay)
        self._optimizers: dict[torch.optim.Optimizer, OptimConfig] = {}
        self._due: list[torch.optim.Optimizer] = []  # those that have gradients
        self._samples = self._steps = self._micro_step = self._skipped = 0  # all that a checkpoint holds ...
        self._minutes = 0.0  # ... besides tensors
        self._bad_steps = self._failed_saves = 0  # in a row
        self._means = RunningMeans()
        self._check = FiniteCheck()
        self._batches: list[tuple[list[int], Any]] = []  # of the present step: rows of the data set, and the batch
        self._asked_to_stop = self._stop = False  # this process; all of them
        self._deadline = math.inf
        if run.max_minutes is not None:
            age = time.time() - psutil.Process().create_time()
            self._deadline = time.monotonic() + 60.0 * run.max_minutes - age
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

        Batch size, workers and collate function are the loader's; `rest_of_epoch` says in which order.
        """
        self._batch_size = size = batch_size_of(loader, self.accelerator)
        self._restore()
        self._started = time.monotonic() - 60.0 * self._minutes
        with (
            catch_signals(self._request_stop),
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
                rows_of_batches, rest = rest_of_epoch(loader, size, self.run.seed, self._samples, self.accelerator)
                for rows, batch in zip(rows_of_batches, rest):
                    place = (self._steps, self._micro_step, self.accelerator.process_index)
                    torch.manual_seed(seed_of(self.run.seed, "torch", *place))
                    batch = send_to_device(batch, self.device, non_blocking=self.device.type != "mps")
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

    def generators(self, name: str, count: int, device: torch.device | str | None = None) -> list[torch.Generator]:
        """One generator for each sample of the batch, on the run's device or another, from (seed, sample, name)."""
        first = self._samples + self.accelerator.process_index * self._batch_size
        seeds = (seed_of(self.run.seed, name, first + i) for i in range(count))
        return [torch.Generator(device=device or self.device).manual_seed(seed) for seed in seeds]

    def rand(self, name: str, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Uniform on [0, 1), the first axis being the samples of the batch: the same again after a resume.

        Args:
            device: the run's by default; "cpu" for what Python has to know, so that it need not wait for a GPU.
        """
        generators = self.generators(name, shape[0], device)
        return torch.stack([torch.rand(shape[1:], generator=g, device=g.device) for g in generators])

    def randn(self, name: str, *shape: int) -> Tensor:
        """Normal deviates, as `rand`."""
        generators = self.generators(name, shape[0])
        return torch.stack([torch.randn(shape[1:], generator=g, device=g.device) for g in generators])

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes' tensors (B, ...), with gradients: for a loss that compares samples of a batch.

        Each process then computes the whole batch's loss, and the average of their gradients is that loss's.
        """
        return torch.cat(all_gather(tensor.contiguous())) if self._processes > 1 else tensor

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Gradients of `loss` for this optimiser's parameters only; `finish_step` steps it once all are there."""
        scaled = loss / self.run.gradient_accumulation_steps
        if self.run.fsdp:
            scaled.backward()
        else:  # `inputs` keeps a generator's loss from adding to the gradients of its discriminators
            scaled.backward(inputs=parameters_of(optimizer))
        if optimizer not in self._due:
            self._due.append(optimizer)
        self._check.note(**{self._numbered("loss", optimizer): loss})

    def finish_step(self, **scalars: float | Tensor) -> None:
        """Ends an iteration: steps the optimisers, averages weights, logs means of the scalars, saves when it is due.

        No optimiser steps on any process unless all losses, gradient norms and scalars are finite on every one. A step
        that is not is skipped, and described in output_dir/diagnostics; three in a row end the run.
        After SIGTERM, SIGINT, SIGUSR1 or `max_minutes` it saves, prints how to resume, and leaves the program.

        Raises:
            FloatingPointError: three steps in a row were not finite.
            OSError: three checkpoints in a row could not be written.
        """
        self._check.note(**scalars)
        self._means.add(scalars)
        self._micro_step += 1
        self._samples += self._batch_size * self._processes
        if self._micro_step < self.run.gradient_accumulation_steps:
            return
        norms: dict[str, float | Tensor] = {}
        for optimizer in self._due:
            parameters = parameters_of(optimizer)
            if self._processes > 1 and not self.run.fsdp:
                average_gradients(parameters, self.accelerator)
            norm = nn.utils.clip_grad_norm_(parameters, self._optimizers[optimizer].clip)
            norms[self._numbered("grad_norm", optimizer)] = full(norm)
        self._check.note(**norms)
        bad = self._agree()
        if bad:
            name = f"step-{self.step:08d}-process-{self.accelerator.process_index}"
            self._check.describe(self.output_dir / "diagnostics" / name, self.step, bad, self.models, self._batches)
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
        self._check.clear()
        self._batches.clear()
        self._micro_step, self._steps, self._skipped = 0, self._steps + 1, self._skipped + bool(bad)
        self._bad_steps = self._bad_steps + 1 if bad else 0
        if not bad:
            self._means.add(norms)
            self._averages.update(self.step)
        if self._bad_steps == FAILURES:
            raise FloatingPointError(
                f"{self.stage}: {', '.join(bad)} not finite in {FAILURES} steps in a row, up to step {self.step}. See "
                f"{self.output_dir / 'diagnostics'}; the last checkpoint in {self._checkpoints} is from before. Try a "
                "lower learning rate or clip, or run.mixed_precision=no."
            )
        if self.step % self.run.log_every == 0:
            self._log_means()
        self._bar.total = max(self.step, round(self.step / self._progress()))  # where time decides, its end
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
        log_audio(self.accelerator, name, waveform, sample_rate, self.step)

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Within the context the models carry their averaged weights, where averages are kept."""
        return self._averages.loaded()

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
                write_model(whole, self.output_dir if len(savable) == 1 else self.output_dir / name)
        self.accelerator.wait_for_everyone()
        if self._is_done():
            self._averages.load()

    # -- mechanics

    def _request_stop(self) -> None:
        self._asked_to_stop = True

    def _progress(self) -> float:
        by_time = 0.0 if self.run.budget_minutes is None else self._minutes / self.run.budget_minutes
        return min(1.0, max(self.step / self.run.max_steps, by_time))

    def _is_done(self) -> bool:
        return self._progress() >= 1.0 and self._micro_step == 0

    def _numbered(self, name: str, optimizer: torch.optim.Optimizer) -> str:
        return name if len(self._optimizers) == 1 else f"{name}_{list(self._optimizers).index(optimizer)}"

    def _agree(self) -> list[str]:
        """The names of what is not finite on some process; these, the clock and whether to stop are the same on all."""
        stop = self._asked_to_stop or time.monotonic() >= self._deadline
        facts = {"stop": float(stop), "minutes": (time.monotonic() - self._started) / 60.0}
        flags = self._check.flags()
        facts |= {f"{name} is not finite": flag for name, flag in flags.items()}
        share, self._minutes, *bad = read_numbers(facts, self.accelerator).values()
        self._stop = share > 0.0
        return [name for name, share in zip(flags, bad) if share > 0]

    def _log_means(self) -> None:
        means = self._means.read(self.accelerator)
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

    def _tensors(self) -> Files:
        return model_tensors(self.models, self._averages.tensors)

    def _save_checkpoint(self, last: bool = False) -> None:
        """Writes one; what the disk refuses is a warning, and an error in the end."""
        files = self._tensors() | optimizer_tensors(self._optimizers)
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
            restore(files, self._tensors(), list(self._optimizers))
            if state["samples"] % (self._batch_size * self._processes):
                raise ValueError(f"its {state['samples']} samples are no whole number of batches")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"{checkpoint} does not fit this run: {error}. Use another run.output_dir, or run.resume=false."
            ) from error
        self._steps, self._samples, self._skipped = state["step"], state["samples"], state["skipped"]
        self._minutes = state["minutes"]
        self.accelerator.print(f"{self.stage}: resumed at step {self.step} from {checkpoint}")
