"""Step 1 of the liveness classifier: distil a public network into a student.

The teacher, MiniFASNetV2 of Silent-Face-Anti-Spoofing, answers once for every view.  The
student starts from random weights and learns the principal components of the teacher's 128
numbers, and its softmax.  It sees no label.

    python weights/training/views.py collect --out sources.npz --sources
    python weights/training/views.py collect --out genuine.npz
    python weights/training/views.py train --data sources.npz genuine.npz --out RUN
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from camera import Image, jpeg
from data import ARCHIVES, crops, data_root, photographs
from numpy.typing import NDArray
from onnx import helper
from presentations import (
    CROP_BOX,
    NUMBERS,
    Presentation,
    half,
    real,
    worn,
)
from recapture import GENUINE
from torch import Tensor, nn
from torch.nn import functional

from facecore.face.pad_features import PATCH, VIEW, Region, region, views

LEARNED = 32  # of the principal components of the teacher's 128 numbers
LFW_BOX = np.array([82.0, 72.0, 168.0, 186.0])  # approximate box of the face in LFW's pictures
FINE = 0.3  # weight of the teacher's softmax


def held_out(source: str, number: int, kind: str) -> bool:
    """Whether this face is held out: a fifth of the sources, a tenth of the other faces."""
    name, parts = (source, 5) if kind == "source" else (f"{source}/{number}", 10)
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % parts == 0


def genuine(root: Path, each: int, rng: np.random.Generator) -> Iterator[Presentation]:
    """Yield genuine crops, and LFW pictures that no test pair and no threshold uses."""
    for archive in ARCHIVES:
        if archive in ("synthetic", "lfw_rest"):
            continue
        found = [pixels for name, pixels in crops(root, archives=[archive]) if "/fake_" not in name]
        for i in rng.permutation(len(found))[:each]:
            yield Presentation(found[i], CROP_BOX.copy(), archive, GENUINE, "genuine")
    for calibration in (False, True):
        for person, path in photographs(root, calibration=calibration):
            if not calibration or half(person):
                picture = np.asarray(cv2.imread(str(path)), np.uint8)
                yield Presentation(picture, LFW_BOX.copy(), "lfw", GENUINE, "genuine")


def look(found: Region, rng: np.random.Generator) -> Image:
    """Draw a view of the face as from another camera, detector or user."""
    pixels, box = found.pixels, found.box.copy()
    size = box[2:] - box[:2]
    box += np.tile(rng.normal(0, 0.04, 2) * size, 2)
    box += np.repeat([-0.5, 0.5], 2) * np.tile(rng.normal(0, 0.06, 2) * size, 2)
    height, width = pixels.shape[:2]
    if rng.random() < 0.4:  # less of the surroundings
        reach = rng.uniform(1.1, 2.6) / 2
        middle = (box[:2] + box[2:]) / 2
        x1, y1 = np.clip(middle - reach * size, 0, (width - 24, height - 24)).astype(int)
        x2, y2 = np.minimum(np.maximum(middle + reach * size, (x1 + 24, y1 + 24)), (width, height))
        pixels, box = pixels[y1 : int(y2), x1 : int(x2)], box - (x1, y1, x1, y1)
    if rng.random() < 0.5:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
        box[[0, 2]] = pixels.shape[1] - box[[2, 0]]
    if rng.random() < 0.15:
        pixels = worn(pixels, rng)
    elif rng.random() < 0.6:
        gain = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.03, 3))
        middle = pixels.mean()
        toned = (pixels - middle) * np.exp(rng.normal(0, 0.1)) + middle
        pixels = np.clip(np.rint(toned * gain), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        ratio = rng.uniform(0.4, 1.0)
        small = cv2.resize(pixels, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(small, pixels.shape[1::-1]), np.uint8)
    if rng.random() < 0.4:
        pixels = jpeg(pixels, int(rng.integers(40, 96)))
    return view(Region(pixels, box))


def view(found: Region) -> Image:
    return views(found.pixels, found.box, found)[:VIEW, PATCH:]


def teacher(root: Path) -> ort.InferenceSession:
    """Load the public network: 128 numbers before its last layer, and its logits.

    max(x, a x) replaces its parametric ReLU (all a <= 1) and takes half the time.
    """
    model = onnx.load(root / "weights/minivision/minivision_v2_2.7.onnx")
    nodes = []
    for node in model.graph.node:
        if node.op_type == "PRelu":
            x, slope = node.input
            scaled = f"{node.output[0]}_scaled"
            nodes.append(helper.make_node("Mul", [x, slope], [scaled]))
            nodes.append(helper.make_node("Max", [x, scaled], list(node.output)))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    name = "/bn/BatchNormalization_output_0"
    model.graph.output.append(helper.make_tensor_value_info(name, 1, ["N", 128]))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def collect(args: argparse.Namespace) -> None:
    """Write views of every face, and the teacher's answers to them."""
    cv2.setNumThreads(1)
    root, rng = data_root(), np.random.default_rng(args.seed)
    session = teacher(root)
    seen: list[Image] = []
    about: list[tuple[str, str, bool]] = []
    answers: list[NDArray[np.float32]] = []
    logits: list[NDArray[np.float32]] = []

    def ask(least: int) -> None:
        done = sum(len(part) for part in answers)
        while len(seen) - done >= least:
            batch = np.stack(seen[done : done + 64]).transpose(0, 3, 1, 2).astype(np.float32)
            names = ["/bn/BatchNormalization_output_0", "logits"]
            numbers, last = session.run(names, {"input": batch})
            answers.append(numbers)
            logits.append(last)
            done += len(batch)

    made, count = (real(root), 12) if args.sources else (genuine(root, args.each, rng), 1)
    started = time.monotonic()
    for number, p in enumerate(made):
        found, held = region(p.pixels, p.box), held_out(p.source, number, p.kind)
        # The first view is the unchanged picture.
        plain = count > 1 or number % 3 == 0
        seen += [view(found)] * plain + [look(found, rng) for _ in range(count - plain)]
        about += [(p.source, p.kind, held)] * count
        ask(64)
        if number % 500 == 0:
            print(round(time.monotonic() - started), len(seen), p.source, flush=True)
    ask(1)
    source, kind, held_flags = zip(*about, strict=True)
    np.savez(
        args.out, views=np.stack(seen), answers=np.concatenate(answers),
        logits=np.concatenate(logits), source=np.array(source), kind=np.array(kind),
        held=np.array(held_flags),
    )  # fmt: skip


def unit(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(inplace=True),
    )


class Network(nn.Module):
    """BGR 0..255, 80x80 -> `LEARNED` numbers, of which the first `NUMBERS` are used."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            unit(3, 24, 2), unit(24, 32, 2), unit(32, 48, 1), unit(48, 48, 1), unit(48, 64, 2),
            unit(64, 96, 1), unit(96, 128, 2), unit(128, 96, 1),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Conv2d(96, 96, 5, groups=96, bias=False),
            nn.BatchNorm2d(96),
            nn.Flatten(),
            nn.Linear(96, LEARNED),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body((x - 127.5) / 64))


class Data:
    """Output of `collect`; the targets are whitened components and the teacher's softmax."""

    def __init__(self, paths: list[Path]) -> None:
        files = [np.load(path, allow_pickle=False) for path in paths]
        self.views = torch.from_numpy(np.concatenate([file["views"] for file in files]))
        answers, logits, self.source, self.kind, self.held = (
            np.concatenate([file[name] for file in files])
            for name in ("answers", "logits", "source", "kind", "held")
        )
        known = answers[(self.kind == "source") & ~self.held].astype(np.float64)
        centre = known.mean(axis=0)
        _, size, axes = np.linalg.svd(known - centre, full_matrices=False)
        axes = axes[:LEARNED].T / size[:LEARNED] * np.sqrt(len(known))
        self.targets = torch.from_numpy(((answers - centre) @ axes).astype(np.float32))
        # The teacher's last layer, from its components to its logits.
        design = np.column_stack([self.targets.numpy(), np.ones(len(answers))])
        last, *_ = np.linalg.lstsq(design, logits, rcond=None)
        self.last = torch.from_numpy(last.astype(np.float32))
        self.chances = torch.from_numpy(logits).softmax(1)


# Leading components carry more of the teacher's answer.
WEIGHTS = torch.tensor([2.0 if i < NUMBERS else 0.7 for i in range(LEARNED)])


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = Data(args.data)
    shares = {"source": 0.65, "genuine": 0.35}
    rows = {kind: np.flatnonzero((data.kind == kind) & ~data.held) for kind in shares}
    network = Network().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.05)
    rng, started, step, done, told = np.random.default_rng(args.seed), time.monotonic(), 0, 0.0, 0.0
    while done < 1:
        # The schedule follows the clock, so the run ends on time.
        done = min(1.0, (time.monotonic() - started) / args.seconds)
        rate = min(1.0, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 1e-3)
        drawn = np.concatenate([
            rng.choice(rows[kind], round(args.batch * share)) for kind, share in shares.items()
        ])  # fmt: skip
        x = data.views[drawn].permute(0, 3, 1, 2)
        flip = torch.from_numpy(rng.random(len(drawn)) < 0.5)[:, None, None, None]
        x = torch.where(flip, x.flip(3), x).float().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            numbers = network(x)
        numbers, wanted = numbers.float(), data.targets[drawn].clamp(-5, 5)
        error = (functional.smooth_l1_loss(numbers, wanted, reduction="none") * WEIGHTS).mean()
        said = numbers @ data.last[:-1] + data.last[-1]
        loss = error + FINE * functional.cross_entropy(said, data.chances[drawn])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        step += 1
        if time.monotonic() - told > 45 or done == 1:
            told = time.monotonic()
            torch.save(average.module.state_dict(), args.out / "checkpoint.tmp")
            (args.out / "checkpoint.tmp").replace(args.out / "checkpoint.pt")
            record = {
                "step": step,
                "seconds": round(told - started),
                "error": round(error.item(), 4),
            }
            few = 2000 if done < 1 else None
            print(json.dumps(record | explained(average.module, data, few)), flush=True)
    export(average.module, args.out / "view.onnx")


def explained(network: nn.Module, data: Data, few: int | None) -> dict[str, float]:
    """Return the share of the leading components' variance that the student explains, held out."""
    result, network = {}, network.eval()
    for kind in ("source", "genuine"):
        own = np.flatnonzero((data.kind == kind) & data.held)
        if few is not None:
            own = own[:: max(1, len(own) // few)]
        with torch.inference_mode():
            said = torch.cat(
                [
                    network(data.views[own[i : i + 256]].permute(0, 3, 1, 2).float())
                    for i in range(0, len(own), 256)
                ]
            )[:, :NUMBERS]
        wanted = data.targets[own][:, :NUMBERS]
        left = ((said - wanted) ** 2).mean() / wanted.var(0).mean()
        result[kind] = round(1 - left.item(), 3)
    return result


def export(network: nn.Module, path: Path) -> None:
    """Write the network, with its first `NUMBERS` answers and a free batch size."""
    last = network.head[-1]
    last.weight.data, last.bias.data = last.weight.data[:NUMBERS], last.bias.data[:NUMBERS]
    torch.onnx.export(
        network.eval(), (torch.zeros(1, 3, VIEW, VIEW),), str(path),
        input_names=["input"], output_names=["view"], opset_version=17, dynamo=False,
        dynamic_axes={"input": {0: "N"}, "view": {0: "N"}},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("collect", "train"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sources", action="store_true", help="the real sources")
    parser.add_argument("--each", type=int, default=2500, help="faces of every other archive")
    parser.add_argument("--data", type=Path, nargs="+", help="what `collect` wrote")
    parser.add_argument("--seconds", type=int, default=540, help="how long to train")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    (collect if args.what == "collect" else train)(args)


if __name__ == "__main__":
    main()
