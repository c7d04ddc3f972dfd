"""What Disputes and BlockBeacon said when they refused: one error class per revert string, as in `errors`.

Knows their revert strings; does not know who called. Rule: a class's docstring is the fact that a user reads.
"""

from __future__ import annotations

from minga.chain.refusal import Refusal


class DisputesWithoutContract(Refusal, reason="disputes: not a contract", remedy="deploy Market and the beacon first"):
    """Disputes was to be deployed with an address that is no contract."""


class OtherDeployment(Refusal, reason="disputes: other deployment", remedy="use the ones that Market uses"):
    """Disputes was to be deployed with the token or Registry of another Market."""


class NoFund(Refusal, reason="disputes: no fund", remedy="name an audit fund"):
    """Disputes was to be deployed with nobody to get the audit fund's share."""


class BadJury(Refusal, reason="disputes: bad jury", remedy="use an odd number up to 21"):
    """The jury of Disputes' preset is not odd, or above 21."""


class BadTimes(Refusal, reason="disputes: bad times", remedy="let the window and the longest game fit into 21 days"):
    """The times of Disputes' preset are zero, or longer than stake stays within reach."""


class BadAmounts(Refusal, reason="disputes: bad amounts", remedy="raise the bond or lower the seat fee"):
    """The bond of Disputes' preset does not cover every seat fee, or an amount is out of range."""


class UnknownDisputedLease(
    Refusal, reason="disputes: unknown lease", remedy="wait until its opening is mined, or check the lease"
):
    """Market holds no lease with this id and content."""


class OtherArbiter(Refusal, reason="disputes: other arbiter", remedy="commit where the lease says"):
    """The lease names another arbiter."""


class NotTheAccused(Refusal, reason="disputes: not the provider", remedy="sign with the provider's key"):
    """Only the provider or its agent key may do this."""


class CommittedBefore(Refusal, reason="disputes: committed before", remedy="nothing is left to do"):
    """The channel has a commitment; there is one for each."""


class BadLeaves(Refusal, reason="disputes: bad leaves", remedy="hash the state less often"):
    """A trace has 1 to 2**20 leaves."""


class BadOrder(Refusal, reason="disputes: bad order", remedy="ask the tenant for its signature over this work"):
    """The lease's session signer did not order this work."""


class DisputedLeaseClosed(Refusal, reason="disputes: lease closed", remedy="commit before closing"):
    """The lease has ended and nothing of it is held."""


class UnknownCommitment(Refusal, reason="disputes: unknown commitment", remedy="wait until it is mined, or check it"):
    """There is no commitment with this content."""


class Condemned(Refusal, reason="disputes: condemned", remedy="end its games with finish"):
    """The commitment was found false."""


class WindowOver(Refusal, reason="disputes: window is over", remedy="nothing can be done any more"):
    """The time in which the commitment could be challenged has passed."""


class TooFewReferees(Refusal, reason="disputes: too few referees", remedy="wait until more have joined"):
    """The pool has fewer referees than a jury needs."""


class BondTransferFailed(
    Refusal,
    reason="disputes: transfer failed",
    remedy="check balance, allowance and that the token has not frozen the address",
):
    """The token refused the transfer to or from Disputes."""


class BondTokenTookFee(Refusal, reason="disputes: token took a fee", remedy="this token cannot be used"):
    """The token delivered less than was sent to Disputes."""


class UnknownGame(
    Refusal, reason="disputes: unknown game", remedy="wait until its challenge is mined, or check its number"
):
    """There is no such game."""


class NotNow(Refusal, reason="disputes: not now", remedy="look at the game and make the move that is due"):
    """The game is not at this move."""


class OutOfTime(Refusal, reason="disputes: out of time", remedy="nothing can be done any more"):
    """The mover's clock has run out."""


class OtherNode(Refusal, reason="disputes: other node", remedy="show the 16 nodes of the committed trace"):
    """The nodes do not fold to the one in play."""


class NotTheChallenger(Refusal, reason="disputes: not the challenger", remedy="sign with the challenger's key"):
    """Only the game's challenger may do this."""


class OtherChildren(Refusal, reason="disputes: other children", remedy="pass them as they were shown"):
    """These are not the nodes that the provider showed."""


class NoSuchLeaf(Refusal, reason="disputes: no such leaf", remedy="pick a leaf after the first and within the trace"):
    """There is no such child, or it is no leaf that can be disputed."""


class BadProof(Refusal, reason="disputes: bad proof", remedy="pass the siblings of that leaf from the bottom up"):
    """The proof does not lead from the leaf to the root."""


class NotAVoter(Refusal, reason="disputes: not a voter", remedy="vote with a seat that was drawn"):
    """The seat does not vote here, or is another's."""


class VotedBefore(Refusal, reason="disputes: voted before", remedy="reveal it when its time comes"):
    """The seat has committed its vote."""


class NoVote(Refusal, reason="disputes: no vote", remedy="commit the hash of a vote"):
    """The vote is zero."""


class BadVerdict(Refusal, reason="disputes: bad verdict", remedy="vote 1 or 2"):
    """A verdict is 1 (follows) or 2 (does not)."""


class OtherVote(Refusal, reason="disputes: other vote", remedy="reveal what was committed"):
    """The verdict and salt are not those that were committed."""


class NotTheLoser(Refusal, reason="disputes: not the loser", remedy="leave it to the loser"):
    """Only whom the jury found wrong may appeal."""


class MoverHasTime(Refusal, reason="disputes: too early", remedy="try again after it, by chain time"):
    """The mover's clock has not run out yet."""


class NotDecided(Refusal, reason="disputes: not decided", remedy="look at the game and wait for its next deadline"):
    """The game is not decided, or over."""


class LeaseRunning(Refusal, reason="disputes: lease running", remedy="close it first"):
    """The lease has not ended."""


class NothingToApply(Refusal, reason="disputes: nothing to apply", remedy="nothing is left to do"):
    """What the lease and the verdict say is done."""


class RefereeLeaving(Refusal, reason="disputes: leaving", remedy="withdraw its stake when it is free, then join again"):
    """The seat is being given up."""


class PoolFull(Refusal, reason="disputes: pool is full", remedy="wait until one is free"):
    """All 63 seats are taken."""


class RefereeStakeTooSmall(Refusal, reason="disputes: stake too small", remedy="stake more"):
    """The stake is below the least that a referee puts up."""


class RefereeStakeTooLarge(Refusal, reason="disputes: stake too large", remedy="stake less"):
    """The stake is 2**96 token units or more."""


class NotAReferee(Refusal, reason="disputes: not a referee", remedy="nothing is left to do"):
    """The address has no seat, or is leaving it."""


class BadDisputesReceiver(Refusal, reason="disputes: bad receiver", remedy="name another address"):
    """Disputes cannot pay to this receiver."""


class DisputesOweNothing(
    Refusal, reason="disputes: nothing owed", remedy="wait until its games have ended or its stake is free"
):
    """Disputes owes this address nothing now."""


class BadDelay(Refusal, reason="beacon: bad delay", remedy="use a shorter delay"):
    """BlockBeacon was to be deployed with a delay above 128 blocks."""


class RoundNotYet(Refusal, reason="beacon: not yet", remedy="try again after a block or two"):
    """The beacon's round is not out."""


class RoundMissed(Refusal, reason="beacon: missed", remedy="wait for another round"):
    """The chain does not give the hash of that block any more."""
