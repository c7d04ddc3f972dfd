"""What the tests of verified work share: a staked provider, a tenant who orders such work, and who may check it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tenants import Market0, Running, Tenant, running

from fixtures import SystemClock
from minga.chain.contracts import Registry, Stake, Token
from minga.chain.disputes import Disputes
from minga.core.crypto import Hash32, PrivateKey, keccak, to_hex
from minga.core.spec import Manifest
from minga.core.work import Trace, Work
from minga.protocol.dispute import SHORT
from minga.protocol.messages import Auditor, Ordered, sign
from minga.transport.errors import error_of
from minga.transport.http import connect
from traces import tracing

STAKE = 10_000_000
LEAVES = [keccak(bytes([number])) for number in range(20)]
TRACED = f"""
{tracing(LEAVES, "$MINGA_OUTPUT_DIR/trace")}
echo private > $MINGA_OUTPUT_DIR/result
sleep 1.1
"""
"""A job of a second that leaves a trace of twenty leaves, and a result that is nobody else's business."""


@asynccontextmanager
async def staked(market: Market0, folder: Path, **changes: Any) -> AsyncIterator[Running]:
    """A provider with something at stake."""
    await market.network.funded_key(f"operator {market.name}", wei=0, tokens=0)
    await mint(market, market.operator.address, STAKE)
    async with running(market.config(folder / "home", **({"stake": STAKE} | changes))) as provider:
        yield provider


async def mint(market: Market0, address: str, tokens: int) -> None:
    """Give an address play money, once."""
    from minga.chain.local import open_faucet

    async with open_faucet(market.network.folder, SystemClock()) as faucet:
        await faucet.fund(market.chain.spec.deployment.token, address, f"stake/{address}/{tokens}", 0, tokens)  # type: ignore[arg-type]


def disputes(market: Market0) -> Disputes:
    """The arbiter's binding."""
    return Disputes(market.chain.spec.deployment.disputes)


async def stake_of(market: Market0) -> Stake:
    """What the provider has under the arbiter."""
    place = market.chain.spec.deployment
    return await market.chain.read(Registry(place.registry).stake_of(market.operator.address, place.disputes))


def order_body(tenant: Tenant, manifest: Manifest, mode: str = "audit", **changes: Any) -> dict[str, Any]:
    """A signed order; `work`, `key`, `channel` and `domain` override what is signed."""
    trace = Trace()
    work = changes.get("work", Work.of(manifest, trace).hash32())
    domain = changes.get("domain", tenant.chain.spec.disputes_domain)
    message = Ordered(Hash32(changes.get("channel", tenant.channel)), work)
    signature = to_hex(sign(message, domain, changes.get("key", tenant.signer)))
    return {"work": work, "trace": trace.plain(), "mode": mode, "signature": signature}


async def ordered(tenant: Tenant, run: str = TRACED, mode: str = "audit", **changes: Any) -> Manifest:
    """Take the offer that can be verified, and order such work."""
    await tenant.open(which=1)
    await tenant.login()
    manifest = await tenant.send(run, **changes)
    await tenant.ask("PUT", "/order", json=order_body(tenant, manifest, mode))
    return manifest


async def worked(tenant: Tenant, **changes: Any) -> list[dict[str, Any]]:
    """Order such work and have it done, up to the commitment; all events until then."""
    await ordered(tenant, **changes)
    await tenant.ask("POST", "/start")
    return await tenant.until("commitment")


async def referee(market: Market0, name: str) -> PrivateKey:
    """Somebody with a seat among the referees of the shared chain."""
    key = await market.network.funded_key(f"referee {name} {market.name}", tokens=SHORT.referee_stake)
    place, contract = market.chain.spec.deployment, disputes(market)
    await market.chain.send(f"allow/{name}", Token(place.token).approve(contract.address, SHORT.referee_stake), key)
    await market.chain.send(f"join/{name}", contract.join(SHORT.referee_stake), key)
    return key


class Auditing:
    """Somebody who checks the work of one lease, request by request."""

    def __init__(self, tenant: Tenant, url: str, key: PrivateKey) -> None:
        self.tenant, self.key = tenant, key
        self.http = connect(url, timeout_s=30)
        self.path = f"/v1/audits/{tenant.channel}"

    async def __aenter__(self) -> Auditing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def login_body(self, **changes: Any) -> dict[str, Any]:
        """A signed login; `changes` override fields before it is signed, `sign_with`, `domain`, `channel` how."""
        key = changes.pop("sign_with", self.key)
        domain = changes.pop("domain", self.tenant.chain.spec.disputes_domain)
        channel = Hash32(changes.pop("channel", self.tenant.channel))
        nonce = to_hex(keccak(f"{key.address}/{channel}/{changes.pop('turn', 0)}".encode()))
        body = {"validator": self.key.address, "issued_at": SystemClock().now(), "nonce": nonce} | changes
        message = Auditor(channel, body["validator"], body["issued_at"], Hash32(body["nonce"]))
        return {"signature": to_hex(sign(message, domain, key))} | body

    async def request(self, method: str, route: str = "", **options: Any) -> httpx.Response:
        """One request below the audit."""
        return await self.http.request(method, self.path + route, **options)

    async def ask(self, method: str, route: str = "", **options: Any) -> Any:
        """As `request`; raises the error that a refusal carries."""
        answer = await self.request(method, route, **options)
        if answer.status_code >= 400:
            raise error_of(answer.status_code, answer.content)
        return answer.json() if answer.headers.get("content-type") == "application/json" else answer.content

    async def login(self, **changes: Any) -> None:
        """Log in, and use the token from now on."""
        answer = await self.ask("POST", "/login", json=self.login_body(**changes))
        self.http.headers["authorization"] = f"Bearer {answer['token']}"
