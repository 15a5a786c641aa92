"""The YAML that torchnet writes, read back by a library that it does not use."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.yaml_io import WIDTH, Manifest, as_json, as_yaml, entry

# What a reader of YAML could take for something else, and what breaks blocks and comments.
TRICKY = (
    *(
        "on",
        "off",
        "yes",
        "No",
        "y",
        "N",
        "true",
        "null",
        "~",
        "1e3",
        "0x1",
        "0o7",
        "1_000",
        "1:20",
        "2001-01-01",
    ),
    *("=", "<<", ".inf", ".nan", *"-?:#&*!%@`[]{},", "10m", "fcbb::", "fcbb:0:800:ffff::/64", "a:b", "a:"),
    "!!python/object/apply:os.system",
)
TEXTS = [
    *TRICKY,
    *(
        "",
        " ",
        "a: b",
        "a #b",
        "- a",
        "a\nb",
        "a\n\nb\n",
        " a\nb",
        "a\n\n",
        "\na",
        "a\n b\n\tc",
        "a \nb",
        "a\n \nb",
    ),
    *(
        "é\nü",
        "\ufeffa\nb",
        "a\u2028b",
        "a\x85b",
        "a\0b",
        "\x1b[31m\n",
        "\u202e",
        'it\'s "so"',
        "\\n",
        "😀\n😀",
        "a\r\nb",
    ),
]
TEXT = (
    st.sampled_from(TEXTS)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.text("ab:#- \n\t'\"|>%@0n~.")
)
DATA: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
OBJECTS = st.lists(st.dictionaries(TEXT, DATA, min_size=1, max_size=4), min_size=1, max_size=3)


@settings(deadline=None)
@given(OBJECTS, TEXT)
def test_every_object_is_read_back_as_it_was(objects: list[dict[str, Any]], head: str) -> None:
    text = as_yaml([Manifest(one) for one in objects], head)
    assert list(yaml.safe_load_all(text)) == objects
    assert all(c == "\n" or c.isprintable() for c in text)


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text_as_value_key_and_item(text: str) -> None:
    objects = [{"value": text, text: [text, [text], {"inner": text}]}]
    assert list(yaml.safe_load_all(as_yaml([Manifest(one) for one in objects]))) == objects


@settings(deadline=None)
@given(OBJECTS)
def test_json_is_one_list_of_the_same_objects(objects: list[dict[str, Any]]) -> None:
    document = json.loads(as_json([Manifest(one, {}) for one in objects]))
    assert document == {"apiVersion": "v1", "kind": "List", "items": objects}


def test_what_is_shared_is_written_at_each_of_its_places() -> None:
    """As the pods of one template are: the same dicts, at the same and at other depths."""
    inner = {"x": "a\nb\n\nc\n", "y": [1, {"z": "w"}]}
    listed = [inner, [inner], "a\nb"]
    one = {"a": inner, "b": {"c": inner, "d": listed}, "e": listed, "f": [[listed], {"g": inner}]}
    objects: list[dict[str, Any]] = [one, {"deeper": {"still": one}}, one, {"e": listed}]
    assert list(yaml.safe_load_all(as_yaml([Manifest(body) for body in objects]))) == objects
    alone = "".join(as_yaml([Manifest(body)]) for body in objects)
    assert as_yaml([Manifest(body) for body in objects]) == alone


def test_text_of_several_lines_can_be_read() -> None:
    text = as_yaml([Manifest({"data": {"a.py": 'print("x")\n\n# y\n', "b": "one\ntwo"}})])
    assert text == '---\ndata:\n  a.py: |\n    print("x")\n\n    # y\n  b: |-\n    one\n    two\n'


def test_notes_stand_above_their_places() -> None:
    body = {"kind": "Pod", "spec": {"containers": [{"name": "a"}, {"name": "b", "args": ["x"]}]}}
    notes = {"": "All of it.", "spec.containers[1]": "The second.", "spec.containers[1].args": "Its args."}
    assert as_yaml([Manifest(body, notes)], "Head.\n  a command") == (
        "# Head.\n#   a command\n---\n# All of it.\nkind: Pod\nspec:\n  containers:\n  - name: a\n"
        "  # The second.\n  - name: b\n    # Its args.\n    args:\n    - x\n"
    )


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("value", ["one", "a\nb\n", ["a\nb", "c"], {"d": 1.5}, 1e-05, [], None], ids=repr)
def test_a_comment_ends_the_first_line_of_an_entry(value: object, text: str) -> None:
    written = entry("key", value, text)
    assert yaml.safe_load(written) == {"key": value}
    assert "  #" in written.splitlines()[0]
    assert yaml.safe_load(entry(text, value, "comment")) == {text: value}


def test_a_note_on_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="spec.gone"):
        as_yaml([Manifest({"kind": "Pod"}, {"spec.gone": "…"})])


def test_comments_are_filled_and_commands_in_them_are_not() -> None:
    command = "  kubectl " + "x" * 2 * WIDTH
    lines = as_yaml([Manifest({"a": 1})], f"{'word ' * 60}\n{command}\nmore").splitlines()
    assert f"# {command}" in lines
    assert max(len(line) for line in lines if "kubectl" not in line) <= WIDTH + 2


def test_a_comment_cannot_become_an_object() -> None:
    text = as_yaml([Manifest({"a": 1}, {"a": "x\u2028b: 2\x85c: 3\r\nd: 4"})], "y\ne: 5\x0bf: 6")
    assert list(yaml.safe_load_all(text)) == [{"a": 1}]


@pytest.mark.parametrize("value", [float("nan"), b"x", {1, 2}, object()], ids=repr)
def test_other_data_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="plain data"):
        as_yaml([Manifest({"a": [value]})])
