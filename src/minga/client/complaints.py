"""Complaints as a client files and fetches them: signed by the lease's session signer, posted to every board.

Does not know: when to complain (the job's machine says so), nor what a complaint weighs
(`minga.protocol.reliability`). Rule: filing never holds up a job: it is bounded in time and raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import httpx

from minga.client.home import Network
from minga.client.provider_api import ANSWER_BYTES_MAX, Connect
from minga.client.wallet import id_of, session_signer
from minga.core.codec import parse_json
from minga.core.crypto import Hash32, PrivateKey
from minga.core.errors import MingaError, TooLarge
from minga.protocol.complaint import FAULTS, SignedComplaint, complain, parse_complaints
from minga.protocol.job_state import Lease
from minga.transport.errors import raise_for

FILE_S = 3.0
"""Seconds that filing may take in all."""

LIMIT = 1000
"""Complaints asked of a board at a time."""


async def file(
    network: Network,
    connect: Connect,
    job: Hash32,
    wallet: PrivateKey,
    lease: Lease,
    why: int,
    now: int,
    failed: Callable[[str], None] = lambda text: None,
) -> SignedComplaint | None:
    """Complain of the provider of `lease` at every board of `network`; idempotent, at most `FILE_S` seconds.

    Args:
        network: its boards are told; without boards nothing is done, since the chain carries `why` alone.
        connect: how a board is reached.
        job, wallet: the job's id and its key, of which the lease's session signer is derived.
        lease: the attempt that was left.
        why: its `Why` code; when it is no fault of a provider (`FAULTS`), nothing is done.
        now: Unix seconds.
        failed: told of each board that did not take it.

    Returns:
        The complaint, or None when there was nothing to complain of.
    """
    if why not in FAULTS or not lease.lease or not network.boards:
        return None
    signer = session_signer(wallet, lease.attempt)
    made = complain(
        id_of(wallet, job, lease.attempt), lease.deal.offer, lease.deal.provider, int(why), now, network.chain.domain,
        signer,
    )  # fmt: skip

    body = made.canonical()

    async def post(url: str) -> None:
        try:
            async with connect(url, None) as http, http.stream("POST", "/v1/complaints", content=body) as answer:
                await raise_for(answer)
        except (MingaError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            failed(f"{url}: {error}"[:300])

    with anyio.move_on_after(FILE_S) as scope:
        async with anyio.create_task_group() as tasks:
            for url in network.boards:
                tasks.start_soon(post, url)
    if scope.cancelled_caught:
        failed(f"not every board answered within {FILE_S:g} s")
    return made


async def fetch(http: httpx.AsyncClient, provider: str | None = None) -> list[SignedComplaint]:
    """What one board holds, newest first, not yet checked; of one provider or of all.

    Raises:
        MingaError: it refuses or answers nonsense.
        httpx.HTTPError: it cannot be reached.
    """
    wanted = {"limit": str(LIMIT)} | ({"provider": provider} if provider else {})
    body = bytearray()
    async with http.stream("GET", "/v1/complaints", params=wanted) as response:
        await raise_for(response)
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                raise TooLarge(f"an answer is over {ANSWER_BYTES_MAX} bytes", "choose another board")
    return parse_complaints(parse_json(bytes(body), ANSWER_BYTES_MAX))
