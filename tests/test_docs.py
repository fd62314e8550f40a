"""The documentation's commands work as they stand.

A fenced block of bash or Python runs in a folder that holds what the text speaks of, unless the
line before it says why it cannot: ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from standins import XXS, enliven

from mvit_coreml import ImageProcessor, MobileViTConfig, build_model
from mvit_coreml.cli.group import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>bash|python)\n"
    r"(?P<code>.*?)```",
    re.DOTALL,
)


def blocks() -> list[Any]:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8"))):
            if match["reason"] is None:
                name = f"{page.name}-{number}"
                found.append(pytest.param(match["language"], match["code"], id=name))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    model = build_model(MobileViTConfig(image_size=64, **XXS), "image-classification")
    enliven(model, (64, 64))
    model.save_pretrained(folder / "my-mobilevit")
    processor = ImageProcessor.for_mobilevit(image_size=64).to_dict()
    (folder / "my-mobilevit" / "preprocessor_config.json").write_text(json.dumps(processor))
    photo = Image.effect_noise((120, 90), 50).convert("RGB")
    photo.save(folder / "photo.jpg")
    for label in ("0", "1"):
        (folder / "photos" / label).mkdir(parents=True)
        photo.rotate(90 * int(label)).save(folder / "photos" / label / "photo.jpg")
    return folder


@pytest.mark.parametrize(("language", "code"), blocks())
def test_block_runs_as_it_stands(language: str, code: str, folder: Path) -> None:
    command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_readme_is_one_the_program_has() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"mvit-coreml ([a-z]+)", text))
    assert used
    assert used <= set(COMMANDS)
