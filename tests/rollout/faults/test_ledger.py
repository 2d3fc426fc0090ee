"""The ledger charges a loss to the call that was running, per call, and times only what runs."""

import pytest

from blip3o_grpo.configs import FaultsSection
from blip3o_grpo.rollout.faults.ledger import CallLedger
from blip3o_grpo.rollout.messages import Verdict


@pytest.fixture
def ledger():
    limits = {"start": 100, "sample": 10, "decode": None, "score": 5, "sync": 20}
    return CallLedger(FaultsSection(retries=2, backoff_s=1, timeout_s=limits))


def test_only_the_running_call_is_charged_and_only_so_often(ledger):
    verdicts = []
    for attempt in range(4):
        ledger.born("sampler-0", now=attempt)
        ledger.begins("sampler-0", "innocent", "sample", now=attempt)
        ledger.ends("sampler-0", "innocent", now=attempt)
        verdicts.append(ledger.begins("sampler-0", "poison", "sample", now=attempt))
    assert [verdict.wait_s for verdict in verdicts[:3]] == [0, 1, 2]
    assert verdicts[3].refusal == (
        "3 attempts failed: its process died, then its process died, then its process died (faults.retries=2)"
    )
    limits = {"start": 100, "sample": 10, "decode": None, "score": 5, "sync": 20}
    assert ledger.begins("sampler-0", "innocent", "sample", now=9) == Verdict(limits_s=limits)
    assert ledger.take_counts() == {"retries": 2, "restarts": 3, "timeouts": 0}
    assert ledger.take_counts() == {"retries": 0, "restarts": 0, "timeouts": 0}


def test_a_run_may_lose_more_workers_than_a_call_may_lose_attempts(ledger):
    for call in range(30):
        assert ledger.gone_for("reward-ocr-0", now=call) is None
        ledger.begins("reward-ocr-0", f"call {call}", "score", now=call)
        ledger.born("reward-ocr-0", now=call)
        assert ledger.begins("reward-ocr-0", f"call {call}", "score", now=call).refusal is None
        ledger.ends("reward-ocr-0", f"call {call}", now=call)
    assert ledger.take_counts()["restarts"] == 29  # the first process is none


def test_what_hangs_is_named_and_charged(ledger):
    ledger.begins("reward-ocr-0", "hangs", "score", now=0)
    ledger.begins("decoder-0", "has no limit", "decode", now=0)
    assert ledger.overdue(now=5) == []
    assert ledger.overdue(now=5.1) == ["reward-ocr-0"]
    ledger.lose("reward-ocr-0", now=5.1, hung=True)
    assert ledger.overdue(now=99) == []
    ledger.born("reward-ocr-0", now=99)
    for _ in range(2):
        ledger.begins("reward-ocr-0", "hangs", "score", now=100)
        ledger.born("reward-ocr-0", now=101)
    refusal = ledger.begins("reward-ocr-0", "hangs", "score", now=102).refusal
    assert refusal.startswith("3 attempts failed: no answer within 5 s (score), then its process died, then its")
    assert "(faults.retries=2); where it hung is in Ray's log of the worker, worker-*.err" in refusal
    assert refusal.endswith("(see failures/ray-logs in the run folder)")
    assert ledger.take_counts()["timeouts"] == 1


def test_time_in_the_queue_and_the_back_off_do_not_count(ledger):
    for call in range(3):  # 4 s each, 12 s for the last one since it was submitted
        assert ledger.overdue(now=4 * call) == []
        ledger.begins("reward-ocr-0", str(call), "score", now=4 * call)
        ledger.ends("reward-ocr-0", str(call), now=4 * call + 4)
    ledger.begins("reward-ocr-0", "lost", "score", now=20)
    assert ledger.begins("reward-ocr-0", "lost", "score", now=20).wait_s == 1
    assert ledger.overdue(now=25.9) == []
    assert ledger.overdue(now=26.1) == ["reward-ocr-0"]


def test_loading_within_a_call_has_its_own_limit(ledger):
    ledger.begins("sampler-0", "call", "sample", now=0)
    ledger.enters("sampler-0", "start", now=1)
    assert ledger.overdue(now=90) == []
    ledger.enters("sampler-0", "sample", now=90)
    assert ledger.overdue(now=99) == []
    assert ledger.overdue(now=101) == ["sampler-0"]


def test_a_worker_that_does_not_come_back_is_gone(ledger):
    assert ledger.gone_for("decoder-0", now=0) is None
    assert ledger.gone_for("decoder-0", now=100) is None
    assert ledger.gone_for("decoder-0", now=101) == 101
    ledger.begins("decoder-0", "call", "decode", now=102)
    assert ledger.gone_for("decoder-0", now=500) is None
    ledger.ends("decoder-0", "call", now=500)
    assert ledger.gone_for("decoder-0", now=590) is None


def test_after_a_loss_of_the_ledger_workers_may_be_busy_with_anything():
    faults = FaultsSection(timeout_s={"start": 10, "sample": 50, "decode": 20, "score": 20, "sync": 20})
    forgetful = CallLedger(faults, forgetful=True)
    assert forgetful.gone_for("sampler-0", now=0) is None
    assert forgetful.gone_for("sampler-0", now=49) is None
    assert forgetful.overdue(now=49) == []  # it may be in the stage with the highest limit
    assert forgetful.overdue(now=51) == ["sampler-0"]
    forgetful.lose("sampler-0", now=51, hung=True)
    assert forgetful.gone_for("sampler-0", now=62) is not None
    forgetful.born("sampler-0", now=63)
    assert forgetful.take_counts()["restarts"] == 1  # workers are older than this ledger


def test_a_call_that_is_done_and_begun_again_was_lost_too(ledger):
    """Its process died before anybody had the result."""
    for _ in range(3):
        assert ledger.begins("reward-ocr-0", "dies after it", "score", now=0).refusal is None
        ledger.ends("reward-ocr-0", "dies after it", now=0)
        ledger.born("reward-ocr-0", now=0)
    assert "3 attempts failed: its process died" in ledger.begins("reward-ocr-0", "dies after it", "score", 0).refusal
    ledger.ends("reward-ocr-0", "dies after it", now=0)
    assert ledger.begins("reward-ocr-0", "another", "score", now=0).wait_s == 0


def test_a_worker_that_turns_out_to_have_died_did_not_hang(ledger):
    ledger.begins("sampler-0", "call", "sample", now=0)
    ledger.lose("sampler-0", now=11, hung=False)
    assert ledger.take_counts() == {"retries": 0, "restarts": 0, "timeouts": 0}
    assert ledger.gone_for("sampler-0", now=111) is None  # heard of when it was lost
    assert ledger.gone_for("sampler-0", now=112) == 101
    ledger.begins("sampler-0", "call", "sample", now=113)
    ledger.begins("sampler-0", "call", "sample", now=113)
    refusal = ledger.begins("sampler-0", "call", "sample", now=113).refusal
    assert refusal.startswith("3 attempts failed: its process died, then") and refusal.endswith("(faults.retries=2)")


def test_a_worker_is_heard_of_whenever_it_is_born_begins_or_ends(ledger):
    ledger.born("sampler-0", now=50)
    assert ledger.gone_for("sampler-0", now=150) is None and ledger.gone_for("sampler-0", now=151) == 101
    ledger.begins("sampler-0", "call", "sample", now=160)
    ledger.born("sampler-0", now=170)  # it died within the call, which is lost
    assert ledger.gone_for("sampler-0", now=270) is None and ledger.gone_for("sampler-0", now=271) == 101
    assert ledger.begins("sampler-0", "call", "sample", now=280).wait_s == 1


def test_only_the_call_in_progress_ends(ledger):
    ledger.begins("sampler-0", "new", "sample", now=0)
    ledger.ends("sampler-0", "old", now=1)
    assert ledger.overdue(now=11) == ["sampler-0"]
    ledger.ends("sampler-0", "new", now=11)
    assert ledger.overdue(now=99) == []
    ledger.enters("sampler-0", "decode", now=99)  # loads something between two calls
    ledger.ends("idle", "nothing", now=99)
    assert ledger.overdue(now=999) == []


def test_a_call_that_is_done_for_good_is_forgotten(ledger):
    ledger.begins("sampler-0", "call", "sample", now=0)
    ledger.begins("sampler-0", "call", "sample", now=0)
    ledger.ends("sampler-0", "call", now=0)
    ledger.begins("sampler-0", "another", "sample", now=0)
    ledger.ends("sampler-0", "another", now=0)
    assert ledger.begins("sampler-0", "call", "sample", now=0).wait_s == 0  # of a later step with the same name


def test_back_off_doubles_with_every_loss_and_each_retry_counts():
    faults = FaultsSection(
        retries=4, backoff_s=3, timeout_s={"start": 100, "sample": 10, "decode": 5, "score": 5, "sync": 5}
    )
    ledger = CallLedger(faults)
    assert [ledger.begins("sampler-0", "call", "sample", now=0).wait_s for _ in range(5)] == [0, 3, 6, 12, 24]
    assert ledger.overdue(now=34) == [] and ledger.overdue(now=34.1) == ["sampler-0"]
    assert ledger.take_counts()["retries"] == 4
    assert ledger.begins("sampler-0", "call", "sample", now=0).refusal
    assert ledger.take_counts()["retries"] == 0


def test_without_a_limit_nothing_is_overdue_and_nobody_gone():
    faults = FaultsSection(timeout_s={"start": None, "sample": 10, "decode": None, "score": 5, "sync": 5})
    ledger = CallLedger(faults)
    assert ledger.gone_for("decoder-0", now=0) is None and ledger.gone_for("decoder-0", now=1e9) is None
    forgetful = CallLedger(faults, forgetful=True)
    assert forgetful.gone_for("decoder-0", now=0) is None
    assert forgetful.overdue(now=1e9) == []  # it may be in a stage without a limit
    assert ledger.gone_for("sampler-0", now=0) is None and ledger.overdue(now=1e9) == []
