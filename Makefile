# make demo   the effect on embedded images, in minutes
# make test   the whole test suite
# Both set up .venv first, if that has not been done.
.PHONY: demo test setup clean

demo: .venv/.installed
	@bash scripts/demo.sh

test: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@bash scripts/setup.sh

clean:
	rm -rf .venv dist build
