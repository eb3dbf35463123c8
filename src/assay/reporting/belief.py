"""Why a reader may believe the verdict, and what had to be assumed: sentences, each with a word for its badge."""

from collections import Counter

from assay.comparison.floor_wording import measured_text
from assay.reporting.numbers import counted
from assay.reporting.read import Results

Line = tuple[str, str]
"""A word for the badge and a sentence."""


def reasons(results: Results) -> list[Line]:
    """The contract, the validity of blocks, the pairing and the noise floor."""
    return [_contract(results), *_blocks(results), *_pairing(results), _floor(results)]


def _contract(results: Results) -> Line:
    found: Counter[str] = Counter(line.status for line in results.contract.variables)
    parts = [
        f"{found[status]:,} {words}"
        for status, words in (
            ("equal", "equal"),
            ("declared", "different as declared"),
            ("varies", "different in ways that do not bias"),
            ("inapplicable", "about what is not here"),
            ("unknown", "not recorded everywhere"),
            ("violated", "different and undeclared"),
        )
        if found[status]
    ]
    text = f"Of {counted(len(results.contract.variables), 'setting and circumstance', 'settings and circumstances')} of the contract "
    word = "violated" if found["violated"] else "unknown" if found["unknown"] else "held"
    return word, f"{text}{', '.join(parts)}."


def contract_note(results: Results) -> str:
    """Said in the first lines of a contract that was not broken."""
    unknown = sum(line.status == "unknown" for line in results.contract.variables)
    note = "The contract held: of what could bias, only declared factors differ"
    return (
        f"{note}, as far as recorded; {unknown:,} of {len(results.contract.variables):,} circumstances are not known."
        if unknown
        else f"{note}."
    )


def _blocks(results: Results) -> list[Line]:
    if not results.visits:
        return [("unknown", "Costs were not measured: the experiment asks for no profile.")]
    done = sum(visit.outcome == "completed" for visit in results.visits)
    invalid = sum(visit.outcome == "invalid" for visit in results.visits)
    text = f"{done:,} of {counted(len(results.visits), 'visit')} of arms in profile blocks are valid"
    if invalid:
        text += f"; {invalid:,} were measured in circumstances in which numbers say nothing, and are left out"
    unjudged = any(
        one.name == "blocks.validity" and one.status == "unknown" for one in results.contract.variables
    )
    if unjudged and not invalid:
        text += ", and not all of them were judged by the gates"
    held = "unknown" if unjudged else "held"
    return [(held if done == len(results.visits) else "invalid", f"{text}.")]


def _pairing(results: Results) -> list[Line]:
    line = next((one for one in results.contract.variables if one.name == "batches"), None)
    if line is None:
        return []
    text = {
        "equal": "Arms paired by seed received the same batches, bit by bit.",
        "declared": f"Arms received different batches, as the factor {line.declared_by} declares.",
        "violated": "Arms paired by seed received different batches.",
    }
    return [
        (
            line.status,
            text.get(line.status, "Whether arms received the same batches is not known of all runs."),
        )
    ]


def _floor(results: Results) -> Line:
    if results.noise is None:
        return (
            "unknown",
            "The noise floor was not measured: what an arm differs by from itself here is not known.",
        )
    return (
        "held" if results.noise.valid else "violated",
        f"The noise floor was measured: {measured_text(results.noise)}.",
    )


def assumptions(results: Results) -> list[Line]:
    """How runs ended, what was resumed, and where it ran."""
    ends = [*(run.outcome for run in results.runs), *(visit.outcome for visit in results.visits)]
    failed = any(outcome not in ("completed", "invalid") for outcome in ends)
    invalid = "invalid" in ends
    text = f"{outcome_note(results)}."
    if failed:
        text += " A comparison that lacks a pair is inconclusive: what failed was not chosen by chance."
    if invalid:
        text += " A block that is not valid is left out for all arms alike, and the others are compared."
    lines = [("missing" if failed else "invalid" if invalid else "completed", text)]
    resumed = sum(run.resumed for run in results.runs)
    if resumed:
        same = all(arm.execution.deterministic for arm in results.experiment.arms.values())
        learnt = "is the same" if same else "is the same but for what is not deterministic here"
        text = f"{counted(resumed, 'run')} resumed after an interruption; what was learnt {learnt}, and times and energy are left out."
        lines.append(("resumed", text))
    note = image_note(results)
    lines.append(
        ("host", f"{note} Packages below it are those of the machine.")
        if note
        else ("pinned", _pinned(results))
    )
    hosts = results.surroundings.facts.get("Host", Counter())
    if len(hosts) > 1:
        lines.append(
            (
                "varies",
                f"Runs were made on {len(hosts):,} hosts; pairs are compared within one set of circumstances.",
            )
        )
    return lines


def _pinned(results: Results) -> str:
    images = results.surroundings.facts.get("Image", Counter())
    return (
        f"All records come from {'one pinned image' if len(images) == 1 else f'{len(images)} pinned images'}."
    )


def image_note(results: Results) -> str | None:
    """Said in the first lines: numbers from an unpinned environment are harder to get again."""
    surroundings = results.surroundings
    if not surroundings.on_host:
        return None
    if surroundings.on_host == surroundings.records:
        return "Ran on the host, not in a pinned image."
    on_host, total = surroundings.on_host, surroundings.records
    return f"{on_host:,} of {total:,} records come from the host, not from a pinned image."


def outcome_note(results: Results) -> str:
    done = sum(run.outcome == "completed" for run in results.runs)
    resumed = sum(run.resumed for run in results.runs)
    shared = sum(run.shared for run in results.runs)
    text = f"{done:,} of {counted(len(results.runs), 'run')} completed"
    if results.visits:
        visits = sum(visit.outcome == "completed" for visit in results.visits)
        text += f", {visits:,} of {counted(len(results.visits), 'profile visit')}"
    text += f"; {resumed:,} resumed after an interruption" if resumed else ""
    return text + (
        f"; {shared:,} shared a GPU with other runs, and tell no time and no energy" if shared else ""
    )
