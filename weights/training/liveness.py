"""Step 2 of the liveness classifier: a small dense network learns the texture of recaptures.

It sees 112x112 pixels as the camera sampled them, never a resized face, and tells genuine
pictures, prints, LCDs and OLEDs apart; deployed, it answers with one number, the log odds of
an attack.

    python weights/training/liveness.py --data DIR --out RUN      # resumes by itself
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from media import SPECIES
from numpy.typing import NDArray
from onnxfile import save_half
from presentations import WINDOW, Presentation, read, toned
from recapture import GENUINE
from torch import Tensor, nn
from torch.nn import functional

from facecore.face.pad_features import cut

PATCH = 112
CLASSES = (GENUINE, *SPECIES)


def unit(inner: int, outer: int, stride: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(inplace=True),
    )


class Network(nn.Module):
    """BGR 0..255 -> four logits.  The mean over the map, as texture has no place.

    Beside the pixels the network sees what a 5x5 mean leaves of them, cut at 12 grey levels: a
    grid of two levels is not lost beside an edge of a hundred (the truncated residuals of
    steganalysis: Fridrich & Kodovský 2012, doi:10.1109/TIFS.2012.2190402).
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            unit(6, 16, 2, 5), unit(16, 32, 2), unit(32, 32, 1), unit(32, 64, 2), unit(64, 64, 1),
        )  # fmt: skip
        kernel = torch.full((3, 1, 5, 5), -1 / 25)
        kernel[:, :, 2, 2] += 1
        self.register_buffer("kernel", kernel)
        self.head = nn.Linear(64, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        fine = functional.conv2d(x, self.kernel, padding=2, groups=3).clamp(-12, 12)
        return self.head(self.body(torch.cat([(x - 127.5) / 64, fine / 4], 1)).mean((2, 3)))


class Deployed(nn.Module):
    """The log odds of an attack of any species."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return logits[:, 1:].logsumexp(1, keepdim=True) - logits[:, :1]


class Windows:
    """Presentations as one array of windows, mirrored where a picture was smaller."""

    def __init__(self, presentations: list[Presentation]) -> None:
        self.pixels = np.stack(
            [cut(p.pixels, tuple(p.box.reshape(2, 2).mean(0)), WINDOW) for p in presentations]
        )
        # Where mirrored pixels begin: patches are taken before that where there is room.
        self.sides = np.array([p.pixels.shape[:2] for p in presentations]).clip(PATCH, WINDOW)
        self.labels = np.array([CLASSES.index(p.species) for p in presentations])

    def batch(self, rows: NDArray[np.intp], rng: np.random.Generator | None) -> Tensor:
        """Patches: random ones, turned, mirrored and tinted; the middle ones without `rng`."""
        patches = np.empty((len(rows), PATCH, PATCH, 3), np.float32)
        for i, row in enumerate(rows):
            room = self.sides[row] - PATCH
            y, x = room // 2 if rng is None else rng.integers(0, room + 1)
            patch = self.pixels[row, y : y + PATCH, x : x + PATCH]
            if rng is not None:
                patch = np.rot90(patch, rng.integers(4))
                patch = toned(patch[:, ::-1] if rng.random() < 0.5 else patch, rng)
            patches[i] = patch
        return torch.from_numpy(patches).permute(0, 3, 1, 2)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    everything = list(read(args.data))
    held = max(1, len(everything) // 16)  # of the training range: to watch, and for the fusion
    known, watched = Windows(everything[held:]), Windows(everything[:held])
    network = Network().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.02)
    steps, warmup, step = args.images // args.batch, 100, 0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started, first = time.time(), step
    while step < steps:
        rng = np.random.default_rng([args.seed, step])
        rows = rng.integers(len(known.labels), size=args.batch)
        rate = min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 1e-3)
        images = known.batch(rows, rng).to(memory_format=torch.channels_last)
        target = torch.from_numpy(known.labels[rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            answer = network(images)
        loss = functional.cross_entropy(answer.float(), target, label_smoothing=0.03)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        step += 1
        if step % 250 == 0 or step == steps:
            scores = answers(average.module, watched)
            genuine = scores[watched.labels == 0]
            limit = np.quantile(genuine, 0.97)
            passed = {
                name: float((scores[watched.labels == i + 1] < limit).mean())
                for i, name in enumerate(SPECIES)
            }
            record = {
                "step": step, "loss": round(loss.item(), 4), "apcer_at_bpcer_3": passed,
                "images_per_s": round((step - first) * args.batch / (time.time() - started)),
            }  # fmt: skip
            state = {
                "network": network.state_dict(), "average": average.state_dict(),
                "optimizer": optimizer.state_dict(), "step": step,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)


def answers(network: Network, windows: Windows) -> NDArray[np.float32]:
    """Log odds of an attack for the middle patch of every window."""
    deployed, rows = Deployed(network).eval(), np.arange(len(windows.labels))
    with torch.inference_mode():
        parts = [deployed(windows.batch(rows[i : i + 64], None)) for i in range(0, len(rows), 64)]
    return np.asarray(torch.cat(parts)[:, 0].numpy())


def export(run: Path, path: Path) -> None:
    """Write the averaged network with a free batch."""
    average = torch.optim.swa_utils.AveragedModel(Network())
    average.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu")["average"])
    temporary = path.with_suffix(".float32.onnx")
    torch.onnx.export(
        Deployed(average.module).eval(), (torch.zeros(1, 3, PATCH, PATCH),), str(temporary),
        input_names=["input"], output_names=["attack"], opset_version=17, dynamo=False,
        dynamic_axes={"input": {0: "N"}, "attack": {0: "N"}},
    )  # fmt: skip
    save_half(onnx.load(temporary), path)
    temporary.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what presentations.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--images", type=int, default=250_000, help="patches seen in all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
