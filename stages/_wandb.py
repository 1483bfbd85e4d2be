"""Weights & Biases, online or offline. Needs nothing but its package; keys come from the environment alone."""

from __future__ import annotations

import contextlib
import netrc
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages._tracked import check_installed

if TYPE_CHECKING:
    from stages._job import Job
    from stages._tracked import Artifact, Place, Results

_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
_ANSWER_SECONDS = 5  # for the server to say anything at all
_INIT_SECONDS = 30
_FINISH_SECONDS = 30  # for what is left to send: a stage sends what it has as it goes, unless the network is gone
_UPLOAD_SECONDS = 600  # where files of models are to be uploaded too


class WandbConfig(BaseModel):
    """Weights & Biases."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, defer_build=True)

    project: str = "callwise"
    """Project the runs appear in."""
    entity: str | None = None
    """User or team; without it, the key's own."""
    tags: list[str] = Field(default_factory=list)
    """Tags beside stage, model and sweep."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online where a key is found (WANDB_API_KEY or netrc), offline elsewhere. WANDB_MODE goes before it."""
    upload: bool = False
    """Upload the files of artifacts too; without it, their names, sizes and digests stand for them."""

    @model_validator(mode="after")
    def _can_be_used(self) -> WandbConfig:
        check_installed("wandb")
        if mode(self) not in ("online", "offline", "disabled"):
            raise ValueError(f"WANDB_MODE is {os.environ['WANDB_MODE']!r}: use online, offline or disabled")
        if mode(self) == "online" and not _has_key():
            raise ValueError(
                "to be online, wandb needs a key: set WANDB_API_KEY or run wandb login; mode=offline needs none"
            )
        return self


def mode(config: WandbConfig) -> Literal["online", "offline", "disabled"]:
    """By WANDB_MODE, or the setting, or whether there is a key."""
    if named := os.environ.get("WANDB_MODE"):
        return {"dryrun": "offline", "run": "online"}.get(named, named)  # type: ignore[return-value]
    if config.mode == "auto":
        return "online" if _has_key() else "offline"
    return config.mode


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(os.environ.get("NETRC"))
        return any(known.authenticators(each) for each in ((host,) if host else _HOSTS))
    return False


def _check_reachable(address: str) -> None:
    """OSError where nobody answers there: wandb.init would try again and again first."""
    import httpx

    try:
        httpx.get(address, timeout=_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        raise OSError(f"{address} does not answer: {error}") from None


class Wandb:
    """One run of W&B. Offline, a resumed one is written anew as a whole, so that there is one to upload."""

    def __init__(self, job: Job, config: WandbConfig, place: Place, run_id: str) -> None:
        import wandb

        self.config, self.folder = config, job.folder / "wandb"
        settings = wandb.Settings(
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_meta=True,  # it would keep the whole command line
            x_save_requirements=False,  # the manifest has the versions; addresses of packages may hold keys
            silent=True,
            init_timeout=_INIT_SECONDS,
            finish_timeout=_UPLOAD_SECONDS if config.upload else _FINISH_SECONDS,
            finish_timeout_raises=True,  # silent, it would warn nobody
        )
        arguments: dict[str, Any] = {
            "project": config.project,
            "entity": config.entity,
            "group": place.group,
            "job_type": place.stage,
            "name": place.name,
            "tags": list(dict.fromkeys((*place.tags, *config.tags))),
            # Nested: W&B joins the names with dots, as in reward.needless_call, and advises against dots in names.
            "config": job.settings.as_dict(),
            "dir": str(job.folder.resolve()),
            "id": run_id,
            "settings": settings,
            "reinit": "create_new",  # a stage may run others within itself
        }
        wanted = mode(config)
        if wanted == "online":
            try:
                _check_reachable(wandb.setup().settings.base_url)
                self.run = wandb.init(**arguments, mode=wanted, resume="allow" if job.resuming else None)
            except (wandb.errors.Error, TimeoutError, OSError) as error:
                job.say(f"wandb cannot be used ({str(error).splitlines()[0]}); going on offline")
                for begun in self.folder.glob(f"run-*-{run_id}"):
                    shutil.rmtree(begun, ignore_errors=True)
                wanted, arguments["id"] = "offline", f"{run_id}-offline"  # wandb's service holds on to the other one
        if wanted == "offline":
            for earlier in self.folder.glob(f"offline-run-*-{arguments['id']}"):
                shutil.rmtree(earlier)
            self.run = wandb.init(**arguments, mode=wanted)
        self.where = os.path.relpath(self.run.dir.removesuffix("/files"))
        if wanted == "offline":
            job.say(f"wandb is offline; to upload: wandb sync {self.where}")
        self.run.define_metric("*", step_metric="step")
        self.seen = float(self.run.summary.get("step") or -1) if wanted == "online" else -1.0

    def log(self, row: dict[str, float]) -> None:
        self.run.log(row)

    def use(self, artifacts: list[Artifact]) -> None:
        # The public use_artifact refuses to work offline, and online waits without end for what is not uploaded yet.
        # This is what it does with an artifact made here: W&B knows the version again by its digest.
        with self._staging():
            for artifact in artifacts:
                aliases = [artifact.version]
                self.run._log_artifact(
                    self._artifact(artifact), aliases=aliases, is_user_created=True, use_after_commit=True
                )

    def finish(self, results: Results) -> None:
        import wandb

        shown: dict[str, Any] = {
            name: wandb.Table(columns=list(table.columns), data=table.rows) for name, table in results.tables.items()
        }
        if results.picture:
            shown["trade_off"] = wandb.Image(results.picture)
        with self._staging():
            if shown:
                self.run.log(shown)
            self.run.log_artifact(self._artifact(results.made), aliases=["latest", results.made.version])
        self.run.summary.update(results.summary)

    def close(self, exit_code: int) -> None:
        try:
            self.run.finish(exit_code=exit_code)
        except TimeoutError:
            raise TimeoutError(f"not all is uploaded; to upload it: wandb sync {self.where}") from None

    def _artifact(self, artifact: Artifact) -> Any:
        import wandb

        about = artifact.about
        found = wandb.Artifact(
            artifact.name, artifact.type, metadata={key: about[key] for key in about if key != "files"}
        )
        with found.new_file("about.json") as out:
            out.write(artifact.text)
        if self.config.upload and artifact.folder:
            for file in about["files"]:
                found.add_file(str(artifact.folder / file), name=file, policy="immutable")
        return found

    @contextlib.contextmanager
    def _staging(self) -> Iterator[None]:
        """Within, what is to be uploaded is put beside the run and not into the user's home, where it would be lost."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = str(self.folder.resolve() / "staging")
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]
            else:
                os.environ["WANDB_DATA_DIR"] = before
