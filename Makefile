# Every target makes the environment it needs; `make verify` is the main job.

PYTHON ?= python3
TRITON ?= 3.7.1
TORCH_INDEX ?=
ARGS ?=
MINUTES ?= 15
KERNELS ?=

python := .venv/bin/python
other_triton := build/triton-$(TRITON)

.DEFAULT_GOAL := help
.PHONY: help environment peers verify chatgpt chatgpt-studies gpu gpu-plan gpu-kernels gpu-all gpu-dry-run gpu-verify gpu-bench gpu-end-to-end gpu-plots test inspect mutants test-triton test-versions lint format clean

help:  ## list the targets
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	@echo "Variables:"
	@echo "  ARGS=...           passed on, as in: make test ARGS='-k softmax'"
	@echo "  PYTHON=python3.12  the Python that .venv is made with (after make clean); if it has"
	@echo "                     PyTorch and Triton, they are used as they are"
	@echo "  TORCH_INDEX=URL    a further package index when .venv is made; without a GPU,"
	@echo "                     https://download.pytorch.org/whl/cpu saves gigabytes of CUDA"
	@echo "  RESULTS=FILE.jsonl where the gpu steps store, and what gpu-plots draws; by default a"
	@echo "                     file for the device in benchmarks/results"
	@echo "  MINUTES=15         of the gpu target, all its runs together"
	@echo "  KERNELS=FOLDER     that gpu-kernels compiled, on a machine with the same Triton"
	@echo "  DRY_RUN=1          of the gpu target: every path of it, tiny and without a GPU"
	@echo "  TRITON=3.7.1       the Triton that test-triton installs beside the usual one"
	@echo "  TWINS='softmax gelu'   which kernels test-triton also verifies, on few cases"

environment:  ## make .venv, unless it is up to date
	@"$(PYTHON)" .ci/environment.py $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)")

peers: environment  ## add the packages that gptwin is compared with to .venv
	@$(python) .ci/environment.py --add peers

verify: environment  ## check every kernel against its NumPy twin
	@$(python) -m gptwin verify $(ARGS)

chatgpt: environment  ## pretrain, tune, reward, PPO at a small size; then: gptwin chat
	@$(python) -m gptwin train chatgpt $(ARGS)

chatgpt-studies: environment  ## the chain on three seeds, PPO-ptx, over-optimisation (half an hour)
	@for study in seeds ptx distance; do $(python) -m gptwin.rl.studies.reproduce $$study || exit 1; done

# Each step ends within 10 minutes. What it stored for this commit is not done again, so a step that
# ran out of time (exit code 3) goes on when it is run again. RESULTS=FILE.jsonl: where it is stored.
bench = $(python) -m gptwin bench gpu $(if $(RESULTS),--out "$(RESULTS)")

gpu: environment  ## on a GPU: what matters most in MINUTES (15) in all, 10 at a time: run it twice
ifdef DRY_RUN
	@$(MAKE) --no-print-directory gpu-dry-run
else
	@$(bench) --within $(MINUTES) $(if $(KERNELS),--kernels "$(KERNELS)") $(ARGS); code=$$?; \
		$(MAKE) --no-print-directory gpu-plots; exit $$code
endif

gpu-plan: environment  ## print what the gpu target would run in MINUTES, and what it leaves out
	@$(bench) --plan $(MINUTES) $(if $(KERNELS),--kernels "$(KERNELS)")

gpu-kernels: environment  ## compile the gpu target's kernels here, into KERNELS, for one to be carried to
	@$(python) -m gptwin bench ahead "$(if $(KERNELS),$(KERNELS),build/kernels)" $(ARGS)

gpu-all:  ## on a GPU, without a limit in all: verify, bench, end to end, plots
	@failed=; for step in gpu-verify gpu-bench gpu-end-to-end gpu-plots; do \
		$(MAKE) --no-print-directory $$step || failed="$$failed $$step"; done; \
		if [ -n "$$failed" ]; then echo "not complete:$$failed" >&2; exit 1; fi

gpu-dry-run: environment  ## every path of the gpu steps, tiny and without a GPU
	@$(bench) --dry-run --budget 520 $(ARGS)

gpu-verify: environment  ## on a GPU: verify each twin, some side by side
	@$(bench) verify --budget 520 $(ARGS)

gpu-bench: environment  ## on a GPU: time each operation against its peers
	@$(bench) operations --budget 520 $(ARGS)

gpu-end-to-end: environment  ## on a GPU: training, generation and PPO
	@$(bench) training generation ppo --budget 520 $(ARGS)

gpu-plots: environment  ## draw what is stored of a GPU, and fill in README's table
	@$(python) -m gptwin bench plot $(if $(RESULTS),--results "$(RESULTS)")
	@$(python) -m gptwin bench table README.md $(if $(RESULTS),--results "$(RESULTS)")

# At most 8 processes: on a GPU, each holds a CUDA context of its own.
test: environment  ## run the tests
	@$(python) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(ARGS)

inspect: environment  ## compile every kernel for four GPUs that need not be there, and store it
	@$(python) -m gptwin inspect --json benchmarks/results/inspect-all.jsonl $(ARGS)
	@GPTWIN_HOPPER=1 $(python) -m gptwin inspect attention qkv_attention --arch sm_90

mutants: environment  ## break the kernels on purpose, in every way that is listed, and see it caught
	@GPTWIN_MUTANTS=all $(python) -m pytest tests/lab/mutate/test_by_hand.py \
		tests/kernels/native/test_native.py --numprocesses auto $(ARGS)

test-triton: $(other_triton)/.installed  ## run the interpreter's tests on another Triton
	@PYTHONPATH="$(CURDIR)/$(other_triton)" $(python) -m pytest tests/kernels/interpreter \
		tests/lab/sanitize/test_atomic_loads.py $(ARGS)
ifdef TWINS
	@PYTHONPATH="$(CURDIR)/$(other_triton)" $(python) -m gptwin verify --dtype float32 \
		--examples 1 $(TWINS)
endif

$(other_triton)/.installed: | environment
	@$(python) -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
		--upgrade --target $(other_triton) triton==$(TRITON) \
		|| { echo "make test-triton: could not install Triton $(TRITON) beside the usual one." \
		"Likely cause: no network, no such release, or no pip in .venv" >&2; exit 1; }
	@touch $@

test-versions:  ## test on the oldest and newest Python, NumPy, PyTorch and Triton (in build/)
	@"$(PYTHON)" .ci/versions.py $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)") $(ARGS)

lint: environment  ## check format, style and types
	@$(python) .ci/environment.py --add dev
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	MYPYPATH=.venv/checkout $(python) -m mypy -p gptwin

format: environment  ## format the code and mend what can be mended
	@$(python) .ci/environment.py --add dev
	$(python) -m ruff format .
	$(python) -m ruff check --fix .

clean:  ## remove .venv and everything else that was made here
	rm -rf .venv build *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
