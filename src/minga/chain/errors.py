"""What a contract said when it refused, as exactly one error class per revert string.

Knows every revert string of Registry, Market and Token, and by `dispute_errors` those of Disputes and BlockBeacon (a
test reads the sources and proves the table total and one to one); does not know who called. Rule: a class's docstring
is the fact that a user reads, its remedy what to do.
"""

from __future__ import annotations

from minga.chain import dispute_errors
from minga.chain.abi import decode
from minga.chain.refusal import REFUSALS, Refusal
from minga.chain.rpc import Reverted
from minga.core.errors import BadAnswer, ContractError

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")

__all__ = ["REFUSALS", "Refusal", "contract_error", "dispute_errors", "translate"]


class UnknownLease(
    Refusal,
    reason="market: unknown lease",
    remedy="wait until its opening is mined, or check the lease",
):
    """Market holds no lease with this id and content."""


class LeaseClosed(Refusal, reason="market: lease closed", remedy="open another"):
    """The lease has ended."""


class LeaseClosing(
    Refusal,
    reason="market: lease closing",
    remedy="redeem the last voucher, or open another lease",
):
    """The tenant has started to close the lease."""


class LeaseExists(Refusal, reason="market: lease exists", remedy="use the next attempt"):
    """This tenant has used this job and attempt before; a lease id lives once."""


class OfferExpired(Refusal, reason="market: offer expired", remedy="take a newer offer"):
    """The offer is past its last second."""


class OfferCancelled(Refusal, reason="market: offer cancelled", remedy="take a newer offer"):
    """The provider has cancelled all offers of this epoch."""


class BadProviderSignature(
    Refusal,
    reason="market: bad signature",
    remedy="ask the provider for a signature of its agent key",
):
    """The signature is not the provider's."""


class BadVoucher(Refusal, reason="market: bad voucher", remedy="send a voucher of this lease"):
    """The voucher is not signed by the lease's session signer for this lease."""


class UnregisteredProvider(
    Refusal,
    reason="market: unregistered provider",
    remedy="register it, or take another offer",
):
    """The provider is not registered."""


class DepositTooSmall(Refusal, reason="market: deposit too small", remedy="deposit more"):
    """The deposit is below the offer's smallest."""


class DepositTooLarge(Refusal, reason="market: deposit too large", remedy="deposit less"):
    """The deposit is 2**96 token units or more."""


class BadDuration(Refusal, reason="market: bad duration", remedy="ask for a duration within the offer's"):
    """The lease is shorter or longer than the offer allows."""


class NoUnits(Refusal, reason="market: no units", remedy="lease at least one unit"):
    """A lease of zero units was asked for."""


class NoSigner(Refusal, reason="market: no signer", remedy="pass the session signer's address"):
    """The lease names no session signer."""


class MachineFullyLeased(
    Refusal,
    reason="market: machine fully leased",
    remedy="take another offer, or fewer units",
):
    """The machine has fewer free units than asked for."""


class BadCloseWindow(Refusal, reason="market: bad close window", remedy="take another offer"):
    """The offer's close window is not one hour to one day."""


class BadHold(Refusal, reason="market: bad hold", remedy="take another offer"):
    """The offer's hold is not one that Market accepts."""


class NoAmount(Refusal, reason="market: no amount", remedy="pass an amount"):
    """The amount is zero."""


class EndNotLater(Refusal, reason="market: end not later", remedy="pass a later end"):
    """The new end is not later than the present one."""


class EndTooLate(Refusal, reason="market: end too late", remedy="pass an earlier end"):
    """The new end is out of range."""


class NotTheTenant(
    Refusal,
    reason="market: not the tenant",
    remedy="sign with the job wallet that opened the lease",
):
    """Only the lease's tenant may do this."""


class NotTheProvider(Refusal, reason="market: not the provider", remedy="sign with the provider's key"):
    """Only the lease's provider may do this."""


class NotTheArbiter(Refusal, reason="market: not the arbiter", remedy="leave it to the arbiter"):
    """Only the lease's arbiter may do this."""


class NotHeld(Refusal, reason="market: not held", remedy="nothing is left to decide"):
    """No part of the lease's pay is held."""


class HoldOver(Refusal, reason="market: hold is over", remedy="nothing is left to decide"):
    """The hold has ended; the part is the provider's."""


class AboveHeldPart(Refusal, reason="market: above the held part", remedy="divide no more than is held"):
    """The amount is above the part that is held."""


class TooEarly(Refusal, reason="market: too early", remedy="try again after it, by chain time"):
    """The window has not ended yet."""


class NoFees(Refusal, reason="market: no fees", remedy="nothing is left to do"):
    """There are no fees to collect."""


class NothingOwed(Refusal, reason="market: nothing owed", remedy="nothing is left to do"):
    """Market owes this address nothing."""


class BadReceiver(Refusal, reason="market: bad receiver", remedy="name another address"):
    """Market cannot pay to this receiver."""


class TransferFailed(
    Refusal,
    reason="market: transfer failed",
    remedy="check balance, allowance and that the token has not frozen the address",
):
    """The token refused the transfer to Market."""


class TokenTookFee(Refusal, reason="market: token took a fee", remedy="this token cannot be used"):
    """The token delivered less than was sent."""


class MarketWithoutContract(
    Refusal,
    reason="market: not a contract",
    remedy="deploy token and Registry first",
):
    """Market was to be deployed with an address that is no contract."""


class OtherToken(Refusal, reason="market: other token", remedy="use one token for both"):
    """Market was to be deployed with a Registry of another token."""


class MarketFeeTooHigh(Refusal, reason="market: fee too high", remedy="use at most 300 basis points"):
    """Market was to be deployed with a fee above 3 %."""


class NoFeeRecipient(Refusal, reason="market: no fee recipient", remedy="name a fee recipient"):
    """Market was to be deployed with a fee and nobody to get it."""


class AlreadyRegistered(Refusal, reason="registry: already registered", remedy="use update"):
    """This provider is registered."""


class NotRegistered(Refusal, reason="registry: not registered", remedy="register first"):
    """This provider is not registered."""


class NoAgentKey(Refusal, reason="registry: no agent key", remedy="pass the agent's address"):
    """The agent key is the zero address."""


class AttestationExpired(Refusal, reason="registry: attestation expired", remedy="attest with a later end"):
    """The attestation's end has passed."""


class AlreadyAppointed(Refusal, reason="registry: already appointed", remedy="deploy another arbiter"):
    """This arbiter has named its Market, once and for ever."""


class NoMarket(Refusal, reason="registry: no market", remedy="pass a Market"):
    """The arbiter names no Market."""


class BadFactor(Refusal, reason="registry: bad factor", remedy="pass a factor in range"):
    """The stake factor is out of range."""


class NoStakeAmount(Refusal, reason="registry: no amount", remedy="pass an amount"):
    """The amount of stake is zero."""


class StakeTooLarge(Refusal, reason="registry: amount too large", remedy="pass a smaller amount"):
    """The amount of stake is out of range."""


class UnknownArbiter(Refusal, reason="registry: unknown arbiter", remedy="name another arbiter"):
    """This arbiter has named no Market."""


class NotTheMarket(Refusal, reason="registry: not the market", remedy="take an offer with another arbiter"):
    """The arbiter named another Market than the one that asks."""


class StakeTooSmall(Refusal, reason="registry: stake too small", remedy="stake more, or take another offer"):
    """The provider's free stake does not cover this."""


class NothingAtStake(Refusal, reason="registry: nothing at stake", remedy="nothing can be slashed"):
    """The provider has nothing at stake with this arbiter."""


class StakeLocked(Refusal, reason="registry: stake is locked", remedy="wait until they end"):
    """Open leases lock this stake."""


class NothingUnbonding(Refusal, reason="registry: nothing unbonding", remedy="start to unstake first"):
    """No stake is unbonding."""


class StillUnbonding(Refusal, reason="registry: still unbonding", remedy="try again after it, by chain time"):
    """The unbonding time has not ended."""


class BadStakeReceiver(Refusal, reason="registry: bad receiver", remedy="name another address"):
    """Registry cannot pay to this receiver."""


class StakeTransferFailed(Refusal, reason="registry: transfer failed", remedy="check balance and allowance"):
    """The token refused the transfer of stake."""


class StakeTokenTookFee(Refusal, reason="registry: token took a fee", remedy="this token cannot be used"):
    """The token delivered less stake than was sent."""


class RegistryWithoutContract(Refusal, reason="registry: not a contract", remedy="deploy the token first"):
    """Registry was to be deployed with a token that is no contract."""


class AllowanceTooSmall(Refusal, reason="token: allowance too small", remedy="approve the amount first"):
    """The token's allowance is below the amount."""


class BalanceTooSmall(Refusal, reason="token: balance too small", remedy="send it tokens"):
    """The address holds fewer tokens than the amount."""


class PermitExpired(Refusal, reason="token: permit expired", remedy="sign a new permit"):
    """The permit's deadline has passed."""


class NotTheReceiver(Refusal, reason="token: not the receiver", remedy="let the receiver send it"):
    """Only the receiver may use this authorization."""


class AuthorizationNotValidNow(
    Refusal,
    reason="token: authorization not valid now",
    remedy="sign one that is",
):
    """The authorization is not valid at this time."""


class AuthorizationUsed(Refusal, reason="token: authorization used", remedy="sign a new one"):
    """The authorization was used or cancelled."""


class BadTokenSignature(Refusal, reason="token: bad signature", remedy="sign with the owner's key"):
    """The signature is not the token owner's."""


class NoReceiver(Refusal, reason="token: no receiver", remedy="name a receiver"):
    """Tokens cannot go to the zero address."""


def translate(reverted: Reverted) -> ContractError:
    """The error class of a revert's data: `Error(string)` by its string, `Panic(uint256)`, or nothing at all."""
    data = reverted.data
    try:
        if data[:4] == _ERROR_STRING:
            return contract_error(decode("(string)", data[4:])[0])
        if data[:4] == _PANIC:
            return ContractError(f"the contract panicked with code {decode('(uint256)', data[4:])[0]}", "report this")
    except BadAnswer:
        pass
    return ContractError(reverted.fact, reverted.remedy)


def contract_error(reason: str) -> ContractError:
    """The error of a revert string; a foreign string (another token's) keeps its words in a plain `ContractError`."""
    if reason in REFUSALS:
        return REFUSALS[reason]()
    return ContractError(f"the contract refused: {reason[:200]!r}", "check the arguments")
