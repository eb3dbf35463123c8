"""An nginx that cannot be used is told with what to do, before anything begins."""

from pathlib import Path

import pytest

from assay.release.routing.nginx import find_nginx


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("#!/there/is/no/such/shell\n", "cannot be run"),
        ("#!/bin/sh\necho nginx version: nginx/1.26.3 >&2\n", "before 1.27.4 nginx loses requests"),
        ("#!/bin/sh\n", "of an unknown version"),
    ],
)
def test_one_that_cannot_be_used(
    script: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nginx"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=f"{program} .*{told}.*front: python"):
        find_nginx()


def test_the_oldest_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nginx"
    program.write_text("#!/bin/sh\necho nginx version: nginx/1.27.4 >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_nginx() == str(program)
