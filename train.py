"""Compose the configuration, validate it, run one stage.

`python train.py --help` says what there is; `-m` runs one job for each of several values.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

OURS = ("data", "rewards", "stages", "runtime")


def main() -> int:
    """Returns the exit status: 0 done, 1 a bug or a failed point, 2 the user's mistake, 128 + signal if interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _main(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in OURS:
            return _mistake([f"{error.name} is not installed: pip install -r requirements.txt -c constraints.txt"])
        _print_traceback()
        return 1


def _print_traceback() -> None:
    """Show a bug as Python does, but for keys that its message may quote."""
    from stages._secrets import redacted

    print(redacted(traceback.format_exc()), end="", file=sys.stderr, flush=True)


def _main(words: list[str]) -> int:
    import hydra
    from hydra._internal.utils import get_args_parser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from data.transcript import DataError, RowError
    from stages._errors import UserError
    from stages._refusals import explain
    from stages._schema import publish

    typed = get_args_parser().parse_intermixed_args(words)
    flags = [word for word in words if word not in typed.overrides]
    sys.argv[1:] = [*flags, *typed.overrides]  # Hydra's own parser wants them in this order
    sweep: Any = None
    failures: list[Exception] = []

    def job(config: Any) -> Any:
        """Hydra calls this once, or once for each point of a sweep, and tells its sweeper what the point is worth."""
        if sweep:
            return sweep.run_point(config)
        try:
            return _job(config)
        except Exception as error:
            failures.append(error)  # raised below: Hydra would print a line of its own about it

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting, so that errors are told here
    try:
        publish()
        if typed.help:
            from stages._help import help_text

            print(help_text(typed.overrides))
            return 0
        if typed.multirun and not (typed.cfg or typed.info):
            from stages._sweep import prepare

            sweep = prepare(typed.overrides)
            sys.argv += sweep.words
        try:
            hydra.main(version_base="1.3", config_path="conf", config_name="config")(job)()
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception:
            if not sweep:
                raise
            _print_traceback()  # of the launcher: points tell of their own, and others may be done
        if sweep:
            return int(sweep.finish())
        if failures:
            raise failures[0]
    except (UserError, DataError) as error:
        return _mistake(error.lines)
    except RowError as error:
        return _mistake([str(error)])
    except (HydraException, OmegaConfBaseException) as error:
        return _mistake(explain(typed.overrides, error).lines)
    return 0


def _job(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig

    from stages._job import execute
    from stages._refusals import settings_of

    chosen = HydraConfig.get()
    settings = settings_of(config, chosen.runtime.choices["stage"], list(chosen.overrides.task))
    execute(settings.asked, settings)


def _mistake(lines: Any) -> int:
    print(*lines, sep="\n", file=sys.stderr)
    return 2


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    from stages._errors import Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):  # raised while this one unwinds, another could leave threads hanging
        signal.signal(number, signal.SIG_DFL)
    raise Interrupted(signum)


if __name__ == "__main__":
    sys.exit(main())
