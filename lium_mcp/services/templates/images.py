"""Image references as people write them, and what their tags say about CUDA. Knows templates, calls nothing."""

import re
from typing import Final, Literal

from lium_mcp.api.templates import Template

Generation = Literal["ampere", "ada", "hopper", "blackwell"]

_CUDA_IN_TAG: Final = re.compile(r"cuda[-_]?(\d{1,2})\.(\d{1,2})|cu(\d{2})(\d)(?!\d)", re.IGNORECASE)
# The first CUDA release that compiles for a generation of GPUs.
_CUDA_OF_GENERATION: Final = {"ampere": (11, 0), "ada": (11, 8), "hopper": (11, 8), "blackwell": (12, 8)}


def image_of(template: Template) -> str:
    """The image reference with its digest, as it is written on a command line; empty where Lium names no image."""
    return "@".join(part for part in (template.image, template.docker_image_digest) if part) if template.image else ""


def split_image(image: str) -> tuple[str, str]:
    """Split `repo/name:tag`. A reference with a digest is left whole, with an empty tag: Lium splits it."""
    if "@" in image:
        return image, ""
    repository, tag, _ = _image_parts(image)
    return repository, tag


def is_image(template: Template, image: str) -> bool:
    """Whether a template has this image; a digest decides alone, whatever the tag says."""
    has, wanted = _image_parts(image_of(template)), _image_parts(image)
    return has == wanted or bool(wanted[2] and (has[0], has[2]) == (wanted[0], wanted[2]))


def _image_parts(image: str) -> tuple[str, str, str]:
    named, _, digest = image.partition("@")
    repository, colon, tag = named.rpartition(":")
    # A colon before a slash belongs to the port of a registry.
    if not colon or "/" in tag:
        repository, tag = named, "" if digest else "latest"
    return repository, tag, digest


def cuda_of(template: Template) -> tuple[int, int] | None:
    """The CUDA version that the image's tag names."""
    match = _CUDA_IN_TAG.search(template.docker_image_tag or "") or _CUDA_IN_TAG.search(template.docker_image)
    if not match:
        return None
    major, minor = (match[1], match[2]) if match[1] else (match[3], match[4])
    return int(major), int(minor)


def has_cuda(template: Template, version: str, generation: Generation | None) -> bool:
    """Whether the image has this CUDA version, and one that supports these GPUs; not where its tag names none."""
    if not version and generation is None:
        return True
    cuda = cuda_of(template)
    if cuda is None:
        return False
    written = f"{cuda[0]}.{cuda[1]}"
    fits = not version or written == version or written.startswith(f"{version.rstrip('.')}.")
    return fits and (generation is None or cuda >= _CUDA_OF_GENERATION[generation])
