#!/usr/bin/env bash
# Runs this kit in the foreground and starts it again when it dies, up to five times in a row within
# five minutes each. `--once` runs it without that. LOCULE names the program, if it is not on the PATH.
KIT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
LOCULE="${LOCULE:-locule}"
rm -f "$KIT/shutdown.fl"
mkdir -p "$KIT/transfer"
[[ "$1" == "--once" ]] && exec "$LOCULE" @COMMAND@

if [[ -f "$KIT/daemon_pid.fl" ]] && kill -0 "$(cat "$KIT/daemon_pid.fl")" 2>/dev/null; then
  echo "this kit runs already, as process $(cat "$KIT/daemon_pid.fl")" >&2
  exit 1
fi
echo $$ > "$KIT/daemon_pid.fl"
trap 'rm -f "$KIT/pid.fl" "$KIT/daemon_pid.fl"' EXIT
trap 'touch "$KIT/shutdown.fl"; kill -TERM "$PID" 2>/dev/null' INT TERM

FAILURES=0
while [[ $FAILURES -lt 5 && ! -f "$KIT/shutdown.fl" ]]; do
  SECONDS=0
  "$LOCULE" @COMMAND@ &
  PID=$!
  echo "$PID" > "$KIT/pid.fl"
  wait "$PID"
  CODE=$?
  # A signal ends the first wait early; the program is then still on its way down.
  while kill -0 "$PID" 2>/dev/null; do wait "$PID"; CODE=$?; done
  [[ $CODE -eq 0 ]] && exit 0
  [[ $SECONDS -lt 300 ]] && FAILURES=$((FAILURES + 1)) || FAILURES=1
done
[[ -f "$KIT/shutdown.fl" ]] && exit 0
echo "the program ended five times in a row; the last exit code was $CODE" >&2
exit 1
