"""Simulate the medium of a recapture: display sub-pixels and printers' halftones.

The functions return, for points on the medium, the light in each of the camera's colours.
The points lie closer than the sensor's photosites, and the sub-pixels' windows are averaged
exactly over each point's footprint.  So moiré in the result comes from the camera's sampling
and not from the simulation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from camera import Dice, Light
from numpy.typing import NDArray

SPECIES = ("print", "lcd", "oled")

# Linear transmittance of solid inks to blue, green and red: process colours as printed, whose
# side absorptions shrink the gamut.
INKS = {
    "cyan": (0.62, 0.30, 0.04),
    "magenta": (0.25, 0.06, 0.62),
    "yellow": (0.09, 0.72, 0.86),
    "black": (0.03, 0.03, 0.03),
}
ANGLES = (15.0, 75.0, 0.0, 45.0)  # degrees, of C, M, Y and K


@dataclass(frozen=True, slots=True)
class Display:
    """A panel: `pitch` photosites per pixel; apertures are shares of a sub-pixel's cell."""

    oled: bool
    pitch: float
    aperture: tuple[float, float]
    reversed_order: bool
    turned: bool
    black: float
    white: tuple[float, float, float]
    desaturation: float
    flicker: float
    flicker_rows: float

    @classmethod
    def draw(cls, dice: Dice, oled: bool) -> Display:
        return cls(
            oled=oled,
            pitch=dice.log_between(0.9, 3.5),
            aperture=(dice.between(0.45, 0.9), dice.between(0.5, 0.9)),
            reversed_order=dice.chance(0.5),
            turned=dice.chance(0.5),
            black=dice.log_between(0.0005, 0.004) if oled else dice.log_between(0.002, 0.03),
            white=(dice.between(0.95, 1.2), 1.0, dice.between(0.85, 1.05)),
            desaturation=dice.between(-0.1, 0.2),
            flicker=dice.between(0.01, 0.08) if dice.chance(0.3) else 0.0,
            flicker_rows=dice.log_between(30, 400),
        )


@dataclass(frozen=True, slots=True)
class Print:
    """A print: `pitch` photosites per halftone cell, or per dot if `stochastic`."""

    stochastic: bool
    pitch: float
    turn: float
    dot_gain: float
    under_colour: float
    solid: float
    paper: tuple[float, float, float]
    fibres: float

    @classmethod
    def draw(cls, dice: Dice) -> Print:
        stochastic = dice.chance(0.35)
        return cls(
            stochastic=stochastic,
            pitch=dice.log_between(0.45, 1.3) if stochastic else dice.log_between(1.3, 5.0),
            turn=dice.between(0, 90),
            dot_gain=dice.between(0.05, 0.3),
            under_colour=dice.between(0.3, 0.9),
            solid=dice.between(0.8, 1.0),
            paper=(dice.between(0.72, 0.95), dice.between(0.8, 0.93), dice.between(0.8, 0.95)),
            fibres=dice.between(0.003, 0.03),
        )


def _window(at: Light, reach: float, start: float, width: float, period: float) -> Light:
    """Average over ``at ± reach`` a window ``start..start + width`` that repeats."""

    def integral(t: Light) -> Light:
        cycles = np.floor(t / period)
        return cycles * width + np.clip(t - cycles * period - start, 0, width)

    return (integral(at + reach) - integral(at - reach)) / np.float32(2 * reach)


def display(light: Light, x: Light, y: Light, panel: Display, footprint: float) -> Light:
    """Return the emission of a panel.

    Parameters
    ----------
    light : ndarray, shape (rows, columns, 3), float32
        Linear BGR of every pixel of the panel.
    x, y : ndarray, shape (H, W), float32
        Position on the panel, in its pixels; the pixel (row, column) covers
        ``column..column + 1``, ``row..row + 1``.
    footprint : float
        Distance of neighbouring points, in pixels of the panel.
    """
    light = light * np.array(panel.white, np.float32)
    grey = light.mean(axis=2, keepdims=True)
    light = np.clip(light + panel.desaturation * (grey - light), 0, None)
    light = light * (1 - panel.black) + panel.black
    if panel.oled:  # red and blue, at half the density, stand for two pixels each
        pair = (light + np.roll(light, -1, axis=1)) / 2
        light = np.dstack([pair[..., 0], light[..., 1], pair[..., 2]])
    rows, columns = light.shape[:2]
    # The nearest pixel's value, because a panel adds no blur.
    column = np.clip(x, 0, columns - 1).astype(np.int32)
    row = np.clip(y, 0, rows - 1).astype(np.int32)
    value = light.reshape(-1, 3)[row * columns + column]
    reach = footprint / 2
    wide, high = panel.aperture
    masks: list[Light] = []
    if panel.oled:
        # Diamond PenTile: green in every pixel, red and blue in every other one, chequered.
        side = 0.5 * wide
        green = _window(x, reach, 0.25 - side / 2, side, 1.0) * _window(
            y, reach, 0.25 - side / 2, side, 1.0
        )
        big = 0.7 * high
        edge = 0.75 - big / 2
        even_x, odd_x = (_window(x, reach, edge + k, big, 2.0) for k in (0, 1))
        even_y, odd_y = (_window(y, reach, edge + k, big, 2.0) for k in (0, 1))
        masks = [
            (even_x * odd_y + odd_x * even_y) * np.float32(2 / big**2),
            green * np.float32(1 / side**2),
            (even_x * even_y + odd_x * odd_y) * np.float32(2 / big**2),
        ]
    else:
        along, across = (y, x) if panel.turned else (x, y)
        bars = _window(across, reach, (1 - high) / 2, high, 1.0) / np.float32(high)
        for channel in range(3):
            place = channel if panel.reversed_order else 2 - channel
            start = (place + (1 - wide) / 2) / 3
            stripe = _window(along, reach, start, wide / 3, 1.0)
            masks.append(stripe * bars * np.float32(3 / wide))
    return np.asarray(value * np.dstack(masks), np.float32)


@cache
def _equal_area() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map a spot function's value to the share of a cell below it, so coverage is exact."""
    u, v = np.meshgrid(*[(np.arange(256) + 0.5) / 256] * 2)
    spots = np.sort((np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)).ravel())
    steps = np.linspace(0, spots.size - 1, 257).astype(int)
    return spots[steps], np.linspace(0, 1, 257)


@cache
def _blue_noise(ink: int) -> Light:
    """256x256 thresholds of a stochastic screen: high-passed noise, made uniform by ranks."""
    noise = np.random.default_rng(ink).standard_normal((256, 256)).astype(np.float32)
    tiled = np.tile(noise, (3, 3))
    for _ in range(2):
        tiled = tiled - cv2.GaussianBlur(tiled, (0, 0), 1.2)
    ranks = tiled[256:512, 256:512].ravel().argsort().argsort()
    return np.asarray((ranks / ranks.size).reshape(256, 256), np.float32)


def printed(light: Light, x: Light, y: Light, sheet: Print, footprint: float) -> Light:
    """Return the reflectance of a print, with one unit of `x` and `y` per halftone cell or dot.

    Parameters
    ----------
    light : ndarray, shape (H, W, 3), float32
        Linear BGR that the print should show at each point.
    x, y : ndarray, shape (H, W), float32
    footprint : float
        Distance of neighbouring points, in cells.

    Notes
    -----
    Inks overlap at random (Demichel), and each lets its transmittance through.  So the
    reflectance is the paper's times ``prod(1 - a_i (1 - T_i))`` over the inks.
    """
    wanted = 1 - np.clip(light, 0, 1) ** np.float32(
        0.6
    )  # cyan, magenta, yellow from red, green, blue
    black = wanted.min(axis=2) * np.float32(sheet.under_colour)
    rest = (wanted - black[..., None]) / np.maximum(1 - black[..., None], 1e-3)
    amounts = (rest[..., 2], rest[..., 1], rest[..., 0], black)
    result = np.ones_like(light) * np.array(sheet.paper, np.float32)
    for number, (amount, ink, angle) in enumerate(zip(amounts, INKS.values(), ANGLES, strict=True)):
        cover = sheet.solid * (amount + sheet.dot_gain * 4 * amount * (1 - amount) / 2)
        if sheet.stochastic:
            cells = (np.floor(y).astype(np.int32) & 255) * 256 + (
                np.floor(x).astype(np.int32) & 255
            )
            laid = (cover > _blue_noise(number).ravel()[cells]).astype(np.float32)
        else:
            turn = np.deg2rad(angle + sheet.turn)
            c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            spot = np.cos(2 * np.pi * (x * c + y * s)) + np.cos(2 * np.pi * (y * c - x * s))
            values, shares = _equal_area()
            place = ((spot + 2) * 64).astype(np.int32)
            table = np.interp(np.linspace(-2, 2, 257), values, shares).astype(np.float32)
            softness = max(2.5 * footprint, 0.02)
            laid = np.clip((cover - table[np.clip(place, 0, 256)]) / softness + 0.5, 0, 1)
            # Without ink there is no dot at any softness.
            laid = laid * (cover > 0.01)
        for channel, through in enumerate(ink):
            result[..., channel] *= 1 - laid * np.float32(1 - through)
    return result
