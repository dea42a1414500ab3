"""Step 2 of the detector: a dense network learns the labels of scenes.py, in YuNet's format.

The network answers in YuNet's own format, so one decoder serves both.  For each face, the cells
near its middle at the stride of its size are to say so; cells around these, and those of faces
that do not count, are not asked; all others are to say no.  Boxes and landmarks are learnt with a
smooth L1 loss relative to the face's size.  Scenes are mirrored and given whole quarter turns when
they are read, so that every roll occurs.

    python weights/training/detector.py --scenes DIR --out RUN \\
        --begin-with weights/compact/detector.onnx
    python weights/training/detector.py --out RUN --export detector.onnx
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from assignment import FACE, OUTPUTS, placed, targets_of
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxfile import load_widened, save_half
from torch import Tensor, nn
from torch.nn import functional


def unit(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two convolutions; begins as the identity, so that a trained network may get one more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1))
        nn.init.zeros_(self.body[1].weight)
        nn.init.zeros_(self.body[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class Detector(nn.Module):
    """BGR 0..255 -> cls, obj (after sigmoid), bbox and kps for the strides 8, 16 and 32.

    There is no batch norm: the network goes on from exported weights, in which it was folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage8 = nn.Sequential(unit(3, 16, 2), unit(16, 24, 2), unit(24, 32, 2), Residual(32))
        self.stage16 = nn.Sequential(unit(32, 48, 2), Residual(48), Residual(48))
        self.stage32 = nn.Sequential(unit(48, 64, 2), Residual(64), Residual(64))
        # Top-down path (Lin et al. 2017, doi:10.1109/CVPR.2017.106).
        self.lateral = nn.ModuleList(nn.Conv2d(c, 32, 1) for c in (32, 48, 64))
        self.heads = nn.ModuleList(
            nn.Sequential(unit(32, 32), nn.Conv2d(32, 16, 1)) for _ in range(3)
        )
        for head in self.heads:  # faces are rare: begin with a low probability
            nn.init.constant_(head[1].bias[:1], -4.0)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Per stride (N, cells, 16): two logits, four box and ten landmark numbers."""
        c8 = self.stage8((x - 127.5) / 64)
        c16 = self.stage16(c8)
        c32 = self.stage32(c16)
        p32 = self.lateral[2](c32)
        p16 = self.lateral[1](c16) + functional.interpolate(p32, scale_factor=2.0)
        p8 = self.lateral[0](c8) + functional.interpolate(p16, scale_factor=2.0)
        answers = [head(p) for head, p in zip(self.heads, (p8, p16, p32), strict=True)]
        return [a.flatten(2).transpose(1, 2) for a in answers]


class Deployed(nn.Module):
    """The twelve tensors in YuNet's order."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        answers = self.detector(x)
        parts = [(0, 1), (1, 2), (2, 6), (6, 16)]
        return tuple(
            a[..., start:end].sigmoid() if end <= 2 else a[..., start:end]
            for start, end in parts
            for a in answers
        )


def degrade(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, colour, blur, noise and JPEG; geometry is the scene's own."""
    if rng.random() < 0.6:
        gamma, contrast = np.exp(rng.normal(0, (0.35, 0.25)))
        ramp = (np.arange(256) / 255) ** gamma * contrast + rng.normal(0, 0.08)
        image = cv2.LUT(image, np.clip(ramp * 255, 0, 255).astype(np.uint8))
    if rng.random() < 0.15:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.2:
        quality = int(rng.integers(20, 80))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.asarray(image, np.uint8)


Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


def batch_of(
    images: NDArray[np.uint8], labels: NDArray[np.float32], rng: np.random.Generator
) -> Batch:
    drawn = [placed(degrade(a, rng), b, rng) for a, b in zip(images, labels, strict=True)]
    return np.stack([image for image, _ in drawn]), np.stack([targets_of(r) for _, r in drawn])


def batches(folder: Path, size: int, seed: int, skip: int) -> Iterator[Batch]:
    """Endless random batches of what scenes.py has written so far, but for the first 256.

    Scenes without a face come twice as often as they were drawn, and those with a face that the
    teacher did not see half as often again.
    """
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    box: queue.Queue[Batch] = queue.Queue(maxsize=6)

    def fill() -> None:
        share = np.empty(0)
        for at in range(skip, 10**9):
            rng = np.random.default_rng([seed, at])
            count = int((folder / "done").read_text())
            if count != len(share):
                kinds = labels[:count, :, 0]
                unseen = ((kinds == FACE) & np.isnan(labels[:count, :, 5])).any(axis=1)
                share = np.where((kinds == 0).all(axis=1), 2.0, np.where(unseen, 1.5, 1.0))
                share[:256] = 0
            rows = np.sort(rng.choice(count, size, replace=False, p=share / share.sum()))
            box.put(batch_of(images[rows], labels[rows], rng))

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield box.get()


def losses(answers: list[Tensor], target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of the probabilities, smooth L1 of boxes and of landmarks."""
    answer = torch.cat(answers, dim=1).float()
    asked, face = (target[..., 0] >= 0).float(), (target[..., 0] > 0).float()
    mass = face.sum() + 1
    entropy = functional.binary_cross_entropy_with_logits
    # Cells without a face are many and easy: they weigh a tenth, unless the network sees one.
    believed = (answer[..., 0].sigmoid() * answer[..., 1].sigmoid()).sqrt().detach()
    weight = asked * (0.1 + torch.maximum(face, believed))
    found = (weight * entropy(answer[..., 0], face, reduction="none")).sum() / mass
    found = found + (weight * entropy(answer[..., 1], face, reduction="none")).sum() / mass
    known = face * target[..., 6].isfinite()
    scale = (4 / target[..., 1].clamp(min=1))[..., None]
    wanted = target[..., 2:].nan_to_num()
    error = functional.smooth_l1_loss(
        answer[..., 2:] * scale, wanted * scale, beta=0.05, reduction="none"
    )
    box = (error[..., :4].mean(-1) * face).sum() / mass
    points = (error[..., 4:].mean(-1) * known).sum() / (known.sum() + 1)
    return found, box, points


def to_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()


def load_exported(path: Path) -> dict[str, Tensor]:
    """The weights of an exported network, by the names of its convolutions.

    ``/detector/stage8/stage8.0/stage8.0.0/Conv`` is the module ``stage8.0.0``.
    """
    model = load_widened(path)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    state = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            parts = node.name.strip("/").split("/")[1:-1]
            kept = [a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(a)]
            for kind, name in zip(("weight", "bias"), node.input[1:], strict=True):
                state[".".join([*kept, kind])] = torch.tensor(stored[name])
    return state


def begin(student: Detector, start: Path) -> None:
    """Take over an exported network, or a run's average; blocks that it lacks stay as they are."""
    if start.suffix == ".onnx":
        state = load_exported(start)
    else:
        saved = torch.load(start / "checkpoint.pt", map_location="cpu")["average"]
        state = {k.removeprefix("module."): v for k, v in saved.items() if k != "n_averaged"}
    missing, unknown = student.load_state_dict(state, strict=False)
    if unknown:
        raise SystemExit(f"{start}: no place for {unknown}")
    print(f"begins with {start}; new: {missing}", flush=True)


def train(args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    student = Detector()
    if args.begin_with:
        begin(student, args.begin_with)
    student = student.to(device, memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=args.lr, weight_decay=0.01)
    steps, warmup, step = args.images // args.batch, 200, 0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    held = [
        np.load(args.scenes / f"{name}.npy", mmap_mode="r")[:256] for name in ("images", "labels")
    ]
    held_images, held_answers = batch_of(held[0], held[1], np.random.default_rng(0))
    held_targets = torch.from_numpy(held_answers).to(device)
    source = batches(args.scenes, args.batch, args.seed, skip=step)
    started, first = time.time(), step
    while step < steps:
        # Constant, then falling to nothing: the end may be put off while a run goes on.
        falling = min(1.0, (steps - step) * args.batch / args.decay)
        rate = args.lr * min(1.0, (step + 1) / warmup) * falling
        for group in optimizer.param_groups:
            group["lr"] = max(rate, args.lr * 1e-3)
        images, target = next(source)
        with torch.autocast(device.type, torch.bfloat16):
            answers = student(to_input(images, device).to(memory_format=torch.channels_last))
        found, box, points = losses(answers, torch.from_numpy(target).to(device))
        optimizer.zero_grad(set_to_none=True)
        (found + 5 * box + 10 * points).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(student)
        step += 1
        if step % 125 == 0 or step == steps:
            average.eval()
            with torch.inference_mode():
                parts = [
                    average.module(to_input(held_images[i : i + 64], device))
                    for i in range(0, 256, 64)
                ]
                joined = [torch.cat([h[k] for h in parts]) for k in range(3)]
                check = losses(joined, held_targets)
            record = {
                "step": step, "images": step * args.batch, "found": found.item(), "box": box.item(),
                "points": points.item(), "held_found": check[0].item(), "held_box": check[1].item(),
                "held_points": check[2].item(), "lr": rate,
                "images_per_s": (step - first) * args.batch / (time.time() - started),
            }  # fmt: skip
            state = {
                "student": student.state_dict(), "average": average.state_dict(),
                "optimizer": optimizer.state_dict(), "step": step,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            left = (steps - step) * args.batch / record["images_per_s"] / 60
            rounded = {k: round(v, 5) for k, v in record.items()}
            print(json.dumps(rounded), f"{left:.0f} min left", flush=True)


def export(run: Path, path: Path) -> None:
    """Write the averaged network with free batch, height and width."""
    average = torch.optim.swa_utils.AveragedModel(Detector())
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
    parser.add_argument("--scenes", type=Path, help="what scenes.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--begin-with", type=Path, help="run, or exported network, to go on from")
    parser.add_argument("--images", type=int, default=320_000, help="images seen in all")
    parser.add_argument("--decay", type=int, default=80_000, help="images of the falling rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the ONNX file and stop")
    args = parser.parse_args()
    if args.export:
        export(args.out, args.export)
    else:
        train(args)


if __name__ == "__main__":
    main()
