"""Write the resolved experiment: every default written out."""

import argparse
import json
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment-file", type=Path, required=True, help="the experiment file")
    parser.add_argument("--overrides", default="{}", help="values from the command line, as JSON")
    parser.add_argument("--sha256", required=True, help="hash of the resolved experiment that the run is for")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    arguments = parser.parse_args(argv)

    import yaml

    from assay.config.load import load
    from assay.records import canonical_json, sha256_text, write_atomically

    experiment = load(arguments.experiment_file, overrides=json.loads(arguments.overrides))
    resolved = experiment.model_dump(mode="json")
    if sha256_text(canonical_json(resolved)) != arguments.sha256:
        print(f"{arguments.experiment_file}: changed since this run began; run again", file=sys.stderr)
        return 1
    write_atomically(arguments.output, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
