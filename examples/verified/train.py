"""Teach a tiny network the sum of its inputs' signs, every step traced: work that anybody can do again and check.

All that decides a step is registered with `minga.trace`: model, optimiser and the generator of the batches. Every
generator is seeded, also those that are not used: their states are a part of the first hash. Run by hand it trains
without a trace; ordered with `verify:` (job.yaml), each step leaves the hash of its state.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import torch

import minga

STEPS = 300

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
batches = torch.Generator().manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
progress = Path(os.environ.get("MINGA_PROGRESS", os.devnull))

with minga.trace(model, optimizer, extra={"batches": batches}) as run:
    for step in run.steps(STEPS):
        x = torch.randn(64, 16, generator=batches)
        wanted = x.sign().sum(1, keepdim=True)
        loss = torch.nn.functional.mse_loss(model(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            print(f"step {step + 1} loss {loss.item():.3f}", flush=True)
            with progress.open("a") as file:
                file.write(json.dumps({"step": step + 1, "total": STEPS}) + "\n")

out = Path(os.environ.get("MINGA_OUTPUT_DIR", "."))
(out / "result.json").write_text(json.dumps({"loss": round(loss.item(), 3)}) + "\n")
torch.save(model.state_dict(), out / "model.pt")
