"""Names of images and of the registries that they come from. Pure.

As github.com/distribution/reference has them, which the kubelet and containerd read them with. As everywhere in
`torchnet.spec`, each ``parse_*`` raises `ValueError` with the end of a sentence that begins with the value.
"""

from __future__ import annotations

import re

from torchnet.spec.words import parse_text

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = rf"({_LABEL}(\.{_LABEL})*|\[[0-9a-fA-F:]+\])(:[0-9]{{1,5}})?"
# Between letters and digits: one dot, one or two underscores, or dashes. What else stands there no runtime takes.
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(/{_PART})*"
# The first part is a host only where it looks like one: it has a dot, a port, or is localhost.
_IMAGE = re.compile(
    rf"(?P<name>((?=[^/]*[.:]|localhost/){_HOST}/)?{_PATH})"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)
_REGISTRY = re.compile(rf"{_HOST}(/{_PATH})?")
_LONGEST = 255  # a name without tag and digest; before version 0.6 the host counted, too
_TAIL = len(":") + 128 + len("@sha256:") + 64


def parse_image(value: object) -> str:
    """An image with a tag or digest: one without either is another image tomorrow."""
    text = parse_text(value)
    match = _IMAGE.fullmatch(text) if len(text) <= _LONGEST + _TAIL else None
    if match is None or len(match["name"]) > _LONGEST:
        raise ValueError("is not an image's name")
    if not match["tag"] and not match["digest"]:
        raise ValueError("names no version")
    if match["tag"] == ":latest" and not match["digest"]:
        raise ValueError(
            "is whatever is the latest: workers that start at different times may get different ones"
        )
    return text


def parse_registry(value: object) -> str:
    """``HOST[:PORT][/PATH]``, what images are mirrored below; a slash at its end is dropped."""
    text = parse_text(value)
    if "://" in text:
        raise ValueError("is an address; a registry stands without https://")
    text = text.removesuffix("/")
    if len(text) > _LONGEST or not _REGISTRY.fullmatch(text):
        raise ValueError("is not a registry's name")
    return text
