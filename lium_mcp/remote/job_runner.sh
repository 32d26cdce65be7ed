#!/bin/sh
# lium-mcp job runner, version 1
#
# Runs the file `command` beside it for at most $1 seconds, and writes what comes of it into files beside it. The command
# has a session of its own: it outlives the connection that started it, and can be stopped with all that it started. What
# it starts may leave that session (setsid, timeout, a daemon): the file `processes` beside it finds it by the mark $2.
max_seconds=$1
mark=LIUM_JOB=$2
dir=${0%/*}
umask 077
. "$dir/processes"

# Whoever did not hear that it was started may start it again, and the command still runs once.
mkdir "$dir/taken" 2>/dev/null || exit 0

# A process id means nothing once the container is replaced, so note which container this is.
sed 's/.*) //' /proc/1/stat 2>/dev/null | cut -d' ' -f20 >"$dir/container"

shell=sh
command -v bash >/dev/null 2>&1 && shell=bash
LIUM_JOB=$2 setsid "$shell" "$dir/command" </dev/null >"$dir/log" 2>&1 9>"$dir/$mark" &
command=$!
group=$command
# Until the command has its session there is no group of its number, and the job would be taken for dead.
while ! kill -0 "-$group" 2>/dev/null && kill -0 "$group" 2>/dev/null; do :; done
echo "$group" >"$dir/pid"
date +%s >"$dir/started_at"
rm -f "$dir/$mark" # it stays open

# Whether something that the command started runs on. Once none of the group is left its number may become another's, and
# is not used any more.
runs_on() {
  look
  [ "$in_group" ] || {
    group=''
    : >"$dir/group_ended"
  }
  [ "$found" != ' ' ]
}

(
  sleep "$max_seconds" &
  nap=$!
  trap 'kill "$nap"; exit' TERM
  wait "$nap"
  : >"$dir/over"
  send TERM
  sleep 10 &
  nap=$!
  wait "$nap"
  send KILL
  while runs_on; do # what was just being started
    sleep 1 &
    nap=$!
    wait "$nap"
    send KILL
  done
) >/dev/null 2>&1 &
watch=$!

# The job ends with its command, and has its exit code. What the command left in the background runs on until the job's
# time is over; whoever has something to do after the job waits for that.
wait "$command"
code=$?
ended_by=itself
if [ -e "$dir/over" ]; then
  ended_by=time_limit
  code=124
fi
date +%s >"$dir/finished_at"
if runs_on; then
  [ "$ended_by" = time_limit ] || echo "$code" >"$dir/command_ended"
  while runs_on; do sleep 1; done
fi
if [ ! -r /proc/self/stat ] && kill -0 "-$command" 2>/dev/null; then # where no process can be looked at, the job ends with its command
  kill -TERM "-$command" 2>/dev/null
  sleep 1
  kill -KILL "-$command" 2>/dev/null
fi
kill "$watch" 2>/dev/null

[ -e "$dir/ended_by" ] || echo "$ended_by" >"$dir/ended_by"
echo "$code" >"$dir/exit_code.new"
mv "$dir/exit_code.new" "$dir/exit_code"
