"""Tuning learns what it shall, stops where it shall, and goes on where it was stopped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from dapo.encoder import Encoder
from dapo.errors import SettingsError
from dapo.model import DapoModel
from dapo.packing import model_from_pack
from trainer.tuning.batches import Batches
from trainer.tuning.cache import FeatureCache
from trainer.tuning.examples import make_examples
from trainer.tuning.frozen import frozen_half
from trainer.tuning.learner import Learner
from trainer.tuning.loop import History, Step, Tuning, tune
from trainer.tuning.scope import Scope, learned_scope, parse_scopes

from .plates import PRODUCTS, WORDS, base_pack, plates


@dataclass(frozen=True)
class Bench:
    """All that a tuning needs, ready."""

    encoder: Encoder
    batches: Callable[[int], Batches]
    model: Callable[[], DapoModel]
    run: Callable[..., tuple[DapoModel, History]]


def make_bench(root: Path, scope: Scope, *, masks: bool = True) -> Bench:
    samples = plates(root / "data", masks=masks)
    pack, encoder = base_pack()
    frozen = frozen_half(scope, pack, encoder)
    cache = FeatureCache(root / "cache", frozen, encoder.image_size)
    words = dict.fromkeys(PRODUCTS, WORDS)
    examples = make_examples(samples, cache.fill(samples), words, 16)

    def batches(size: int) -> Batches:
        return Batches(examples, words, cache, batch=size, seed=3)

    def run(tuning: Tuning, **more) -> tuple[DapoModel, History]:
        learner = Learner(model_from_pack(pack, encoder), pack, PRODUCTS)
        told = more.pop("told", "bench")
        history = tune(learner, frozen, batches(tuning.batch), words, ("defect",), tuning, told=told, **more)
        return learner.model, history

    return Bench(encoder, batches, lambda: model_from_pack(pack, encoder), run)


def tuning(bench: Bench, scope: Scope = Scope.FULL, **more) -> Tuning:
    return Tuning(scope, epochs=more.pop("epochs", 2), batch=16, warm_up=2, **more)


def same(one: DapoModel, other: DapoModel) -> bool:
    return all(torch.equal(one.learned()[name], other.learned()[name]) for name in one.learned())


def test_it_learns_and_the_same_call_gives_the_same_bits(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.FULL)
    plan = tuning(bench, epochs=6)
    one, history = bench.run(plan)
    other, again = bench.run(plan)
    assert same(one, other)
    assert history == again
    assert history.total[-1] < 0.9 * history.total[0]
    assert not same(one, bench.model())


def test_stopped_and_gone_on_it_comes_to_the_same_bits(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.FULL)
    plan = tuning(bench, epochs=3)
    whole, history = bench.run(plan)

    class Stopped(Exception):
        pass

    def stop(step: Step) -> None:
        if step.step == 4:
            raise Stopped

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        bench.run(plan, checkpoint=checkpoint, tell=stop)
    steps: list[int] = []
    resumed, found = bench.run(plan, checkpoint=checkpoint, tell=lambda step: steps.append(step.step))
    assert steps[0] == 3  # the first epoch of two steps was saved
    assert same(whole, resumed)
    assert found == history


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.TEXT)
    plan = tuning(bench, Scope.TEXT, epochs=1)
    checkpoint = tmp_path / "checkpoint.safetensors"
    bench.run(plan, checkpoint=checkpoint)
    with pytest.raises(SettingsError, match="another tuning"):
        bench.run(plan, checkpoint=checkpoint, told="other data")
    checkpoint.write_bytes(b"no")
    with pytest.raises(SettingsError, match="Remove it"):
        bench.run(plan, checkpoint=checkpoint)


def test_scope_text_leaves_the_image_side_alone(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.TEXT)
    model, _ = bench.run(tuning(bench, Scope.TEXT))
    before, after = bench.model().learned(), model.learned()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        name for name in before if name.startswith(("prompt.normal", "prompt.abnormal", "prompt.text"))
    }


def test_scope_stem_adds_a_linear_that_starts_as_nothing(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.STEM)
    model, _ = bench.run(tuning(bench, Scope.STEM, epochs=1))
    fresh = bench.model()
    fresh.tune_patches()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, other = fresh.image_features(pixels), bench.model().image_features(pixels)
    assert torch.equal(one.cls, other.cls)
    assert model.learned()["patch.weight"].abs().max() > 0
    assert torch.equal(model.learned()["prompt.visual"], fresh.learned()["prompt.visual"])


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.TEXT, masks=False)
    # Without masks the loss is a mean over frames, so it does not matter in what parts they come.
    plan = tuning(bench, Scope.TEXT, epochs=1, objective="paper")
    one, _ = bench.run(plan)
    other, _ = bench.run(replace(plan, accumulate=4))
    for name, values in one.learned().items():
        torch.testing.assert_close(values, other.learned()[name], atol=1e-3, rtol=1e-2)


def test_weak_labels_learn_whether_not_where(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, Scope.TEXT, masks=False)
    _, history = bench.run(tuning(bench, Scope.TEXT, epochs=4))
    assert history.image[-1] < history.image[0]
    drawn = make_bench(tmp_path / "drawn", Scope.TEXT)
    assert drawn.run(tuning(drawn, Scope.TEXT, epochs=1))[1].local[0] > history.local[0]


def test_two_processes_learn_one_model(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[4])!r})\n"
        "import torch; from torch import distributed\n"
        "torch.set_num_threads(1)\n"
        "from tests.unit.trainer.tuning.test_loop import make_bench, tuning\n"
        "from trainer.tuning.loop import join_processes, processes\n"
        "from trainer.tuning.scope import Scope\n"
        "join_processes('cpu'); world, rank = processes(); assert world == 2\n"
        f"bench = make_bench(Path({str(tmp_path)!r}) / str(rank), Scope.TEXT)\n"
        "model, _ = bench.run(tuning(bench, Scope.TEXT, epochs=1))\n"
        "values = torch.cat([v.flatten() for v in model.learned().values()])\n"
        "both = [torch.zeros_like(values) for _ in range(2)]\n"
        "distributed.all_gather(both, values)\n"
        "fresh = torch.cat([v.flatten() for v in bench.model().learned().values()])\n"
        "assert torch.equal(*both) and not torch.equal(values, fresh)\n"
        "distributed.destroy_process_group()\n"
    )
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        str(script),
    ]
    done = subprocess.run(run, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_scopes_are_read_and_refused_by_name() -> None:
    assert parse_scopes(["thresholds", "stem"]) == (Scope.STEM, Scope.THRESHOLDS)
    assert learned_scope((Scope.STEM, Scope.THRESHOLDS)) is Scope.STEM
    assert learned_scope((Scope.REFERENCE,)) is None
    for names, said in (
        (["txt"], "Did you mean 'text'"),
        ([], "no scope"),
        (["text", "full"], "one of them learns"),
    ):
        with pytest.raises(SettingsError, match=said):
            parse_scopes(names)
