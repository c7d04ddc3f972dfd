"""Vouchers a second on one core: sign and verify, ours against eth-account's typed data in the same run.

Run: `python benches/bench_voucher.py`. Aims: sign ≥ 12,000/s, verify ≥ 10,000/s a core.
"""

from __future__ import annotations

from eth_account import Account
from eth_account.messages import encode_typed_data

from harness import rounds, save
from minga.core.crypto import Hash32, new_key
from minga.core.eip712 import Domain
from minga.core.units import Amount
from minga.protocol.messages import Voucher, sign, verify

BATCH, SLOW_BATCH, ROUNDS = 2_000, 100, 9
KEY = new_key(b"\x01" * 32)
DOMAIN = Domain(31_337, "0x" + "12" * 20)
VOUCHERS = [Voucher(Hash32("0x" + f"{i:064x}"), Amount(i)) for i in range(BATCH)]
SIGNATURES = [sign(voucher, DOMAIN, KEY) for voucher in VOUCHERS]
FIELDS = ("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address")
TYPES = {
    "EIP712Domain": [{"name": name, "type": kind} for name, kind in FIELDS],
    "Voucher": [{"name": "lease", "type": "bytes32"}, {"name": "cumulative", "type": "uint128"}],
}
HEADER = {"name": "Minga", "version": "1", "chainId": DOMAIN.chain_id, "verifyingContract": DOMAIN.market}


def typed(voucher):
    """The voucher as eth-account wants it."""
    message = {"lease": voucher.lease, "cumulative": voucher.cumulative}
    return encode_typed_data(
        full_message={"types": TYPES, "primaryType": "Voucher", "domain": HEADER, "message": message}
    )


def main():
    """Measure the four sides in turns and save the rates and ratios."""
    times = rounds(
        {
            "sign": lambda: [sign(voucher, DOMAIN, KEY) for voucher in VOUCHERS],
            "verify": lambda: [
                verify(voucher, DOMAIN, signature, KEY.address)
                for voucher, signature in zip(VOUCHERS, SIGNATURES, strict=True)
            ],
            "eth_account_sign": lambda: [Account.sign_message(typed(v), KEY.secret()) for v in VOUCHERS[:SLOW_BATCH]],
            "eth_account_verify": lambda: [
                Account.recover_message(typed(v), signature=s)
                for v, s in zip(VOUCHERS[:SLOW_BATCH], SIGNATURES[:SLOW_BATCH], strict=True)
            ],
        },
        ROUNDS,
    )
    rates = {name: (BATCH if name in ("sign", "verify") else SLOW_BATCH) / times[name]["median"] for name in times}
    ratios = {name: rates[name] / rates[f"eth_account_{name}"] for name in ("sign", "verify")}
    save("voucher", {"per_second_one_core": rates, "ratio_to_eth_account": ratios, "seconds": times})


if __name__ == "__main__":
    main()
