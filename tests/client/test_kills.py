"""The client dies at every named point; the next one goes on, opens no second job and loses no unit of money.

Here the death is an exception that nothing catches; deaths by SIGKILL of real processes are walked by the scenarios.
"""

from __future__ import annotations

import pytest
from markets import Stage, ended, spec_of

from minga.chain.contracts import Token
from minga.client.points import POINTS
from minga.core import faults

pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.slow]

RUN = """
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
while [ $step -lt 3 ]; do
  sleep 0.5; step=$((step + 1)); echo "step $step"
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
done
echo done > $MINGA_OUTPUT_DIR/result
"""

ELSEWHERE = {
    "client.topup.mined": "budget",
    "client.stop.asked": "stop",
    "client.reclaim.started": "vanish",
    "client.reclaim.finished": "vanish",
}
"""Points that this job does not come by: they have tests of their own."""


class Killed(BaseException):
    """Nothing catches it."""


class Killer:
    """Kills once, the first time that its point is reached."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.done = self.caught = False

    def __call__(self, point: str) -> None:
        if point == self.point and not self.done:
            self.done = True
            raise Killed(point)


@pytest.mark.parametrize("point", sorted(POINTS.keys() - ELSEWHERE))
async def test_a_client_that_dies_here_goes_on(stage: Stage, point: str) -> None:
    (stage.folder / "src").mkdir()
    (stage.folder / "src" / "input").write_text("x")
    spec = spec_of(RUN, checkpoint=True, workdir=stage.folder / "src")
    killer = Killer(point)
    async with stage.providers() as providers:
        faults.install(killer)
        try:
            async with stage.client(providers) as client:
                await ended(await client.submit(spec, key="one"))
        except* Killed:
            killer.caught = True
        finally:
            faults.remove(killer)
        assert killer.caught, "the point was not reached"
        async with stage.client(providers) as client:
            token = Token(stage.network.spec.deployment.token)
            handle = await client.submit(spec, key="one")
            status = await ended(handle)
            assert status.phase == "done", status
            assert len(client.jobs()) == 1
            assert [artifact.path for artifact in handle.artifacts()] == ["result"]
            bill = await handle.bill()
            assert bill.conserved
            assert bill.locked == 0
            held = await client._chain.read(token.balance_of(stage.tenant.address))
            assert held == 10**9 - bill.paid - bill.fee
