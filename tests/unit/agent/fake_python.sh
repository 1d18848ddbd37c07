#!/bin/sh
# Stands in for the interpreter of `python -m tandem.prepare` and `python -m tandem.report` in the agent's tests.
# What goes wrong is chosen by the job's uid, which the agent puts into TANDEM_ATTEMPT.
case "$1 $2" in
  "-c "*) exit 0 ;;
  "-m tandem.prepare")
    case "$TANDEM_ATTEMPT" in
      *bad-data*)
        echo '{"event":"error","field":"data.train[0]","message":"line 3 is not JSON"}'
        echo '{"event":"error","field":"data.train[1]","message":"is empty"}'
        exit 2 ;;
      *prepare-crash*) echo 'MemoryError: boom' >&2; exit 1 ;;
      *prepare-silent*) exit 0 ;;
      *prepare-long*) echo '{"event":"progress","documents":7,"tokens":70}'; exec sleep 1000 ;;
    esac
    echo '{"event":"progress","documents":3,"tokens":40}'
    printf '{"event":"result","tokens":"%s","documents":3,"train_tokens":40,"validation_tokens":9}' "$PWD"
    echo ;;
  "-m tandem.report")
    case "$TANDEM_ATTEMPT" in *report-crash*) echo 'no plot' >&2; exit 1 ;; esac
    [ "$3 $5" = "--job --out" ] || exit 64
    echo '<html>report</html>' > "$6" ;;
  *) exit 64 ;;
esac
