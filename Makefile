# Everything a person does here, one word each. `make install` needs only python3 (3.11 or 3.12) with venv and pip.
PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
# A process for each core. The tests of a file stay together, since they share servers and loaded models. They start
# many processes, which read what others have compiled even where the environment forbids that.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-all serve lint format bench generate clean

install: $(INSTALLED)

# Newer than what it was made from means that nothing is to be done.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m vision_model_repo.demo.tour $(ARGS)

test: install
	$(PYTEST) $(ARGS)

# What `make test` leaves out because it is slow, after what `make test` runs, and the campaign of hostile input.
test-all: test
	$(PYTEST) -m slow $(ARGS)
	$(BIN)/python -m tests.hostile

serve: install
	$(BIN)/python run_api_server.py $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The other servers that ours is measured against are not needed for anything else.
bench: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

# CONFIG.md, .env.example, requirements.api.txt, docs/models.md and the model table of README.md, from settings, catalog and pyproject.
generate: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv build dist demo_output
