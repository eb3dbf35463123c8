"""The judge turns back what is worse, promotes what is shown to be no worse, and holds otherwise."""

import json
import math
from itertools import pairwise

import pytest
from made_traffic import START, STEPS, Traffic, has, judge, step_of, users

from assay.release.judge import guards, quantiles
from assay.release.judge import judge as judge_module
from assay.release.judge.decision import Decision
from assay.release.judge.judge import Judge
from assay.release.judge.sample import Users, key_of
from assay.release.judge.step import bad
from assay.release.observations import Access, Attempt, Outcome, Role, Route
from assay.release.schema import BusinessTest, Guards, LatencyTest, Step
from assay.release.schema import Judge as Settings


def decided(traffic: Traffic, settings: Settings | None = None) -> Decision:
    one = judge(settings)
    accesses, outcomes = traffic.lines()
    one.feed(accesses, outcomes)
    return one.decide(accesses[-1].timestamp, step_of(traffic.share))


WIDE = Settings(error_margin=0.05, latency=LatencyTest(margin=0.5), user_seconds=10)
BUSINESS = Settings(error_margin=0.05, latency=None, business=BusinessTest(margin=0.1), user_seconds=10)


def test_no_worse_is_promoted() -> None:
    decision = decided(Traffic(3000), WIDE)
    assert (decision.action, decision.reason) == ("promote", "no worse within the margins")
    errors = decision.evidence["step"]["metrics"]["errors"]
    assert errors["difference_below"] <= 0.05 and errors["users"] == pytest.approx([1500, 1500], rel=0.1)


@pytest.mark.parametrize(
    ("traffic", "settings", "metric"),
    [
        (Traffic(1500, errors=(0.01, 0.1)), WIDE, "errors"),
        (Traffic(4000, share=0.1, errors=(0.01, 0.1)), WIDE, "errors"),
        (Traffic(1500, slower=2.0), WIDE, "latency"),
        (Traffic(1500, values=(0.6, 0.3)), BUSINESS, "business"),
    ],
)
def test_worse_is_turned_back(traffic: Traffic, settings: Settings, metric: str) -> None:
    decision = decided(traffic, settings)
    assert decision.action == "rollback" and decision.reason.startswith(
        f"{metric}, at share {traffic.share:g}"
    )


def test_of_a_user_s_errors_the_first_counts_and_no_other() -> None:
    lines, _ = Traffic(100, errors=(0.0, 0.5)).lines()
    failed = next(line for line in lines if line.attempts[0].failed)
    once, often = judge(WIDE), judge(WIDE)
    once.feed(lines)
    often.feed(line for one in lines for line in [one] * (50 if one is failed else 1))
    assert once.steps[0.5].errors.state() == often.steps[0.5].errors.state()


def test_better_is_no_reason_to_turn_back() -> None:
    assert decided(Traffic(3000, errors=(0.1, 0.0), slower=0.5), WIDE).action == "promote"


def test_inconclusive_holds_and_says_how_long() -> None:
    decision = decided(Traffic(400), replace_margin(0.05))
    assert (decision.action, decision.reason) == ("hold", "inconclusive: errors")
    assert decision.seconds is not None and 5 < decision.seconds < 500
    more = decided(Traffic(400 + int(3 * decision.seconds / 0.05)), replace_margin(0.05))
    assert more.action == "promote"


def replace_margin(margin: float) -> Settings:
    return Settings(error_margin=margin, latency=None, user_seconds=10)


def test_without_enough_users_nothing_is_promoted() -> None:
    few = Step(share=0.5, users=10_000)
    one = judge(WIDE)
    accesses, _ = Traffic(3000).lines()
    one.feed(accesses)
    decision = one.decide(accesses[-1].timestamp, few)
    assert decision.action == "hold" and "of 10000 users" in decision.reason and decision.seconds is not None


def test_a_step_without_traffic_holds() -> None:
    decision = judge().decide(START, STEPS[0])
    assert (decision.action, decision.seconds) == ("hold", None)


def test_business_that_nobody_reports_holds_and_has_no_time() -> None:
    decision = decided(Traffic(1500), BUSINESS)
    assert (decision.action, decision.seconds) == ("hold", None)
    assert decision.reason == "inconclusive: business"
    assert decision.evidence["step"]["metrics"]["business"]["stable"] is None


def test_at_full_share_guards_alone_speak() -> None:
    assert decided(Traffic(100, share=1.0, slower=9.0)).action == "promote"
    assert judge().decide(START, None).action == "promote"


def test_a_split_that_is_not_what_it_should_be_holds() -> None:
    """Half of the stable version's users never come to the log."""
    lines, _ = Traffic(3000).lines()
    one = judge(WIDE)
    one.feed(line for line in lines if line.assigned == "candidate" or line.user[-1] in "01234567")
    decision = one.decide(lines[-1].timestamp, step_of(0.5))
    assert decision.action == "hold" and decision.reason.startswith("sample ratio: ")


def test_users_at_the_wrong_version_hold() -> None:
    def other(user: str, share: float) -> bool:
        return has(user[::-1], share)

    decision = decided(Traffic(1000, assigned=other), WIDE)
    assert decision.action == "hold" and decision.reason.startswith("split: ")


def test_only_users_whom_this_step_moved_are_compared() -> None:
    one = judge(WIDE)
    early, _ = Traffic(500, share=0.1).lines()
    late, _ = Traffic(500, share=0.5).lines()
    one.feed(early)
    one.feed(line._replace(timestamp=line.timestamp + 1000) for line in late)
    counted = one.decide(0, step_of(0.5)).evidence["step"]["users"]
    everyone = users(500, 0)
    assert counted["candidate"] == sum(has(user, 0.5) and not has(user, 0.1) for user in everyone)
    assert counted["stable"] == sum(not has(user, 0.5) for user in everyone)
    assert one.steps[0.5].candidate_share == pytest.approx(0.4 / 0.9)


@pytest.mark.parametrize("route", ["anonymous", "header", "early", "shadow"])
def test_what_is_not_split_at_random_is_not_compared(route: str) -> None:
    one = judge(WIDE)
    lines, _ = Traffic(200, errors=(0.0, 0.9)).lines()
    if route == "shadow":  # which has no second attempt
        lines = [line._replace(attempts=line.attempts[:1]) for line in lines]
    one.feed(line._replace(route=route) for line in lines)  # type: ignore[arg-type]
    assert one.steps == {}
    assert one.guards.tripped is not None


def test_a_restored_judge_goes_on_bit_for_bit() -> None:
    traffic = Traffic(600, share=0.5, errors=(0.02, 0.03), values=(0.5, 0.5))
    settings = Settings(business=BusinessTest(), user_seconds=3)
    accesses, outcomes = traffic.lines()
    whole = judge(settings)
    whole.feed(accesses, outcomes)
    parts = judge(settings)
    cuts = [0, 1, 2, 50, 51, 500, 777, len(accesses)]
    for begin, end in pairwise(cuts):
        until = accesses[end].timestamp if end < len(accesses) else math.inf
        since = accesses[begin].timestamp if begin else -math.inf
        parts.feed(
            accesses[begin:end],
            [outcome for outcome in outcomes if since <= outcome.timestamp < until],
            position={"7": end},
        )
        parts = Judge.restored(settings, STEPS, has, json.loads(json.dumps(parts.state())))
    assert parts.position == {"7": len(accesses)}
    assert {**parts.state(), "position": None} == whole.state()


def test_the_state_of_other_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="other settings"):
        Judge.restored(WIDE, STEPS, has, judge().state())


def test_memory_is_bounded_and_the_share_follows() -> None:
    held = Users(most=100)
    for number in range(10_000):
        key = key_of(f"{number}")
        candidate = number % 10 == 0
        if held.sampled(key, candidate):
            held.failed.add(key)
            held.add(key, candidate)
    assert len(held.seen[0]) <= 100 and len(held.seen[1]) <= 100
    assert held.share(0.1) == pytest.approx(0.5, abs=0.2)
    assert held.count(False) == pytest.approx(9000, rel=0.3)
    assert held.failed and held.failed <= held.seen[0] | held.seen[1]
    back = Users(most=100)
    back.restore(json.loads(json.dumps(held.state())))
    assert back.seen == held.seen and back.bits == held.bits


def attempts(
    role: Role,
    failed: bool,
    count: int,
    *,
    people: int = 3,
    since: float = START,
    again: int | None = 200,
    route: Route = "early",
) -> list[Access]:
    """again: the stable version's answer to what the candidate failed; None: nobody asked it."""
    tried: tuple[Attempt, ...] = (Attempt(role, None if failed else 200, 0.01),)
    if failed and role == "candidate" and again is not None:
        tried += (Attempt("stable", again, 0.01),)
    return [
        Access(since + number / 100, "r", f"{number % people:032x}", role, route, tried, 200, 0.01, 0.1, 1)
        for number in range(count)
    ]


def test_an_error_burst_turns_back_at_once() -> None:
    one = judge()
    one.feed(attempts("candidate", True, 6))
    assert one.decide(START, STEPS[0]).action == "hold", "six may be chance"
    one.feed(attempts("candidate", True, 1, since=START + 1))
    decision = one.decide(START, STEPS[0])
    assert decision.action == "rollback" and decision.reason.startswith("error burst: 7 of 7")
    one.feed(attempts("candidate", False, 1000, since=START + 100))
    assert one.decide(START + 200, STEPS[0]).action == "rollback"


@pytest.mark.parametrize(
    "lines",
    [
        attempts("candidate", True, 6),
        attempts("candidate", True, 50, people=1),
        attempts("candidate", True, 50, again=500),
        attempts("candidate", True, 50, again=None),
        attempts("candidate", True, 10, route="shadow"),
        sorted(
            attempts("stable", True, 20)
            + attempts("candidate", True, 30, since=START + 0.005, route="shadow")
        ),
        sorted(attempts("candidate", True, 20) + attempts("candidate", False, 30, since=START + 0.005)),
        attempts("stable", True, 50) + attempts("candidate", True, 50, since=START + 1, again=500),
        attempts("candidate", True, 6) + attempts("candidate", True, 3, since=START + 60),
        attempts("stable", True, 60, people=30) + attempts("candidate", True, 10, since=START + 0.7),
        sorted(
            attempts("candidate", False, 30, people=30) + attempts("candidate", True, 5, since=START + 0.3)
        ),
    ],
    ids=[
        "too few",
        "one user",
        "what the stable version fails too",
        "what nobody else was asked",
        "few copies",
        "copies as originals",
        "by chance",
        "both versions",
        "apart",
        "an outage of others",
        "a small share",
    ],
)
def test_what_is_no_burst(lines: list[Access]) -> None:
    one = judge()
    one.feed(lines)
    assert one.decide(START, None).action == "promote"


def test_a_burst_of_copies_turns_back() -> None:
    one = judge()
    one.feed(attempts("candidate", True, 20, route="shadow"))
    assert one.decide(START, None).reason.startswith("error burst: ")


def test_an_outage_that_is_over_excuses_nothing() -> None:
    one = judge()
    one.feed(attempts("stable", True, 60, people=30))
    one.feed(attempts("candidate", True, 20, since=START + 60, again=None, route="shadow"))
    assert one.decide(START, None).reason.startswith("error burst: ")


def test_a_burst_is_looked_for_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "MOST_ATTEMPTS", 50)
    burst = guards.Burst(seconds=1000)
    for number in range(200):
        burst.add(number / 100, f"{number}", failed=number < 100)
    assert (len(burst.attempts), len(burst.users), burst.failed) == (50, 50, 0)


def test_each_bet_that_their_failures_are_its_own_asks_for_more() -> None:
    """So that all of them together stay within the level."""

    def needed(begun: int) -> int:
        bet = judge().guards.own
        bet.begun = begun
        for number in range(1, 100):
            bet.add(True)
            if bet.certain:
                return number
        raise AssertionError

    assert (needed(0), needed(19)) == (7, 11)


def test_the_level_is_shared_by_guards_steps_and_metrics() -> None:
    one = judge(Settings(business=BusinessTest()))
    tests = one.level * one.metrics * one.compared
    assert (one.metrics, one.compared) == (3, 3)
    assert tests + one.guards.own.level + one.guards.copies.level == pytest.approx(0.05)


@pytest.mark.parametrize("times", [2.0, 4.0])
def test_the_level_of_the_ratio_check_is_shared_by_steps(times: float) -> None:
    one = judge(WIDE)
    one.feed(Traffic(300).lines()[0])
    one.steps[0.5].ratio.log_wealth[:] = math.log(times / WIDE.ratio_level)
    found = one.decide(START, step_of(0.5)).reason.startswith("sample ratio: ")
    assert found is (times > one.compared)


def test_what_was_found_stays_found_by_the_next_judge() -> None:
    burst, worse = judge(), judge(WIDE)
    burst.feed(attempts("candidate", True, 20))
    worse.feed(Traffic(1500, errors=(0.01, 0.1)).lines()[0])
    assert worse.guards.tripped is None
    for one in (burst, worse):
        expected = one.decide(START, None)
        assert expected.action == "rollback"
        state = json.loads(json.dumps(one.state()))
        again = Judge.restored(one.settings, STEPS, has, state)
        assert again.decide(START, None) == expected


def test_a_certain_difference_within_the_margin_does_not_turn_back() -> None:
    """Where that it is within it was shown before."""
    alike, apart = Traffic(500, errors=(0.0, 0.0)), Traffic(2000, seed=1, errors=(0.01, 0.06))
    later = [line._replace(timestamp=line.timestamp + 1000) for line in apart.lines()[0]]
    lines = [*alike.lines()[0], *later]
    strict, lenient = judge(replace_margin(0.01)), judge(replace_margin(0.6))
    strict.feed(lines)
    lenient.feed(lines)
    assert strict.decide(START, step_of(0.5)).action == "rollback"
    assert lenient.decide(START, step_of(0.5)).action == "promote"
    found = lenient.steps[0.5].errors
    assert found.test.log_e > math.log(1 / found.level), "though it is certain"


def test_a_candidate_that_breaks_late_is_turned_back_at_full_share() -> None:
    """After an hour with a failure now and then, whose bets have used up some of the level."""
    one = judge()
    for minute in range(60):
        since = START + 60 * minute
        one.feed(
            attempts("candidate", True, 1, since=since) + attempts("candidate", False, 50, since=since + 1)
        )
    assert one.decide(START, None).action == "promote"
    one.feed(attempts("candidate", True, 25, people=5, since=START + 3600))
    assert one.decide(START, None).reason.startswith("error burst: ")


def test_not_ready_for_too_long_turns_back() -> None:
    one = judge(Settings(guards=Guards(unready_seconds=2)))
    for now, ready in [(0.0, True), (1.0, False), (2.5, True), (3.0, False), (4.0, None), (4.9, False)]:
        one.health(now, ready)
        assert one.decide(now, None).action == "promote"
    one.health(5.0, False)
    assert one.decide(5.0, None).reason == "the candidate has been down or not ready for 2.0 s"


def test_non_finite_outputs_turn_back() -> None:
    one = judge()
    one.health(0.0, True, None)
    one.health(0.0, True, 0)
    assert one.decide(0.0, None).action == "promote"
    one.health(1.0, True, 1)
    assert one.decide(1.0, None).reason.startswith("non-finite outputs: 1")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, False) for status in (200, 304, 401, 403, 408, 429, 499)),
        *((status, True) for status in (None, 400, 404, 413, 422, 500, 503)),
    ],
)
def test_what_counts_as_an_error(status: int | None, expected: bool) -> None:
    assert bad(Attempt("candidate", status, 0.1)) is expected


def test_values_that_are_none_are_left_out() -> None:
    one = judge(BUSINESS)
    user = users(1, 0)[0]
    values = [Outcome(START, user, value) for value in (1.5, -0.1, math.nan)]
    times = [Outcome(time, user, 0.5) for time in (math.nan, math.inf, -math.inf)]
    one.feed([], [*values, *times])
    assert one.decide(START, None).evidence["unusable_outcomes"] == 6
    assert one.waiting == [], "what waits is kept as JSON, which has no such numbers"


def test_outcomes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "MOST_WAITING", 10)
    one = judge(BUSINESS)
    one.feed([], [Outcome(START + number, users(1, 0)[0], 0.5) for number in range(15)])
    assert (len(one.waiting), one.unusable) == (10, 5)


def of_one_user(*given: tuple[float, Attempt]) -> list[Access]:
    """Requests of a user of the stable version at share 0.5, each so many seconds after the first; and the end of their window."""
    user = next(user for user in users(100, 0) if not has(user, 0.5))
    other = next(user for user in users(100, 1) if not has(user, 0.5))
    end = (60.0, Attempt("stable", 200, 0.5))
    return [
        Access(START + at, "r", one, "stable", "split", (attempt,), attempt.status or 502, 0.1, 0.5, 1)
        for one, at, attempt in [*((user, *pair) for pair in given), (other, *end)]
    ]


WELL, FAILED = Attempt("stable", 200, 0.5), Attempt("stable", 500, 0.001)


def test_a_user_counts_by_what_happens_in_their_time() -> None:
    """An error stays one though others follow it; what fails has no latency; values of later do not count."""
    one = judge(Settings(user_seconds=10, business=BusinessTest()))
    lines = of_one_user((0.0, FAILED), (1.0, WELL), (11.0, WELL), (12.0, WELL))
    values = [Outcome(START + at, lines[0].user, value) for at, value in ((2.0, 1.0), (12.0, 0.0))]
    one.feed(lines, values)
    step = one.steps[0.5]
    assert step.errors.margin.means() == (1.0, None)
    assert step.business is not None and step.business.margin.means() == (0.0, None)
    assert step.latency is not None and step.latency.versions[0].users == 1
    (held,) = step.latency.versions[0].weights.nonzero()[0]
    assert held == quantiles.bin_of(0.5)


def test_what_is_reported_of_the_time_before_is_about_something_else() -> None:
    """Another version may have answered then; its line is read late."""
    one = judge(Settings(user_seconds=10, business=BusinessTest()))
    lines = of_one_user((0.0, WELL), (1.0, WELL))
    one.feed(lines[:1])
    one.feed(
        lines[1:], [Outcome(START + at, lines[0].user, value) for at, value in ((-1.0, 0.0), (0.5, 1.0))]
    )
    business = one.steps[0.5].business
    assert business is not None and business.margin.means() == (0.0, None)


def test_a_value_counts_in_one_step() -> None:
    """The newest in which its user has come, though their time in the one before is not over."""
    one = judge(Settings(user_seconds=10, business=BusinessTest()))
    user = next(user for user in users(1000, 0) if not has(user, 0.5))
    before, after = (
        Access(START + at, "r", user, "stable", "split", (WELL,), 200, 0.1, share, 1)
        for at, share in ((0.0, 0.1), (3.0, 0.5))
    )
    other = next(user for user in users(1000, 1) if not has(user, 0.5))
    last = Access(START + 60, "r", other, "stable", "split", (WELL,), 200, 0.1, 0.5, 1)
    values = [Outcome(START + at, user, value) for at, value in ((2.0, 0.0), (4.0, 1.0))]
    one.feed([before, after, last], values)
    means = [step.business.margin.means()[0] for step in one.steps.values() if step.business]
    assert means == [1.0, 0.0], "of 1 − value: the first step has the first value alone, the second the other"


def test_latency_that_is_none_is_left_out() -> None:
    lines, _ = Traffic(300).lines()
    one = judge(WIDE)
    one.feed(
        line._replace(attempts=(replace_seconds(line.attempts[0]), *line.attempts[1:])) for line in lines
    )
    latency = one.decide(START, step_of(0.5)).evidence["step"]["metrics"]["latency"]
    assert (latency["stable"], latency["users"]) == (None, [0, 0])


def replace_seconds(attempt: Attempt) -> Attempt:
    return attempt._replace(seconds=None)


@pytest.mark.parametrize(("seconds", "action"), [((0.002, 0.003), "promote"), ((0.020, 0.030), "rollback")])
def test_one_step_of_the_front_s_clock_is_no_slowdown(seconds: tuple[float, float], action: str) -> None:
    """Its logs have whole milliseconds; a quantile of two of them is a step from three."""
    one = judge(Settings(error_margin=0.05, latency=LatencyTest(quantile=0.5), user_seconds=1))
    lines, _ = Traffic(1500).lines()
    one.feed(with_seconds(line, seconds[line.assigned == "candidate"]) for line in lines)
    assert one.decide(START, step_of(0.5)).action == action


def with_seconds(line: Access, seconds: float) -> Access:
    return line._replace(attempts=(line.attempts[0]._replace(seconds=seconds), *line.attempts[1:]))


def test_where_no_new_users_come_no_time_is_promised() -> None:
    lines, _ = Traffic(300).lines()
    one = judge(replace_margin(0.02))
    one.feed(lines)
    assert one.decide(START, step_of(0.5)).seconds is not None
    one.feed(lines[-1]._replace(timestamp=lines[-1].timestamp + second) for second in range(1000))
    decision = one.decide(START, step_of(0.5))
    assert (decision.action, decision.seconds) == ("hold", None)
    assert decision.reason == "inconclusive: errors; no new users come"


def test_a_share_that_the_front_rounds_is_the_step_s() -> None:
    third = Step(share=1 / 3, users=1)
    one = Judge(WIDE, [third, STEPS[-1]], has)
    one.feed(Traffic(100, share=0.3333).lines()[0])
    assert one.decide(START, third).evidence["step"]["users"]["candidate"] > 10


def test_a_line_without_a_time_stops_nothing() -> None:
    lines, _ = Traffic(300).lines()
    broken, whole = judge(WIDE), judge(WIDE)
    broken.feed([lines[0]._replace(timestamp=math.nan, user=users(1, 9)[0]), *lines])
    whole.feed(lines)
    assert broken.state() == whole.state()
