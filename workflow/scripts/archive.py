"""Write the archive of an experiment: one file that others can check and run again."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment-file", type=Path, required=True, help="as the user wrote it")
    parser.add_argument("--overrides", default="{}", help="values from the command line, as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--logs", type=Path, required=True, help="folder of what its jobs printed")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    parser.add_argument("--image-lock", type=Path, help="of the image that jobs ran in")
    parser.add_argument("--image", type=Path, help="the image itself, if it goes in")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    arguments = parser.parse_args(argv)

    from assay.archive.gather import Sources
    from assay.archive.run import archive

    sources = Sources(
        experiment_file=arguments.experiment_file,
        overrides=arguments.overrides,
        results=arguments.results,
        logs=arguments.logs,
        code=Path(__file__).parents[2],
        module_roots=arguments.module_root,
        image_lock=arguments.image_lock,
        image=arguments.image,
    )
    try:
        archive(sources=sources, output=arguments.output)
    except (ValueError, OSError) as error:
        print(f"archive: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
