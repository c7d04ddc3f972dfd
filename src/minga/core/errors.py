"""Every error that a user can meet: who is to blame, what happened, what to do.

One tree. A class is one *code*; an instance carries the *fact* (one sentence, with the values that matter) and the
*remedy* (what to type or change). The four middle classes say whose fault it is, because that decides who loses the
seconds: the tenant's, the provider's, the network's, or ours. The command line prints `code: fact` and the remedy
and never a traceback; the HTTP API sends `as_dict()` with `http_status`.

Rule: raise the most precise class, put no secret into a fact.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MingaError(Exception):
    """Root of the tree. `fact` says what happened, `remedy` what to do; `details` are JSON values for machines."""

    code: ClassVar[str] = "error"
    blame: ClassVar[str] = "ours"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, fact: str, remedy: str = "", **details: Any) -> None:
        super().__init__(fact)
        self.fact = fact
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        return f"{self.code}: {self.fact}" + (f" ({self.remedy})" if self.remedy else "")

    def as_dict(self) -> dict[str, Any]:
        """The error as a JSON object: `{"error": {"code", "blame", "fact", "remedy", "details"?}}`."""
        body: dict[str, Any] = {
            "code": self.code,
            "blame": self.blame,
            "fact": self.fact,
            "remedy": self.remedy,
        }
        if self.details:
            body["details"] = self.details
        return {"error": body}


class TenantError(MingaError):
    """The tenant's input or job is at fault."""

    blame = "tenant"
    exit_code = 2
    http_status = 400


class ProviderError(MingaError):
    """The provider failed; the job may go on elsewhere."""

    blame = "provider"
    exit_code = 4
    http_status = 503


class NetworkError(MingaError):
    """A chain, board or peer could not be reached or gave nonsense; trying again may help."""

    blame = "network"
    exit_code = 5
    http_status = 502


class InternalError(MingaError):
    """A defect of ours. The fact says what was observed."""


# ---------------------------------------------------------------------------------------------- tenant's (4xx, 2)


class InvalidInput(TenantError):
    """A value has the wrong type, range or form."""

    code = "invalid-input"


class InvalidJobFile(TenantError):
    """A job file could not be read or has a field that we do not accept."""

    code = "invalid-job-file"


class InvalidSignature(TenantError):
    """A signature is malformed, or was made by another key or for another chain, contract, lease or type."""

    code = "invalid-signature"
    http_status = 401


class Unauthorized(TenantError):
    """No token, an expired one, or one for another lease."""

    code = "unauthorized"
    http_status = 401


class NotFound(TenantError):
    """The thing named does not exist here."""

    code = "not-found"
    http_status = 404


class Conflict(TenantError):
    """The thing is not in a state that allows this."""

    code = "conflict"
    http_status = 409


class TooLarge(TenantError):
    """A body, file or count is over its limit."""

    code = "too-large"
    http_status = 413


class TooManyRequests(TenantError):
    """One caller asks more often than is allowed; details say how long to wait."""

    code = "too-many-requests"
    http_status = 429


class StaleVoucher(TenantError):
    """A voucher is not above the last one, or is above the deposit."""

    code = "stale-voucher"
    http_status = 409


class Expired(TenantError):
    """An offer, token or deadline has passed."""

    code = "expired"
    http_status = 410


class BudgetTooSmall(TenantError):
    """The budget cannot pay the smallest lease of any matching offer."""

    code = "budget-too-small"


class BudgetSpent(TenantError):
    """What was asked for could cost more than is left of a budget."""

    code = "budget-spent"
    http_status = 429


class InsufficientFunds(TenantError):
    """The wallet holds less than is needed."""

    code = "insufficient-funds"


class NoMatch(TenantError):
    """No offer meets the requirements; details say which requirement excluded how many."""

    code = "no-match"
    exit_code = 3
    http_status = 404


class UnsafePath(TenantError):
    """A path leaves the folder it must stay in."""

    code = "unsafe-path"


class JobFailed(TenantError):
    """The job's own command ended with a non-zero exit code."""

    code = "job-failed"
    exit_code = 1


class KeyLocked(TenantError):
    """A key store cannot be opened: passphrase missing or wrong."""

    code = "key-locked"


class MissingPrerequisite(TenantError):
    """A program or library that this command needs is not installed."""

    code = "missing-prerequisite"
    exit_code = 6


# -------------------------------------------------------------------------------------------- provider's (5xx, 4)


class LimitNotEnforceable(ProviderError):
    """A limit that the job asked for cannot be enforced here; the job is refused, never run without it."""

    code = "limit-not-enforceable"
    http_status = 422


class SandboxFailed(ProviderError):
    """The sandbox could not be set up; nothing of the job ran."""

    code = "sandbox-failed"


class OutOfCapacity(ProviderError):
    """The provider has no free unit, memory or disk for this lease."""

    code = "out-of-capacity"


class DiskFull(ProviderError):
    """A disk is full; what was being written is not acknowledged."""

    code = "disk-full"
    http_status = 507


class ProviderUnreachable(ProviderError):
    """The provider did not answer within the heartbeat window."""

    code = "provider-unreachable"


class ProviderRefused(ProviderError):
    """The provider said no, and why."""

    code = "provider-refused"


class BadArtifact(ProviderError):
    """What the provider returned does not have the hash that it announced."""

    code = "bad-artifact"


class NotServed(ProviderError):
    """What is needed to check a commitment was not served, or is not what was committed to."""

    code = "not-served"


class ReplayFailed(ProviderError):
    """Committed work could not be done again on this machine, which says nothing of who did it first."""

    code = "replay-failed"


class BadEvidence(ProviderError):
    """What a provider shows for its work does not have the form that it must have."""

    code = "bad-evidence"


class Undetermined(ReplayFailed):
    """Work does not come out the same twice on one machine, so that nobody can be held to what came of it."""

    code = "undetermined-work"


# ------------------------------------------------------------------------------------------------ network's (5xx, 5)


class RpcUnavailable(NetworkError):
    """None of the chain's RPC urls answers."""

    code = "rpc-unavailable"


class WrongChain(NetworkError):
    """An RPC url serves another chain than the one configured."""

    code = "wrong-chain"


class TransactionFailed(NetworkError):
    """A transaction was rejected or reverted for a reason that no contract error class names."""

    code = "transaction-failed"


class BadAnswer(NetworkError):
    """A node's answer does not have the form that the protocol gives it."""

    code = "bad-answer"


class FeeTooHigh(NetworkError):
    """The chain's fee is over the cap that was set; nothing was sent."""

    code = "fee-too-high"


class BoardUnavailable(NetworkError):
    """No board answered."""

    code = "board-unavailable"


class StorageUnavailable(NetworkError):
    """A store of objects did not answer, or refused."""

    code = "storage-unavailable"


class ClockSkew(NetworkError):
    """This machine's clock differs from the chain's by more than is safe."""

    code = "clock-skew"


class PortInUse(NetworkError):
    """A port that we must listen on is taken."""

    code = "port-in-use"


class ContractError(NetworkError):
    """A contract refused a call. Subclasses map one to one to revert strings (see `minga.chain.errors`)."""

    code = "contract-refused"
    http_status = 409
