"""Train the network for age and gender on UTKFace, from the embedder's first stages.

The stem and the stages at 28 and 14 pixels begin with those of an embedder of version 1 to 4, with
batch norm folded into the convolutions.  (Version 5 has other blocks.)  The head at 7 pixels begins
at random.  The labels are in the names of the crops, ``AGE_GENDER_RACE_*``.

    git show c38857d:weights/compact/embedder.onnx > embedder4.onnx
    python weights/training/attributes.py --begin-with embedder4.onnx --out RUN  # resumes by itself
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
from data import data_root, utkface
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxfile import save_half
from torch import Tensor, nn
from torch.nn import functional

AGES = 101  # 0..100; older people count as 100
WIDTH = 64
SPREAD = 3.0  # years: deviation of the Gaussian that is the target of an age


class Residual(nn.Module):
    """The embedder's block with its batch norm folded."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1)
        same = stride == 1 and inner == outer
        self.skip: nn.Module = nn.Identity() if same else nn.Conv2d(inner, outer, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(y + self.skip(x))


class Attributes(nn.Module):
    """112x112 RGB in -1..1 -> probabilities of the ages 0..100, and of being female."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.stage28 = Residual(32, 48, 2)
        self.stage14 = nn.Sequential(Residual(48, 112, 2), Residual(112, 112, 1))
        self.narrow = nn.Conv2d(112, WIDTH, 3, 2, 1)
        self.age = nn.Linear(WIDTH, AGES)
        self.gender = nn.Linear(WIDTH, 1)

    def logits(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        x = self.stage14(self.stage28(functional.relu(self.stem(x))))
        x = functional.relu(self.narrow(x)).mean((2, 3))
        x = functional.dropout(x, drop, self.training)
        return self.age(x), self.gender(x)[:, 0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        age, gender = self.logits(x)
        return torch.softmax(age, 1), torch.sigmoid(gender)

    def begin_with(self, embedder: Path) -> None:
        """Copy the convolutions of the first three stages, which come in the same order."""
        graph = onnx.load(embedder).graph
        stored = {t.name.removesuffix(".half"): numpy_helper.to_array(t) for t in graph.initializer}
        theirs = [node for node in graph.node if node.op_type == "Conv"]
        blocks = [self.stage28, *self.stage14]
        ours = [self.stem]
        for block in blocks:
            ours += [block.first, block.second]
            ours += [block.skip] if isinstance(block.skip, nn.Conv2d) else []
        for node, conv in zip(theirs, ours, strict=False):
            weight, bias = (stored[name].astype(np.float32) for name in node.input[1:])
            conv.weight.data.copy_(torch.from_numpy(weight))
            conv.bias.data.copy_(torch.from_numpy(bias))


def vary(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Augment by jitter, mirror, light, colour, blur and JPEG that keep an age readable."""
    turn = cv2.getRotationMatrix2D((63.5, 63.5), rng.normal(0, 5), np.exp(rng.normal(0, 0.06)))
    turn[:, 2] += rng.normal(0, 2, 2) - 8
    image = cv2.warpAffine(image, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.7:
        ramp = np.arange(256) / 255.0
        ramp = ramp ** np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.15))
        gains = np.exp(rng.normal(0, 0.08, 3))
        table = np.clip(ramp[:, None] * gains * 255, 0, 255).astype(np.uint8)
        image = cv2.LUT(np.ascontiguousarray(image), table[None])
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.2:
        quality = int(rng.integers(30, 90))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    if rng.random() < 0.25:
        image = image.copy()
        h, w = rng.integers(10, 45, 2)
        y, x = rng.integers(0, 112 - h), rng.integers(0, 112 - w)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image


def to_input(images: NDArray[np.uint8]) -> Tensor:
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1]))
    return (rgb.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def predict(model: Attributes, images: NDArray[np.uint8]) -> tuple[NDArray, NDArray]:
    """Estimate years and the probability of being female from unchanged 128x128 crops."""
    model.eval()
    years, female = [], []
    with torch.inference_mode():
        for i in range(0, len(images), 128):
            ages, gender = model(to_input(images[i : i + 128, 8:120, 8:120]))
            years.append((ages @ torch.arange(AGES, dtype=torch.float32)).numpy())
            female.append(gender.numpy())
    model.train()
    return np.concatenate(years), np.concatenate(female)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    images, labels = utkface(data_root(), "train")
    development, expected = utkface(data_root(), "development")
    model = Attributes().to(memory_format=torch.channels_last)
    model.begin_with(args.begin_with)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    head = [*model.narrow.parameters(), *model.age.parameters(), *model.gender.parameters()]
    trunk = [*model.stem.parameters(), *model.stage28.parameters(), *model.stage14.parameters()]
    shares = (1 / 3, 1.0)  # of the learning rate: the trunk knows faces already
    optimizer = torch.optim.AdamW(
        [{"params": trunk}, {"params": head}], lr=args.lr, weight_decay=0.05
    )
    steps, warmup = args.images // args.batch, 200
    checkpoint, step = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        for name, thing in (("model", model), ("average", average), ("optimizer", optimizer)):
            thing.load_state_dict(state[name])
        step = state["step"]
    ages = torch.arange(AGES, dtype=torch.float32)
    started, first = time.time(), step
    while step < steps:
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = args.lr * share * min((step + 1) / warmup, cosine)
        rng = np.random.default_rng([args.seed, step])
        rows = rng.choice(len(images), args.batch, replace=False)
        x = to_input(np.stack([vary(images[row], rng) for row in rows]))
        years = torch.from_numpy(labels[rows, 0]).float().clamp(0, AGES - 1)
        female = torch.from_numpy(labels[rows, 1]).float()
        age, gender = model.logits(x.contiguous(memory_format=torch.channels_last), drop=0.2)
        bell = torch.softmax(-((ages - years[:, None]) ** 2) / (2 * SPREAD**2), 1)
        log = functional.log_softmax(age, 1)
        shape = -(bell * log).sum(1).mean()
        off = (log.exp() @ ages - years).abs().mean()
        # At an age below 5 nobody can tell boys from girls: those labels only add noise.
        sure = (years >= 5).float()
        told = functional.binary_cross_entropy_with_logits(gender, female, reduction="none")
        loss = shape + 0.1 * off + 1.5 * (told * sure).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        if step % 200 == 0 or step == steps:
            guess, female_guess = predict(average.module, development)
            adult = expected[:, 0] > 15
            record = {
                "step": step, "images": step * args.batch, "loss": loss.item(),
                "mae_dev": float(np.abs(guess - expected[:, 0]).mean()),
                "gender_dev": float(((female_guess > 0.5) == expected[:, 1])[adult].mean()),
                "images_per_s": (step - first) * args.batch / (time.time() - started),
            }  # fmt: skip
            state = {
                "model": model.state_dict(), "average": average.state_dict(), "step": step,
                "optimizer": optimizer.state_dict(),
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps({k: round(v, 3) for k, v in record.items()}), flush=True)


def trained(run: Path) -> Attributes:
    model = Attributes()
    average = torch.optim.swa_utils.AveragedModel(model)
    average.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu")["average"])
    found = average.module
    assert isinstance(found, Attributes)
    return found.eval()


def export(run: Path, path: Path) -> None:
    """Write the averaged network: free batch size, weights stored as float16."""
    temporary = path.with_suffix(".float32.onnx")
    torch.onnx.export(
        trained(run), (torch.zeros(1, 3, 112, 112),), str(temporary),
        input_names=["input"], output_names=["age", "gender"], opset_version=17, dynamo=False,
        dynamic_axes={"input": {0: "N"}, "age": {0: "N"}, "gender": {0: "N"}},
    )  # fmt: skip
    save_half(onnx.load(temporary), path)
    temporary.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--begin-with", type=Path, required=True, help="embedder.onnx, version 1-4")
    parser.add_argument("--images", type=int, default=96_000, help="images seen in all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    train(args)


if __name__ == "__main__":
    main()
