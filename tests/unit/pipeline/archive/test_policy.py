"""Which images are kept, as properties: nothing that matters is ever left out, and a sample is a sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.policy import OF_OK_FRAMES, Policy, Reason, keeps_for_audit, reason_to_keep
from schemas.ids import frame_key
from tests.unit.pipeline.archive.rows import make_row

RATES = st.floats(0, 1)
KEYS = st.integers(0, 10**9).map(lambda number: frame_key("s", str(number)))
POLICIES = st.builds(Policy, near_margin=RATES, audit_rate=RATES, ok_per_day=st.integers(0, 10))
SCORES = st.one_of(st.none(), st.floats(0, 1, width=32))


@given(st.text(), RATES, RATES)
def test_who_is_drawn_at_a_rate_is_drawn_at_every_higher_one(key: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert keeps_for_audit(key, low) <= keeps_for_audit(key, high)
    assert not keeps_for_audit(key, 0.0)
    assert keeps_for_audit(key, 1.0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_a_sample_has_the_size_it_should(rate: float) -> None:
    count = 20_000
    drawn = sum(keeps_for_audit(frame_key("s", str(number)), rate) for number in range(count))
    deviation = (count * rate * (1 - rate)) ** 0.5
    assert abs(drawn - count * rate) < 5 * deviation


def test_the_sample_never_changes() -> None:
    """Worker and archiver may be of different versions: what one promises the other keeps."""
    keys = [frame_key("s", str(number)) for number in range(40)]
    assert [number for number, key in enumerate(keys) if keeps_for_audit(key, 0.1)] == [1, 11, 15, 35]


@given(st.sampled_from(["NotOK", "NotDecidable"]), POLICIES, SCORES, KEYS)
def test_what_is_not_ok_is_kept_under_every_policy(
    evaluation: str, policy: Policy, score: float | None, key: str
) -> None:
    reason = reason_to_keep(make_row(0, evaluation, anomaly_score=score, frame_key=key), policy)
    assert reason == {"NotOK": Reason.NOT_OK, "NotDecidable": Reason.NOT_DECIDABLE}[evaluation]
    assert reason not in OF_OK_FRAMES


@given(POLICIES, KEYS, st.sampled_from(["OK", "Undefined"]), SCORES)
def test_a_good_frame_is_kept_as_a_sample_or_near_its_threshold(
    policy: Policy, key: str, evaluation: str, score: float | None
) -> None:
    row = make_row(0, evaluation, frame_key=key, anomaly_score=score)
    reason = reason_to_keep(row, policy)
    if keeps_for_audit(key, policy.audit_rate):
        assert reason is Reason.AUDIT
    elif reason is not None:
        assert reason is Reason.NEAR_THRESHOLD
        assert evaluation == "OK"
        assert score is not None
        assert score >= (1 - policy.near_margin) * 0.4


@given(POLICIES, KEYS)
def test_a_promise_is_kept_whatever_the_policy(policy: Policy, key: str) -> None:
    assert reason_to_keep(make_row(0, "OK", frame_key=key, image_uri="s3://b/k"), policy) is Reason.AUDIT


@pytest.mark.parametrize(("score", "near"), [(0.35, False), (0.361, True), (0.39, True), (None, False)])
def test_near_is_a_share_of_the_threshold(score: float | None, near: bool) -> None:
    policy = Policy(near_margin=0.1, audit_rate=0)
    reason = reason_to_keep(make_row(0, "OK", anomaly_score=score), policy)
    assert (reason is Reason.NEAR_THRESHOLD) == near
    assert reason_to_keep(make_row(0, "OK", anomaly_score=0.39), Policy(near_margin=0, audit_rate=0)) is None
    assert reason_to_keep(make_row(0, "OK", anomaly_score=0.39, threshold_ok=None), policy) is None


def test_a_failed_frame_is_kept_and_a_dropped_one_is_not() -> None:
    policy = Policy(audit_rate=1)
    assert reason_to_keep(make_row(0, "Undefined", result_state="Failed"), policy) is Reason.FAILED
    assert reason_to_keep(make_row(0, "Undefined", result_state="Aborted"), policy) is None
