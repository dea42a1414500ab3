"""Degrade a clean crop for the student: covers, light, blur, noise and compression."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
RAMP = np.arange(256, dtype=np.float32) / 255


def line_blur(image: Image, rng: np.random.Generator) -> Image:
    """Apply a motion blur of 3 to 18 pixels in any direction."""
    length, angle = rng.uniform(3, 18), rng.uniform(0, math.pi)
    size = int(length) | 1
    kernel = np.zeros((size, size), np.float32)
    half, centre = length / 2, (size - 1) / 2
    dx, dy = math.cos(angle) * half, math.sin(angle) * half
    begin = (round((centre - dx) * 16), round((centre - dy) * 16))
    end = (round((centre + dx) * 16), round((centre + dy) * 16))
    cv2.line(kernel, begin, end, 1.0, 1, cv2.LINE_AA, 4)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def side_light(image: Image, rng: np.random.Generator) -> Image:
    """Light the crop from one side: across the crop the gain falls by a factor of 3 to 16."""
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.7)
    along = np.linspace(-1, 1, 112, dtype=np.float32)
    ramp = math.cos(angle) * along[None, :] + math.sin(angle) * along[:, None]
    gain = np.exp(2 * strength * np.tanh(2 * ramp)).astype(np.float32)[..., None]
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def noise(image: Image, deviation: float, rng: np.random.Generator) -> Image:
    grain = rng.standard_normal((112, 112, 3), np.float32) * np.float32(deviation)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def cover(image: Image, rng: np.random.Generator) -> Image:
    """Paint a bar anywhere, or dark glasses or a mask at the template's landmarks."""
    image, kind = image.copy(), rng.random()
    colour = [int(c) for c in rng.integers(0, 256, 3)]
    if kind < 0.35:
        h, w = rng.integers(15, 55, 2)
        y, x = rng.integers(0, 112 - h), rng.integers(0, 112 - w)
        image[y : y + h, x : x + w] = colour
    elif kind < 0.6:
        dark = [int(c) for c in rng.integers(0, 60, 3)]
        radius = (int(rng.integers(11, 17)), int(rng.integers(8, 14)))
        lens = image.copy()
        for x, y in ((38, 52), (74, 52)):
            place = (x + int(rng.integers(-2, 3)), y + int(rng.integers(-2, 4)))
            cv2.ellipse(lens, place, radius, 0, 0, 360, dark, -1, cv2.LINE_AA)
        cv2.line(lens, (48, 50), (64, 50), dark, 2, cv2.LINE_AA)
        weight = rng.uniform(0.75, 1.0)
        image = np.asarray(cv2.addWeighted(lens, weight, image, 1 - weight, 0), np.uint8)
    else:
        top = int(rng.integers(64, 82))
        points = [(8, top + 2), (56, top - int(rng.integers(0, 10))), (104, top + 2), (100, 98),
                  (78, 112), (34, 112), (12, 98)]  # fmt: skip
        cv2.fillPoly(image, [np.array(points, np.int32)], colour, cv2.LINE_AA)
        if rng.random() < 0.6:  # folds
            for y in range(top + 8, 108, int(rng.integers(7, 13))):
                shade = [max(0, c - 25) for c in colour]
                cv2.line(image, (14, y), (98, y), shade, 1, cv2.LINE_AA)
    return image


def misalign(image: Image, rng: np.random.Generator) -> Image:
    """Turn, scale and shift the crop as wrong landmarks would."""
    turn, zoom = rng.normal(0, 9), math.exp(rng.normal(0, 0.08))
    matrix = cv2.getRotationMatrix2D((55.5, 60), turn, zoom)
    matrix[:, 2] += rng.normal(0, 3.5, 2)
    return np.asarray(
        cv2.warpAffine(image, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def degrade(image: Image, rng: np.random.Generator) -> tuple[Image, bool]:
    """Return a degraded copy (112, 112, 3), and whether its pixels have moved."""
    moved = False
    if rng.random() < 0.08:
        image, moved = misalign(image, rng), True
    if rng.random() < 0.22:
        image = cover(image, rng)
    if rng.random() < 0.12:
        image = side_light(image, rng)
    dark = rng.random() < 0.08
    if dark or rng.random() < 0.55:  # brightness, contrast, gamma, white balance in one table
        gain = math.exp(rng.normal(0, 0.2)) * (rng.uniform(0.08, 0.35) if dark else 1)
        ramp = RAMP ** np.float32(math.exp(rng.normal(0, 0.3))) * np.float32(gain)
        ramp = ramp + np.float32(0 if dark else rng.normal(0, 0.06))
        tint = np.exp(rng.normal(0, 0.12, 3)) if rng.random() < 0.4 else np.ones(3)
        table = np.clip(ramp[:, None] * tint.astype(np.float32) * 255, 0, 255).astype(np.uint8)
        image = np.asarray(cv2.LUT(image, table[:, None, :].transpose(1, 0, 2)), np.uint8)
    if rng.random() < 0.22:
        side = round(math.exp(rng.uniform(math.log(15), math.log(90))))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = np.asarray(
            cv2.resize(small, (112, 112), interpolation=int(rng.choice([1, 2]))), np.uint8
        )
    blur = rng.random()
    if blur < 0.18:
        image = line_blur(image, rng)
    elif blur < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.2)), np.uint8)
    if dark or rng.random() < 0.12:
        image = noise(image, rng.uniform(2, 14), rng)
    if rng.random() < 0.1:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(12, 80))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return image, moved
