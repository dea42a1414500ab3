"""Simulate recapture attacks: photograph a print, an LCD or an OLED display of a picture.

    scene or picture -> sub-pixels or halftone -> perspective -> lens -> sensor with Bayer
    mosaic -> noise -> demosaicing, white balance, tone, sharpening -> resizing -> JPEG

`recapture` turns a genuine picture into an attack; `photograph` takes the same picture with the
same camera and no medium.  Both are seeded, and draw their parameters from one of two disjoint
ranges: training or held out (see `camera.Dice`).

Simulated attacks are no substitute for real ones.

    python weights/training/recapture.py PICTURE --out DIR        # looks at what it does
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from camera import Camera, Dice, Image, Light, develop, lens, to_linear
from media import SPECIES, Display, Print, display, printed
from numpy.typing import NDArray

GENUINE = "genuine"


@dataclass(frozen=True, slots=True)
class View:
    """Position of the camera: a homography, and the medium's share of the picture.

    Attributes
    ----------
    turn : float
        Degrees about the line of sight.
    tilt : tuple of float
        Perspective: relative change of scale from the centre to the edge, across and down.
    shrink : float
        Width of the medium as a share of the picture; below 1, the picture shows its edge.
    offset : tuple of float
        Sub-pixel shift, in photosites.
    """

    turn: float
    tilt: tuple[float, float]
    shrink: float
    offset: tuple[float, float]

    @classmethod
    def draw(cls, dice: Dice, framed: bool) -> View:
        return cls(
            turn=dice.between(-6, 6),
            tilt=(dice.between(-0.08, 0.08), dice.between(-0.08, 0.08)),
            shrink=dice.between(0.7, 0.92) if framed else 1.0,
            offset=(float(dice.rng.uniform(0, 4)), float(dice.rng.uniform(0, 4))),
        )


def recapture(
    picture: Image,
    species: str,
    seed: int,
    *,
    held_out: bool,
    scale: float = 1.0,
    window: tuple[int, int, int, int] | None = None,
    framed: bool = False,
    steady: bool = False,
) -> Image:
    """Show `picture` on a medium of `species` and photograph it.

    Parameters
    ----------
    picture : ndarray, shape (H, W, 3), uint8, BGR
    species : {"print", "lcd", "oled"}
    seed : int
    held_out : bool
        Draw the parameters from the held-out range, not from that of the training.
    scale : float
        Size of the result, in sizes of `picture`.
    window : tuple of int, optional
        x, y, width, height of the part of the result to return.
    framed : bool
        Show the medium's edge, and something behind it.
    steady : bool
        Use a camera in focus, with enough light and a good JPEG quality.
    """
    if species not in SPECIES:
        raise SystemExit(f"{species!r} is none of {', '.join(SPECIES)}")
    dice = Dice(np.random.default_rng([seed, held_out]), held_out, steady)
    return _take(picture, species, dice, scale, window, framed)


def photograph(
    picture: Image,
    seed: int,
    *,
    held_out: bool,
    scale: float = 1.0,
    window: tuple[int, int, int, int] | None = None,
    steady: bool = False,
) -> Image:
    """Photograph `picture` directly, as a scene; parameters as in `recapture`."""
    dice = Dice(np.random.default_rng([seed, held_out]), held_out, steady)
    return _take(picture, GENUINE, dice, scale, window, False)


def _take(
    picture: Image,
    species: str,
    dice: Dice,
    scale: float,
    window: tuple[int, int, int, int] | None,
    framed: bool,
) -> Image:
    rng = dice.rng
    camera, view = Camera.draw(dice), View.draw(dice, framed)
    height, width = picture.shape[:2]
    x, y, w, h = window or (0, 0, round(width * scale), round(height * scale))
    density = scale / camera.reduction  # photosites per pixel of `picture`
    sensor = max(8, round(w / camera.reduction)), max(8, round(h / camera.reduction))
    samples = 3 if camera.reduction > 0.7 else 2
    px, py = _points(view, sensor, samples)
    px, py = (x / scale) + px * (w / scale), (y / scale) + py * (h / scale)

    # Enlarge only the window, with a margin for the perspective.
    margin = 0.2 * max(w, h) / scale + 4
    x1, y1 = int(max(0, x / scale - margin)), int(max(0, y / scale - margin))
    x2 = int(min(width, (x + w) / scale + margin))
    y2 = int(min(height, (y + h) / scale + margin))
    scene = detailed(picture[y1:y2, x1:x2], density, rng)
    px, py = px - x1, py - y1
    rows, columns = scene.shape[:2]
    sx, sy = (x2 - x1) / columns, (y2 - y1) / rows  # pixels of `picture` per pixel of the scene

    if species == GENUINE:
        light = _sample(scene, px / sx, py / sy)
    elif species == "print":
        sheet = Print.draw(dice)
        shown = _sample(scene, px / sx, py / sy)
        cells = density / sheet.pitch
        shift = rng.uniform(0, 256, 2)
        light = printed(
            shown, px * cells + shift[0], py * cells + shift[1], sheet, 1 / (sheet.pitch * samples)
        )
        light *= _fibres(light.shape, sheet.fibres, samples, rng)
    else:
        panel = Display.draw(dice, species == "oled")
        pixels = density / panel.pitch
        size = max(2, round((x2 - x1) * pixels)), max(2, round((y2 - y1) * pixels))
        kind = cv2.INTER_AREA if size[0] < columns else cv2.INTER_CUBIC
        shown = np.clip(cv2.resize(scene, size, interpolation=kind), 0, 1)
        # 8 bits, as a display is driven
        shown = to_linear(np.rint(255 * np.clip(shown, 0, 1) ** (1 / 2.2)).astype(np.uint8))
        light = display(shown, px * pixels, py * pixels, panel, 1 / (panel.pitch * samples))
        if panel.flicker:
            beats = np.arange(len(light)) / (panel.flicker_rows * samples) + rng.random()
            light *= (1 + panel.flicker * np.cos(2 * np.pi * beats))[:, None, None].astype(
                np.float32
            )
    if species != GENUINE:
        if framed:
            light = _frame(light, px, py, (width, height), species, dice)
        light = _reflections(light, dice)
        # The camera's exposure meter, and its white balance, which undoes most of a cast.
        found, wanted = (np.maximum(a.mean(axis=(0, 1)), 0.01) for a in (light, scene))
        gain, cast = wanted.mean() / found.mean(), found / wanted * wanted.mean() / found.mean()
        light *= np.asarray(gain * cast ** -dice.between(0.5, 1.0), np.float32)
    return develop(lens(light, camera, samples), camera, (w, h), rng)


def _points(view: View, sensor: tuple[int, int], samples: int) -> tuple[Light, Light]:
    """Map the sensor's fine grid to points on the medium, as shares of the window."""
    width, height = sensor
    u = (np.arange(width * samples, dtype=np.float32) + 0.5) / (width * samples) - 0.5
    v = (np.arange(height * samples, dtype=np.float32) + 0.5) / (height * samples) - 0.5
    u = u[None, :] + np.float32(view.offset[0] / width / 8)
    v = v[:, None] + np.float32(view.offset[1] / height / 8)
    aspect = np.float32(height / width)
    c, s = np.float32(np.cos(np.deg2rad(view.turn))), np.float32(np.sin(np.deg2rad(view.turn)))
    depth = (1 + view.tilt[0] * u + view.tilt[1] * v) * np.float32(view.shrink)
    x = (c * u - s * v * aspect) / depth + 0.5
    y = (s * u / aspect + c * v) / depth + 0.5
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def detailed(part: Image, density: float, rng: np.random.Generator) -> Light:
    """Return the linear light of `part`, enlarged to about `density` times its size.

    Enlarging alone would leave a scene without fine structure.  So noise is added octave by
    octave, in proportion to the local contrast of the picture's finest octave; it falls like
    natural spectra (Field 1987, doi:10.1364/JOSAA.4.002379).  A little noise everywhere stands
    for pores.
    """
    if density <= 1:
        return to_linear(part)
    grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY).astype(np.float32)
    fine = cv2.GaussianBlur(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.0)), (0, 0), 2.0)
    pores = np.exp(rng.uniform(np.log(0.1), np.log(4.0)))
    fine = rng.uniform(0.0, 1.6) * fine + pores * np.sqrt(grey / 255)
    size = round(part.shape[1] * density), round(part.shape[0] * density)
    picture = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    contrast = cv2.resize(fine, size, interpolation=cv2.INTER_LINEAR)
    octave, sigma = 1.0, density / 2
    while sigma > 0.4:
        noise = rng.standard_normal(size[::-1], np.float32)
        band = cv2.GaussianBlur(noise, (0, 0), sigma) - cv2.GaussianBlur(noise, (0, 0), sigma * 1.6)
        band *= np.float32(1 / max(float(band.std()), 1e-6))
        picture += (octave * contrast * band)[..., None]
        octave, sigma = octave * 0.8, sigma / 2
    return to_linear(np.clip(np.rint(picture), 0, 255).astype(np.uint8))


def _sample(scene: Light, x: Light, y: Light) -> Light:
    """Interpolate the scene between its pixels; mirror its edges."""
    light = cv2.remap(scene, x - 0.5, y - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(light, np.float32)


def _fibres(
    shape: tuple[int, ...], strength: float, samples: int, rng: np.random.Generator
) -> Light:
    """Draw the grain of paper: a factor around 1, at two scales."""
    result = np.ones(shape[:2], np.float32)
    for size in (1.5 * samples, 6.0 * samples):
        small = max(2, int(shape[0] / size)), max(2, int(shape[1] / size))
        grain = rng.standard_normal(small, np.float32)
        result += strength * cv2.resize(grain, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return result[..., None]


def _frame(
    light: Light, x: Light, y: Light, size: tuple[int, int], species: str, dice: Dice
) -> Light:
    """Draw a bezel or white margin around the medium, and a blurred room behind it."""
    width, height = size
    border = dice.between(0.02, 0.12) * width
    outside = np.maximum(np.maximum(-x, x - width), np.maximum(-y, y - height))
    paper = species == "print"
    edge = np.full(3, dice.between(0.6, 0.9) if paper else dice.log_between(0.004, 0.05))
    rows, columns = x.shape
    room = dice.rng.uniform(0.02, 0.7, (3, 3, 3)).astype(np.float32)
    room = cv2.resize(room, (columns, rows), interpolation=cv2.INTER_CUBIC)
    light = np.where((outside > 0)[..., None], edge.astype(np.float32), light)
    return np.where((outside > border)[..., None], np.clip(room, 0, 1), light)


def _reflections(light: Light, dice: Dice) -> Light:
    """Add veiling glare, and soft reflections of lamps on glass or gloss."""
    level = float(light.mean())
    light = light + np.float32(level * dice.between(0.0, 0.12))
    if dice.chance(0.35):
        rows, columns = light.shape[:2]
        cx, cy = dice.rng.uniform(0, 1, 2) * (columns, rows)
        wide, high = (dice.between(0.08, 0.5) * columns for _ in range(2))
        x = np.exp(-(((np.arange(columns) - cx) / wide) ** 2)).astype(np.float32)
        y = np.exp(-(((np.arange(rows) - cy) / high) ** 2)).astype(np.float32)
        light = light + (np.float32(level * dice.between(0.3, 3.0)) * np.outer(y, x))[..., None]
    return light


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3, help="of each species")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="the other range of parameters")
    parser.add_argument("--framed", action="store_true", help="show the medium's edge")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    picture: NDArray[np.uint8] | None = cv2.imread(str(args.picture))
    if picture is None:
        raise SystemExit(f"{args.picture} cannot be read")
    for seed in range(args.seed, args.seed + args.count):
        taken = {GENUINE: photograph(picture, seed, held_out=args.held_out)}
        for species in SPECIES:
            taken[species] = recapture(
                picture, species, seed, held_out=args.held_out, framed=args.framed
            )
        for species, result in taken.items():
            cv2.imwrite(str(args.out / f"{species}_{seed:03}.png"), result)


if __name__ == "__main__":
    main()
