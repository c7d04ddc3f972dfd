# pragma version 0.4.3
"""
@title A token that does everything a token should not
@license Apache-2.0
@notice For tests. It freezes addresses, takes a fee, answers false, nothing or too much, refuses, burns gas,
        or calls back into a contract in the middle of a transfer.
"""

from interfaces import IToken

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
frozen: public(HashMap[address, bool])
# 0 honest, 1 returns false, 2 returns nothing, 3 reverts, 4 burns its gas, 5 returns 64 bytes, 6 returns two (not true)
mode: public(uint256)
fee_bps: public(uint256)
target: address
payload: Bytes[2048]
reentered: public(bool)
answer: public(Bytes[100])


@external
def mint(receiver: address, amount: uint256):
    self.balanceOf[receiver] += amount
    log IToken.Transfer(sender=empty(address), receiver=receiver, amount=amount)


@external
def freeze(owner: address, frozen: bool):
    self.frozen[owner] = frozen


@external
def set_mode(mode: uint256):
    self.mode = mode


@external
def set_fee(fee_bps: uint256):
    self.fee_bps = fee_bps


@external
def set_callback(target: address, payload: Bytes[2048]):
    self.target = target
    self.payload = payload
    self.reentered = False
    self.answer = b""


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
@raw_return
def transfer(receiver: address, amount: uint256) -> Bytes[64]:
    return self._move(msg.sender, receiver, amount)


@external
@raw_return
def transferFrom(owner: address, receiver: address, amount: uint256) -> Bytes[64]:
    assert self.allowance[owner][msg.sender] >= amount, "token: allowance too small"
    if self.allowance[owner][msg.sender] != max_value(uint256):
        self.allowance[owner][msg.sender] -= amount
    return self._move(owner, receiver, amount)


@internal
def _move(sender: address, receiver: address, amount: uint256) -> Bytes[64]:
    assert not self.frozen[sender] and not self.frozen[receiver], "token: frozen"
    if self.mode == 1:
        return abi_encode(False)
    assert self.mode != 3, "token: no"
    if self.mode == 4:
        word: bytes32 = empty(bytes32)
        for _: uint256 in range(100_000_000):
            word = keccak256(word)
    if self.target != empty(address):
        ok: bool = False
        response: Bytes[100] = b""
        ok, response = raw_call(self.target, self.payload, max_outsize=100, revert_on_failure=False)
        self.reentered = ok
        self.answer = response
    fee: uint256 = amount * self.fee_bps // 10_000
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount - fee
    log IToken.Transfer(sender=sender, receiver=receiver, amount=amount)
    if self.mode == 2:
        return b""
    if self.mode == 5:
        return concat(abi_encode(True), abi_encode(True))
    if self.mode == 6:
        return abi_encode(convert(2, uint256))
    return abi_encode(True)
