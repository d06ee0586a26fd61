# make demo     the effect on embedded images, in minutes
# make test     the whole test suite
# make results  the tables and figures in results/, again from the records there
# All set up .venv first, if that has not been done.
.PHONY: demo test results setup clean

demo: .venv/.installed
	@bash scripts/demo.sh

test: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

results: .venv/.installed
	@bash scripts/results.sh

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@bash scripts/setup.sh

clean:
	rm -rf .venv dist build
