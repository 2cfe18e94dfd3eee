"""One run of the gate over packs that say what they are told, and its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from pipeline.testing import small_pack
from tests.unit.trainer.gate.frames import LIMITS, FakePair, sample
from trainer.data.dataset import ProductData
from trainer.data.sample import State
from trainer.gate import page as pages
from trainer.gate.page import write_page
from trainer.gate.record import record_of
from trainer.gate.rules import Outcome, Question, Rules
from trainer.gate.run import frames_of, run_gate
from trainer.gate.testset import make_test_set


class Counter:
    """Uses in memory."""

    def __init__(self, before=0):
        self.known = {}
        self.before = before

    def uses(self, test_hash):
        return self.known.get(test_hash, self.before)

    def count(self, test_hash):
        self.known[test_hash] = self.uses(test_hash) + 1
        return self.known[test_hash]


def frames(count=12, *, product="lid", unlabelled=0, seed=0):
    """So many good and so many defective parts, and frames nobody looked at."""

    def some(folder, number, first, **said):
        return [
            sample(f"{product}/{folder}/{n}.png", seed + first + n, product=product, **said)
            for n in range(number)
        ]

    good, bad = some("good", count, 0), some("hole", count, 100, word="hole")
    return ProductData(product, (*good, *bad, *some("new", unlabelled, 200, state=State.UNLABELLED)))


def scores(data, *, champion, challenger):
    """Good frames score low; defective ones as the two functions of their number say."""
    found = {}
    for number, one in enumerate(data.samples):
        low = 0.1 + number / 1000
        found[one.key] = (champion(number), challenger(number)) if one.defective else (low, low)
    return found


def asked(pair, data, question=Question.SUPERIOR, **options):
    test = make_test_set([data] if isinstance(data, ProductData) else data)
    return run_gate(pair, test, champion="a" * 64, challenger="b" * 64, question=question, **options)


def better(data):
    """The champion sees half of the defective parts, the challenger all."""
    return FakePair(
        scores(data, champion=lambda n: 0.9 if n % 2 else 0.05 + n / 1000, challenger=lambda n: 0.9)
    )


def written(tmp_path, gated, pair, names=("old.pack", "new.pack"), packs=None, **options):
    path = tmp_path / "gate.html"
    write_page(path, gated, pair, names, packs or (small_pack(), small_pack()), **options)
    return path.read_text()


def test_a_better_pack_is_promoted_and_its_document_says_why():
    data = frames(unlabelled=3)
    pair = better(data)
    done = []
    found = asked(pair, data, advance=done.append)
    said = json.loads(json.dumps(record_of(found), allow_nan=False))
    assert said["outcome"] == "promote"
    assert said["rule"] == "better"
    assert said["auroc"]["lower"] > 0
    assert said["auroc"]["challenger"] == 1
    assert said["test"] | {"sha256": "", "types": {}} == {
        "sha256": "", "uses_before": 0, "frames": 24, "good_parts": 12, "defective_parts": 12, "types": {}, "unlabelled": 3,
        "copies": 0, "unusable": 0,
    }  # fmt: skip
    assert said["test"]["types"] == {"hole": 12}
    assert said["changed_verdicts"] == len(found.changed) == 6
    assert [one["rule"] for one in said["findings"]] == ["fresh test", "better"]
    assert len(said["label_next"]) == 3
    assert sum(done) == frames_of(found.test) == 27


def test_a_test_that_was_compared_on_has_been_used():
    counter = Counter()
    data = frames()
    for _ in range(2):
        found = asked(better(data), data, uses=counter)
    assert found.uses == 1
    assert counter.known == {found.test.sha256: 2}
    few = frames(3)
    assert asked(better(few), few, uses=counter).decision.outcome is Outcome.NOT_DECIDABLE
    assert len(counter.known) == 1  # nothing was learned from it
    assert asked(better(data), data, uses=Counter(12)).decision.outcome is Outcome.REFUSE


def test_a_picture_that_can_not_be_used_says_nothing_of_either_pack():
    data = frames(13)
    found = asked(replace(better(data), unusable=("lid/good/3.png",)), data)
    assert [one.key for one in found.unusable] == ["lid/good/3.png"]
    assert found.decision.outcome is Outcome.PROMOTE
    assert record_of(found)["test"]["frames"] == 25


def test_what_the_challenger_lost_comes_first():
    data = frames(12)
    said = scores(data, champion=lambda n: 0.9, challenger=lambda n: 0.9)
    said["lid/hole/3.png"] = (0.9, 0.1)
    said["lid/good/4.png"] = (0.1, 0.4)
    said["lid/hole/5.png"] = (0.4, 0.9)
    found = asked(FakePair(said), data)
    assert [one.sample.key for one in found.changed] == ["lid/hole/3.png", "lid/good/4.png", "lid/hole/5.png"]


def test_only_so_many_unlabelled_frames_are_inspected(tmp_path):
    data = frames(2, unlabelled=30)
    pair = FakePair({one.key: (0.1, 0.1) for one in data.samples})
    test = make_test_set([data])
    assert frames_of(test, 5) == 34
    assert frames_of(test, 0) == 4
    found = asked(pair, data, propose=5)
    assert len(found.proposals) == 5
    none = asked(pair, data, propose=0)
    assert none.proposals == ()
    assert "None was chosen from the 30 frames without a label" in written(tmp_path, none, pair)


def test_the_page_says_what_was_decided_and_by_how_much(tmp_path):
    data = frames(unlabelled=4)
    pair = better(data)
    html = written(tmp_path, asked(pair, data), pair)
    assert "<h1>Promote</h1>" in html
    assert (
        "<b>new.pack</b> instead of <b>old.pack</b>. Rule “better” is kept: image AUROC 1.000 against" in html
    )
    assert html.count("<figure>") == 6 + 4
    assert "OK → NotOK" in html
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", html)
    assert "http" not in html
    assert 'name="viewport"' in html
    assert [path.name for path in tmp_path.iterdir()] == ["gate.html"]


def test_the_page_says_that_more_than_one_rule_refuses(tmp_path):
    data = frames()
    pair = FakePair(scores(data, champion=lambda n: 0.9, challenger=lambda n: 0.1 + n / 1000))
    found = asked(pair, data, rules=Rules(recall={"*": 0.9, "hole": 0.8}))
    html = written(tmp_path, found, pair)
    assert "Rule “recall” refuses: lid: all types: 0 of 12 parts are NotOK" in html
    assert "So does 1 more." in html


def test_a_test_of_too_few_parts_has_a_page_too(tmp_path):
    data = frames(3)
    pair = better(data)
    html = written(tmp_path, asked(pair, data), pair)
    assert "<h1>Not decidable: label 14 more parts</h1>" in html
    assert "Difference in image AUROC" not in html
    assert "No frame of the data is without a label" in html
    empty = ProductData("lid", ())
    assert "the test is empty" in written(tmp_path, asked(pair, empty), pair)


def test_each_product_has_its_row_and_its_place_lies_on_the_scale(tmp_path):
    data = [frames(product="lid"), frames(product="cup", seed=1000)]
    said = {}
    for one in data:
        said |= better(one).scores
    found = asked(FakePair(said), data)
    assert found.decision.outcome is Outcome.PROMOTE
    scale, spans = pages._spans(found)
    assert [one.name for one in spans] == ["all products", "cup", "lid"]
    assert all(0 <= one.lower <= one.value <= one.upper <= 100 for one in spans)
    assert scale.margins[0] < scale.zero < scale.margins[1]
    html = written(tmp_path, found, FakePair(said))
    assert html.count('role="img"') == 3 + 1


def test_scores_of_good_and_defective_frames_are_drawn_apart(tmp_path):
    data = frames()
    pair = better(data)
    pack = small_pack(
        products={
            "lid": replace(small_pack().product("*"), threshold_ok=LIMITS[0], threshold_notok=LIMITS[1])
        }
    )
    found = asked(pair, data)
    dots = pages._scatter(found.compared, (pack, small_pack()))
    assert dots.good.count("M") == dots.defective.count("M") == 12
    assert len(dots.thresholds) == 1
    places = [float(v) for v in re.findall(r"M([\d.]+) ", dots.good + dots.defective)]
    assert 0 <= min(places) <= max(places) <= 400
    assert "- - - NotOK from there" in written(tmp_path, found, pair, packs=(pack, pack))


def test_the_page_stays_small_whatever_changed(tmp_path):
    data = frames(40)
    said = scores(data, champion=lambda n: 0.9, challenger=lambda n: 0.05 + n / 1000)
    found = asked(FakePair(said), data)
    html = written(tmp_path, found, FakePair(said))
    assert html.count("<figure>") == pages.MAX_CHANGED
    assert f"{40 - pages.MAX_CHANGED} more verdicts changed" in html
    small = written(tmp_path, found, FakePair(said), max_bytes=100_000)
    assert 0 < small.count("<figure>") < pages.MAX_CHANGED
    assert len(small) < 150_000
    assert f"{40 - small.count('<figure>')} more verdicts changed" in small


def test_hostile_names_are_text(tmp_path):
    data = frames(1)
    evil = replace(data.samples[1], key="<script>alert(1)</script>.png")
    data = ProductData("lid", (data.samples[0], evil))
    pair = FakePair({data.samples[0].key: (0.1, 0.1), evil.key: (0.1, 0.9)})
    html = written(tmp_path, asked(pair, data), pair, names=("<b>a", "<i>b"))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<i>b" not in html
