"""What every trainer shares: a time box, a learning-rate curve over it, averaged weights, checkpoints, a score log."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..device import pick_device, pick_precision
from ..errors import InputError


def _in_bf16(device: torch.device) -> bool:
    # half precision of the other kind would need scaled losses
    return pick_precision("auto", device) is torch.bfloat16


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to bf16 where the hardware computes in it; elsewhere it would be emulated, several times slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=_in_bf16(device))


@dataclass(frozen=True)
class TimeBox:
    """How long to train and how often to save.

    Attributes:
        minutes: wall-clock length of this run.
        save_minutes: time between checkpoints (and panels).
        peak_rate: highest learning rate, reached after `warmup` steps; falls as a cosine over the time box.
        warmup: steps.
    """

    minutes: float
    save_minutes: float = 4.0
    peak_rate: float = 4e-4
    warmup: int = 200


class Trainer:
    """Runs `step(index) -> losses` until the time is up; keeps an exponential average of the weights.

    Args:
        model: what is trained.
        folder: receives `weights.safetensors` (averaged), `raw.safetensors` and `scores.jsonl`.
        box: the time box.
        resume: folder or file with weights to start from; missing tensors keep their initial values.
    """

    def __init__(self, model: nn.Module, folder: str | Path, box: TimeBox, resume: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.box = box
        # accelerate places the model and wraps it for several processes
        self.accelerator = Accelerator(mixed_precision="bf16" if _in_bf16(pick_device("auto")) else "no")
        if resume is not None:
            load_matching(model, resume)
        use_channels_last(model)
        self.raw = model.to(self.accelerator.device)
        self.average = {k: v.detach().clone().float() for k, v in model.state_dict().items()}
        optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=box.peak_rate,
            betas=(0.9, 0.98),
            weight_decay=1e-2,
        )
        self.model, self.optimiser = self.accelerator.prepare(model, optimiser)
        self.start = time.monotonic()
        self.index = 0

    @property
    def progress(self) -> float:
        """Share of the time box that has passed, 0..1."""
        return min(1.0, (time.monotonic() - self.start) / (60 * self.box.minutes))

    def descend(self, loss: Tensor) -> None:
        """One optimiser step with clipped gradients; the averaged weights follow."""
        rate = self.box.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, (self.index + 1) / self.box.warmup)
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        decay = min(0.998, (1 + self.index) / (10 + self.index))
        with torch.no_grad():
            for name, value in self.raw.state_dict().items():
                self.average[name].lerp_(value.float(), 1 - decay)

    def run(self, step, panel=None) -> None:
        """Train until the time is up, one step at least.

        Args:
            step: step(index) -> dict of scalar tensors for the log; it calls `descend` itself.
            panel: panel(self) -> dict of scores, called at each checkpoint.
        """
        sums: dict[str, float] = {}
        counted, saved = 0, time.monotonic()
        bar = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed} {postfix}", mininterval=10)
        finished = False
        while not finished:
            losses = step(self.index)
            finished = self.progress >= 1
            self.index += 1
            counted += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            bar.n = int(100 * self.progress)
            if self.index % 20 == 0:
                bar.set_postfix_str(f"{self.index} " + " ".join(f"{k} {v / counted:.4f}" for k, v in sums.items()))
            if finished or time.monotonic() - saved > 60 * self.box.save_minutes:
                self.save()
                scores = {k: v / counted for k, v in sums.items()}
                scores |= panel(self) if panel is not None else {}
                self.log(scores)
                sums, counted, saved = {}, 0, time.monotonic()
        bar.close()

    def log(self, scores: dict[str, float]) -> None:
        """Append one line of scores."""
        if not self.accelerator.is_main_process:
            return
        line = {"minutes": round((time.monotonic() - self.start) / 60, 2), "steps": self.index}
        line |= {k: round(float(v), 5) for k, v in scores.items()}
        with open(self.folder / "scores.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write averaged and raw weights, each replaced in one move."""
        if not self.accelerator.is_main_process:
            return
        for name, state in (("weights", self.average), ("raw", self.raw.state_dict())):
            temporary = self.folder / f".{name}.partial"
            save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary)
            temporary.replace(self.folder / f"{name}.safetensors")

    def with_average(self, model: nn.Module) -> nn.Module:
        """A copy of the weights into another instance of the model, for scoring."""
        model.load_state_dict({k: v.to(self.accelerator.device) for k, v in self.average.items()})
        return model.eval()


def load_matching(model: nn.Module, path: str | Path) -> set[str]:
    """Load weights by name, ignoring tensors whose shape changed; returns the names that were filled.

    Raises:
        InputError: no weights at `path`, or none of them fits.
    """
    path = Path(path)
    path = path / "raw.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"expected weights to resume from at {path}, found none; check --resume")
    state, own = load_file(path), model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise InputError(f"none of the tensors in {path} fits this model; was it trained with another configuration?")
    model.load_state_dict(fitting, strict=False)
    return set(fitting)


def use_channels_last(model: nn.Module) -> nn.Module:
    """Convolution weights in channels-last order, which CPUs and GPUs are fastest with."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    return model
