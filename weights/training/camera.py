"""Simulate a camera: linear light on a sensor -> an 8-bit picture after JPEG.

Genuine pictures and recaptures go through the same camera.  So no effect of the camera (blur,
resizing, noise, JPEG) tells them apart; only the medium in between can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Light = NDArray[np.float32]

# Number of equal bands in the range of every continuous parameter.  Training draws from the even
# bands and tests from the odd ones, so no test meets a value that was trained on.
BANDS = 6


@dataclass(frozen=True, slots=True)
class Dice:
    """Random parameters of one of the two disjoint ranges.

    With `steady`, the parameters that decide whether fine structure survives (see `Camera.draw`)
    keep to the better two of their three bands.
    """

    rng: np.random.Generator
    held_out: bool
    steady: bool = False

    def between(self, low: float, high: float, better: int = 0) -> float:
        """Draw a value from the range's even (training) or odd (held-out) bands.

        `better` is −1 if low values keep fine structure, 1 if high values do, else 0.
        """
        third = int(self.rng.integers(BANDS // 2))
        if self.steady and better and third == (0 if better > 0 else BANDS // 2 - 1):
            third += better * int(self.rng.integers(1, BANDS // 2))
        band = 2 * third + self.held_out
        return low + (high - low) * (band + float(self.rng.random())) / BANDS

    def log_between(self, low: float, high: float, better: int = 0) -> float:
        return math.exp(self.between(math.log(low), math.log(high), better))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


@dataclass(frozen=True, slots=True)
class Camera:
    """One exposure.  Lengths are in photosites; a photosite is a pixel before resizing.

    Attributes
    ----------
    reduction : float
        Pixels of the stored picture per photosite, 0..1.
    blur, defocus : float
        Sigma of the lens's Gaussian and radius of its circle of confusion.
    electrons : float
        Full well, which sets the photon noise.
    read_noise : float
        Electrons.
    exposure : float
        Factor on the light.
    balance : tuple of float
        Error of the white balance: factors of blue, green and red.
    edge_aware : bool
        Edge-aware demosaicing.
    denoise, sharpen : float
        Sigma of the bilateral filter in grey levels; amount of the unsharp mask.
    contrast : float
        Strength of the S-shaped tone curve.
    resize : int
        OpenCV's interpolation of the reduction.
    qualities : tuple of int
        JPEG quality of each time the picture is stored.
    fine_chroma : bool
        JPEG without chroma subsampling.
    """

    reduction: float
    blur: float
    defocus: float
    electrons: float
    read_noise: float
    exposure: float
    balance: tuple[float, float, float]
    edge_aware: bool
    denoise: float
    sharpen: float
    contrast: float
    resize: int
    qualities: tuple[int, ...]
    fine_chroma: bool

    @classmethod
    def draw(cls, dice: Dice) -> Camera:
        training = [cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_AREA]
        kinds = [cv2.INTER_LANCZOS4, cv2.INTER_LINEAR_EXACT] if dice.held_out else training
        stores = 2 if dice.chance(0.25) else 1
        return cls(
            reduction=1.0 if dice.chance(0.35) else dice.between(0.5, 1.0, 1),
            blur=dice.between(0.3, 0.7, -1),
            defocus=dice.between(0.0, 1.0, -1),
            electrons=dice.log_between(1e3, 3e4, 1),
            read_noise=dice.between(1.0, 6.0),
            exposure=dice.log_between(0.7, 1.4),
            balance=(dice.log_between(0.88, 1.13), 1.0, dice.log_between(0.88, 1.13)),
            edge_aware=dice.chance(0.5),
            denoise=dice.between(4, 12, -1) if dice.chance(0.35) else 0.0,
            sharpen=dice.between(0.1, 1.2) if dice.chance(0.6) else 0.0,
            contrast=dice.between(0.0, 0.5),
            resize=int(dice.rng.choice(kinds)),
            qualities=tuple(round(dice.between(68, 98, 1)) for _ in range(stores)),
            fine_chroma=dice.chance(0.35),
        )


def to_linear(picture: NDArray[np.generic]) -> Light:
    """sRGB 0..255 -> linear light 0..1 (IEC 61966-2-1)."""
    v = np.arange(256) / 255
    table = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[picture]


def to_srgb(light: Light) -> Light:
    """Linear light -> sRGB 0..1, through a table of 4096 steps as in a camera."""
    x = np.arange(4097) / 4096
    table = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)
    return table[(np.clip(light, 0, 1) * 4096).astype(np.int32)]


def lens(light: Light, camera: Camera, samples: int) -> Light:
    """Blur on a grid of `samples` per photosite side, then average over each photosite."""
    sigma = max(camera.blur * samples, 1e-3)
    light = cv2.GaussianBlur(light, (0, 0), sigma)
    if (radius := camera.defocus * samples) > 0.6:
        reach = math.ceil(radius)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
        light = cv2.filter2D(light, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
    height, width = light.shape[:2]
    size = (width // samples, height // samples)
    return np.asarray(cv2.resize(light, size, interpolation=cv2.INTER_AREA), np.float32)


def develop(light: Light, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """Apply the sensor's Bayer mosaic and noise, then the steps of the camera's software.

    Parameters
    ----------
    light : ndarray, shape (H, W, 3), float32
        Linear, BGR; 1 is a full well.
    size : tuple of int
        Width and height of the stored picture.
    """
    light = np.clip(light * camera.exposure, 0, 1)
    raw = light[..., 1].copy()  # green everywhere, then red and blue on their photosites
    raw[0::2, 0::2] = light[0::2, 0::2, 2]
    raw[1::2, 1::2] = light[1::2, 1::2, 0]
    electrons = raw * camera.electrons
    noise = rng.standard_normal(raw.shape, np.float32)
    electrons += noise * np.sqrt(electrons + camera.read_noise**2)
    counts = np.clip(electrons / camera.electrons, 0, 1) * 4095
    code = cv2.COLOR_BayerBG2BGR_EA if camera.edge_aware else cv2.COLOR_BayerBG2BGR
    colour = cv2.demosaicing(np.rint(counts).astype(np.uint16), code).astype(np.float32) / 4095
    picture = to_srgb(colour * np.array(camera.balance, np.float32))
    picture += camera.contrast * (picture * picture * (3 - 2 * picture) - picture)
    if camera.denoise:
        picture = cv2.bilateralFilter(picture, 5, camera.denoise / 255, 1.5)
    if camera.sharpen:
        picture += camera.sharpen * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
    if picture.shape[1::-1] != size:
        picture = cv2.resize(picture, size, interpolation=camera.resize)
    stored = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    for quality in camera.qualities:
        stored = jpeg(stored, quality, camera.fine_chroma)
    return stored


def jpeg(picture: Image, quality: int, fine_chroma: bool = False) -> Image:
    factor = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        if fine_chroma
        else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    )
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    _, coded = cv2.imencode(".jpg", picture, settings)
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
