"""The receipt's model, and the schema that is shipped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.receipts import receipt
from torchnet.constants import RECEIPT_SCHEMA
from torchnet.receipt.receipt_model import SCHEMA_FILE, Receipt, ValidationError, schema_text


def test_a_receipt_is_read_and_given_back_as_it_was() -> None:
    assert Receipt.model_validate(receipt()).model_dump(by_alias=True, mode="json") == receipt()


def test_receipts_from_before_rails_had_an_attachment_are_read() -> None:
    rails = [{"interface": "net1", "peer_bytes": 1, "share": 1.0}]
    assert Receipt.model_validate(receipt(rails=rails)).rails[0].attachment is None


def test_receipts_of_version_1_are_read() -> None:
    added = ("backend_share_high", "unattributed_bytes", "min_share_verdict")
    old = {name: value for name, value in receipt(schema="torchnet.receipt/1").items() if name not in added}
    for node in old["nodes"]:
        del node["unattributed"]
    read = Receipt.model_validate(old)
    assert (read.backend_share, read.backend_share_high, read.min_share_verdict) == (0.99973, None, None)


def test_fields_of_a_newer_agent_are_kept() -> None:
    read = Receipt.model_validate(receipt(energy_j=5))
    assert read.model_dump(by_alias=True)["energy_j"] == 5


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"backend_share": 1.1}, "backend_share"),
        ({"backend_share": float("nan")}, "backend_share"),
        ({"proof": "unknown"}, "must be null"),
        ({"proof": "guessed"}, "proof"),
        ({"schema": "torchnet.receipt/3"}, "schema"),
        ({"backend_share_high": 0.9}, "backend_share_high"),
        ({"started": "yesterday"}, "started"),
        ({"exit_code": -9}, "exit_code"),
        ({"nodes": [{"node": "node-0"}]}, "nodes.0.interfaces"),
        ({"ranks": None}, "ranks"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Receipt.model_validate(receipt(**fields))
    assert where in str(caught.value)


def test_an_unknown_share_is_null() -> None:
    assert Receipt.model_validate(receipt(proof="unknown", backend_share=None)).backend_share is None


def test_the_schema_that_is_shipped_is_the_models() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m torchnet.receipt.receipt_model"
    )


def test_the_schema_requires_what_was_promised() -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert schema["$id"] == schema["properties"]["schema"]["enum"][-1] == RECEIPT_SCHEMA
    promised = {"exit_code", "reason", "backend_share", "proof", "duration_s", "ranks", "nodes"}
    assert promised <= set(schema["required"])
    definitions = schema["$defs"]
    assert {"node", "interfaces", "peer_bytes", "other_bytes"} <= set(definitions["NodeReceipt"]["required"])
    assert {"sent_bytes", "received_bytes"} <= set(definitions["InterfaceBytes"]["required"])
    assert {"rank", "node", "exit_code"} <= set(definitions["RankResult"]["required"])
