"""Step 2 of the embedder: a small dense residual network learns the teacher's answers.

Targets, all from ``teach.py``: the teacher's vectors projected onto their 160 leading
singular directions (which preserves cosines best in the least-squares sense, Eckart and
Young 1936), the matrix of similarities between the crops of a batch (Park et al. 2019,
doi:10.1109/CVPR.2019.00409), and the teacher's last 14x14 and 7x7 feature maps through
a 1x1 projection that is thrown away (Romero et al. 2015, arXiv:1412.6550).  The student
sees a degraded copy (light, colour, blur, low resolution, JPEG, noise, occlusion) of
what the teacher saw clean.  Where it is known whom a face shows, the target can be drawn
from the teacher's answer to the picture towards the mean of its answers to that person
(``--pull``), so that the student learns to leave out more of the pose and the light.

    python weights/training/embedder.py --taught DIR [DIR ...] --out RUN    # resumes by itself
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from data import crops, data_root
from numpy.typing import NDArray
from onnxfile import save_half
from teach import MAPS, load_teacher
from torch import Tensor, nn
from torch.nn import functional

DIMENSION = 160


class Residual(nn.Module):
    """Basic block (He et al. 2016); ReLU, as ONNX Runtime fuses it with the convolution."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.skip = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.skip(x))


class Embedder(nn.Module):
    """112x112 RGB in -1..1 -> 160 numbers, not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        )
        self.stage28 = Residual(32, 48, 2)
        self.stage14 = nn.Sequential(Residual(48, 112, 2), Residual(112, 112, 1))
        self.stage7 = nn.Sequential(Residual(112, 224, 2), Residual(224, 224, 1))
        # Global depthwise head of MobileFaceNet (Chen et al. 2018, arXiv:1804.07573).
        self.head = nn.Sequential(
            nn.Conv2d(224, 512, 1, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(inplace=True),
            nn.Conv2d(512, 512, 7, groups=512, bias=False),
            nn.BatchNorm2d(512),
            nn.Flatten(),
            nn.Linear(512, DIMENSION),
        )

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        map14 = self.stage14(self.stage28(self.stem(x)))
        return map14, self.stage7(map14)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.features(x)[1]))


def degrade(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What cameras, networks and hands do to a face; each with its own probability."""
    if rng.random() < 0.25:
        side = int(rng.integers(24, 90))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (112, 112), interpolation=int(rng.choice([1, 2])))
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0))
    if rng.random() < 0.6:  # brightness, contrast and gamma in one table
        ramp = np.arange(256) / 255.0
        ramp = ramp ** np.exp(rng.normal(0, 0.3)) * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 0.06)
        image = cv2.LUT(image, np.clip(ramp * 255, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:  # white balance
        image = np.clip(image * np.exp(rng.normal(0, 0.12, 3)), 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.15:
        noise = rng.normal(0, rng.uniform(2, 12), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(15, 80))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    if rng.random() < 0.2:
        h, w = rng.integers(15, 55, 2)
        y, x = rng.integers(0, 112 - h), rng.integers(0, 112 - w)
        image = image.copy()
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.asarray(image, np.uint8)


def pulled(
    vectors: Sequence[NDArray[np.float32]], people: Sequence[NDArray[np.str_]], share: float
) -> list[NDArray[np.float32]]:
    """Unit vectors (N, 512) of each folder, those of one person drawn by `share` to their mean."""
    names, number = np.unique(np.concatenate(people), return_inverse=True)
    means = np.zeros((len(names), vectors[0].shape[1]), np.float32)
    np.add.at(means, number, np.concatenate(vectors))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    known = names != ""
    print(f"pulled: {known[number].mean():.1%} of the faces, of {known.sum()} people", flush=True)
    targets, start = [], 0
    for part in vectors:
        who = number[start : start + len(part)]
        start += len(part)
        weight = np.where(known[who], np.float32(share), np.float32(0))[:, None]
        target = (1 - weight) * part + weight * means[who]
        targets.append(target / np.linalg.norm(target, axis=1, keepdims=True))
    return targets


class Taught:
    """The teacher's answers on disk, served in shuffled, degraded batches by a thread.

    Without `maps`, those of a batch are left out.  The share `clean` of the faces is not degraded.
    """

    def __init__(
        self, folders: Sequence[Path], *, maps: bool = True, pull: float = 0.0, clean: float = 0.0
    ) -> None:
        self.clean = clean
        self.images = [np.load(folder / "images.npy", mmap_mode="r") for folder in folders]
        self.vectors = [np.load(folder / "vectors.npy") for folder in folders]
        if pull:
            people = [np.load(folder / "person.npy") for folder in folders]
            self.vectors = pulled(self.vectors, people, pull)
        self.rows = [(i, r) for i, images in enumerate(self.images) for r in range(len(images))]
        self.maps = {
            name: [np.load(folder / f"{name}.npy", mmap_mode="r") for folder in folders]
            for name in (MAPS if maps else ())
        }
        # Maps are compared in units of each channel's deviation: scale * int8 / deviation.
        self.gain = {
            name: 1 / np.maximum(maps[0][:1024].std(axis=(0, 2, 3)), 1e-3)
            for name, maps in self.maps.items()
        }

    def batches(self, size: int, seed: int, skip: int) -> Iterator[tuple[NDArray[Any], ...]]:
        """Endless batches; `skip` of them are passed over, so that a resumed run goes on.

        Every other face is mirrored, with its maps; its vector is the same, as a person is.
        """
        box: queue.Queue[tuple[NDArray[Any], ...] | Exception] = queue.Queue(maxsize=6)

        def fill() -> None:
            at = 0
            for epoch in range(10**6):
                order = np.random.default_rng([seed, epoch]).permutation(len(self.rows))
                for start in range(0, len(order) - size + 1, size):
                    at += 1
                    if at <= skip:
                        continue
                    rng = np.random.default_rng([seed, epoch, start])
                    rows = [self.rows[i] for i in np.sort(order[start : start + size])]
                    steps = rng.choice([1, -1], size)
                    faces = [
                        np.ascontiguousarray(self.images[i][r][:, ::step])
                        for (i, r), step in zip(rows, steps, strict=True)
                    ]
                    images = [
                        face if rng.random() < self.clean else degrade(face, rng) for face in faces
                    ]
                    maps = [
                        [m[i][r][..., ::step] for (i, r), step in zip(rows, steps, strict=True)]
                        for m in self.maps.values()
                    ]
                    vectors = [self.vectors[i][r] for i, r in rows]
                    box.put((np.stack(images), np.stack(vectors), *map(np.stack, maps)))

        def work() -> None:
            try:
                fill()
            except Exception as error:
                box.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            batch = box.get()
            if isinstance(batch, Exception):
                raise batch
            yield batch


def to_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """BGR uint8 (N,112,112,3) -> RGB float (N,3,112,112) in -1..1, channels last."""
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).to(device)
    return (rgb.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def principal_directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(512, DIMENSION) leading right singular vectors; uncentred, because a cosine is."""
    gram = vectors.T.astype(np.float64) @ vectors
    values, directions = np.linalg.eigh(gram)
    kept = values[-DIMENSION:].sum() / values.sum()
    print(f"target: {DIMENSION} directions keep {kept:.2%} of the teacher's energy", flush=True)
    return directions[:, : -DIMENSION - 1 : -1].astype(np.float32)


class Development:
    """Held-out people: cosine of the student's answers to the teacher's, and TAR at FAR 1 %."""

    def __init__(self, teacher: Path) -> None:
        pairs = list(crops(data_root(), development=True))
        self.images = np.stack([crop[8:120, 8:120] for _, crop in pairs])
        person = np.array([name.rsplit("_", 1)[0] for name, _ in pairs])
        upper = np.triu_indices(len(person), 1)
        self.upper, self.same = upper, (person[:, None] == person[None])[upper]
        session, outputs = load_teacher(teacher)
        x = to_input(self.images, torch.device("cpu")).numpy()
        batches = (x[i : i + 32] for i in range(0, len(x), 32))
        says = np.concatenate([session.run(outputs[:1], {"input": b})[0] for b in batches])
        self.teacher = says / np.linalg.norm(says, axis=1, keepdims=True)
        self.teacher_says = self.tar(says)

    def tar(self, vectors: NDArray[np.float32]) -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        similarity = (unit @ unit.T)[self.upper]
        cut = np.quantile(similarity[~self.same], 0.99)
        return float((similarity[self.same] > cut).mean())

    def __call__(
        self, model: nn.Module, device: torch.device, directions: Tensor
    ) -> tuple[float, float]:
        model.eval()
        with torch.inference_mode():
            out = [
                model(to_input(self.images[i : i + 64], device)).cpu().numpy()
                for i in range(0, len(self.images), 64)
            ]
        model.train()
        vectors = np.concatenate(out)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        right = self.teacher @ directions.cpu().numpy()
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        return self.tar(vectors), float((unit * right).sum(1).mean())


def averaged(run: Path) -> tuple[Embedder, Tensor]:
    """The averaged network of a run, and the teacher's directions (512, 160) that it answers in."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu")
    average = torch.optim.swa_utils.AveragedModel(Embedder(), use_buffers=True)
    average.load_state_dict(state["average"])
    return average.module, state["directions"]


def train(args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    taught = Taught(args.taught, maps=args.maps > 0, pull=args.pull, clean=args.clean)
    development = Development(args.teacher)
    gains = {
        name: torch.from_numpy(gain.astype(np.float32)).to(device)[:, None, None]
        for name, gain in taught.gain.items()
    }

    student = Embedder()
    if args.begin_with is None:
        answers = [np.load(folder / "vectors.npy") for folder in args.taught]
        directions = torch.from_numpy(principal_directions(np.concatenate(answers)))
    else:  # its average, and where its vectors point
        student, directions = averaged(args.begin_with)
    student.to(device, memory_format=torch.channels_last)
    directions = directions.to(device)
    project14 = nn.Conv2d(112, 128, 1).to(device)
    project7 = nn.Conv2d(224, 128, 1).to(device)
    learners = nn.ModuleList([student, project14, project7])
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    decay = [p for p in learners.parameters() if p.ndim > 1]
    plain = [p for p in learners.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    steps, warmup = args.images // args.batch, 300
    step, log = 0, args.out / "log.jsonl"
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        learners.load_state_dict(state["learners"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        directions, step = state["directions"], state["step"]
    batches = taught.batches(args.batch, args.seed, skip=step)
    started, first = time.time(), step
    while step < steps:
        progress = step / steps
        rate = args.lr * min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, args.lr * 1e-3)
        images, vectors, *maps = next(batches)
        x = to_input(images, device)
        target = torch.from_numpy(vectors).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            seen14, seen7 = student.features(x)
            answer = student.head(seen7).float()
            guesses = [project14(seen14).float(), project7(seen7).float()] if maps else []
        answer = functional.normalize(answer)
        angle = 1 - (answer * functional.normalize(target @ directions)).sum(1).mean()
        relation = (answer @ answer.T - target @ target.T).square().mean()
        loss = 2 * angle + args.relation * relation
        # The maps teach fast at first; the vector is what will be used.
        of_maps = {
            name: (guess - torch.from_numpy(right).to(device).float() * gains[name]).square().mean()
            for name, guess, right in zip(gains, guesses, maps, strict=True)
        }
        if of_maps:
            weight = args.maps * (1 - 0.75 * progress)
            loss = loss + weight * (0.5 * of_maps["map14"] + of_maps["map7"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learners.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(student)
        step += 1
        if step % 50 == 0 or step == steps:
            record = {
                "step": step, "images": step * args.batch, "angle": angle.item(),
                "relation": relation.item(), **{k: v.item() for k, v in of_maps.items()},
                "lr": rate, "images_per_s": (step - first) * args.batch / (time.time() - started),
            }  # fmt: skip
            if step % 500 == 0 or step == steps:
                record["tar_dev"], record["cosine_dev"] = development(
                    average.module, device, directions
                )
                record["tar_dev_teacher"] = development.teacher_says
                state = {
                    "learners": learners.state_dict(), "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "directions": directions, "step": step,
                }  # fmt: skip
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            left = (steps - step) * args.batch / record["images_per_s"] / 60
            rounded = {k: round(v, 4) for k, v in record.items()}
            print(json.dumps(rounded), f"{left:.0f} min left", flush=True)


def export(run: Path, path: Path) -> None:
    """Write the averaged network: batch free, batch norm folded, weights stored as float16."""
    model, _ = averaged(run)
    temporary = path.with_suffix(".float32.onnx")
    torch.onnx.export(
        model.eval(), (torch.zeros(1, 3, 112, 112),), str(temporary),
        input_names=["input"], output_names=["embedding"], opset_version=17, dynamo=False,
        dynamic_axes={"input": {0: "N"}, "embedding": {0: "N"}},
    )  # fmt: skip
    save_half(onnx.load(temporary), path)
    temporary.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--taught", type=Path, nargs="+", required=True, help="what teach.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--teacher", type=Path, default=data_root() / "weights/espdl/mfn_112.onnx")
    parser.add_argument("--begin-with", type=Path, help="folder of an earlier round")
    parser.add_argument("--images", type=int, default=1_100_000, help="images seen in all")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--maps", type=float, default=1.0, help="weight of the maps at the start")
    parser.add_argument("--relation", type=float, default=10.0, help="weight of the similarities")
    parser.add_argument("--pull", type=float, default=0.0, help="0..1, towards a person's mean")
    parser.add_argument("--clean", type=float, default=0.0, help="share that is not degraded")
    parser.add_argument("--seed", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
