"""Step 4 of the liveness classifier: fit the last layer, the cues and the threshold.

The network of `presentations.frozen` is not trained further.  A logistic regression joins its
numbers, the cues, and the products of each number with the numbers and the cues.  So the weight of
a cue depends on the network's output.  The regression is fitted with one source left out at a time;
the report and the threshold use the answers for the left-out sources.  The threshold is set on
genuine faces of all sources, and of LFW people who are in no test pair and on whom nothing was
trained.  The report of a source uses a threshold that was set without this source.

    python weights/training/liveness.py --data presentations.npz            # report
    python weights/training/liveness.py --data presentations.npz --view RUN/view.onnx --write
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
from data import data_root
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxfile import save_half
from presentations import COMPACT, NUMBERS, frozen, licensed_sources
from recapture import GENUINE

from facecore.evaluation.attacks import attack_errors, auc

RIDGE, PAIR_RIDGE = 0.05, 0.5
CUE_LIMIT, VIEW_LIMIT = 4.0, 3.0
BPCER = 0.05
LARGE = 30  # least genuine faces and attacks of a source for the worst area
THRESHOLD_SET = "lfw threshold"
# Log odds from which dots count, the largest excess that counts, and their weight: chosen on
# simulated recaptures of LFW people on whom `dots.py` was not trained.  The sources cannot serve
# here, because their pictures are reduced and compressed again, which removes dots.
DOTS_FROM, DOTS_MOST, DOTS_WEIGHT = 0.0, 8.0, 2.0
# Weight of each kind and label of presentations; within it a source weighs by the root of its size.
# A higher weight of the simulated ones lets more real attacks pass, and more simulated ones.
SHARES = {
    ("source", False): 0.36, ("source", True): 0.46, ("genuine", False): 0.16,
    ("simulated", False): 0.005, ("simulated", True): 0.02,
}  # fmt: skip

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def regression(
    features: Floats, labels: Floats, weights: Floats, ridge: Floats, start: Floats | None
) -> Floats:
    """Fit the weights and, last, the bias of a ridge logistic regression (Newton's method)."""
    design = np.column_stack([features, np.ones(len(features))])
    found = np.zeros(design.shape[1]) if start is None else start.copy()
    penalty = np.diag(np.append(ridge, 0.0)) * weights.sum()
    for _ in range(15):
        chance = 1 / (1 + np.exp(-design @ found))
        slope = design.T @ (weights * (labels - chance)) - penalty @ found
        curvature = (design * (weights * chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, slope)
        found += step
        if np.abs(step).max() < 1e-3:
            break
    return found


class Data:
    """Features from `presentations.py`: cues, numbers of the view, their products; and dots."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as stored:
            self.names = [str(name) for name in stored["names"]]
            self.source, self.kind, self.species = (
                stored[name] for name in ("source", "kind", "species")
            )
            cues, view, dots = (
                stored[name].astype(np.float64) for name in ("cues", "view", "dots")
            )
        self.attack: Mask = self.species != GENUINE
        known = self.kind == "source"
        self.mean, self.scale = cues[known].mean(axis=0), cues[known].std(axis=0)
        self.dots = DOTS_WEIGHT * np.clip(dots - DOTS_FROM, 0, DOTS_MOST)
        single = np.column_stack([
            np.clip((cues - self.mean) / self.scale, -CUE_LIMIT, CUE_LIMIT),
            np.clip(view, -VIEW_LIMIT, VIEW_LIMIT),
        ])  # fmt: skip
        first, second = np.triu_indices(single.shape[1])
        seen = second >= len(self.names)  # by the network
        self.pairs = np.stack([first[seen], second[seen]])
        pairs = single[:, self.pairs[0]] * single[:, self.pairs[1]]
        self.pair_mean, self.pair_scale = pairs[known].mean(axis=0), pairs[known].std(axis=0)
        self.features = np.column_stack([single, (pairs - self.pair_mean) / self.pair_scale])
        self.ridge = np.repeat([RIDGE, PAIR_RIDGE], [single.shape[1], pairs.shape[1]])
        self.weights = np.zeros(len(view))
        for (kind, attack), share in SHARES.items():
            group = (self.kind == kind) & (self.attack == attack) & (self.source != THRESHOLD_SET)
            for name in np.unique(self.source[group]):
                own = group & (self.source == name)
                self.weights[own] = 1 / np.sqrt(own.sum())
            if group.any():
                self.weights[group] *= share / self.weights[group].sum()
        self.weights *= len(self.weights)

    def fit(self, train: Mask, start: Floats | None = None) -> Floats:
        rows = train & (self.weights > 0)
        labels = self.attack[rows] * 1.0
        return regression(self.features[rows], labels, self.weights[rows], self.ridge, start)

    def judge(self, rows: Mask, found: Floats) -> Floats:
        return self.features[rows] @ found[:-1] + found[-1] + self.dots[rows]

    def left_out(self) -> Floats:
        """Return z of every face, from a regression that did not see its source."""
        z, near = np.zeros(len(self.source)), self.fit(np.ones(len(self.source), bool))
        for name in [*np.unique(self.source[self.kind != "simulated"]), None]:
            out = self.kind == "simulated" if name is None else self.source == name
            z[out] = self.judge(out, self.fit(~out, near))
        return z

    def areas(self, z: Floats) -> dict[str, tuple[float, int]]:
        """Source -> area under the ROC curve, and the smaller count of its two classes."""
        result = {}
        for name in np.unique(self.source[self.kind == "source"]):
            own = self.source == name
            live, attack = z[own & ~self.attack], z[own & self.attack]
            if min(len(live), len(attack)) >= 5:
                result[str(name)] = auc(attack, live), min(len(live), len(attack))
        return result

    def limit(self, z: Floats, rows: Mask | bool = True) -> float:
        """Return z at which 5 % of genuine `rows` are called attacks, of all sources and of LFW."""
        lfw, limits = self.source == THRESHOLD_SET, []
        of_sources = (self.kind != "simulated") & ~self.attack & ~lfw & rows
        for group in (of_sources, lfw):
            # Every source counts the same.
            _, index, counts = np.unique(
                self.source[group], return_inverse=True, return_counts=True
            )
            order = np.argsort(z[group])
            share = np.cumsum(1 / counts[index][order]) / len(counts)
            limits.append(z[group][order][np.searchsorted(share, 1 - BPCER)])
        return float(max(limits))

    def above(self, z: Floats) -> Floats:
        """Return z minus the limit that is set without the face's source."""
        limits = {name: self.limit(z, self.source != name) for name in np.unique(self.source)}
        return z - np.array([limits[name] for name in self.source])


def report(data: Data, z: Floats) -> None:
    """Print the errors at the threshold z = 0."""
    areas, limit = data.areas(z), 0.0
    for name, (area, count) in sorted(areas.items(), key=lambda item: item[1]):
        own = data.source == name
        passes = (z[own & data.attack] < limit).mean()
        called = (z[own & ~data.attack] >= limit).mean()
        print(f"{name:14} {count:4} AUC {area:.3f}  passes {passes:4.0%}  called {called:4.0%}")
    print(summary(areas))
    for kind in ("source", "simulated"):
        own = data.kind == kind
        kinds = data.species[own & data.attack]
        errors = attack_errors(z[own & data.attack], kinds, z[own & ~data.attack], limit)
        print(
            kind, "BPCER", errors.bpcer, *(f"\n  {k} passes {v}" for k, v in errors.apcer.items())
        )
    for name in np.unique(data.source[data.kind == "genuine"]):
        own = data.source == name
        print(f"{name:16} called attacks {(z[own] >= limit).mean():.1%} of {own.sum()}")


def summary(areas: dict[str, tuple[float, int]]) -> str:
    large = {name: area for name, (area, count) in areas.items() if count >= LARGE}
    worst = min(large, key=lambda name: large[name])
    mean = np.mean([area for area, _ in areas.values()])
    return (
        f"mean of {len(areas)} sources {mean:.3f}; "
        f"worst of {len(large)} large: {worst} {large[worst]:.3f}"
    )


def export(data: Data, found: Floats, view: Path | None, path: Path) -> None:
    """Write the network with its last layer: log odds, and additions to the cues' weights."""
    cues, model = len(data.names), frozen(view)
    pairs = np.zeros((cues + NUMBERS, cues + NUMBERS))
    pairs[tuple(data.pairs)] = found[cues + NUMBERS : -1] / data.pair_scale
    numbers = {
        "head": found[cues : cues + NUMBERS, None], "head_bias": np.zeros(1),
        "head_pairs": pairs[cues:, cues:], "cue_pairs": pairs[:cues, cues:].T,
        "view_low": np.array(-VIEW_LIMIT), "view_high": np.array(VIEW_LIMIT),
        "dots_from": np.array([[DOTS_FROM]]), "dots_weight": np.array([[DOTS_WEIGHT]]),
        "dots_low": np.array(0.0), "dots_high": np.array(DOTS_MOST),
    }  # fmt: skip
    for name, values in numbers.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    model.graph.node.extend([
        helper.make_node("Clip", ["view", "view_low", "view_high"], ["seen"]),
        helper.make_node("Gemm", ["seen", "head", "head_bias"], ["view_odds"]),
        helper.make_node("MatMul", ["seen", "head_pairs"], ["seen_pairs"]),
        helper.make_node("Mul", ["seen_pairs", "seen"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "pair_axis"], ["pair_odds"]),
        helper.make_node("MatMul", ["seen", "cue_pairs"], ["given"]),
        helper.make_node("Sub", ["dots", "dots_from"], ["dots_above"]),
        helper.make_node("Clip", ["dots_above", "dots_low", "dots_high"], ["dots_clipped"]),
        helper.make_node("Mul", ["dots_clipped", "dots_weight"], ["dots_odds"]),
        helper.make_node("Sum", ["view_odds", "pair_odds", "dots_odds"], ["odds"]),
        helper.make_node("Concat", ["odds", "given"], ["attack"], axis=1),
    ])  # fmt: skip
    axis = numpy_helper.from_array(np.array([1]), "pair_axis")
    model.graph.initializer.append(axis)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("attack", 1, ["N", 1 + cues]))
    save_half(model, path)


def write(data: Data, found: Floats, limit: float, bpcer: float, view: Path | None) -> None:
    """Write the network and the coefficients into the pack; the score is 50 at the limit."""
    network, manifest = COMPACT / "liveness.onnx", COMPACT / "pack.toml"
    pairs = found[len(data.names) + NUMBERS : -1]
    bias = found[-1] - pairs @ (data.pair_mean / data.pair_scale) - limit
    export(data, found, view, network)
    content, text = network.read_bytes(), manifest.read_text(encoding="utf-8")
    fields = {
        "names": "[" + ", ".join(f'"{name}"' for name in data.names) + "]",
        "mean": _array(data.mean), "scale": _array(data.scale),
        "weight": _array(found[: len(data.names)]), "network": "1.0",
        "bias": f"{bias:.5f}",
    }  # fmt: skip
    start = text.index("  [liveness.cues]")
    body = "\n".join(f"  {field} = {value}" for field, value in fields.items())
    text = text[:start] + "  [liveness.cues]\n" + body + text[text.index("\n\n", start) :]
    text = re.sub(r"(?m)^bpcer = .*$", f"bpcer = {bpcer:.4f}", text, count=1)
    text = re.sub(
        r'(file = "liveness.onnx"\nsize = )\d+(\nsha256 = ")[0-9a-f]+',
        rf"\g<1>{len(content)}\g<2>{hashlib.sha256(content).hexdigest()}", text,
    )  # fmt: skip
    manifest.write_text(text, encoding="utf-8")
    print(f"{network.name}: {len(content):,} bytes")


def _array(values: Floats) -> str:
    return "[" + ", ".join(f"{float(v):.5g}" if v % 1 else f"{v:.1f}" for v in values) + "]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what presentations.py wrote")
    parser.add_argument("--view", type=Path, help="network of views.py; else that of the pack")
    parser.add_argument("--write", action="store_true", help="into the pack")
    args = parser.parse_args()
    data = Data(args.data)
    z = data.left_out()
    limit, above = data.limit(z), data.above(z)
    report(data, above)
    everything = data.fit(np.ones(len(z), bool))
    print(*(f"{name} {value:+.2f}" for name, value in zip(data.names, everything, strict=False)))
    # Trained on the sources with a licence only, and measured on all others.
    licensed = np.isin(data.source, sorted(licensed_sources(data_root())))
    found = data.fit(licensed | (data.kind != "source"))
    others = data.judge(np.ones(len(z), bool), found)
    others[licensed] = np.nan
    print("licensed sources only, on the others:", summary({
        name: value for name, value in data.areas(others).items() if not np.isnan(value[0])
        and name not in set(data.source[licensed])
    }))  # fmt: skip
    rest = (data.kind == "source") & ~licensed
    line = data.limit(others, ~licensed)
    print(
        f"  passes {(others[rest & data.attack] < line).mean():.1%}, "
        f"called attacks {(others[rest & ~data.attack] >= line).mean():.1%}"
    )
    if args.write:
        genuine = (data.kind == "source") & ~data.attack
        write(data, everything, limit, float((above[genuine] >= 0).mean()), args.view)


if __name__ == "__main__":
    main()
