#!/usr/bin/env bash
# Runs make targets, by default demo and test, as whoever has just cloned the project would: in a
# fresh clone of the last commit, with an empty home directory. Says how long each took.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

if [ -n "$(git -C "$root" status --porcelain)" ]; then
  echo "check-fresh: there are changes that are not committed; they are not in the clone" >&2
fi
git clone --quiet "$root" "$fresh/clone"
mkdir "$fresh/home" "$fresh/tmp"

run() {
  # Only what every shell has, and how packages are fetched.
  local kept=()
  local name
  for name in PATH LANG LC_ALL OMP_NUM_THREADS "${!PIP_@}" SSL_CERT_FILE \
    http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [ -n "${!name:-}" ]; then
      kept+=("$name=${!name}")
    fi
  done
  env -i "${kept[@]}" HOME="$fresh/home" TMPDIR="$fresh/tmp" make -C "$fresh/clone" "$@"
}

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  targets=(demo test)
fi
summary=""
for target in setup "${targets[@]}"; do
  started=$SECONDS
  run "$target" ${PYTHON:+"PYTHON=$PYTHON"}
  summary+="check-fresh: make $target: $((SECONDS - started)) s"$'\n'
done
printf '%s' "$summary"
