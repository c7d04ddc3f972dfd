"""Writes eip712.json: every message that somebody signs, hashed and signed by eth-account, an implementation not ours.

    python tests/vectors/make_eip712.py

Rule: inputs are fixed here; a change of the output is a change of the protocol and shows as a diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data, hash_domain, hash_eip712_message

PATH = Path(__file__).with_name("eip712.json")
SECRETS = {"agent": "0x" + "11" * 32, "session": "0x" + "22" * 32}
DOMAINS = [(31337, "0x" + "ab" * 20), (8453, "0x" + "cd" * 20)]
LEASE, ZERO = "0x" + "5c" * 32, "0x" + "00" * 20

TYPES: dict[str, tuple[str, list[tuple[str, str]], dict[str, Any]]] = {
    "Offer": (
        "agent",
        [
            ("provider", "address"), ("machine", "bytes32"), ("terms", "bytes32"), ("price_per_hour", "uint128"),
            ("units", "uint32"), ("deposit_min", "uint128"), ("seconds_min", "uint32"), ("seconds_max", "uint32"),
            ("quantum", "uint32"), ("close_window", "uint32"), ("arbiter", "address"), ("hold_bps", "uint16"),
            ("hold_seconds", "uint32"), ("valid_until", "uint64"), ("epoch", "uint64"), ("salt", "bytes32"),
        ],
        {
            "provider": "0x" + "01" * 20, "machine": "0x" + "aa" * 32, "terms": "0x" + "bb" * 32,
            "price_per_hour": 350_000, "units": 8, "deposit_min": 2**96 - 1, "seconds_min": 60,
            "seconds_max": 2**32 - 1, "quantum": 60, "close_window": 3_600, "arbiter": ZERO, "hold_bps": 10_000,
            "hold_seconds": 604_800, "valid_until": 2**64 - 1, "epoch": 0, "salt": "0x" + "cc" * 32,
        },
    ),
    "Voucher": (
        "session", [("lease", "bytes32"), ("cumulative", "uint128")], {"lease": LEASE, "cumulative": 2**128 - 1},
    ),
    "Release": ("agent", [("lease", "bytes32"), ("settled", "uint128")], {"lease": LEASE, "settled": 0}),
    "Extend": ("agent", [("lease", "bytes32"), ("ends_at", "uint64")], {"lease": LEASE, "ends_at": 1_900_000_000}),
    "Login": (
        "session",
        [("lease", "bytes32"), ("provider", "address"), ("issued_at", "uint64"), ("nonce", "bytes32")],
        {"lease": LEASE, "provider": "0x" + "01" * 20, "issued_at": 1_800_000_000, "nonce": "0x" + "dd" * 32},
    ),
    "Posting": (
        "agent",
        [("offer", "bytes32"), ("url", "string"), ("posted_at", "uint64")],
        {"offer": "0x" + "ee" * 32, "url": "https://host.example:4433/ü", "posted_at": 1_800_000_000},
    ),
    "Complaint": (
        "session",
        [("lease", "bytes32"), ("provider", "address"), ("reason", "uint8"), ("made_at", "uint64")],
        {"lease": LEASE, "provider": "0x" + "01" * 20, "reason": 5, "made_at": 1_800_000_000},
    ),
}  # fmt: skip


def vectors() -> list[dict[str, Any]]:
    """One vector per message and domain."""
    found = []
    for chain_id, market in DOMAINS:
        domain = {"name": "Minga", "version": "1", "chainId": chain_id, "verifyingContract": market}
        for name, (signer, types, message) in TYPES.items():
            fields = [{"name": field, "type": kind} for field, kind in types]
            signable = encode_typed_data(domain, {name: fields}, message)
            signature = Account.sign_message(signable, SECRETS[signer]).signature
            found.append(
                {
                    "type": name,
                    "chain_id": chain_id,
                    "market": market,
                    "message": message,
                    "domain_separator": "0x" + hash_domain(domain).hex(),
                    "struct_hash": "0x" + hash_eip712_message({name: fields}, message).hex(),
                    "secret": SECRETS[signer],
                    "signer": Account.from_key(SECRETS[signer]).address.lower(),
                    "signature": "0x" + bytes(signature).hex(),
                }
            )
    return found


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
