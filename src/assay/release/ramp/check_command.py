"""`assay release check`: what a release file would do."""

import argparse
from pathlib import Path

from assay.release.schema import Release


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "exit codes: 0 nothing is wrong, 2 something is (every mistake is printed with its line)"
    parser.add_argument("file", type=Path, metavar="FILE", help="release file")
    parser.add_argument("--full", action="store_true", help="print it with every default, as YAML")


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError with every mistake."""
    from assay.release.load import load

    release = load(arguments.file)
    if arguments.full:
        import yaml

        print(yaml.safe_dump(release.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
    else:
        print("\n".join(described(release)))
    return 0


def described(release: Release) -> list[str]:
    """In words: who gets what, and for how long at least."""
    ramp, serving = release.ramp, release.serving
    least = ramp.bake_seconds + sum(step.least_seconds for step in ramp.steps)
    lines = [
        f"{release.name}: {release.versions.stable} → {release.versions.candidate} of {release.registry.model}",
        f"  front   {release.routing.front} on {release.routing.address}:{release.routing.port}",
        f"  each    {serving.workers} workers, {serving.threads} thread(s) each, on {serving.device}, {serving.environment}",
        "  users   " + ("identified by tokens" if serving.jwt else "anonymous: all have the stable version"),
    ]
    if ramp.shadow.share > 0 and ramp.shadow.requests > 0:
        least += ramp.shadow.least_seconds
        lines.append(f"  shadow  {ramp.shadow.requests} copies, at least {_span(ramp.shadow.least_seconds)}")
    lines += [
        f"  {step.share:>6.2%}  {step.users} users, at least {_span(step.least_seconds)}, held after {_span(step.most_seconds)}"
        for step in ramp.steps
    ]
    lines.append(f"  bake    {_span(ramp.bake_seconds)}")
    lines.append(f"  at least {_span(least)} in all")
    return lines


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
