"""How a rollout ended, with the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from canaryflow.delivery.evidence import Evidence
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout_state import RolloutState
from canaryflow.verdict import Check, Verdict

Ending = Literal["promoted", "rolled back", "first", "aborted", "paused", "superseded"]

_WORDS = {"errors": "error rate", "latency": "share of slow requests"}


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended.

    Attributes:
        promoted: Whether the version that was deployed is the one that serves everybody now.
        decision: "first" when there was no canary: the version was, or was already, main alone;
            "superseded" when there was none, and main serves another version.
        verdict: The claims that were looked at, with the numbers.
        state: The rollout's last state: versions, events, samples.
    """

    promoted: bool
    decision: Ending
    verdict: Verdict
    state: RolloutState

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was seen at each look: t (s), weight, the arms' cumulative counters, log10 of the e-values."""
        return self.state.samples


def conclude(state: RolloutState, plan: RolloutPlan, version: str = "", serving: str = "") -> Outcome:
    """The outcome of a rollout that is over, or that a pause has left.

    Args:
        state: The last rollout's state, which may be another version's.
        plan: Its plan.
        version: The version that is asked for; empty asks for the last rollout's.
        serving: What main serves now.
    """
    none = state.phase in ("first", "live") or (version and state.canary_version != version)
    claimed = none or (state.phase == "done" and state.decision == "promoted")
    if version and claimed and serving != version:
        return _superseded(version, serving)
    if none:
        if version:
            # The state may tell of another version's rollout, which is not this one's to report.
            state = RolloutState(main_version=version)
        summary = (
            f"{state.main_version or 'The live version'} serves all traffic: there is no canary to roll out."
        )
        check = Check("canary", True, "none", "none where nothing else was live before")
        return Outcome(True, "first", Verdict("rollout", (check,), summary), state)
    ending: Ending = "paused" if state.phase != "done" else _ending(state.decision)
    promoted = ending == "promoted"
    checks = [*evidence_checks(state, plan, final=promoted), _decision(state, ending)]
    return Outcome(promoted, ending, Verdict("rollout", tuple(checks), sentence(state, ending)), state)


def _superseded(version: str, serving: str) -> Outcome:
    found = serving or "a version without a name"
    summary = f"{version} is not live: {found} serves all traffic, and there is no canary of {version}."
    check = Check("main's version", False, found, version)
    state = RolloutState(main_version=serving)
    return Outcome(False, "superseded", Verdict("rollout", (check,), summary), state)


def _ending(decision: str) -> Ending:
    known: dict[str, Ending] = {"promoted": "promoted", "aborted": "aborted"}
    return known.get(decision, "rolled back")


def sentence(state: RolloutState, ending: str) -> str:
    """The decision and why, as the first sentence of everything that is said of the rollout."""
    who = f" by {state.by}" if state.by else ""
    why = f": {state.reasons[0]}" if state.reasons else ""
    return f"Canary {state.canary_version} was {ending}{who}{why}"


def _decision(state: RolloutState, ending: Ending) -> Check:
    # A person's word, or the limit's, is a decision of its own: the tests may all have held.
    found = "; ".join([ending, *state.reasons])
    return Check("decision", ending == "promoted", found, "promoted")


def evidence_checks(state: RolloutState, plan: RolloutPlan, *, final: bool) -> list[Check]:
    """The claims of the statistical tests.

    Args:
        state: Carries the evidence.
        plan: The margins.
        final: The canary was promoted, so its non-inferiority is a claim as well.
    """
    if not state.evidence:
        return []
    margins = {"errors": plan.error_margin, "latency": plan.latency_margin}
    checks = []
    for metric, numbers in Evidence.from_dict(plan, state.evidence).summary().items():
        found = f"{arms(numbers)}; E = {numbers['e_value']:.3g}"
        name = _WORDS.get(metric, metric)
        threshold = numbers["threshold"]
        checks.append(
            Check(
                f"{name}: canary no worse than main (sequential two-sample test)",
                numbers["e_value"] < threshold,
                found,
                f"E under {threshold:g}",
            )
        )
        margin = margins.get(metric, 0.0)
        safe = numbers["e_safe"] >= threshold
        if final or safe:
            bound = (
                f"at most {100 * numbers['upper_bound']:.2f} points above main's; E = {numbers['e_safe']:.3g}"
            )
            name = f"{name}: canary at most {100 * margin:g} points above main (non-inferiority)"
            # A person, or on_inconclusive=promote, may have promoted without this proof: said, not hidden.
            checks.append(Check(name, safe, bound, f"E of at least {threshold:g}", "warning"))
    return checks


def arms(numbers: dict[str, float]) -> str:
    """Both arms' counts, for a person."""
    parts = []
    for arm in ("canary", "main"):
        count, hits = int(numbers[f"{arm}_n"]), int(numbers[f"{arm}_k"])
        share = f" ({100 * hits / count:.2f} %)" if count else ""
        parts.append(f"{arm} {hits:,} of {count:,}{share}")
    return ", ".join(parts)
