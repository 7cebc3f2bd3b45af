"""Caffe's networks of made weights, and the files that hold them. NumPy alone."""

import struct

import numpy as np

NARROWER = 16  # channels of CaffeNet over those of the network here


def made_layers() -> dict[str, list[np.ndarray]]:
    """A narrow CaffeNet: weights that keep activations of about the same size, and biases."""
    random = np.random.default_rng(2015)
    layers = {}
    for name, outputs, inputs, size in (
        ("conv1", 96, 3, 11),
        ("conv2", 256, 48, 5),
        ("conv3", 384, 256, 3),
        ("conv4", 384, 192, 3),
        ("conv5", 256, 192, 3),
    ):
        shape = (outputs // NARROWER, inputs if name == "conv1" else inputs // NARROWER, size, size)
        layers[name] = _made(random, shape, 50.0 if name == "conv1" else 1.0)
    inputs = 256 // NARROWER * 36
    for name, outputs in (("fc6", 4096 // NARROWER), ("fc7", 4096 // NARROWER), ("fc8", 1000)):
        layers[name] = _made(random, (outputs, inputs), 1.0)
        inputs = outputs
    return layers


def _made(random: np.random.Generator, shape: tuple[int, ...], scale: float) -> list[np.ndarray]:
    weight = np.sqrt(2 / np.prod(shape[1:])) * random.standard_normal(shape)
    bias = 0.1 * scale * random.standard_normal(shape[0])
    return [weight.astype(np.float32), bias.astype(np.float32)]


def pictures() -> np.ndarray:
    """[3, 227, 227, 3], bytes: waves, squares, static."""
    y, x = np.mgrid[:227, :227]
    waves = np.stack([128 + 127 * np.sin(x / 9 + y / 17), 128 + 127 * np.cos(x / 23), y], -1)
    random = np.random.default_rng(0)
    squares = np.kron(random.integers(0, 256, (29, 29, 3)), np.ones((8, 8, 1)))[:227, :227]
    static = random.integers(0, 256, (227, 227, 3))
    return np.stack([waves, squares, static]).round().astype(np.uint8)


def number(value: int) -> bytes:
    """A varint."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def field(place: int, content: bytes) -> bytes:
    """A field of bytes."""
    return number(place << 3 | 2) + number(len(content)) + content


def blob(values: np.ndarray, *, is_old=False, is_double=False, is_packed=True) -> bytes:
    """A tensor."""
    if is_old:
        shape = (1,) * (4 - values.ndim) + values.shape
        dims = b"".join(number(n << 3) + number(size) for n, size in enumerate(shape, 1))
    else:
        dims = field(7, field(1, b"".join(map(number, values.shape))))
    flat = values.ravel()
    if is_double:
        return dims + field(8, flat.astype("<f8").tobytes())
    if is_packed:
        return dims + field(5, flat.astype("<f4").tobytes())
    return dims + b"".join(number(5 << 3 | 5) + struct.pack("<f", one) for one in flat)


def caffemodel(layers: dict[str, list[np.ndarray]], *, is_old=False, **how) -> bytes:
    """A `.caffemodel`."""
    place, name_at, blobs_at = (2, 4, 6) if is_old else (100, 1, 7)
    content = field(1, b"some net")
    for name, blobs in layers.items():
        held = b"".join(field(blobs_at, blob(one, is_old=is_old, **how)) for one in blobs)
        content += field(place, field(name_at, name.encode()) + held)
    return content
