"""The icon: a chip with three pods in it, drawn once as shapes and written as SVG and as PNG.

The shapes are rectangles with round corners, so that the PNG needs no library that draws: how far a pixel is from an
edge says how much of it is covered.
"""

import struct
import zlib
from collections.abc import Iterator
from math import hypot
from typing import Final, NamedTuple

SIZE: Final = 512
"""Width and height in pixels: the least that Claude's directory takes, and the most that Docker's does."""

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_RGBA: Final = 6
_BITS: Final = 8


class _Shape(NamedTuple):
    """A rectangle with round corners, in pixels, and its colour as `rrggbb`."""

    x: int
    y: int
    width: int
    height: int
    radius: int
    colour: str

    def cover(self, x: int, y: int) -> float:
        """How much of a pixel it covers, from 0 to 1."""
        across = abs(x + 0.5 - self.x - self.width / 2) - self.width / 2 + self.radius
        down = abs(y + 0.5 - self.y - self.height / 2) - self.height / 2 + self.radius
        distance = hypot(max(across, 0), max(down, 0)) + min(max(across, down), 0) - self.radius
        return min(max(0.5 - distance, 0), 1)


def _shapes() -> Iterator[_Shape]:
    ground, metal, board, pod, running = "171a3a", "8f9bff", "262b5e", "5b66d6", "3ddc97"
    yield _Shape(0, 0, SIZE, SIZE, 112, ground)
    for place in range(3):
        at = 172 + 68 * place
        yield _Shape(at, 72, 32, SIZE - 144, 12, metal)
        yield _Shape(72, at, SIZE - 144, 32, 12, metal)
    yield _Shape(112, 112, 288, 288, 48, metal)
    yield _Shape(132, 132, 248, 248, 32, board)
    for place, (width, colour) in enumerate(((184, running), (136, pod), (88, pod))):
        yield _Shape(164, 170 + 64 * place, width, 44, 22, colour)


def svg() -> str:
    """The icon as SVG."""
    shapes = "".join(
        f'  <rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="#{colour}"/>\n'
        for x, y, width, height, radius, colour in _shapes()
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}">\n{shapes}</svg>\n'


def pixels() -> bytes:
    """The icon as rows of red, green, blue and opacity, each row after a zero, as PNG has them."""
    rows = [bytearray(1 + 4 * SIZE) for _ in range(SIZE)]
    for shape in _shapes():
        colour = bytes.fromhex(shape.colour)
        for y in range(shape.y, shape.y + shape.height):
            row = rows[y]
            for x in range(shape.x, shape.x + shape.width):
                if cover := shape.cover(x, y):
                    at = 1 + 4 * x
                    for place, value in enumerate((*colour, 255)):
                        # The ground alone lies over nothing, and there the opacity fades instead of the colour.
                        under = row[at + place] if row[at + 3] or place == len(colour) else value
                        row[at + place] = round(under + (value - under) * cover)
    return b"".join(rows)


def png() -> bytes:
    """The icon as PNG."""
    head = struct.pack(">IIBBBBB", SIZE, SIZE, _BITS, _RGBA, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(pixels(), 9)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
