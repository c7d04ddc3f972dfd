"""The fitted limits of inference audits, made by `tests/verify/campaign_inference.py --fit`; not by hand."""

from __future__ import annotations

from minga.verify.inference_limits import Limits, Line
from minga.verify.inference_record import Numerics

LIMITS: dict[Numerics, Limits] = {
    "fp32": Limits(
        peak=0.01,
        margin=Line(0.02, 0.0001),
        far=Line(4, 0.1),
        near=Line(0.2, 0.02),
        logprob=Line(0.02, 0.002),
    ),
    "bf16": Limits(
        peak=0.8742,
        margin=Line(0.8742, 0.02047),
        far=Line(9, 7.5),
        near=Line(5.109, 4.315),
        logprob=Line(0.02, 0.002),
    ),
}
