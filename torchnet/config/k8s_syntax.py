"""Kubernetes syntax: names, labels, annotations, quantities, image references. Pure.

Values that the API server would reject are rejected here, before any API call. Each ``parse_*`` function returns the
value or raises ``ValueError``, whose text completes a sentence that begins with the value.

Source:
    k8s.io/apimachinery/pkg/{util/validation,api/resource}; github.com/distribution/reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from torchnet.config.parsing import parse_label, parse_text, quote

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(
    r"(?P<number>[0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?P<unit>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,2})"
)
_UNITS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{unit: Fraction(1000 ** (place + 1)) for place, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Fraction(1024 ** (place + 1)) for place, unit in enumerate("KMGTPE")},
}
ANNOTATIONS_LIMIT = 262_144
"""Limit on the total bytes of keys and values in an object's annotations (apimachinery: TotalAnnotationSizeLimitB)."""
ANNOTATIONS_FREE = 16_384
"""Bytes of that limit reserved for annotations that torchnet sets or controllers add later: Multus's network-status
(about 400 bytes per rail; without room for it a pod never starts) and the counters of Jobs and JobSets."""


def parse_subdomain(value: object) -> str:
    """Parse a DNS-1123 subdomain, the form of most object names."""
    text = _text(value)
    if len(text) > 253:
        raise ValueError(f"has {len(text)} characters; the limit is 253")
    if not _SUBDOMAIN.fullmatch(text):
        raise ValueError(
            "is not a valid object name: only a-z, 0-9, - and ., beginning and ending with a letter or digit"
        )
    if any(len(label) > 63 for label in text.split(".")):
        raise ValueError("has a part of more than 63 characters between dots")
    return text


def parse_qualified(value: object) -> str:
    """Parse a key of labels, annotations, node selectors or resources: ``[SUBDOMAIN/]NAME``."""
    text = _text(value)
    prefix, slash, name = text.rpartition("/")
    if slash:
        try:
            parse_subdomain(prefix)
        except ValueError as error:
            raise ValueError(f"has a prefix (before the /) that {error}") from None
    if len(name) > 63:
        raise ValueError(f"has a name of {len(name)} characters; the limit is 63")
    if not _QUALIFIED.fullmatch(name):
        raise ValueError(
            "is not a valid key: [DOMAIN/]NAME, where NAME contains only letters, digits, -, _ and . and begins and "
            "ends with a letter or digit"
        )
    return text


def parse_resource(value: object) -> str:
    """Parse the name of an extended resource, which has a domain, unlike cpu and memory."""
    text = parse_qualified(value)
    if "/" not in text or text.startswith(("kubernetes.io/", "requests.")):
        raise ValueError("is not an extended resource (DOMAIN/NAME, such as nvidia.com/gpu)")
    return text


def parse_label_value(value: object) -> str:
    """Parse the value of a label: up to 63 characters, or empty."""
    text = _text(value)
    if len(text) > 63:
        raise ValueError(f"has {len(text)} characters; the limit is 63")
    if text and not _QUALIFIED.fullmatch(text):
        raise ValueError(
            "is not a valid label value: only letters, digits, -, _ and ., beginning and ending with a letter or digit"
        )
    return text


def parse_pairs(value: object, what: str, check: Callable[[object], str]) -> dict[str, str]:
    """Parse ``KEY=VALUE`` texts, or a table, to a dict.

    Args:
        what: Name of the pairs in the plural, for the message.
        check: Parses each value.

    Raises:
        ValueError: Names the first invalid pair.
    """
    if isinstance(value, Mapping):
        pairs = [(key, text) for key, text in value.items()]
    elif isinstance(value, (list, tuple)):
        pairs = []
        for item in value:
            key, equals, text = str(item).partition("=")
            if not equals:
                raise ValueError(f"contains {quote(item)}, which has no =")
            pairs.append((key, text))
    else:
        raise ValueError(f"is not a table of {what}")
    found: dict[str, str] = {}
    for key, text in pairs:
        try:
            parse_qualified(key)
        except ValueError as error:
            raise ValueError(f"contains {quote(key)}, which {error}") from None
        try:
            found[key] = check(text)
        except ValueError as error:
            raise ValueError(f"contains {key} with the value {quote(text)}, which {error}") from None
    return found


def parse_labels(value: object) -> dict[str, str]:
    """Parse labels. In an environment variable they are separated by commas, which no label can contain."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return parse_pairs(value, "labels", parse_label_value)


def parse_annotations(value: object) -> dict[str, str]:
    """Parse annotations. Values may be any text in UTF-8, so an environment variable holds one pair only."""
    found = parse_pairs([value] if isinstance(value, str) else value, "annotations", _annotation)
    if reason := too_large(found):
        raise ValueError(f"{reason}; use a ConfigMap for the rest: --volume configmap:NAME:/PATH")
    return found


def too_large(annotations: Mapping[str, object]) -> str:
    """Return why these exceed the size left to users; "" if they do not."""
    size = sum(len(key.encode()) + len(str(text).encode()) for key, text in annotations.items())
    if size <= ANNOTATIONS_LIMIT - ANNOTATIONS_FREE:
        return ""
    return (
        f"has {size} bytes; the limit is {ANNOTATIONS_LIMIT - ANNOTATIONS_FREE}: Kubernetes limits the annotations of "
        f"an object to {ANNOTATIONS_LIMIT} bytes, and torchnet reserves {ANNOTATIONS_FREE} for its own annotations and "
        "Multus's network-status"
    )


def _annotation(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("is not text")
    if "\0" in text:
        raise ValueError("contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8, which the API server requires") from None
    return text


def parse_quantity(value: object) -> str:
    """Parse a positive quantity in the notation of Kubernetes: ``500m``, ``4``, ``16Gi``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value).strip()
    if not _QUANTITY.fullmatch(text):
        raise ValueError("is not a quantity")
    if amount(text) <= 0:
        raise ValueError("is not above 0")
    if amount(text) >= 2**63:
        raise ValueError("is too large")
    return text


def amount(quantity: str) -> Fraction:
    """Return the exact value of a quantity (``500m`` is 1/2)."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError("is not a quantity")
    number, unit = Fraction("0" + match["number"].rstrip(".")), match["unit"]
    return number * (_UNITS[unit] if unit in _UNITS else Fraction(10) ** int(unit[1:]))


def parse_span(value: object) -> str:
    """Parse ``REQUEST[:LIMIT]``; a single quantity is both request and limit."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    request, colon, limit = text.partition(":")
    low = parse_quantity(request)
    if colon and amount(parse_quantity(limit)) < amount(low):
        raise ValueError("requests more than its limit")
    return text


def parse_mount_path(value: object) -> str:
    """Parse and normalize an absolute container path. ``..`` is rejected, and so is ``:``, as in Kubernetes.

    Normalizing exposes duplicates: the API server treats ``/a`` and ``/a//.`` as two paths, but for the kernel they are
    one, so the second mount would hide the first.
    """
    text = _text(value)
    if not text.startswith("/") or ":" in text or not text.isprintable():
        raise ValueError("is not an absolute path")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ValueError("contains .. or is the root directory")
    return "/" + "/".join(parts)


def parse_namespaced(value: object) -> tuple[str, str]:
    """Parse ``[NAMESPACE/]NAME``; an omitted namespace is returned as ""."""
    text = _text(value)
    namespace, slash, name = text.rpartition("/")
    return (parse_label(namespace) if slash else "", parse_subdomain(name))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return parse_text(str(value) if isinstance(value, int) else value)


_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = rf"({_LABEL}(\.{_LABEL})*|\[[0-9a-fA-F:]+\])(:[0-9]{{1,5}})?"
# Separators between letters and digits: one dot, one or two underscores, or any number of dashes.
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(/{_PART})*"
# The first part is a host only if it contains a dot or a port, or is localhost.
_IMAGE = re.compile(
    rf"(?P<name>((?=[^/]*[.:]|localhost/){_HOST}/)?{_PATH})"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)
_REGISTRY = re.compile(rf"{_HOST}(/{_PATH})?")
_LONGEST = 255  # characters of a name without tag and digest; before version 0.6 the host was included
_TAIL = len(":") + 128 + len("@sha256:") + 64


def parse_image(value: object) -> str:
    """Parse an image with a tag or digest. An untagged image may change at any time, so it is rejected."""
    text = parse_text(value)
    match = _IMAGE.fullmatch(text) if len(text) <= _LONGEST + _TAIL else None
    if match is None or len(match["name"]) > _LONGEST:
        raise ValueError("is not an image name")
    if not match["tag"] and not match["digest"]:
        raise ValueError("has no tag or digest")
    if match["tag"] == ":latest" and not match["digest"]:
        raise ValueError("has the tag latest: workers that start at different times can get different images")
    return text


def parse_registry(value: object) -> str:
    """Parse the registry that mirrors images, ``HOST[:PORT][/PATH]``; a trailing slash is removed."""
    text = parse_text(value)
    if "://" in text:
        raise ValueError("is a URL; remove the scheme (https://)")
    text = text.removesuffix("/")
    if len(text) > _LONGEST or not _REGISTRY.fullmatch(text):
        raise ValueError("is not a registry name")
    return text
