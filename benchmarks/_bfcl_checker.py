"""The part of benchmarks/bfcl.py that runs where package bfcl_eval is installed, whose pins are not ours.

    python _bfcl_checker.py data                          # prints its version and the folder of its rows, as JSON
    python _bfcl_checker.py judge CASES VERDICTS          # a case a line; its checker's verdict on each, a line each
    python _bfcl_checker.py score RESULTS SCORES MODELS CATEGORIES    # its scorer on a run's files of results

A case is {"category", "functions", "wanted", "calls": [[name, arguments], …]}. A verdict is true, false, or null where
the checker itself fails. Names of models and categories are joined by commas.
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
from pathlib import Path


def data() -> None:
    """Version and data folder, without importing the package, which takes long."""
    package = importlib.util.find_spec("bfcl_eval")
    if package is None or not package.submodule_search_locations:
        sys.exit(f"bfcl_eval is not installed for {sys.executable}: pip install bfcl-eval soundfile")
    folder = Path(package.submodule_search_locations[0]) / "data"
    print(json.dumps({"version": importlib.metadata.version("bfcl-eval"), "data": str(folder)}))


def judge(cases: str, verdicts: str) -> None:
    """Write the checker's verdicts on the cases."""
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    as_written = next(name for name, each in MODEL_CONFIG_MAPPING.items() if not each.underscore_to_dot)
    with open(cases, encoding="utf-8") as lines, open(verdicts, "w", encoding="utf-8") as out:
        for case in map(json.loads, lines):
            calls = [{name: arguments} for name, arguments in case["calls"]]
            told = (case["functions"], calls, case["wanted"], Language.PYTHON, case["category"], as_written)
            try:
                verdict = bool(ast_checker(*told)["valid"])
            except Exception:  # whatever it stumbles over
                verdict = None
            out.write(json.dumps(verdict) + "\n")


def score(results: str, scores: str, models: str, categories: str) -> None:
    """Run its scorer, models entered as ones that call functions and write their names as the rows have them."""
    os.environ.setdefault("OPENAI_API_KEY", "none")  # its handler wants one, and asks nobody
    os.environ["BFCL_PROJECT_ROOT"] = scores  # else it writes beside its own package
    from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING, ModelConfig
    from bfcl_eval.eval_checker.eval_runner import main
    from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler

    for name in models.split(","):
        MODEL_CONFIG_MAPPING[name] = ModelConfig(
            **dict.fromkeys(("model_name", "display_name", "url", "org", "license"), name),
            model_handler=OpenAICompletionsHandler,
            is_fc_model=True,
            underscore_to_dot=False,
        )
    main(models.split(","), categories.split(","), results, scores, partial_eval=True)


if __name__ == "__main__":
    {"data": data, "judge": judge, "score": score}[sys.argv[1]](*sys.argv[2:])
