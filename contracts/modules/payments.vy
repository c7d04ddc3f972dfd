# pragma version 0.4.3
"""
@title Token transfers that answer instead of reverting
@license Apache-2.0
@notice What it is: the two ways in which tokens move. What it does not know: who is owed what.
        Rule: the answer is True only if the token said so, or said nothing, as some real tokens do; one that says
        anything but true has failed.
"""

from interfaces import IToken


@internal
def _send(token: address, receiver: address, amount: uint256, gas_max: uint256) -> bool:
    return self._call(
        token, abi_encode(receiver, amount, method_id=method_id("transfer(address,uint256)")), gas_max
    )


@internal
def _take(token: address, amount: uint256) -> bool:
    # From the caller, out of its allowance.
    return self._call(
        token,
        abi_encode(msg.sender, self, amount, method_id=method_id("transferFrom(address,address,uint256)")),
        msg.gas,
    )


@internal
@view
def _balance(token: address) -> uint256:
    return staticcall IToken(token).balanceOf(self)


@internal
def _call(token: address, data: Bytes[100], gas_max: uint256) -> bool:
    ok: bool = False
    response: Bytes[32] = b""
    ok, response = raw_call(token, data, max_outsize=32, gas=gas_max, revert_on_failure=False)
    return ok and (len(response) == 0 or convert(response, uint256) == 1)
