# Everything a newcomer needs: `make demo` and `make test`. Both make the environment first.
# uv is used where it exists, else venv and pip. PYTHON chooses the interpreter (3.10 to 3.12).

VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && command -v $$p && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_PROCESSES ?= 2

.PHONY: help env demo hyperlips pretrained test test_all rehearsal rehearsal_tables lint docs format bench clean

help: ## this list
	@grep -E '^[a-z_]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /'

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10, 3.11 or 3.12 found (mediapipe has no wheels for others). Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --quiet --python "$(PYTHON)" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
		test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --upgrade pip && \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	@touch $(STAMP)

env: $(STAMP) ## the environment in .venv

demo: $(STAMP) ## corpus, training, evaluation and preview in demo/, under 8 minutes on 2 cores
	$(BIN)/bench demo --out demo

hyperlips: $(STAMP) ## both stages of HyperLips in demo/: expert, stage 1, its frames, stage 2, evaluation; 12 minutes on 2 cores
	$(BIN)/bench demo --method hyperlips --out demo

FIT := cd shipped && OMP_NUM_THREADS=1 $(abspath $(BIN))/python -m lipsync_bench fit
pretrained: $(STAMP) ## train the weights that come with the package, in shipped/; hours on 2 cores, the same command resumes
	$(BIN)/bench synthetic --out shipped/videos --speakers 12 --clips-per-speaker 10 --seed 2026
	$(BIN)/bench prepare --dataset synthetic --source shipped/videos --out shipped/clips --for wav2lip+pretrained/wav2lip --track-codec raw
	$(FIT) -c sync_expert -c pretrained/sync_expert --run sync_expert
	$(FIT) -c wav2lip -c pretrained/wav2lip --run wav2lip
	$(FIT) -c wav2lip -c pretrained/wav2lip_sync --run wav2lip_sync
	cd shipped && $(abspath $(BIN))/bench weights pack runs/wav2lip_sync --out wav2lip.safetensors \
		--about.about "trained on the 12 people of a synthetic corpus; on others it is a demonstration only" \
		--about.command "make pretrained" --about.licence Apache-2.0

# One thread a process: two tests side by side are quicker than one test on two threads.
test: $(STAMP) ## the tests but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m 'not slow'

test_all: $(STAMP) ## all tests: also drills with killed processes, trainings of some hundred steps, large golden arrays
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

rehearsal: $(STAMP) ## the commands of docs/train_and_rank.md on stand-ins for LRS2, MEAD and the official weights; 15 minutes on 2 cores
	LIPSYNC_REHEARSAL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 tests/rehearsal/test_rehearsal.py

rehearsal_tables: $(STAMP) ## the tables of VideoReTalking and G4G from trained runs, on a stand-in for HDTF; half an hour on 2 cores
	LIPSYNC_REHEARSAL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 tests/rehearsal/test_tables.py

lint: $(STAMP) ## format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

docs: $(STAMP) ## the site of the documentation in site/, which opens from the disk; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

bench: $(STAMP) ## speed of everything beside its reference, some 10 minutes; the table: .benchmarks/latest.md
	@mkdir -p .benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' --benchmark-quiet --benchmark-json=.benchmarks/latest.json

format: $(STAMP) ## format and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the demo and the tests made (the environment stays)
	rm -rf demo site build dist *.egg-info .pytest_cache .benchmarks .mypy_cache .ruff_cache .import_linter_cache
