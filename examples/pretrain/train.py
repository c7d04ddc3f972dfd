"""Pretrain a Llama-style language model of 0.92M parameters on one text, on one CPU thread, exactly repeatably.

A job like any other: it knows nothing of leases or money, only these variables, each optional.

| variable              | what for                                                                             |
|-----------------------|--------------------------------------------------------------------------------------|
| MINGA_CHECKPOINT_DIR  | `checkpoint.pt`, replaced by an atomic rename; a run that finds one goes on from it  |
| MINGA_OUTPUT_DIR      | model.safetensors, config.json, tokenizer.json, loss.csv, result.json                |
| MINGA_PROGRESS        | one JSON line is appended per report: `{"step": n, "total": n, "loss": x, "text": …}` |
| OMP_NUM_THREADS       | threads (1 by default); another number sums in another order, so it is another run   |
| MINGA_TRACE_DIR       | a hash of the state after every step, if the trace library is on PYTHONPATH          |

Exit codes: 0 trained; 2 bad input, nothing written; 143 stopped by SIGTERM after a checkpoint, start again to go on.

Rule: everything that decides the next step is in the checkpoint (weights, optimiser, tokenizer, the three random
generators, the position in the data), so a run killed at any instant and resumed gives the same bits as one never
killed, on the same kind of processor.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import math
import os
import random
import re
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
print("pretrain: loading PyTorch and transformers", flush=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from transformers.utils import logging  # noqa: E402

minga = importlib.import_module("minga") if importlib.util.find_spec("minga") else None  # only if it was sent along

EXIT_BAD_INPUT = 2
EXIT_STOPPED = 128 + signal.SIGTERM
VOCABULARY = 1024
HELD_OUT = 0.1
"""The last part of the text, never trained on."""
EVALUATION_BATCHES = 20
SAMPLE_TOKENS = 160


class BadInput(Exception):
    """The text or the checkpoint cannot be used; the message says why."""


@dataclass(frozen=True)
class Run:
    """What identifies a run; a checkpoint of another run is refused. `text` is the sha256 of the training text."""

    text: str
    steps: int
    batch: int
    context: int
    learning_rate: float
    seed: int
    threads: int


@dataclass
class State:
    """Everything that decides the next step. `losses` holds one training loss (nats a token) per step done."""

    model: LlamaForCausalLM
    optimiser: torch.optim.AdamW
    tokenizer: Tokenizer
    batches: np.random.Generator
    losses: list[float]


# ------------------------------------------------------------------------------------------- start or go on


def build_model(seed: int) -> LlamaForCausalLM:
    """Return the freshly initialised model: 4 layers of width 128, tied embeddings, 922,752 parameters."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="sdpa",
        )
    )


def build_optimiser(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """Return the optimiser; `learning_rate` sets its rate at every step."""
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def train_tokenizer(text: str) -> Tokenizer:
    """Return a byte-level BPE of 1,024 tokens; token 0 is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def new_state(run: Run, text: str) -> State:
    """Return the state before step 1, all dice thrown from the run's seed."""
    random.seed(run.seed)
    np.random.seed(run.seed)
    model = build_model(run.seed)
    batches = np.random.default_rng(run.seed)
    return State(model, build_optimiser(model), train_tokenizer(text), batches, [])


def save(path: Path, run: Run, state: State) -> None:
    """Replace the checkpoint at `path` as a whole: readers see the old one or the new one, also after a power cut."""
    generator = np.random.get_state(legacy=False)
    generator["state"]["key"] = generator["state"]["key"].tolist()
    body = {
        "run": asdict(run),
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "tokenizer": state.tokenizer.to_str(),
        "batches": state.batches.bit_generator.state,
        "losses": state.losses,
        "dice": {"python": random.getstate(), "numpy": generator, "torch": torch.get_rng_state()},
    }
    unfinished = path.with_name("." + path.name)
    with unfinished.open("wb") as handle:
        torch.save(body, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(unfinished, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def resume(path: Path, run: Run) -> State:
    """Return the state that `save` wrote, and set the random generators.

    Raises:
        BadInput: not a checkpoint, or one of a run with other parameters or another text.
    """
    try:
        # Plain values and tensors only: a checkpoint comes back over a network and must not run code.
        body: dict[str, Any] = torch.load(path, weights_only=True)
        if body["run"] != asdict(run):
            raise BadInput(f"{path} is of another run: {body['run']}; remove it or use the same arguments and text")
        model = build_model(run.seed)
        model.load_state_dict(body["model"])
        optimiser = build_optimiser(model)
        optimiser.load_state_dict(body["optimiser"])
        batches = np.random.default_rng()
        batches.bit_generator.state = body["batches"]
        tokenizer = Tokenizer.from_str(body["tokenizer"])
        dice = body["dice"]
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{path} is not a checkpoint of this program ({type(error).__name__}); remove it") from error
    random.setstate(dice["python"])
    dice["numpy"]["state"]["key"] = np.array(dice["numpy"]["state"]["key"], dtype=np.uint32)
    np.random.set_state(dice["numpy"])
    torch.set_rng_state(dice["torch"])
    return State(model, optimiser, tokenizer, batches, body["losses"])


# ----------------------------------------------------------------------------------------------- train, evaluate


def windows(tokens: np.ndarray, starts: np.ndarray, context: int) -> torch.Tensor:
    """Return the windows of `context` tokens that begin at `starts`: int64, shape (len(starts), context)."""
    return torch.from_numpy(tokens[starts[:, None] + np.arange(context)])


def learning_rate(run: Run, step: int) -> float:
    """Return the rate of `step` (from 0): linear warm-up over a tenth of the run, then a cosine down to a tenth."""
    warmup = max(1, run.steps // 10)
    if step < warmup:
        return run.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, run.steps - warmup)
    return run.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))


def train_step(run: Run, state: State, tokens: np.ndarray) -> float:
    """Do one step on random windows of `tokens`; append its loss to the state and return it."""
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(run, len(state.losses))
    starts = state.batches.integers(0, len(tokens) - run.context + 1, size=run.batch)
    inputs = windows(tokens, starts, run.context)
    loss = state.model(input_ids=inputs, labels=inputs).loss
    state.optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimiser.step()
    state.losses.append(loss.item())
    return state.losses[-1]


@torch.no_grad()
def evaluate(run: Run, model: LlamaForCausalLM, tokens: np.ndarray) -> float:
    """Return the mean loss (nats a token) over evenly spaced windows of `tokens`."""
    starts = np.linspace(0, len(tokens) - run.context, EVALUATION_BATCHES * run.batch).astype(np.int64)
    losses = [
        model(input_ids=inputs, labels=inputs).loss.item()
        for inputs in windows(tokens, starts, run.context).split(run.batch)
    ]
    return sum(losses) / len(losses)


@torch.no_grad()
def sample(run: Run, state: State) -> str:
    """Return a few lines that the model writes after the start of a scene; the same run gives the same lines."""
    torch.manual_seed(run.seed)
    prompt = torch.tensor([state.tokenizer.encode("Enter HAMLET\n\n").ids])
    output = state.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=0.8,
        top_k=40,
        max_new_tokens=SAMPLE_TOKENS,
        pad_token_id=0,
    )
    return re.sub(r"\n{3,}", "\n\n", state.tokenizer.decode(output[0].tolist())).strip()


def write_outputs(folder: Path, state: State, val_loss: float, text: str) -> None:
    """Write the model in the format that transformers reads, the loss curve and the result."""
    folder.mkdir(parents=True, exist_ok=True)
    state.model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=state.tokenizer, eos_token="<|end|>").save_pretrained(folder)
    curve = "".join(f"{step},{loss!r}\n" for step, loss in enumerate(state.losses, start=1))
    (folder / "loss.csv").write_text("step,loss\n" + curve)
    (folder / "result.json").write_text(json.dumps({"val_loss": val_loss, "sample": text}, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------------ the program


class Stop:
    """Set by SIGTERM and looked at between two steps, so that a checkpoint is always of a whole step."""

    asked = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Note the signal."""
        self.asked = True


def report(step: int, total: int, loss: float) -> None:
    """Print one line for people and append one for the agent that shows progress."""
    print(f"step {step}/{total} loss {loss:.4f}", flush=True)
    target = os.environ.get("MINGA_PROGRESS")
    if target:
        with open(target, "a") as handle:
            handle.write(json.dumps({"step": step, "total": total, "loss": loss, "text": f"loss {loss:.3f}"}) + "\n")


def train(run: Run, state: State, tokens: np.ndarray, checkpoint: Path, every: int, stop: Stop) -> bool:
    """Train to the end of the run, with a checkpoint every `every` steps; False when SIGTERM came first."""
    first, extra = len(state.losses), {"batches": state.batches, "losses": state.losses}
    with minga.trace(state.model, state.optimiser, extra=extra) if minga else contextlib.nullcontext() as traced:
        for step in traced.steps(run.steps, first) if traced else range(first, run.steps):
            loss = train_step(run, state, tokens)
            done = step + 1
            if done % 10 == 0 or done == run.steps:
                report(done, run.steps, loss)
            if done % every == 0 or done == run.steps or stop.asked:
                save(checkpoint, run, state)
            if stop.asked and done < run.steps:
                print(f"stopped by SIGTERM; step {done} is kept in {checkpoint}", flush=True)
                return False
    return True


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Pretrain a 0.92M-parameter Llama on one text.")
    parser.add_argument("--data", type=Path, required=True, help="training text, UTF-8")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=12, help="windows a step")
    parser.add_argument("--context", type=int, default=64, help="tokens a window, at most 512")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch, args.checkpoint_every) < 1 or not 2 <= args.context <= 512:
        parser.error("steps, batch and checkpoint-every must be at least 1, context 2 to 512")
    return args


def prepare(args: argparse.Namespace, checkpoint: Path) -> tuple[Run, State, np.ndarray, np.ndarray]:
    """Return the run, its state (new or resumed), and the tokens to train on and to hold out.

    Raises:
        BadInput: the text is not readable UTF-8 or too short, or the checkpoint is not of this run.
    """
    try:
        text = args.data.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the text cannot be read: {error}") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    threads = torch.get_num_threads()
    run = Run(digest, args.steps, args.batch, args.context, args.learning_rate, args.seed, threads)
    found = checkpoint.is_file()
    state = resume(checkpoint, run) if found else new_state(run, text)
    lines = state.tokenizer.encode_batch_fast(text.splitlines(keepends=True))
    tokens = np.concatenate([np.array(line.ids, dtype=np.int64) for line in lines] or [np.zeros(0, np.int64)])
    cut = int(len(tokens) * (1 - HELD_OUT))
    if len(tokens) - cut < run.context:
        raise BadInput(f"the text has {len(tokens)} tokens; {run.context} must fit into its last tenth")
    parameters = sum(p.numel() for p in state.model.parameters())
    begin = f"resuming after step {len(state.losses)}" if found else "starting"
    print(f"{begin}: {parameters} parameters, {len(tokens)} tokens, {threads} thread(s)", flush=True)
    return run, state, tokens[:cut], tokens[cut:]


def main(argv: list[str] | None = None) -> int:
    """Train, evaluate, write the outputs; return the exit code."""
    args = parse(argv)
    stop = Stop()
    signal.signal(signal.SIGTERM, stop)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    checkpoint = Path(os.environ.get("MINGA_CHECKPOINT_DIR", "checkpoints")) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        run, state, training, held_out = prepare(args, checkpoint)
    except BadInput as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    state.model.train()
    if not train(run, state, training, checkpoint, args.checkpoint_every, stop):
        return EXIT_STOPPED
    state.model.eval()
    val_loss = evaluate(run, state.model, held_out)
    text = sample(run, state)
    write_outputs(Path(os.environ.get("MINGA_OUTPUT_DIR", "outputs")), state, val_loss, text)
    print(f"validation loss {val_loss:.4f}\n--- the model writes ---\n{text}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
