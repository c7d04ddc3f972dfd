# pragma version 0.4.3
"""
@title Test token
@license Apache-2.0
@notice Stands in for a stablecoin on the embedded chain and on test networks: six decimals, EIP-2612, EIP-3009.
        Anyone mints, so it is worth nothing; a production deployment names a real token instead.
"""

from interfaces import IToken
from modules import eip712

implements: IToken

NAME: constant(bytes32) = keccak256("Minga Test Dollar")
PERMIT_TYPE: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
RECEIVE_TYPE: constant(bytes32) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)

name: public(constant(String[17])) = "Minga Test Dollar"
symbol: public(constant(String[5])) = "MTUSD"
version: public(constant(String[1])) = "1"
decimals: public(constant(uint8)) = 6

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    return eip712._separator(NAME)


@external
def mint(receiver: address, amount: uint256):
    """
    @notice New tokens out of nothing, for tests.
    """
    self.totalSupply += amount
    self.balanceOf[receiver] += amount
    log IToken.Transfer(sender=empty(address), receiver=receiver, amount=amount)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    self._move(msg.sender, receiver, amount)
    return True


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    allowed: uint256 = self.allowance[owner][msg.sender]
    if allowed != max_value(uint256):
        assert allowed >= amount, "token: allowance too small"
        self.allowance[owner][msg.sender] = allowed - amount
    self._move(owner, receiver, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._approve(msg.sender, spender, amount)
    return True


@external
def permit(owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    assert block.timestamp <= deadline, "token: permit expired"
    nonce: uint256 = self.nonces[owner]
    struct_hash: bytes32 = keccak256(abi_encode(PERMIT_TYPE, owner, spender, amount, nonce, deadline))
    self._check(owner, struct_hash, v, r, s)
    self.nonces[owner] = nonce + 1
    self._approve(owner, spender, amount)


@external
def receiveWithAuthorization(
    owner: address,
    receiver: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    assert msg.sender == receiver, "token: not the receiver"
    assert block.timestamp > valid_after and block.timestamp < valid_before, "token: authorization not valid now"
    assert not self.authorizationState[owner][nonce], "token: authorization used"
    struct_hash: bytes32 = keccak256(
        abi_encode(RECEIVE_TYPE, owner, receiver, amount, valid_after, valid_before, nonce)
    )
    self._check(owner, struct_hash, v, r, s)
    self.authorizationState[owner][nonce] = True
    log IToken.AuthorizationUsed(authorizer=owner, nonce=nonce)
    self._move(owner, receiver, amount)


@internal
@view
def _check(owner: address, struct_hash: bytes32, v: uint8, r: bytes32, s: bytes32):
    signer: address = eip712._recover_vrs(
        eip712._digest(NAME, struct_hash), convert(v, uint256), convert(r, uint256), convert(s, uint256)
    )
    assert signer != empty(address) and signer == owner, "token: bad signature"


@internal
def _approve(owner: address, spender: address, amount: uint256):
    self.allowance[owner][spender] = amount
    log IToken.Approval(owner=owner, spender=spender, amount=amount)


@internal
def _move(sender: address, receiver: address, amount: uint256):
    assert receiver != empty(address), "token: no receiver"
    balance: uint256 = self.balanceOf[sender]
    assert balance >= amount, "token: balance too small"
    self.balanceOf[sender] = balance - amount
    self.balanceOf[receiver] += amount
    log IToken.Transfer(sender=sender, receiver=receiver, amount=amount)
