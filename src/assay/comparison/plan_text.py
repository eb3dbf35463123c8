"""A plan as a person reads it."""

from assay.comparison.plan import Plan, Step
from assay.comparison.planning import ASSURANCE, MOST_SIMULATED
from assay.comparison.wording import REPLICATES, change_text, floor_text
from assay.config.looks import NAMES


def text(plans: list[Plan], *, at_once: int) -> str:
    lines: list[str] = []
    for one in plans:
        lines += [*_of(one, at_once), ""]
    if len(plans) > 1:
        lines += [_together(plans), ""]
    return "\n".join([*lines, *_notes(plans)])


def _of(plan: Plan, at_once: int) -> list[str]:
    many = REPLICATES[plan.pairing][1]
    change = change_text(plan.scale, plan.unit, plan.difference).strip()
    if plan.goal == "difference":
        aim = f"to show a difference of {change}"
    else:
        margin = floor_text(plan.scale, plan.unit, plan.margin or 0.0)
        aim = f"to show that they differ by less than {margin}, supposed they differ by {change}"
    lines = [
        f"{plan.arm} against {plan.baseline} in {plan.title}: {aim},",
        f"with power {100 * plan.wanted_power:g}% at level {plan.alpha:.3g}",
        "",
        f"  {many} needed   {_needed(plan)}",
        f"  deviation      {_deviation(plan)}",
    ]
    if not plan.difference_told:
        lines.append(
            "  difference     the pilot's, which is uncertain itself; --difference tells the smallest that matters"
        )
    return [*lines, "", *_table(plan, at_once), *_looks(plan)]


def _looks(plan: Plan) -> list[str]:
    found = plan.looks
    if found is None:
        return []
    decided = ", ".join(
        f"{_percent(share)} by {look}" for look, share in zip(found.looks, found.decided, strict=True)
    )
    nothing = "there is no difference" if plan.goal == "difference" else "they differ by just the margin"
    return [
        "",
        f"  looks after {', '.join(map(str, found.looks))} ({NAMES[found.spending]} spending): power {_percent(found.power)}",
        f"  decided        {decided}",
        f"  mean seeds     {found.mean_pairs:.1f}, and {found.mean_pairs_under_null:.1f} if {nothing}",
    ]


def _needed(plan: Plan) -> str:
    if plan.pairs is None:
        return f"none found: {plan.reason}"
    if plan.deviation_bound is None:
        return str(plan.pairs)
    careful = "more than a million" if plan.pairs_conservative is None else str(plan.pairs_conservative)
    return f"{plan.pairs}, and {careful} to be {100 * ASSURANCE:g}% sure that the pilot did not scatter too little by chance"


def _deviation(plan: Plan) -> str:
    size = _size(plan, plan.deviation)
    if plan.deviation_bound is None:
        return f"{size}, as told"
    bound = _size(plan, plan.deviation_bound)
    return f"{size} between {plan.pilot_pairs} {REPLICATES[plan.pairing][1]}; upper {100 * ASSURANCE:g}% bound {bound}"


def _size(plan: Plan, deviation: float) -> str:
    """On the scale of the differences; small logarithms are read as percent."""
    return floor_text(plan.scale, plan.unit, deviation)


def _table(plan: Plan, at_once: int) -> list[str]:
    head = [REPLICATES[plan.pairing][1], "power"]
    head += ["power at the bound"] if plan.deviation_bound is not None else []
    costs: dict[str, list[float | None]] = {
        "GPU hours": [step.gpu_hours for step in plan.table],
        f"hours, {at_once} at once" if plan.pairing == "seed" else "hours": [
            step.hours for step in plan.table
        ],
        "kWh": [step.energy_kwh for step in plan.table],
    }
    measured = {name: values for name, values in costs.items() if any(v is not None for v in values)}
    rows = [[*head, *measured]]
    for number, step in enumerate(plan.table):
        cells = [f"{step.pairs}{_mark(plan, step)}", _percent(step.power)]
        cells += [_percent(step.power_conservative)] if plan.deviation_bound is not None else []
        rows.append([*cells, *(_amount(values[number]) for values in measured.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  " + "   ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    if absent := [name.split(",")[0] for name in costs if name not in measured]:
        lines.append(f"  not known: {', '.join(absent)}")
    return lines


def _mark(plan: Plan, step: Step) -> str:
    return " *" if step.pairs in {plan.pairs, plan.pairs_conservative} else "  "


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _together(plans: list[Plan]) -> str:
    numbers = [plan.pairs for plan in plans]
    if any(number is None for number in numbers):
        return "For all of them together no number was found."
    most = max(number for number in numbers if number is not None)
    return f"For each of them by itself {most} are enough; that all succeed at once is less likely than that each does."


def _notes(plans: list[Plan]) -> list[str]:
    return [
        "Power is simulated with Assay's own tests, for normal differences (docs/planning.md)."
        if all(step.pairs <= MOST_SIMULATED for plan in plans for step in plan.table)
        else f"Power is simulated with Assay's own tests up to {MOST_SIMULATED} pairs, for normal differences, and "
        "approximated beyond (docs/planning.md).",
        "Take seeds of their own for the experiment: adding to the pilot's until they suffice is another chance of a false verdict.",
    ]
