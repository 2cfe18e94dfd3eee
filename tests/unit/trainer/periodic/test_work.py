"""From an archive to a challenger, the gate's answer, and what the policy makes of it; each step once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dapo.errors import ServiceUnavailable, SettingsError, SourceError
from dapo.pack_io import read_pack
from pipeline.registry.lease import UnderWay
from pipeline.registry.registry import Registry
from pipeline.testing import MemoryStore
from trainer.data.sample import State
from trainer.data.split import content_hash
from trainer.drift.measure import knows
from trainer.gate.rules import Rules
from trainer.periodic.runs import CAME, Run
from trainer.periodic.work import (
    CHECKPOINT,
    GATE,
    NOTE,
    NOTHING,
    PACK,
    PAGE,
    REPORT,
    TEST,
    Job,
    LastingUses,
    Policy,
    carry_out,
)
from trainer.tuning.loop import Tuning
from trainer.tuning.run import Plan
from trainer.tuning.scope import Scope

from . import plant
from .test_runs import begun

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SCOPES = (Scope.STEM, Scope.REFERENCE, Scope.THRESHOLDS)


def job(cache: Path, policy: Policy = Policy(), scopes: tuple[Scope, ...] = SCOPES) -> Job:
    plan = Plan(scopes, Tuning(Scope.STEM, epochs=2, batch=16), cache)
    return Job(
        champion=plant.champion(),
        encoder=plant.encoder(),
        plan=plan,
        settings=plant.settings(),
        salt=plant.SALT,
        rules=Rules(min_parts=2),
        policy=policy,
        by="ann@host",
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    store = MemoryStore("images")
    plant.archive(store, tmp_path_factory.mktemp("frames"))
    return store


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, images: MemoryStore
) -> tuple[Path, Registry, dict[str, object]]:
    """One whole run: its folder, the registry, and what came of it."""
    root = tmp_path_factory.mktemp("runs")
    registry = plant.registry(MemoryStore("models"))
    run = begun(root, plant.champion().configuration_hash, {}, NOW)
    outcome = carry_out(job(root / "cache"), plant.dataset(images), registry, plant.NotedLine(), run)
    return run.folder, registry, outcome


def test_a_run_leaves_a_pack_pages_and_the_gates_answer(
    done: tuple[Path, Registry, dict[str, object]],
) -> None:
    folder, registry, outcome = done
    assert {path.name for path in folder.iterdir()} == {
        "run.json",
        PACK,
        REPORT,
        NOTE,
        TEST,
        GATE,
        PAGE,
        CAME,
    }
    assert json.loads((folder / CAME).read_text()) == outcome
    pack = read_pack(folder / PACK)
    digest = pack.configuration_hash
    assert outcome["challenger"] == digest
    assert outcome["labelled"] == 60
    assert registry.pack(digest).configuration_hash == digest
    record = registry.gate(plant.champion().configuration_hash, digest)
    assert record is not None
    assert record["outcome"] == outcome["outcome"]
    assert record["question"] == "superior"
    assert "label_next" not in record
    assert json.loads((folder / GATE).read_text())["label_next"]


def test_the_pack_knows_what_the_line_looks_like(done: tuple[Path, Registry, dict[str, object]]) -> None:
    pack = read_pack(done[0] / PACK)
    for product in plant.PRODUCTS:
        assert knows(pack, product)
        assert len(pack.tensors[f"usual.{product}"]) == 30 + plant.FRESH


def test_no_frame_that_judges_was_learned_from_nor_set_a_threshold(
    done: tuple[Path, Registry, dict[str, object]], images: MemoryStore
) -> None:
    gate, note = (json.loads((done[0] / name).read_text()) for name in (GATE, NOTE))
    judged = sum(row["test"] for row in note["frames"].values())
    judging = set(json.loads((done[0] / TEST).read_text()))
    assert gate["test"]["frames"] == judged == len(judging) > 0
    assert gate["test"]["unlabelled"] == 2 * plant.FRESH
    pack, data = read_pack(done[0] / PACK), plant.dataset(images)
    made_with = {*pack.provenance["tuned_on"], *pack.provenance["calibrated_on"]}
    labelled = [
        s for name in plant.PRODUCTS for s in data.product(name).samples if s.state is not State.UNLABELLED
    ]
    hashes = {sample.key: content_hash(sample) for sample in labelled}
    assert {hashes[key] for key in judging}.isdisjoint(made_with)
    assert {digest for key, digest in hashes.items() if key not in judging} == made_with


def test_a_part_is_on_the_same_side_next_month(
    done: tuple[Path, Registry, dict[str, object]], images: MemoryStore, tmp_path: Path
) -> None:
    folder, registry, _ = done
    tuned = read_pack(folder / PACK)
    registry.change(lambda now: replace(now, champion=tuned.configuration_hash))
    run = begun(tmp_path, tuned.configuration_hash, {}, NOW)
    again = replace(job(folder.parent / "cache", scopes=(Scope.THRESHOLDS,)), champion=tuned)
    outcome = carry_out(again, plant.dataset(images), registry, plant.NotedLine(), run)
    assert json.loads((run.folder / TEST).read_text()) == json.loads((folder / TEST).read_text())
    record = registry.gate(tuned.configuration_hash, str(outcome["challenger"]))
    assert record is not None
    assert record["question"] == "not-inferior"
    assert record["test"]["uses_before"] == 1, "the lasting test is the same one, whatever was added to it"


def allowed(run: Run, done: Path) -> None:
    """The files of a run that was stopped after the gate let its challenger through."""
    for name in (PACK, NOTE, TEST):
        run.file(name).write_bytes((done / name).read_bytes())
    record = json.loads((done / GATE).read_text())
    run.write(GATE, {**record, "outcome": "promote"})


@pytest.fixture
def followed(
    done: tuple[Path, Registry, dict[str, object]], images: MemoryStore, tmp_path: Path
) -> Callable[[Policy, plant.NotedLine], tuple[dict[str, object], Registry]]:
    def follow(policy: Policy, line: plant.NotedLine) -> tuple[dict[str, object], Registry]:
        registry = plant.registry(MemoryStore("models"))
        run = begun(tmp_path, plant.champion().configuration_hash, {}, NOW)
        allowed(run, done[0])
        outcome = carry_out(job(tmp_path / "cache", policy), plant.dataset(images), registry, line, run)
        assert LastingUses(registry, plant.SALT).uses("") == 0, "the gate is not asked again"
        return outcome, registry

    return follow


Follow = Callable[[Policy, plant.NotedLine], tuple[dict[str, object], Registry]]


def test_what_the_gate_lets_through_waits_for_a_person(followed: Follow) -> None:
    line = plant.NotedLine()
    outcome, registry = followed(Policy(), line)
    assert outcome["did"] == "named challenger"
    assert registry.pointers().challenger == outcome["challenger"]
    assert line.did == []
    assert registry.history(1)[0].by == "ann@host"


def test_or_is_shadowed(followed: Follow) -> None:
    line = plant.NotedLine(0.99)
    outcome, _ = followed(Policy("shadow", 50), line)
    assert line.did == [("shadow", outcome["challenger"])]
    assert outcome["shadow"] == {"frames": 50, "agreement": 0.99, "types_changed": 0, "rank_correlation": 0.9}


def test_or_promoted_when_live_frames_agree(followed: Follow) -> None:
    line = plant.NotedLine(0.96)
    outcome, _ = followed(Policy("promote", 50), line)
    assert [what for what, _ in line.did] == ["shadow", "promote"]
    assert outcome["did"] == "promoted"


def test_or_promoted_without_a_shadow(followed: Follow) -> None:
    line = plant.NotedLine()
    followed(Policy("promote", 0), line)
    assert [what for what, _ in line.did] == ["promote"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (plant.NotedLine(0.94), "6.0% of live verdicts"),
        (plant.NotedLine(None), "only 0 of 50"),
        (plant.NotedLine(1.0, most=49), "only 49 of 50"),
    ],
)
def test_and_not_where_it_changes_too_much_or_too_little_was_seen(
    followed: Follow, line: plant.NotedLine, why: str
) -> None:
    outcome, registry = followed(Policy("promote", 50), line)
    assert [what for what, _ in line.did] == ["shadow"]
    assert why in str(outcome["did"])
    assert registry.pointers().challenger == outcome["challenger"]


def test_nothing_is_promoted_that_takes_thresholds_or_memory_from_a_product(
    done: tuple[Path, Registry, dict[str, object]], images: MemoryStore, tmp_path: Path
) -> None:
    """Nobody labelled a frame of it, so the gate has none either, and it would be Undefined from then on."""
    cup = replace(plant.champion().product("*"), threshold_ok=0.4, threshold_notok=0.5, calibrated=True)
    before = plant.champion().with_products({"cup": cup})
    registry, line = plant.registry(MemoryStore("models"), before), plant.NotedLine()
    run = begun(tmp_path, before.configuration_hash, {}, NOW)
    allowed(run, done[0])
    asked = replace(job(tmp_path / "cache", Policy("promote", 0)), champion=before)
    outcome = carry_out(asked, plant.dataset(images), registry, line, run)
    assert line.did == []
    assert "cup would lose thresholds" in str(outcome["did"])
    assert registry.pointers().champion == before.configuration_hash


def test_what_the_policy_will_need_is_looked_at_before_the_work(images: MemoryStore, tmp_path: Path) -> None:
    line = plant.NotedLine()
    line.away = True
    run = begun(tmp_path, plant.champion().configuration_hash, {}, NOW)
    registry = plant.registry(MemoryStore("models"))
    with pytest.raises(ServiceUnavailable):
        carry_out(job(tmp_path / "cache"), plant.dataset(images), registry, line, run)
    assert not run.file(CHECKPOINT).exists()
    assert not run.file(PACK).exists()


def test_a_turn_that_was_lost_moves_nothing(
    done: tuple[Path, Registry, dict[str, object]], images: MemoryStore, tmp_path: Path
) -> None:
    def lost() -> None:
        raise UnderWay("somebody else")

    run = begun(tmp_path, plant.champion().configuration_hash, {}, NOW)
    allowed(run, done[0])
    registry, line = plant.registry(MemoryStore("models")), plant.NotedLine()
    with pytest.raises(UnderWay):
        carry_out(job(tmp_path, Policy("promote", 0)), plant.dataset(images), registry, line, run, mine=lost)
    assert line.did == []
    assert registry.pointers().challenger is None
    assert not run.file(CAME).exists(), "it is gone on with"


def test_without_a_label_nothing_is_tuned(tmp_path: Path) -> None:
    store = MemoryStore("images")
    data = plant.archive(store, tmp_path / "frames", labelled=False)
    run = begun(tmp_path / "runs", plant.champion().configuration_hash, {}, NOW)
    registry = plant.registry(MemoryStore("models"))
    outcome = carry_out(job(tmp_path / "cache"), data, registry, plant.NotedLine(), run)
    assert outcome["outcome"] == NOTHING
    assert "label-next" in outcome["said"]
    assert not run.folder.exists(), "the next night begins anew, whatever --every says"


def test_a_checkpoint_of_other_frames_is_begun_anew(
    images: MemoryStore, done: tuple[Path, Registry, dict[str, object]], tmp_path: Path
) -> None:
    run = begun(tmp_path, plant.champion().configuration_hash, {}, NOW)
    run.file(CHECKPOINT).write_bytes(b"of another time")
    registry = plant.registry(MemoryStore("models"))
    outcome = carry_out(
        job(done[0].parent / "cache"), plant.dataset(images), registry, plant.NotedLine(), run
    )
    assert outcome["challenger"] == done[2]["challenger"], "the same frames give the same pack"


def test_a_product_that_is_not_there_is_told(images: MemoryStore, tmp_path: Path) -> None:
    run = begun(tmp_path, plant.champion().configuration_hash, {}, NOW)
    registry = plant.registry(MemoryStore("models"))
    asked = replace(job(tmp_path / "cache"), products=("rign",))
    with pytest.raises(SourceError, match="Did you mean 'ring'"):
        carry_out(asked, plant.dataset(images), registry, plant.NotedLine(), run)


def test_the_lasting_test_is_counted_under_its_salt() -> None:
    registry = Registry(MemoryStore("models"))
    one, other = LastingUses(registry, "1"), LastingUses(registry, "2")
    assert one.uses("a") == 0
    assert one.count("a") == one.uses("b") == 1
    assert other.uses("a") == 0


def test_policies_that_say_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="--shadow-frames above 0"):
        Policy("shadow", 0)
    with pytest.raises(SettingsError, match="expected a share"):
        Policy(most_changed=2)
