#!/usr/bin/env bash
# Creates .venv and installs spp there, editable, with its development tools at the versions of constraints.txt.
# Nothing outside the checkout is changed. A second call finds the stamp and returns at once.
# PYTHON names the interpreter to build .venv with; without it the first suitable one on PATH is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.installed
oldest="3.11"

fail() {
  echo "install: $1" >&2
  exit 1
}

# Runs a command and hides every address it prints: which index a site uses is the site's business.
redacted() {
  "$@" 2>&1 | sed -E -e 's#[a-zA-Z][a-zA-Z0-9+.-]*://[^[:space:]]*#<address>#g' -e "s#host='[^']*'#host=<address>#g"
}

is_new_enough() {
  "$1" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$oldest'.split('.'))))" >/dev/null 2>&1
}

# Prints the interpreter to use. A candidate is tried, not trusted: a version manager's shim may exist and not run.
find_python() {
  local candidate without_venv=""
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    is_new_enough "$candidate" || continue
    if "$candidate" -c "import ensurepip, venv" >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
    without_venv=$candidate
  done
  if [ -n "$without_venv" ]; then
    local version
    version=$("$without_venv" -c "import sys; print('%d.%d' % sys.version_info[:2])")
    fail "$without_venv has no module venv; remedy: apt install python$version-venv"
  fi
  fail "no python >= $oldest among ${PYTHON:-python3, python3.13, python3.12, python3.11}; remedy: apt install python$oldest python$oldest-venv, or set PYTHON=/path/to/python"
}

# All that decides what is installed. The folder counts because the editable install points to it.
fingerprint() {
  { cat pyproject.toml constraints.txt; grep '^version' $venv/pyvenv.cfg; pwd; } | sha256sum | cut -d ' ' -f 1
}

install_with_uv() {
  redacted $venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv || return 1
  # uv does not read pip's configuration; a site that set a mirror there means it for every installer.
  local index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$($venv/bin/python -m pip config get global.index-url 2>/dev/null)}}
  if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
  # The system's certificates, as pip uses them, and the patience that torch's wheels need.
  export UV_SYSTEM_CERTS=1 UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
  # Compiled once here, not by every process in an environment that writes no bytecode: torch alone takes seconds.
  redacted $venv/bin/uv pip install --quiet --compile-bytecode --python $venv/bin/python -c constraints.txt -e '.[dev,docs]'
}

install_with_pip() {
  redacted $venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
}

if [ -x $venv/bin/python ] && [ -f $stamp ] && [ "$(cat $stamp)" = "$(fingerprint)" ]; then
  exit 0
fi

if [ -x $venv/bin/python ]; then
  is_new_enough $venv/bin/python || fail "$venv holds a python older than $oldest; remedy: rm -r $venv, then run this again"
else
  python=$(find_python)
  redacted "$python" -m venv --clear $venv || fail "$python could not create $venv; the lines above say why"
fi

rm -f $stamp
echo "install: fetching what pyproject.toml asks for into $venv (torch is large: minutes on a slow line)"
if ! install_with_uv; then
  echo "install: uv did not succeed, trying pip"
  install_with_pip || fail "pip did not succeed either; the lines above say why"
fi
fingerprint > $stamp
echo "install: done"
