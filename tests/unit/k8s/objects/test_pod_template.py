"""``--pod-template FILE``: data alone, within bounds, and every refusal in one line."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet import yaml_io
from torchnet.errors import UsageError
from torchnet.k8s.objects.pod_template import load

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(97 + n)}: &{chr(97 + n)} [{','.join([f'*{chr(96 + n)}'] * 9)}]\n" for n in range(1, 12)
)
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a bomb": (BOMB, "alias"),
    "merge keys": ("spec: {<<: {a: 1}}\n", "not plain text"),
    "python/object": (
        "spec: !!python/object/apply:os.system ['touch /tmp/x']\n",
        "could not determine a constructor",
    ),
    "python/name": ("spec: !!python/name:os.system\n", "could not determine a constructor"),
    "a set": ("spec: !!set {a}\n", "neither text nor"),
    "binary": ("spec: {a: !!binary aGk=}\n", "neither text nor"),
    "deep": ("spec: " + "[" * 10_000 + "]" * 10_000, "nested too deeply"),
    "deep maps": ("spec: " + "{a: " * 500, "nested too deeply"),
    "many values": ("spec: [" + "1," * 30_000 + "]", "20000 values"),
    "a key twice": ("spec: {}\nspec: {a: b}\n", "duplicate key spec"),
    "two documents": ("spec: {}\n---\nspec: {}\n", "but found another document"),
    "no map": ("- a\n", "map"),
    "empty": ("", "map"),
    "a fraction": ("spec: {x: 1.5}\n", "spec.x: 1.5"),
    "not a number": ("spec: {x: .nan}\n", "spec.x"),
    "a number as a key": ("spec: {1: x}\n", "the key 1"),
    "a whole pod": ("apiVersion: v1\nkind: Pod\nspec: {}\n", "field apiVersion"),
    "a name": ("metadata: {name: x}\n", "metadata.name"),
    "a list for a map": ("spec: []\n", "spec"),
    "broken": ("spec: {a: [}\n", "line 1"),
    "tabs": ("spec:\n\ta: 1\n", "line 2"),
    "no UTF-8": (b"spec: {a: \xff}\n", "UTF-8"),
    "NUL": ("spec: {a: \0}\n", "special characters are not allowed"),
    "100 MB": (b"spec: {}\n" + b"#" * 100_000_000, "1048576 bytes"),
    "a huge number": (f"spec: {{a: {'9' * 10_000}}}\n", "unreadable"),
    "a directive": ("spec: {$patch: remove}\n", "valid: merge, replace, delete"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_template_is_refused_fast_and_small(name: str, tmp_path: Path) -> None:
    content, part = REFUSED[name]
    path = tmp_path / "pod.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(UsageError) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20
    assert part in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 800
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pod-template"):
        load(f"{tmp_path}/{name}")


def test_what_people_write(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(
        "# comment\nmetadata:\n  labels: {team: a}\nspec:\n  runtimeClassName: nvidia\n  dnsPolicy: null\n"
        "  containers:\n  - name: worker\n    env:\n    - {name: DATE, value: 2001-01-01}\n"
        "    - name: SWITCH\n      value: 'on'\n  - $patch: delete\n    name: x\n"
    )
    assert load(path) == {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "runtimeClassName": "nvidia",
            "dnsPolicy": None,
            "containers": [
                {
                    "name": "worker",
                    "env": [{"name": "DATE", "value": "2001-01-01"}, {"name": "SWITCH", "value": "on"}],
                },
                {"$patch": "delete", "name": "x"},
            ],
        },
    }


PLAIN: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(PLAIN)
def test_plain_data_is_read_as_it_was_written(value: object) -> None:
    if "<<" in str(value):
        return
    data = yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    try:
        expected = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # characters that YAML does not have
    assert yaml_io.read(data) == expected


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("a:-&*!{}[],|>'\"\n #%?<", max_size=40).map(str.encode))
def test_any_bytes_are_data_or_refused(data: bytes) -> None:
    try:
        yaml_io.read(data)
    except yaml_io.YamlError:
        pass
