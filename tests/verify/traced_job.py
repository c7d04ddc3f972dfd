"""A job as a tenant writes it, run as a process of its own: `minga.trace` in a plain loop, tuned by variables.

JOB_HANG: stop before that step, say so, and wait to be killed. JOB_TERM: leave the loop at SIGTERM, after that step.
JOB_FREEZE: leave the last layer as it is from that step on.
"""

from __future__ import annotations

import os
import signal
import sys

import torch

import minga

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
extra = {"losses": []}
at = {name: int(os.environ.get(f"JOB_{name}", "-1")) for name in ("HANG", "TERM", "FREEZE")}
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))

with minga.trace(model, optimizer, scheduler=scheduler, extra=extra) as run:
    for step in run.steps(24):
        if step == at["HANG"]:
            print("hanging", flush=True)
            signal.pause()
        x = torch.randn(4, 8)
        loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if step >= at["FREEZE"] >= 0:
            model[3].weight.grad = None
        optimizer.step()
        scheduler.step()
        extra["losses"].append(loss.item())
        if step == at["TERM"]:
            os.kill(os.getpid(), signal.SIGTERM)
        if asked:
            break
    torch.rand(1)  # what comes after the loop is no part of the trace

print("trained", len(extra["losses"]), "steps; tracing" if run.active else "steps; not tracing")
assert "minga.core.spec" not in sys.modules
