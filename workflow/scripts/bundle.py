"""Write the bundle of an arm: what can be served."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--arm", required=True)
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    parser.add_argument("--image-lock", type=Path, help="of the image that jobs ran in")
    parser.add_argument("--output", type=Path, required=True, help="folder of the bundle")
    arguments = parser.parse_args(argv)

    from assay.release.bundle.make import Asked, make

    asked = Asked(
        results=arguments.results,
        arm=arguments.arm,
        module_roots=arguments.module_root,
        image_lock=arguments.image_lock,
    )
    try:
        manifest = make(asked, arguments.output)
    except (ValueError, OSError) as error:
        print(f"bundle: {arguments.arm}: {error}", file=sys.stderr)
        return 1
    print(f"{manifest.name} version {manifest.version}, of seed {manifest.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
