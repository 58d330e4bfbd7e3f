# Sourced by the other scripts: where the project is, one line a phase, apt packages, Python wheels.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python3
cd "$ROOT" || exit 1
export LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1

# Builds and tests by another user than the checkout's owner would otherwise be refused by git.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$ROOT

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# phase NAME COMMAND...: runs the command and says on one line what it was and how long it took; its output goes to a log that is shown
# when it fails.
phase() {
  local name=$1 log=$ROOT/.cache/${1%% *}.log start=$SECONDS
  shift
  mkdir -p "$ROOT/.cache"
  printf '%-44s' "$name ..." >&2
  if "$@" >"$log" 2>&1 </dev/null; then
    echo " $((SECONDS - start)) s" >&2
  else
    local code=$?
    echo " failed after $((SECONDS - start)) s; the end of $log:" >&2
    tail -40 "$log" | cut -c1-500 >&2
    return "$code"
  fi
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n "$@" 2>/dev/null || sudo "$@"; fi
}

# ensure_apt PACKAGE...: installs those that are missing.
ensure_apt() {
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "no apt-get here: this needs Debian 12 with ${missing[*]}"
  ((EUID == 0)) || command -v sudo >/dev/null || die "run as root, or first: apt-get install ${missing[*]}"
  phase "apt-update" as_root apt-get -q update || return
  phase "apt-install ${#missing[@]} packages" \
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}"
}

# ensure_wheels SET...: makes .venv and installs scripts/requirements/SET.txt, unless that was done with the same content.
ensure_wheels() {
  local set file stamp
  if ! "$PYTHON" -c '' 2>/dev/null; then
    phase "venv" /usr/bin/python3 -m venv --clear "$ROOT/.venv" || return
  fi
  for set in "$@"; do
    file=$ROOT/scripts/requirements/$set.txt stamp=$ROOT/.venv/.installed-$set
    cmp -s "$file" "$stamp" && continue
    # The files pin the whole closure, so nothing is resolved, and torch comes without what only its CUDA side needs.
    phase "pip-$set" "$PYTHON" -m pip install --no-input --no-compile --no-deps -r "$file" || return
    cp "$file" "$stamp"
  done
}

# ensure_sources: unpacks scripts/requirements/sources.txt into .venv/src, unless that was done with the same content.
ensure_sources() {
  local file=$ROOT/scripts/requirements/sources.txt stamp=$ROOT/.venv/.installed-sources
  cmp -s "$file" "$stamp" && return
  phase "sources" unpack_sources "$file" || return
  cp "$file" "$stamp"
}

unpack_sources() {
  local folder=$ROOT/.venv/src archive
  rm -rf "$folder" && mkdir -p "$folder" || return
  "$PYTHON" -m pip download --no-input --no-deps --no-binary :all: --no-build-isolation -d "$folder" -r "$1" || return
  for archive in "$folder"/*.tar.gz; do tar -xzf "$archive" -C "$folder" || return; done
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

# Compilers that include torch need up to 2 GB each.
build_jobs() {
  local memory
  memory=$(awk '/^MemAvailable:/ {print int($2 / 2000000)}' /proc/meminfo)
  local cores
  cores=$(nproc)
  ((memory < 1)) && memory=1
  echo $((cores < memory ? cores : memory))
}
