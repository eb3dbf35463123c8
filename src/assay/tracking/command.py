"""`assay track`: send what a tracking server does not have yet. The end of a run calls it too."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 600.0
"""For all that the end of a run sends; what is left, the next one does."""

EXIT_CODES = """exit codes:
  0  the server has everything
  1  something was not sent: FOLDER/tracking/pending.json says what, and the same command sends it later
  2  wrong arguments, or results that are not finished
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results, e.g. results/digits")
    parser.add_argument("--mlflow", metavar="URI", help="instead of the experiment's `tracking.mlflow`")
    parser.add_argument(
        "--again", action="store_true", help="ask the server what it has, whatever was noted here"
    )


def run(arguments: argparse.Namespace) -> int:
    from assay.comparison.run import read_experiment
    from assay.config.tracking import problem_of_uri
    from assay.tracking.send import SendError, track

    folder: Path = arguments.folder
    if not folder.is_dir():
        raise ValueError(f"assay track: {folder}: is no folder of results; name one, e.g. results/digits")
    uri = arguments.mlflow or read_experiment(folder / "experiment.yaml").tracking.mlflow
    if uri is None:
        raise ValueError(
            f"assay track: {folder}/experiment.yaml names no server; write `tracking: {{mlflow: URI}}` into the "
            "experiment file, or --mlflow URI"
        )
    if problem := problem_of_uri(uri):
        raise ValueError(f"assay track: --mlflow: {problem}")
    try:
        count = track(folder, uri, again=arguments.again)
    except SendError as error:
        print(f"assay track: {uri}: {error}; `assay track {folder}` sends what is left", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"assay track: {error}", file=sys.stderr)
        return 1
    print(f"Tracked: {f'{count} new runs' if count else 'nothing new'} at {uri}")
    return 0


def at_end(folder: Path, seconds: float = SECONDS) -> str | None:
    """In a process of its own, in bounded time, so that nothing that MLflow does hurts the run; what to tell, or None."""
    command = [sys.executable, "-P", "-m", "assay", "track", str(folder)]
    source = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": source}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return f"tracking: {error}"
    try:
        said, wrong = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"tracking: no end within {seconds:g} s; `assay track {folder}` goes on"
    if process.returncode == 0:
        return None
    return f"tracking: {(wrong or said).strip().splitlines()[-1] if (wrong or said).strip() else 'failed'}"
