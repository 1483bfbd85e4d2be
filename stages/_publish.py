"""Handing a merged model on: a folder or a repository of the hub with all that belongs to it, and GGUF.

Asked for by merge.push, merge.push_to_folder and merge.gguf, now or later: the same command again, on a merge that is
done, does only this.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import _card
from stages._errors import UserError
from stages._files import replace_folder

if TYPE_CHECKING:
    from stages._settings import Settings

CONVERTER = "convert_hf_to_gguf.py"
# What a merged model's folder may hold. A folder with anything else, such as .git, is somebody's own.
_WRITTEN = (
    *("README.md", "Modelfile", "config.json", "generation_config.json", "chat_template.jinja", "chat_template.json"),
    *("model*.safetensors", "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.*", "merges.txt", "*.model"),
)


def publish(folder: Path, settings: Settings) -> None:
    """All that the merge's settings ask for, from the folder of a done merge; the card is written anew before."""
    config = settings.stage("merge")
    if config.gguf:
        write_gguf(folder, config.gguf, converter(config.llama_cpp))
    _card.write(folder, settings, where=config.push or ".")
    if config.push_to_folder:
        write_folder(folder / "model", Path(config.push_to_folder))
    if config.push:
        upload(folder / "model", config.push, config.push_private)


def converter(llama_cpp: str | None) -> Path:
    """llama.cpp's converter in that folder, or else on PATH; ValueError where it is not there."""
    if llama_cpp:
        place = Path(llama_cpp).expanduser() / CONVERTER
        if not place.is_file():
            raise ValueError(f"no {CONVERTER} in merge.llama_cpp={llama_cpp}")
        return place
    found = shutil.which(CONVERTER)
    if not found:
        raise ValueError(f"{CONVERTER} is not on PATH; name the folder of llama.cpp: merge.llama_cpp=FOLDER")
    return Path(found)


def check_converter(script: Path) -> None:
    """UserError where the converter does not start, as without a package that it needs and this project does not."""
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    if done.returncode:
        missing = re.search(r"No module named '([\w.]+)'", done.stderr)
        way_out = f"pip install {missing[1].split('.')[0]}" if missing else "see what it says of itself"
        raise UserError(f"merge.gguf: {script} does not start ({_last_line(done)}); {way_out}")


def write_gguf(folder: Path, kind: str, script: Path) -> Path:
    """gguf/model-<kind>.gguf beside model/, unless it is there; UserError with the converter's last line."""
    target = folder / "gguf" / f"model-{kind}.gguf"
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    unfinished = target.with_name(f".{target.name}")
    words = [sys.executable, str(script), str(folder / "model"), "--outfile", str(unfinished), "--outtype", kind]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode or not unfinished.is_file():
        raise UserError(f"merge.gguf={kind}: {script.name} made no file ({_last_line(done)}); the merge itself is done")
    unfinished.replace(target)
    print(f"merge: wrote {target}", flush=True)
    return target


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1][:300]


def check_folder(target: Path) -> None:
    """UserError where something else than an earlier copy of a model would be written over."""
    held = sorted(target.iterdir()) if target.is_dir() else [target] if target.exists() else []
    strange = [path.name for path in held if not (path.is_file() and any(map(path.match, _WRITTEN)))]
    if strange or (held and not _card.is_ours(target / "README.md")):
        named = f" ({strange[0]})" if strange else ""
        raise UserError(
            f"merge.push_to_folder={target}: holds something else than a model that was written there before{named};"
            " name an empty folder"
        )


def write_folder(model: Path, target: Path) -> None:
    """All that would be uploaded, in a folder, whole or not at all."""
    check_folder(target)
    replace_folder(model, target)
    print(f"merge: wrote {target}", flush=True)


def check_hub() -> None:
    """ValueError where nothing can be uploaded, as far as this machine knows without asking: offline, or no token."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ValueError("HF_HUB_OFFLINE is set, so nothing can be uploaded; merge.push_to_folder=FOLDER needs no hub")
    if not get_token():
        raise ValueError(
            "no token for the hub: `hf auth login`, or set HF_TOKEN; merge.push_to_folder=FOLDER needs none"
        )


def check_access(repository: str) -> None:
    """UserError where the hub cannot be reached with this machine's token."""
    from huggingface_hub import HfApi

    _told(repository, HfApi().whoami)


def upload(model: Path, repository: str, private: bool) -> None:
    """Upload a folder as it is; the repository is made if it is not there."""
    from huggingface_hub import HfApi

    hub = HfApi()
    _told(repository, hub.create_repo, repo_id=repository, private=private, exist_ok=True)
    _told(repository, hub.upload_folder, repo_id=repository, folder_path=model, commit_message="Merged by Callwise")
    print(f"merge: pushed to {repository}", flush=True)


def _told(repository: str, call: Any, **arguments: Any) -> None:
    """What the hub or the network says, as the user's: in one line."""
    from huggingface_hub.errors import HTTPError  # that of the httpx which its client uses

    try:
        call(**arguments)
    except (OSError, ValueError, HTTPError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"merge.push={repository}: {told[:300]}; merge.push_to_folder=FOLDER writes what would be uploaded"
        ) from error
