PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test bench lint types layout clean

# The whole main job on the embedded model: SFT, pairs, DPO, merge, evaluation.
demo: $(INSTALLED)
	@$(BIN)/python train.py stage=pipeline run=demo

# Everything that is checked before a change is taken. Two files of tests at a time: most of them use one core.
test: lint types layout
	$(BIN)/pytest -n 2 --dist loadfile --ignore=tests/test_layout.py
	$(BIN)/pytest -n 2 --dist loadfile -m slow

# Speed and memory beside the notebook recipe: some hours. Parts by themselves: python -m benchmarks.speed --help
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.speed

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

layout: $(INSTALLED)
	$(BIN)/pytest tests/test_layout.py

clean:
	rm -rf runs/demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Made again when the requirements change; an installation that was interrupted leaves no stamp.
$(INSTALLED): requirements.txt constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@
