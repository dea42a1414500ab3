"""Step 2 of the embedder: distil the teacher into a small network, from random weights.

The targets come from ``teach.py``: the teacher's vectors projected onto their 160 leading
singular directions (which preserves cosines best in the least-squares sense, Eckart and
Young 1936), the matrix of similarities between the faces of a batch (Tung and Mori 2019,
doi:10.1109/ICCV.2019.00145), and the maps between the teacher's blocks (Romero et al. 2015,
arXiv:1412.6550).  The student's parts end where those maps lie.  At first each part learns alone,
fed by the teacher's map before it (blockwise distillation, Li et al. 2020, arXiv:1911.13053): a
part of four convolutions learns in a tenth of the pictures that a chain of forty needs.  Then
the chain learns as a whole.  The teacher sees clean faces, the student degraded copies
(`degrade.py`).  If the person of a face is known, ``--pull`` moves the target towards the mean of
the teacher's vectors for that person.

The learning rate is constant until the last ``--decay`` images, over which it falls to zero
(Hägele et al. 2024, arXiv:2405.18392).  So a run can go on as long as there is time, and a
finished network can branch off from any checkpoint.

    python embedder.py --taught DIR [DIR ...] --stage back --out BACK --images 64000
    python embedder.py --taught DIR [DIR ...] --stage front --out FRONT --images 64000 --clean 1
    python embedder.py --taught DIR [DIR ...] --begin-with BACK FRONT --out RUN   # for as long as
    python embedder.py --taught DIR [DIR ...] --begin-with RUN --out END --images N --decay N
                                                              # there is time; then a finished one
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from data import ahead, data_root, person_of
from degrade import degrade
from holdout import Judge, held_out_sets, tar, unit
from numpy.typing import NDArray
from onnxfile import save_half
from teach import MAPS
from teacher import Teacher
from torch import Tensor, nn
from torch.nn import functional

DIMENSION = 160
RUN = 16  # faces that are read at once
FRONT = 5  # parts down to 28x28, as many as the teacher has blocks there


class DepthwiseFunction(torch.autograd.Function):
    """Depthwise 3x3 convolution that computes its input gradient by another convolution.

    On the cores of the training, oneDNN's backward pass took 32 times as long as its forward pass
    at a stride of two; without it a training step takes two fifths less time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, None, stride, 1, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        groups, stride = len(weight), ctx.stride
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], groups,
            [False, True, False],
        )  # fmt: skip
        if stride > 1:  # put zeros between the cells of the stride
            spread = torch.zeros_like(x)
            spread[:, :, ::stride, ::stride] = gradient
            gradient = spread
        of_x = functional.conv2d(gradient, weight.flip(2, 3), None, 1, 1, 1, groups)
        return of_x, of_weight, None


class Depthwise(nn.Conv2d):
    """Depthwise 3x3 convolution with a padding of one."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y: Tensor = DepthwiseFunction.apply(x, self.weight.to(x.dtype), self.stride[0])
        return y


def normed(
    inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and batch norm."""
    convolution = (
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
        if groups == 1
        else Depthwise(outer, stride)
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outer))


class Bottleneck(nn.Module):
    """Inverted residual of MobileFaceNet (Chen et al. 2018, arXiv:1804.07573).

    ReLU, not PReLU: ONNX Runtime fuses it with the convolution.
    """

    def __init__(self, inner: int, wide: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed(inner, wide), nn.ReLU(inplace=True),
            normed(wide, wide, 3, stride, wide), nn.ReLU(inplace=True),
            normed(wide, outer),
        )  # fmt: skip
        self.residual = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class Embedder(nn.Module):
    """112x112 RGB in -1..1 -> 160 numbers, not normalised.

    `parts` end where the teacher's maps of `TAPS` and `MAPS` lie; the last is the head.
    """

    def __init__(self) -> None:
        super().__init__()

        def narrow(count: int) -> Iterator[nn.Module]:
            return (Bottleneck(128, 256, 128) for _ in range(count))

        self.parts = nn.ModuleList(
            [
                nn.Sequential(
                    normed(3, 64, 3, 2), nn.ReLU(inplace=True),
                    normed(64, 64, 3, 1, 64), nn.ReLU(inplace=True),
                    Bottleneck(64, 128, 64, 2),
                ),
                *(Bottleneck(64, 128, 64) for _ in range(4)),
                Bottleneck(64, 256, 128, 2),
                *(nn.Sequential(*narrow(2)) for _ in range(3)),
                Bottleneck(128, 512, 128, 2),
                nn.Sequential(*narrow(2)),
                # Global depthwise head of MobileFaceNet.
                nn.Sequential(
                    normed(128, 512), nn.ReLU(inplace=True),
                    nn.Conv2d(512, 512, 7, groups=512, bias=False), nn.BatchNorm2d(512),
                    nn.Flatten(), nn.Linear(512, DIMENSION),
                ),
            ]
        )  # fmt: skip

    def chain(self, x: Tensor) -> list[Tensor]:
        """Return the output of every part, each fed by the part before."""
        outputs = []
        for part in self.parts:
            x = part(x)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x)[-1]


def pulled(
    vectors: Sequence[NDArray[np.float16]], people: Sequence[NDArray[np.str_]], share: float
) -> list[NDArray[np.float16]]:
    """Return unit vectors (N, 512) per folder, moved by `share` towards their person's mean."""
    names, number = np.unique(np.concatenate(people), return_inverse=True)
    means = np.zeros((len(names), vectors[0].shape[1]), np.float32)
    start = 0
    for part in vectors:
        np.add.at(means, number[start : start + len(part)], part.astype(np.float32))
        start += len(part)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    # Only celebrities have many pictures.  LFW's identities are not used, because these people
    # occur in the test pairs, in other pictures.
    known = np.char.startswith(names, "celebrities/")
    print(f"pulled: {known[number].mean():.1%} of the faces, of {known.sum()} people", flush=True)
    targets, start = [], 0
    for part in vectors:
        who = number[start : start + len(part)]
        start += len(part)
        weight = np.where(known[who], np.float32(share), np.float32(0))[:, None]
        target = (1 - weight) * part + weight * means[who]
        targets.append((target / np.linalg.norm(target, axis=1, keepdims=True)).astype(np.float16))
    return targets


class Taught:
    """Teacher's answers on disk, served in shuffled, degraded batches by a worker thread.

    Without `maps`, batches hold no maps.  The share `clean` of the faces is not degraded.
    """

    def __init__(
        self, folders: Sequence[Path], *, maps: bool, pull: float = 0.0, clean: float = 0.0
    ) -> None:
        self.clean = clean
        self.images = [np.load(folder / "images.npy", mmap_mode="r") for folder in folders]
        self.vectors = [np.load(folder / "vectors.npy") for folder in folders]
        if pull:
            people = [np.load(folder / "person.npy") for folder in folders]
            self.vectors = pulled(self.vectors, people, pull)
        # Faces were drawn in random order, so neighbours on disk may share a batch.  Gathering a
        # batch row by row would read twenty times as much from disk.
        self.runs = np.array(
            [
                (i, r)
                for i, images in enumerate(self.images)
                for r in range(0, len(images) - RUN + 1, RUN)
            ],
            np.int32,
        )
        self.maps = {
            name: [np.load(folder / f"{name}.npy", mmap_mode="r") for folder in folders]
            for name in (MAPS if maps else ())
        }
        # Maps are compared in units of each channel's deviation: scale * int8 / deviation.
        self.gain = {
            name: 1 / np.maximum(maps[0][:1024].std(axis=(0, 1, 2)), 1e-3).astype(np.float32)
            for name, maps in self.maps.items()
        }

    def batch(self, rows: NDArray[np.int32], rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Return the faces, targets, a mask of unmoved faces, and the maps of `rows`.

        Half of the faces, at random, are mirrored with their maps; the target vector stays.
        """
        images, moved = [], np.zeros(len(rows), bool)
        steps = rng.choice([1, -1], len(rows))
        for place, ((i, r), step) in enumerate(zip(rows, steps, strict=True)):
            face = np.ascontiguousarray(self.images[i][r][:, ::step])
            if rng.random() >= self.clean:
                face, moved[place] = degrade(face, rng)
            images.append(face)
        maps = [
            np.stack([m[i][r][:, ::step] for (i, r), step in zip(rows, steps, strict=True)])
            for m in self.maps.values()
        ]
        vectors = np.stack([self.vectors[i][r] for i, r in rows])
        return (np.stack(images), vectors.astype(np.float32), ~moved, *maps)

    def batches(self, size: int, seed: int, skip: int) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield endless batches after the first `skip`, which a resumed run has seen."""
        at = 0
        for epoch in range(10**6):
            order = np.random.default_rng([seed, epoch]).permutation(len(self.runs))
            for start in range(0, len(order) - size // RUN + 1, size // RUN):
                at += 1
                if at <= skip:
                    continue
                rng = np.random.default_rng([seed, epoch, start])
                runs = self.runs[order[start : start + size // RUN]]
                rows = [(i, r + k) for i, r in runs for k in range(RUN)]
                yield self.batch(np.array(rows, np.int32), rng)


def to_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """BGR uint8 (N,112,112,3) -> RGB float (N,3,112,112) in -1..1, channels last."""
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).to(device)
    return (rgb.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def principal_directions(vectors: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """Return the (512, DIMENSION) leading right singular vectors, uncentred like a cosine."""
    gram = np.zeros((512, 512))
    for part in vectors:
        gram += part.astype(np.float32).T @ part.astype(np.float32)
    values, directions = np.linalg.eigh(gram)
    kept = values[-DIMENSION:].sum() / values.sum()
    print(f"target: {DIMENSION} directions keep {kept:.2%} of the teacher's energy", flush=True)
    return np.asarray(directions[:, : -DIMENSION - 1 : -1], np.float32)


class Development:
    """Measure the student's cosine to the teacher and its TAR at FAR 0.1 % on held-out people.

    They are all held-out celebrities, who give nearly all genuine pairs, and at most 120 crops of
    each other archive.
    """

    def __init__(self, teacher: Path) -> None:
        rng = np.random.default_rng(0)
        images, people = [], []
        for archive, faces, names in held_out_sets():
            count = len(names) if archive == "celebrities" else 120
            chosen = np.sort(rng.permutation(len(names))[:count])
            images.append(faces[chosen, 8:120, 8:120])
            people += [person_of(name) for name in names[chosen]]
        self.images, person = np.concatenate(images), np.array(people)
        upper = np.triu_indices(len(person), 1)
        self.upper, self.same = upper, (person[:, None] == person[None])[upper]
        self.teacher = Judge(teacher)(self.images)
        self.teacher_says = self.tar(self.teacher)

    def tar(self, vectors: NDArray[np.float32]) -> float:
        similarity = (vectors @ vectors.T)[self.upper]
        return tar(similarity[self.same], similarity[~self.same])

    def __call__(
        self, model: nn.Module, device: torch.device, directions: Tensor
    ) -> tuple[float, float]:
        model.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            out = [
                model(to_input(self.images[i : i + 64], device)).float().cpu().numpy()
                for i in range(0, len(self.images), 64)
            ]
        model.train()
        vectors = unit(np.concatenate(out))
        right = unit(self.teacher @ directions.cpu().numpy())
        return self.tar(vectors), float((vectors * right).sum(1).mean())


def begin(student: Embedder, runs: Sequence[Path]) -> Tensor:
    """Load the parts that earlier stages trained into a student.

    A run is a folder with a checkpoint, or a file that `keep` wrote.  Return the teacher's
    directions (512, 160) for the answers of the head; without a head, those of the last run.
    """
    head: Tensor | None = None
    for run in runs:
        if run.is_dir():
            state = torch.load(run / "checkpoint.pt", map_location="cpu")
            stage, learnt, directions = state["stage"], state["student"], state["directions"]
        else:
            with np.load(run) as kept:
                learnt = {name: torch.from_numpy(kept[name].astype(np.float32)) for name in kept}
            stage, directions = "chain", learnt.pop("directions")
        own = student.state_dict()
        for name, value in learnt.items():
            front = int(name.split(".")[1]) < FRONT
            if stage == "chain" or front == (stage == "front"):
                own[name] = value.to(own[name].dtype)
        student.load_state_dict(own)
        if stage != "front":
            head = directions
    return directions if head is None else head


def keep(run: Path, path: Path) -> None:
    """Write the state for a later round to one file: weights and batch norm as float16."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu")
    learnt = {name: value.numpy() for name, value in state["student"].items() if value.ndim}
    small = {name: value.astype(np.float16) for name, value in learnt.items()}
    for name, value in small.items():  # a variance can be too small for float16
        if name.endswith("running_var") and not np.isfinite(1 / value).all():
            small[name] = learnt[name]
    np.savez_compressed(path, directions=state["directions"].numpy(), **small)


def wished(stored: Tensor, gain: Tensor) -> Tensor:
    """Convert a stored map, int8 (N, H, W, C), to deviations (N, C, H, W)."""
    return (stored * gain).permute(0, 3, 1, 2)


def map_errors(
    outputs: Sequence[Tensor], wishes: Sequence[Tensor], unmoved: Tensor
) -> list[Tensor]:
    """Return the mean squared error of each map over the unmoved faces."""
    errors = []
    for guess, wish in zip(outputs, wishes, strict=True):
        per_face = (guess.float() - wish).square().mean((1, 2, 3))
        errors.append((per_face * unmoved).sum() / unmoved.sum().clamp(1))
    return errors


def chained(
    student: Embedder, x: Tensor, stored: list[Tensor], gains: list[Tensor], unmoved: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the head's answer, as a list of one, and the errors of the maps before it."""
    *outputs, answer = student.chain(x)[FRONT - 1 :]
    wishes = [wished(m, g) for m, g in zip(stored, gains, strict=False)]
    return [answer], map_errors(outputs[: len(wishes)], wishes, unmoved)


def train(args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    taught = Taught(args.taught, maps=args.maps > 0, pull=args.pull, clean=args.clean)
    development = Development(args.teacher)
    torch.set_num_threads(args.threads)
    gains = [torch.from_numpy(gain).to(device) for gain in taught.gain.values()]

    student = Embedder().to(device, memory_format=torch.channels_last)
    ramp = args.average

    def blend(old: list[Tensor], new: list[Tensor], count: Tensor | int) -> None:
        share = max(1 - ramp, 1 / (10 + float(count)))
        for a, b in zip(old, new, strict=True):
            a.lerp_(b, share) if a.is_floating_point() else a.copy_(b)

    average = torch.optim.swa_utils.AveragedModel(student, multi_avg_fn=blend, use_buffers=True)
    parts = {"front": student.parts[:FRONT], "back": student.parts[FRONT:]}.get(args.stage, student)
    decay = [p for p in parts.parameters() if p.ndim > 1]
    plain = [p for p in parts.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
    steps, warmup, falling = args.images // args.batch, 300, args.decay // args.batch
    step, seen, log = 0, 0, args.out / "log.jsonl"
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        directions, seen, step = state["directions"], state["seen"], state["step"]
    elif args.begin_with:
        directions = begin(student, args.begin_with).to(device)
        average = torch.optim.swa_utils.AveragedModel(student, multi_avg_fn=blend, use_buffers=True)
    else:
        directions = torch.from_numpy(principal_directions(taught.vectors)).to(device)
    early_taps: list[str] = []
    if args.stage == "front":
        ask = Teacher(args.teacher, torch.bfloat16)
        early_taps = ask.blocks["map28"][: FRONT - 1]
        sample = ask(np.ascontiguousarray(taught.images[0][:256]), early_taps)[1:]
        early_gains = [1 / m.std(dim=(0, 2, 3), keepdim=True).clamp(1e-3) for m in sample]
    # Fuses batch norm, ReLU and the errors of the maps: a third less time for a step.
    answers_of_chain = torch.compile(chained, dynamic=False) if args.compile else chained
    batches = ahead(taught.batches(args.batch, args.seed, skip=step))
    started, first, told = time.time(), step, time.time()
    while step < steps:
        rate = args.lr * min(1.0, (step + 1) / warmup)
        if falling:
            rate *= min(1.0, (steps - step) / falling)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, vectors, still, *maps = next(batches)
        x = to_input(images, device)
        target = torch.from_numpy(vectors).to(device)
        unmoved = torch.from_numpy(still).to(device, torch.float32)
        stored = [torch.from_numpy(m).to(device) for m in maps]
        loss = torch.zeros((), device=device)
        record = {}
        with torch.autocast(device.type, torch.bfloat16):
            if args.stage == "front":  # maps before 28x28 are too many to store: computed here
                answers = ask(images, early_taps)[1:]
                early = [(m * g).to(device) for m, g in zip(answers, early_gains, strict=True)]
                wishes = [*early, wished(stored[0], gains[0])]
                pairs = zip(student.parts[:FRONT], [x, *early], strict=True)
                errors = map_errors([p(i) for p, i in pairs], wishes, unmoved)
            elif args.stage == "back":
                inputs = [wished(m, g) for m, g in zip(stored, gains, strict=True)]
                outputs = [p(i) for p, i in zip(student.parts[FRONT:], inputs, strict=True)]
                errors = map_errors(outputs[:-1], inputs[1:], unmoved)
            else:
                outputs, errors = answers_of_chain(student, x, stored, gains, unmoved)
        if args.stage != "front":
            answer = functional.normalize(outputs.pop().float())
            angle = 1 - (answer * functional.normalize(target @ directions)).sum(1).mean()
            relation = (answer @ answer.T - target @ target.T).square().mean()
            loss = loss + 2 * angle + args.relation * relation
            record = {"angle": angle.item(), "relation": relation.item()}
        if errors:  # maps speed up the start, but only the vector is used later
            weight = args.maps * max(0.1, 1 - (seen + len(images)) / args.maps_until)
            loss = loss + weight * torch.stack(errors).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(student)
        step += 1
        seen += len(images)
        if step % 50 == 0 or step == steps:
            record |= {
                "step": step, "images": seen,
                **{f"map{place}": error.item() for place, error in enumerate(errors)},
                "lr": rate, "images_per_s": (step - first) * args.batch / (time.time() - started),
            }  # fmt: skip
            if (args.stage == "chain" and step % 500 == 0) or step == steps:
                record["tar_dev"], record["cosine_dev"] = development(
                    average.module, device, directions
                )
                record["tar_dev_teacher"] = development.teacher_says
            state = {
                "student": student.state_dict(), "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "directions": directions, "step": step, "seen": seen, "stage": args.stage,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            if "tar_dev" in record or time.time() - told > 60:
                told = time.time()
                left = (steps - step) * args.batch / record["images_per_s"] / 60
                rounded = {k: round(v, 4) for k, v in record.items()}
                print(json.dumps(rounded), f"{left:.0f} min left", flush=True)


def export(run: Path, path: Path) -> None:
    """Write the averaged network: free batch size, folded batch norm, weights as float16."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu")
    average = torch.optim.swa_utils.AveragedModel(Embedder(), use_buffers=True)
    average.load_state_dict(state["average"])
    temporary = path.with_suffix(".float32.onnx")
    torch.onnx.export(
        average.module.eval(), (torch.zeros(1, 3, 112, 112),), str(temporary),
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
    parser.add_argument("--stage", choices=("front", "back", "chain"), default="chain")
    parser.add_argument(
        "--begin-with", type=Path, nargs="+", help="earlier stages, or what --keep wrote"
    )
    parser.add_argument("--keep", type=Path, help="write OUT's state into this file, and end")
    parser.add_argument("--images", type=int, default=6_000_000, help="images seen in this run")
    parser.add_argument("--decay", type=int, default=0, help="last images: the rate falls to zero")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--average", type=float, default=0.999, help="of the weights, per step")
    parser.add_argument("--maps", type=float, default=2.0, help="weight of the maps at the start")
    parser.add_argument("--maps-until", type=float, default=1e6, help="images; then a tenth of it")
    parser.add_argument("--relation", type=float, default=10.0, help="weight of the similarities")
    parser.add_argument("--pull", type=float, default=0.0, help="0..1, towards a person's mean")
    parser.add_argument("--clean", type=float, default=0.2, help="share that is not degraded")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler on a CPU")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    keep(args.out, args.keep) if args.keep else train(args)


if __name__ == "__main__":
    main()
