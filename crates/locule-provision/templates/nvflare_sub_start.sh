#!/usr/bin/env bash
# Runs this kit with NVIDIA FLARE in the foreground, and again whenever it ends, until shutdown.fl is
# there; gives up after five times in a row of less than five minutes each. restart.fl has it begin anew.
# `--once` runs it without all that, `--verify` first checks the kit's signatures. NVFL_WORKSPACE names
# another folder to work in, to which the kit is copied.
KIT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
WORKSPACE="${NVFL_WORKSPACE:-$KIT}"
for OPTION in "$@"; do
  case "$OPTION" in
    --once) ONCE=yes ;;
    --verify) VERIFY=yes ;;
  esac
done

if [[ -f "$WORKSPACE/daemon_pid.fl" ]] && kill -0 "$(cat "$WORKSPACE/daemon_pid.fl")" 2>/dev/null; then
  echo "this kit runs already, as process $(cat "$WORKSPACE/daemon_pid.fl")" >&2
  exit 1
fi
if [[ "$WORKSPACE" != "$KIT" ]]; then
  mkdir -p "$WORKSPACE" || exit 1
  chmod 700 "$WORKSPACE"
  rm -rf "${WORKSPACE:?}/startup" "${WORKSPACE:?}/local"
  cp -a "$KIT/startup" "$KIT/local" "$WORKSPACE/" || exit 1
fi
if [[ -n "$VERIFY" ]]; then
  python3 -m nvflare.tool.verify_startup_kits -f "$WORKSPACE" -c "$WORKSPACE/startup/rootCA.pem" || exit 1
fi
mkdir -p "$WORKSPACE/transfer"
rm -f "$WORKSPACE/pid.fl" "$WORKSPACE/shutdown.fl" "$WORKSPACE/restart.fl"
export PYTHONPATH="/local/custom:$PYTHONPATH"
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-4}"

run() {
  exec @COMMAND@
}
[[ -n "$ONCE" ]] && run

# The process has five seconds to end by itself: most often it is on its way already.
stop() {
  for _ in 1 2 3 4 5; do
    kill -0 "$PID" 2>/dev/null || return
    sleep 1
  done
  kill -KILL "$PID" 2>/dev/null
}

echo $$ > "$WORKSPACE/daemon_pid.fl"
trap 'rm -f "$WORKSPACE"/{pid,daemon_pid,shutdown,restart}.fl' EXIT
trap 'touch "$WORKSPACE/shutdown.fl"' INT TERM

FAILURES=0
while [[ $FAILURES -lt 5 ]]; do
  rm -f "$WORKSPACE/restart.fl"
  SECONDS=0
  run &
  PID=$!
  echo "$PID" > "$WORKSPACE/pid.fl"
  while kill -0 "$PID" 2>/dev/null; do
    if [[ -f "$WORKSPACE/shutdown.fl" || -f "$WORKSPACE/restart.fl" ]]; then
      stop
      break
    fi
    sleep 1
  done
  wait "$PID" 2>/dev/null
  [[ -f "$WORKSPACE/shutdown.fl" ]] && exit 0
  [[ -f "$WORKSPACE/restart.fl" ]] && continue
  [[ $SECONDS -lt 300 ]] && FAILURES=$((FAILURES + 1)) || FAILURES=1
done
echo "the process ended five times in a row" >&2
exit 1
