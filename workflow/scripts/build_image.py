"""Build the image that jobs run in, unless it is there."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="docker://NAME[:TAG]@sha256:…")
    parser.add_argument("--root", type=Path, required=True, help="folder of all images")
    arguments = parser.parse_args(argv)

    from assay.config.bases import own_base
    from assay.image.build import build
    from assay.image.recipe import Recipe

    try:
        build(Recipe(own_base(arguments.base)), arguments.root)
    except ValueError as error:
        print(f"build_image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
