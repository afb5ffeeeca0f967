"""The image: what is installed into it is held to hashes, and its bases can be named by digest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_all_that_pip_installs_is_held_to_hashes() -> None:
    lines = [part for line in re.findall(r"^RUN (.*)$", DOCKERFILE, re.M) for part in line.split("&&") if "pip " in part]
    assert len(lines) == 4
    for line in lines:
        locks = re.findall(r"-r (\S+)", line)
        assert ("--require-hashes" in line and locks) or {"--no-index", "--no-deps"} <= set(line.split()), f"held to nothing: {line}"
        for lock in locks:
            assert f"COPY {lock} " in DOCKERFILE
            text = (ROOT / lock).read_text()
            assert all("--hash=sha256:" in pin for pin in re.split(r"\n(?=\S)", text.strip()) if not pin.startswith("#")), (
                f"{lock} lacks hashes"
            )
    assert "--no-build-isolation" in next(line for line in lines if "pip wheel" in line), "isolated builds fetch what is held to nothing"


def test_the_lock_of_the_build_has_what_the_build_asks_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert asked == [line for line in (ROOT / "requirements/build.in").read_text().splitlines() if not line.startswith("#")]
    assert all(f"\n{re.split('[<>=]', name)[0]}==" in f"\n{(ROOT / 'requirements/build.txt').read_text()}" for name in asked)


def test_each_base_can_be_named_by_digest() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) == ["${PYTHON_IMAGE}"] * 2
    compose = (ROOT / "compose.yaml").read_text()
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.M)
    assert f"PYTHON_IMAGE: ${{PYTHON_IMAGE:-{python}}}" in compose
    images = [image for image in re.findall(r"^ +image: (\S+)$", compose, re.M) if image != "statemq:local"]
    assert images and all(re.fullmatch(r"\$\{[A-Z_]+:-[^}]+\}", image) for image in images)
    page = (ROOT / "docs/SECURITY.md").read_text()
    for image in [python, *(image.partition(":-")[2].rstrip("}") for image in images)]:
        assert f"={image}@sha256:" in page, f"docs/SECURITY.md does not say how to pin {image}"
