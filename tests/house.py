"""A small project with the real plumbing and stages that take no time, to see how train.py behaves as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

FILES = {
    "data/__init__.py": "",
    "data/load.py": """
from pydantic import BaseModel, ConfigDict
class DataConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: str
    train: str | None = None
    seed: int = 0
""",
    "rewards/__init__.py": "",
    "rewards/_table.py": """
from pydantic import BaseModel, ConfigDict
class RewardConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    needless_call: float = -3
    missed_call: float = -3
""",
    "stages/_model.py": """
from typing import Literal
from pydantic import BaseModel, ConfigDict
class ModelConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    path: str = "tiny"
    name: str = "tiny"
    quantization: Literal["none", "nf4"] = "none"
    modules: str | list[str] = "all"
def model_digest(config):
    return config.path
""",
    "stages/brew.py": '''
"""Brews."""
import time
from pydantic import BaseModel, ConfigDict, Field
BLOCKS = ("data",)
class Config(BaseModel):
    """How to brew."""
    model_config = ConfigDict(extra="forbid")
    heat: int = Field(90, gt=0)
    """Degrees, above zero."""
    steps: int = 1
    nap: float = 0.0
    crash: str = ""
    trainer: dict[str, int] = {}
    """Anything goes."""
def run(job):
    done = len((job.folder / "steps").read_text().splitlines()) if job.resuming else 0
    job.rewind(done)
    with job.finishing_steps():
        for step in range(done, job.config.steps):
            time.sleep(job.config.nap)
            job.log({"step": step + 1, "loss": 1.0 / (step + 1)})
            with (job.folder / "steps").open("a") as out:
                out.write(f"{step}\\n")
            if job.stopping:
                break
    if job.config.crash:
        raise ValueError(job.config.crash)
    return {"heat": job.config.heat}
''',
    "stages/pour.py": '''
"""Pours."""
from pydantic import BaseModel, ConfigDict
PARENTS = ("brew",)
BLOCKS = ("reward",)
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    cups: int = 1
def run(job):
    assert (job.parent("brew") / "steps").exists()
    (job.folder / "cup").write_text(f"{job.config.cups} {job.settings.reward.needless_call}")
    return {"cups": job.config.cups, "needless_call": job.settings.reward.needless_call}
''',
    "stages/serve.py": '''
"""Serves."""
from pydantic import BaseModel, ConfigDict
from stages._errors import UserError
PARENTS = ("brew", "pour")
BRINGS = ("pour",)
BLOCKS = ("reward",)
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tray: str = "tin"
def run(job):
    if job.settings.reward.needless_call == -13:
        raise UserError("no luck with 13")
    (job.folder / "served").write_text((job.parent("pour") / "cup").read_text())
    return {"tray": job.config.tray}
''',
    "stages/all.py": '''
"""Everything."""
from pydantic import BaseModel, ConfigDict
BRINGS = PARENTS = ("brew", "pour", "serve")
class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
def run(job):
    return {}
''',
    "conf/model/tiny.yaml": "path: tiny\n",
    "conf/model/big.yaml": "path: big\n",
    "conf/data/world.yaml": "format: world\n",
    "conf/reward/default.yaml": "needless_call: -5\n",
    "conf/stage/brew.yaml": "# @package _global_\ndefaults: [/schema/brew@brew]\n",
    "conf/stage/pour.yaml": "# @package _global_\ndefaults: [/schema/pour@pour]\n",
    "conf/stage/serve.yaml": "# @package _global_\ndefaults: [pour, /schema/serve@serve]\n",
    "conf/experiment/hot.yaml": "# @package _global_\n# python train.py experiment=hot\nbrew: {heat: 99}\n",
}


class House:
    """The project in a folder; call it with train.py's arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for source in (ROOT / "stages").glob("_*.*"):  # templates too
            self.write(f"stages/{source.name}", source.read_text(encoding="utf-8"))
        for name in ("train.py", "stages/__init__.py", "data/transcript.py", "conf/config.yaml"):
            self.write(name, (ROOT / name).read_text(encoding="utf-8"))
        for group in ("tracking", "launcher", "sweeper"):
            shutil.copytree(ROOT / "conf" / group, folder / "conf" / group)
        for name, text in FILES.items():
            self.write(name, text)
        config = folder / "conf" / "config.yaml"
        config.write_text(config.read_text().replace("stage: sft", "stage: brew"))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60, **self.place())

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*arguments), stdout=pipe, stderr=pipe, text=True, **self.place())

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "train.py", *arguments]

    def place(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}

    def json(self, name: str) -> Any:
        return json.loads((self.folder / "runs" / name).read_text())

    def rows(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / "runs" / name).read_text().splitlines()]

    def litter(self) -> list[str]:
        """Everything in the project that was not put there, caches aside."""
        known = {name.split("/")[0] for name in FILES} | {"train.py", "__pycache__"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)
