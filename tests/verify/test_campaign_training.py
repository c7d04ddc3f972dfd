"""The campaign against trainings: a sample of it, that it goes on where it stopped, and that it can fail."""

from __future__ import annotations

import json
from random import Random

import attacks
import campaign_training as campaign
import pytest
import torch
from attacks import CHEATS, STEPS, Cheat, Tiny

from minga.verify.leaves import read_trace
from minga.verify.trace import Settings


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the campaign's own processes are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """One seed in every way, four honest ones; stopped after the second, and gone on."""
    out = tmp_path_factory.mktemp("campaign") / "sample.json"
    first = campaign.run(1, 2, 5_000_000, out)
    assert (first.next, first.honest_seeds) == (5_000_002, 2)
    return campaign.run(1, 4, 5_000_000, out), json.loads(out.read_text())


def test_every_kind_is_caught_at_its_step(sample):
    tally, written = sample
    assert written["kinds"] == len(campaign.KINDS) == 17
    assert written["trials"] == written["caught"] == written["exact"] == 17
    assert 0 < written["moves_max"] <= written["moves_allowed"] == 8
    assert written["referee_steps_share_max"] == 1 / 200
    assert tally.faults == []


def test_nobody_honest_is_flagged(sample):
    assert sample[1]["honest"] == {
        "seeds": 4, "audits": 8, "flagged": 0, "steps": 40, "rate_below_at_95_percent": 0.75,
    }  # fmt: skip


def test_a_campaign_that_was_stopped_went_on(sample):
    tally, written = sample
    assert written["seeds"] == {"first": 5_000_000, "next": 5_000_004}
    assert sum(written["referee_cpu_permille"].values()) == 17
    assert tally.audits == 8


def test_another_first_seed_or_other_sources_start_anew(sample, tmp_path, monkeypatch):
    out = tmp_path / "old.json"
    out.write_text(json.dumps(sample[1]))
    assert campaign.resume(out, 5_000_000).honest_seeds == 4
    assert campaign.resume(out, 6).honest_seeds == 0
    monkeypatch.setattr(campaign, "sources_hash", lambda: "other")
    assert campaign.resume(out, 5_000_000).honest_seeds == 0


@pytest.mark.parametrize("kind", [*CHEATS])
def test_every_cheat_changes_exactly_what_comes_after_its_first_step(kind, tmp_path):
    """The campaign's own ground truth: a cheat that changed nothing, or something earlier, would prove nothing."""
    at, steps = 13, 30
    Tiny(3).train(Settings(tmp_path / "honest"), steps)
    Tiny(3, Cheat(kind, at)).train(Settings(tmp_path / "cheat"), steps)
    honest, cheat = read_trace(tmp_path / "honest")[1], read_trace(tmp_path / "cheat")[1]
    assert honest[: at + 1] == cheat[: at + 1]
    assert all(mine != theirs for mine, theirs in zip(honest[at + 1 :], cheat[at + 1 :], strict=True))


def test_clipping_always_bites():
    """Or dropping it would be no cheat."""
    one, norms = Tiny(4), []
    original = torch.nn.utils.clip_grad_norm_

    def clip(*given):
        norms.append(original(*given).item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks.nn.utils, "clip_grad_norm_", clip)
        for step in range(STEPS):
            one.step(step)
    assert min(norms) > attacks.CLIP


def test_the_training_learns():
    """So that the cheats are at something: the loss falls well below that of guessing."""
    one = Tiny(5)
    for step in range(STEPS):
        one.step(step)
    one.model.eval()
    with torch.no_grad():
        x, y = one.batch("")
        assert torch.nn.functional.cross_entropy(one.model(x), y) < 0.8 * torch.log(torch.tensor(16.0))


def test_a_cheat_that_is_missed_is_a_fault(monkeypatch, tmp_path):
    """A referee that always says that a leaf follows, and a challenger that picks another leaf."""
    honest = campaign.judged

    def blind(work, committed, leaf, moves):
        found = honest(work, work.leaves, leaf, moves)
        return campaign.Found(found.leaf, found.moves, True)

    monkeypatch.setattr(campaign, "KINDS", ("half batch",))
    monkeypatch.setattr(campaign, "judged", blind)
    tally = campaign.run(1, 0, 1, tmp_path / "one.json")
    assert (tally.total("caught"), len(tally.faults)) == (0, 1)
    monkeypatch.setattr(campaign, "judged", honest)
    monkeypatch.setattr(campaign, "play", lambda tree, challenger: (7, 4))
    tally = campaign.run(1, 0, 2, tmp_path / "two.json")
    assert tally.total("exact") == 0
    assert len(tally.faults) == 1


def test_a_run_that_is_not_deterministic_is_flagged(monkeypatch, tmp_path, capsys):
    """Weights that are disturbed by a die of the machine's own: every audit sees it."""
    step, dice = Tiny.step, Random(1)

    def shaky(self, number):
        step(self, number)
        self.model[0].weight.data[0, 0] += dice.random() * 1e-3

    monkeypatch.setattr(Tiny, "step", shaky)
    code = campaign.main(["--seeds", "0", "--honest", "3", "--out", str(tmp_path / "out.json")])
    assert code == 1
    written = json.loads((tmp_path / "out.json").read_text())
    assert len(written["faults"]) == 3
    assert "seed 0" in capsys.readouterr().err


def test_a_copied_root_cannot_be_opened():
    assert campaign.cannot_open(bytes(32), Random(0))
