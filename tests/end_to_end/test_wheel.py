"""What is installed works from any folder: the wheel brings the configuration with it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_contains_the_configuration_and_composes_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("lightsweep-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    shipped = {str(path.relative_to(ROOT / "conf")) for path in ROOT.joinpath("conf").rglob("*.yaml")}
    assert {str(path.relative_to(installed / "sweeps/conf")) for path in installed.rglob("*.yaml")} == shipped
    composed = subprocess.run(
        [sys.executable, "-m", "sweeps", "train", "--cfg", "job", "model.depth=3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "depth: 3" in composed.stdout
