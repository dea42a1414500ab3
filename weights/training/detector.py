"""Step 2 of the detector: distil YuNet-n into a student, and correct it by labels.

The student begins with random weights and answers in YuNet's format, so one decoder serves both.
It has YuNet's units of a pointwise and a depthwise convolution (Wu et al. 2023,
doi:10.1007/s11633-023-1423-y) and one head per stride where YuNet has four.  The time that this
saves goes into two more residual blocks.

In the first stage, ``parts``, each unit learns alone: it receives the teacher's map before it and
learns the map after it (blockwise distillation, Li et al. 2020, arXiv:1911.13053).  Then the
chain learns as a whole.  The targets are the teacher's answers where the labels of scenes.py agree
with them, and the labels elsewhere (`assignment.targets`).

    python detector.py --scenes DIR [DIR ...] --out PARTS --stage parts --images N --decay N
    python detector.py --scenes DIR [DIR ...] --out RUN --begin-with PARTS
    python detector.py --out RUN --export detector.onnx
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from assignment import OUTPUTS, SIDE, Targets, placed, targets
from data import ahead, data_root
from embedder import Depthwise
from numpy.typing import NDArray
from onnxfile import save_half
from teacher import YuNet
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = [16, 16, *[64] * 15]  # of the units, in the order of YuNet's graph
MATCHED = (6, 8, 10, 14, 15, 16)  # units whose maps the chain imitates: one per stage
RANGE = 64.0  # grey levels per unit of the student's input


class Unit(nn.Module):
    """Pointwise and depthwise convolution and batch norm; no activation."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(inner, outer, 1)
        self.depthwise = Depthwise(outer, 1)
        self.norm = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.depthwise(self.pointwise(x)))
        return y


class Residual(nn.Module):
    """Residual block that begins as the identity, so it can join a chain of trained parts."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.unit, self.last = Unit(channels, wide), nn.Conv2d(wide, channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.last(functional.relu(self.unit(x))))


class Detector(nn.Module):
    """BGR 0..255 -> per cell two logits, four box and ten landmark numbers, strides 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 / RANGE
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.units = nn.ModuleList(
            Unit(a, b) for a, b in zip([16, *CHANNELS[:-1]], CHANNELS, strict=True)
        )
        self.extra = nn.ModuleList([Residual(64, 64), Residual(64, 128)])
        self.heads = nn.ModuleList(Unit(64, 16) for _ in range(3))

    def chain(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the inputs of the three heads, and the units' maps before their activation."""
        maps: list[Tensor] = []

        def on(x: Tensor, count: int = 1) -> Tensor:
            for _ in range(count):
                maps.append(self.units[len(maps)](x))
                x = functional.relu(maps[-1])
            return x

        def half(x: Tensor) -> Tensor:
            return functional.max_pool2d(x, 2)

        def twice(x: Tensor) -> Tensor:
            return functional.interpolate(x, scale_factor=2.0)

        c4 = on(half(on(functional.relu(self.stem(x * self.scale)))), 4)
        c8 = on(half(c4), 2)
        c16 = self.extra[0](on(half(c8), 2))
        c32 = self.extra[1](on(half(c16), 2))
        # Top-down path (Lin et al. 2017, doi:10.1109/CVPR.2017.106).
        p32 = on(c32)
        p16 = on(c16 + twice(p32))
        p8 = on(c8 + twice(p16))
        return [on(p) for p in (p8, p16, p32)], maps

    def answers(self, shown: Sequence[Tensor]) -> list[Tensor]:
        """Return the answers per stride, (N, cells, 16)."""
        return [
            head(p).flatten(2).transpose(1, 2) for head, p in zip(self.heads, shown, strict=True)
        ]

    def train(self, mode: bool = True, *, norms: bool = False) -> Detector:
        """Set the mode; batch norm uses and learns batch statistics only with `norms`."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(mode and norms)
        return self


class Deployed(nn.Module):
    """Detector that answers with twelve tensors in YuNet's order."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).eval()
        with torch.no_grad():
            self.detector.stem.weight.mul_(self.detector.scale)
        self.detector.scale = 1

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        answers = self.detector.answers(self.detector.chain(x)[0])
        parts = [(0, 1), (1, 2), (2, 6), (6, 16)]
        return tuple(
            a[..., start:end].sigmoid() if end <= 2 else a[..., start:end]
            for start, end in parts
            for a in answers
        )


def degrade(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Vary light, blur and JPEG quality, or remove the colour; keep the geometry."""
    if rng.random() < 0.5:
        gamma, contrast = np.exp(rng.normal(0, (0.3, 0.2)))
        ramp = (np.arange(256) / 255) ** gamma * contrast + rng.normal(0, 0.06)
        image = cv2.LUT(image, np.clip(ramp * 255, 0, 255).astype(np.uint8))
    if rng.random() < 0.12:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.12:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.2:
        quality = int(rng.integers(20, 80))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.asarray(image, np.uint8)


Batch = tuple[NDArray[np.uint8], list[NDArray[np.float32]]]


def batches(folders: Sequence[Path], size: int, seed: int, skip: int) -> Iterator[Batch]:
    """Yield endless random batches of the scenes written so far, equal shares of each folder."""
    scenes = [
        [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels")]
        for folder in folders
    ]

    for at in range(skip, 10**9):
        rng = np.random.default_rng([seed, at])
        drawn = []
        for k in rng.integers(len(folders), size=size):
            images, labels = scenes[k]
            row = rng.integers(int((folders[k] / "done").read_text()))
            drawn.append(placed(degrade(images[row], rng), labels[row], rng))
        yield np.stack([image for image, _ in drawn]), [rows for _, rows in drawn]


def losses(answer: Tensor, wanted: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Return the divergence of the probabilities, and the smooth L1 of boxes and of landmarks."""
    answer = answer.float()
    asked, odds, notice, face, place, scale = (
        torch.from_numpy(getattr(wanted, field.name)) for field in fields(wanted)
    )
    # The many easy cells without a face weigh little, unless teacher or student sees one.
    believed = answer[..., :2].detach().sigmoid().prod(-1).sqrt()
    weight = asked * (0.05 + torch.maximum(notice, believed))
    mass = face.sum() + 2 * len(answer)  # steady in batches without a face
    entropy = functional.binary_cross_entropy_with_logits(answer[..., :2], odds, reduction="none")
    entropy = entropy - functional.binary_cross_entropy(odds, odds, reduction="none")
    found = (weight[..., None] * entropy).sum() / mass
    error = functional.smooth_l1_loss(
        answer[..., 2:] * scale, place * scale, beta=0.05, reduction="none"
    )
    box = (error[..., :4].mean(-1) * face).sum() / mass
    points = (error[..., 4:].mean(-1) * face).sum() / mass
    return found, box, points


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """BGR uint8 (N, H, W, 3) -> float (N, 3, H, W), channels last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


class Guide:
    """Teacher of a run: gives its answers and maps, and a student's error on the maps."""

    def __init__(self, path: Path, sample: Tensor) -> None:
        self.teacher = YuNet(path)
        self.ends = [self.teacher.stem, *(end for _, end in self.teacher.units)]
        _, maps = self.teacher(sample, self.ends)
        deviations = [maps[end].std(dim=(0, 2, 3)) for end in self.ends]
        self.gain = [1 / d.clamp(min=0.1 * d.mean().item())[:, None, None] for d in deviations]
        self.means = [maps[end].mean(dim=(0, 2, 3)) for end in self.ends]

    @torch.no_grad()
    def fit(self, student: Detector) -> None:
        """Set the outputs of untrained units to the teacher's means and deviations."""
        for unit, mean, gain in zip(student.units, self.means[1:], self.gain[1:], strict=True):
            unit.norm.weight.copy_(1 / gain.ravel())
            unit.norm.bias.copy_(mean)

    def parts(self, student: Detector, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the teacher's answers, the student's to the teacher's maps, the parts' errors."""
        begins = [begin for begin, _ in self.teacher.units]
        shown = [end for _, end in self.teacher.units[-3:]]
        answers, maps = self.teacher(x, sorted({*begins, *self.ends}))
        guesses = [student.stem(x * student.scale)]
        guesses += [unit(maps[begin]) for unit, begin in zip(student.units, begins, strict=True)]
        said = student.answers([functional.relu(maps[name]) for name in shown])
        return answers, torch.cat(said, dim=1), self.error(guesses, maps)

    def chain(self, student: Detector, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same for the chain; only the maps of `MATCHED` are compared."""
        answers, maps = self.teacher(x, [self.ends[k + 1] for k in MATCHED])
        shown, guesses = student.chain(x)
        return answers, torch.cat(student.answers(shown), dim=1), self.error([None, *guesses], maps)

    def error(self, guesses: Sequence[Tensor | None], maps: dict[str, Tensor]) -> Tensor:
        """Return the mean squared error of each map, its channels scaled to a deviation of one."""
        wrong = [
            ((guess.float() - maps[end]) * gain).square().mean()
            for guess, end, gain in zip(guesses, self.ends, self.gain, strict=True)
            if guess is not None and end in maps
        ]
        return torch.stack(wrong)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    student, parts = Detector(), args.stage == "parts"
    if args.begin_with:
        saved = torch.load(args.begin_with / "checkpoint.pt", map_location="cpu")["average"]
        student.load_state_dict(
            {k.removeprefix("module."): v for k, v in saved.items() if k != "n_averaged"}
        )
    sample = np.load(args.scenes[0] / "images.npy", mmap_mode="r")[:128].copy()
    guide = Guide(args.teacher, to_input(sample))
    if parts:
        guide.fit(student)
    student = student.to(memory_format=torch.channels_last).train(norms=parts)
    average = torch.optim.swa_utils.AveragedModel(
        student, use_buffers=True,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(args.average),
    )  # fmt: skip
    plain = [p for p in student.parameters() if p.ndim <= 1]
    decayed = [p for p in student.parameters() if p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    steps, warmup, step = args.images // args.batch, 200, 0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    source = ahead(batches(args.scenes, args.batch, args.seed, skip=step), 6)
    started, first, told = time.time(), step, time.time()
    mean: dict[str, float] = {}
    while step < steps:
        # The rate is constant, then falls to zero: before the fall a run can be extended.
        falling = min(1.0, (steps - step) / max(1, args.decay // args.batch))
        rate = args.lr * min(1.0, (step + 1) / warmup) * falling
        for group in optimizer.param_groups:
            group["lr"] = rate
        if parts and falling < 1:  # batch statistics are noisier than the parts' errors
            student.train()
        images, rows = next(source)
        if parts:  # a unit's receptive field is small, so quarters of scenes suffice
            half = SIDE // 2
            images = np.concatenate(
                [images[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
            )
        x = to_input(images)
        with torch.autocast("cpu", torch.bfloat16):
            said, answer, errors = guide.parts(student, x) if parts else guide.chain(student, x)
        found, box, points = losses(answer, targets(said.numpy(), None if parts else rows))
        loss = found + 5 * box + args.points * points + args.maps * errors.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(student)
        step += 1
        now = {"found": found, "box": box, "points": points, "maps": errors.mean()}
        now |= {f"map{k}": error for k, error in enumerate(errors.detach())}
        for name, value in now.items():
            mean[name] = 0.98 * mean.get(name, value.item()) + 0.02 * value.item()
        if step % 250 == 0 or step == steps or time.time() - told > 60:
            state = {
                "student": student.state_dict(), "average": average.state_dict(),
                "optimizer": optimizer.state_dict(), "step": step,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        if step == steps or time.time() - told > 60:
            told = time.time()
            record = {
                "step": step, "images": step * args.batch, **mean, "lr": rate,
                "images_per_s": (step - first) * args.batch / (time.time() - started),
            }  # fmt: skip
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            left = (steps - step) * args.batch / record["images_per_s"] / 60
            rounded = {k: round(v, 5) for k, v in record.items()}
            print(json.dumps(rounded), f"{left:.0f} min left", flush=True)


def export(run: Path, path: Path) -> None:
    """Write the averaged network with free batch, height and width."""
    average = torch.optim.swa_utils.AveragedModel(Detector(), use_buffers=True)
    average.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu")["average"])
    temporary = path.with_suffix(".float32.onnx")
    free = {0: "N", 2: "H", 3: "W"}
    torch.onnx.export(
        Deployed(average.module).eval(), (torch.zeros(1, 3, 128, 160),), str(temporary),
        input_names=["input"], output_names=OUTPUTS, opset_version=17, dynamo=False,
        dynamic_axes={"input": free, **{name: {0: "N", 1: "cells"} for name in OUTPUTS}},
    )  # fmt: skip
    save_half(onnx.load(temporary), path)
    temporary.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=Path, nargs="+", help="what scenes.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument(
        "--teacher", type=Path, default=data_root() / "weights/yunet/yunet_n_dynamic.onnx"
    )
    parser.add_argument("--stage", choices=("parts", "chain"), default="chain")
    parser.add_argument("--begin-with", type=Path, help="run to go on from")
    parser.add_argument("--images", type=int, default=1_000_000, help="images seen in this run")
    parser.add_argument("--decay", type=int, default=0, help="last images: the rate falls to zero")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--average", type=float, default=0.995, help="of the weights, per step")
    parser.add_argument("--points", type=float, default=10.0, help="weight of the landmarks")
    parser.add_argument("--maps", type=float, default=1.0, help="weight of the teacher's maps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the ONNX file and stop")
    args = parser.parse_args()
    if args.export:
        export(args.out, args.export)
    else:
        train(args)


if __name__ == "__main__":
    main()
