#!/bin/sh
# Create benchmarks/trl_env/.venv-trl (about 1.5 GB). torch goes first, so that nothing later pulls another build of it.
set -eu
cd "$(dirname "$0")"
[ -x .venv-trl/bin/python ] || "${PYTHON:-python3}" -m venv .venv-trl
pip=".venv-trl/bin/python -m pip --disable-pip-version-check --quiet"
build=$(.venv-trl/bin/python -c 'import torch; print(torch.__version__)' 2>/dev/null || true)
[ -n "$build" ] || $pip install "$(grep '^torch==' requirements.txt)"
$pip install -r requirements.txt
.venv-trl/bin/python -c 'import torch, trl; print("torch", torch.__version__, "trl", trl.__version__)'
