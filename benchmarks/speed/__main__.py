"""How many times faster than the notebook recipe, side by side: `make bench`, or part by part.

    python -m benchmarks.speed                                   # all parts, some hours on two cores
    python -m benchmarks.speed sft_tiny dpo_135m scoring         # these; results.json keeps what was measured before
    python -m benchmarks.speed sft_135m --rounds 3 --steps 1     # quicker, and less sure
    python -m benchmarks.speed growth                            # how cost grows with the work
    python -m benchmarks.speed sft_0.6b dpo_1.7b --batch 16 --quantization nf4 --peak-tflops 790     # on a GPU

A part is sft, dpo or sampling with a size (tiny, 30m, 135m, 0.6b, 1.7b), or scoring, sweep or startup. The contenders
(benchmarks/speed/training.py, sampling.py) do the same work with the same batch, each in processes of its own, taking
turns; what warms them up is not counted. A ratio is the median over the rounds, with the lowest and the highest.
Written: benchmarks/results.json and benchmarks/results.md, with the machine and the commit they hold for.

Rates count real tokens, without padding. `pad efficiency` is real tokens for each one that went through the model: 1 is
no padding, and above 1 prompts of pairs are computed once for both answers. `labelled` is the share of tokens with a
loss. A reference that is asked before the first step is charged to the steps it is for. "ours to notebook" says how
many times faster; for memory and the sweep it is the share that ours takes. Memory is the highest of the whole process,
the libraries' half a gibibyte included. results.json has more of each contender: CPU seconds (fewer than seconds times
threads: something else was running) and, where --peak-tflops names the device's peak, MFU: 4 x weights x real tokens (2
forward, 2 for gradients of activations; none for frozen weights) over that peak.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from benchmarks.speed import parts, report
from benchmarks.speed.contest import alone

RESULTS = Path(__file__).resolve().parents[1] / "results.json"


def main(chosen: argparse.Namespace) -> None:
    """Measure the parts, one after the other; what is measured is on disk after each."""
    # The stages set this for themselves (stages/_machine.py). Without it a busy machine slows the others down more.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    wanted = {part: parts.measurement(part, chosen) for part in chosen.parts or parts.ALL}
    here = {"machine": alone(Path(os.devnull), report.machine), "commit": report.commit()}
    results = json.loads(chosen.results.read_text(encoding="utf-8")) if chosen.results.exists() else {}
    if {key: results.get(key) for key in here} != here:  # figures of another machine or commit do not stand beside
        results = here
    with tempfile.TemporaryDirectory() as folder:
        for measure in wanted.values():
            results |= measure(Path(folder))
            chosen.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            chosen.results.with_suffix(".md").write_text(report.table(results), encoding="utf-8")
    print(f"\n{report.table(results)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--rounds", type=int, default=5, help="times that each contender runs (5)")
    parser.add_argument("--sweep-rounds", type=int, default=1, help="the same for the sweep (1)")
    parser.add_argument("--share", type=float, default=0.1, help="of the world's rows, for the sweep (0.1)")
    parser.add_argument("--points", type=int, default=12, help="of the sweep (12)")
    parser.add_argument(
        "--completions", type=int, default=4000, help="scored a round (4000; a twentieth by the notebook)"
    )
    parser.add_argument("--steps", type=int, help="measured, after those that warm up")
    parser.add_argument("--batch", type=int, help="rows or pairs a step")
    parser.add_argument("--prompt-tokens", type=int, help="mean length of prompts")
    parser.add_argument("--requests", type=int, help="that are answered")
    parser.add_argument("--samples", type=int, help="answers to each")
    parser.add_argument("--new-tokens", type=int, help="of each answer")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), help="that ours and best compute in")
    parser.add_argument("--quantization", choices=("none", "nf4"), help="of the base, for all who train")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for MFU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where they are kept (benchmarks/results.json)")
    main(parser.parse_args())
