"""The audit of a small model's replies: honest ones follow, each kind of cheat does not, hostile ones get a verdict."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import inference_attacks as attacks
import pytest
import torch
from inference_small import VOCABULARY, WIDTH, request, small

from minga.core.errors import InternalError, InvalidInput
from minga.verify.inference_audit import Verdict, audit
from minga.verify.inference_fitted import LIMITS
from minga.verify.inference_prover import Record, generate, prefill, replay, tapped
from minga.verify.inference_record import Reply, Request, Sampling, leaves, root


def judged(asked: Request, reply: Reply, model: Any = None) -> Verdict:
    """The verdict on a reply whose provider committed to it."""
    return audit(small() if model is None else model, asked, reply.plain(), root(asked, reply))


def many(count: int = 6, **fields: Any) -> list[Request]:
    return [request(index=index, tokens_max=64, **fields) for index in range(count)]


# ---------------------------------------------------------------------------------------------------------- honest


@pytest.mark.parametrize("evidence", ["activations", "logprobs"])
@pytest.mark.parametrize("top_p", [1000, 900])
@pytest.mark.parametrize("temperature", [0, 700, 1200])
def test_honest_replies_follow(temperature, top_p, evidence):
    sampling = Sampling(temperature_milli=temperature, top_p_milli=top_p)
    asked = many(3, sampling=sampling, evidence=evidence)
    for one, reply in zip(asked, generate(small(), asked), strict=True):
        verdict = judged(one, reply)
        assert verdict.follows, verdict.reason
        assert verdict.scores is not None
        assert len(verdict.scores.margins) == 64
        assert len(verdict.scores.far) == (2 if evidence == "activations" else 0)


def test_a_batch_gives_what_single_requests_give():
    asked = many(4)
    together = generate(small(), asked)
    alone = [generate(small(), [one])[0] for one in asked]
    assert [reply.tokens for reply in together] == [reply.tokens for reply in alone]
    assert len({tuple(reply.tokens) for reply in together}) == 4


def test_a_batch_may_mix_ways_of_sampling_and_lengths():
    asked = [
        request(index=0, tokens_max=40),
        request(index=1, tokens_max=33, sampling=Sampling(temperature_milli=0)),
        request(index=2, tokens_max=1, sampling=Sampling(temperature_milli=1500)),
    ]
    replies = generate(small(), asked)
    assert [len(reply.tokens) for reply in replies] == [40, 33, 1]
    assert all(judged(one, reply).follows for one, reply in zip(asked, replies, strict=True))


def test_a_reply_stops_at_a_stop_token():
    free = generate(small(), [request()])[0]
    stop = next(token for token in free.tokens if free.tokens.index(token) >= 3)
    asked = request(stop=[stop])
    reply = generate(small(), [asked])[0]
    assert reply.tokens == free.tokens[: free.tokens.index(stop) + 1]
    assert reply.finish == "stop"
    assert judged(asked, reply).follows


def test_a_batch_needs_prompts_of_one_length():
    with pytest.raises(InvalidInput):
        generate(small(), [])
    with pytest.raises(InvalidInput):
        generate(small(), [request(), request(prompt=[1, 2])])


def test_the_record_keeps_the_leaves_of_the_commitment_as_it_grows():
    asked = request()
    hidden, logits = prefill(small(), asked.prompt, [3] * 40)
    record = Record(asked)
    sizes = []
    for at in range(40):
        assert not record.done
        record.add(3, hidden[at], logits[at])
        sizes.append(len(record.leaves))
    assert record.done
    assert sizes == [1] * 31 + [2] * 8 + [3]
    assert record.leaves == leaves(asked, record.reply())
    assert record.reply() == replay(small(), asked, [3] * 40)


def test_the_hidden_states_are_those_that_make_the_logits():
    model = small()
    hidden, logits = (part.clone() for part in prefill(model, [5, 7, 11], [2, 4, 6]))
    assert hidden.shape == (3, WIDTH)
    assert logits.shape == (3, VOCABULARY)
    head = model.get_output_embeddings().weight.detach()
    assert torch.allclose(hidden @ head.T, logits, atol=1e-4)
    whole = model(torch.tensor([[5, 7, 11, 2, 4]])).logits[0, 2:].detach()
    assert torch.allclose(whole, logits, atol=1e-5)


def test_nothing_stays_hooked():
    model = small()
    with tapped(model) as seen:
        model(torch.tensor([[1, 2]]))
    model(torch.tensor([[1, 2]]))
    assert len(seen) == 1


# ---------------------------------------------------------------------------------------------------------- cheats


def acts() -> dict[str, attacks.Attack]:
    """All that are promised, and the two that a small random model shows as well."""
    return {**attacks.PROMISED, "int8": attacks.CURVES["int8"], "fp8": attacks.CURVES["fp8"]}


@pytest.mark.parametrize("name", acts())
def test_every_cheat_is_seen(name):
    """The small model's six replies of 64 tokens; the campaign measures how often and how soon on real ones."""
    stage = attacks.Stage("small", "fp32", small(), lambda: small(2))
    asked = many(stop=[0] if name == "early-stop" else [])
    verdicts = [
        judged(one, Reply.read(reply.plain())) for one, reply in zip(asked, acts()[name](stage, asked), strict=True)
    ]
    assert not any(verdict.follows for verdict in verdicts), [verdict.reason for verdict in verdicts]
    assert all(verdict.reason and verdict.scores is not None for verdict in verdicts)
    assert all(1 <= verdict.tokens <= 64 for verdict in verdicts)


def test_an_honest_provider_on_the_same_stage_is_not_seen():
    stage = attacks.Stage("small", "fp32", small(), lambda: small(2))
    asked = many()
    assert all(judged(one, reply).follows for one, reply in zip(asked, attacks.honest(stage, asked), strict=True))


def test_each_check_sees_what_the_other_is_blind_to():
    """A wrong seed leaves the fingerprint spotless; borrowed evidence leaves the tokens spotless."""
    stage = attacks.Stage("small", "fp32", small(), lambda: small(2))
    asked = many(2)
    seed = judged(asked[0], attacks.elsewhere(stage, asked)[0])
    assert seed.reason in ("peak", "margin")
    assert seed.scores is not None
    assert sum(seed.scores.far) == 0
    borrowed = judged(asked[0], attacks.borrowed(stage, asked)[0])
    assert borrowed.reason in ("far", "near")
    assert borrowed.scores is not None
    assert max(borrowed.scores.margins) < LIMITS["fp32"].peak


def test_log_probabilities_see_another_model_but_not_a_replay():
    """Without activations the replay of a cheap model's text is left to the tokens alone."""
    stage = attacks.Stage("small", "fp32", small(), lambda: small(2))
    asked = many(2, evidence="logprobs")
    other = judged(asked[0], attacks.other_model(stage, asked)[0])
    assert not other.follows
    replayed = judged(asked[0], attacks.prefill_replay(stage, asked)[0])
    assert replayed.reason in ("peak", "margin")
    assert replayed.scores is not None
    assert max(replayed.scores.logprob) < 1e-3


# --------------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: None,
        lambda plain: b"{",
        lambda plain: {},
        lambda plain: {**plain, "chunks": []},
        lambda plain: {**plain, "chunks": plain["chunks"][:1]},
        lambda plain: {**plain, "chunks": ["0000" + plain["chunks"][0][4:], plain["chunks"][1]]},
        lambda plain: {**plain, "chunks": [plain["chunks"][0][:-4] + "ffff", plain["chunks"][1]]},
        lambda plain: {**plain, "tokens": []},
        lambda plain: {**plain, "tokens": plain["tokens"][:-1]},
        lambda plain: {**plain, "tokens": [10**6, *plain["tokens"][1:]]},
    ],
)
def test_hostile_replies_do_not_follow_and_cost_no_prefill(change, monkeypatch):
    asked = request()
    reply = generate(small(), [asked])[0]
    committed = root(asked, reply)
    monkeypatch.setattr("minga.verify.inference_audit.score", lambda *_: pytest.fail("the model was run"))
    verdict = audit(small(), asked, change(reply.plain()), committed)
    assert not verdict.follows
    assert verdict.reason
    assert verdict.tokens == 0


def test_a_hostile_commitment_to_a_hostile_reply_does_not_follow():
    """Modulus 0, and committed to: the form is refused whatever the root says."""
    asked = request()
    reply = generate(small(), [asked])[0]
    bad = reply.model_copy(update={"chunks": ["0000" + reply.chunks[0][4:], reply.chunks[1]]})
    verdict = judged(asked, bad)
    assert not verdict.follows
    assert "modulus 0" in verdict.reason


def test_another_reply_than_the_committed_one_does_not_follow():
    asked = request()
    first, second = generate(small(), [asked, request(index=1)])
    verdict = audit(small(), asked, first.plain(), root(asked, second))
    assert not verdict.follows
    assert "committed" in verdict.reason
    assert audit(small(), asked, first.plain(), root(asked, first)).follows


def test_the_auditor_must_have_the_declared_numerics_and_the_model_the_prompt():
    asked = request()
    reply = generate(small(), [asked])[0]
    with pytest.raises(InvalidInput, match="declares"):
        judged(asked.model_copy(update={"numerics": "bf16"}), reply)
    with pytest.raises(InvalidInput, match="prompt"):
        judged(request(prompt=[VOCABULARY]), reply)


def test_a_model_that_computes_nonsense_concludes_nothing():
    """Not-a-number compares as "not above the limit": it must never count as following."""
    asked = request()
    reply = generate(small(), [asked])[0]
    broken = copy.deepcopy(small())
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InternalError):
        judged(asked, reply, broken)


def test_limits_can_be_ones_own():
    asked = request()
    reply = generate(small(), [asked])[0]
    strict = replace(LIMITS["fp32"], peak=-1.0)
    assert audit(small(), asked, reply.plain(), root(asked, reply), strict).reason == "peak"
