# Finds what a command or a job has started, and sends it signals. For any POSIX shell, with `grep`, `sed`, `cut`, `ls`.
#
# Reads `group`: its process group, or nothing where that is not known. Reads `mark`: a pattern of what stands in the
# environment of what it starts, and in the name of a file that it holds open. Some programs clear the one (env -i, su -),
# others close the other; who starts it tells too: all that descends from something that is found is found.
#
# Reads and sets `found`: what lives of it, as words " pid:start ". What an earlier look found counts as long as it lives,
# also if what started it has ended meanwhile. Sets `in_group`, if the group has living processes, and `outside`: those
# that are not of the group. Where nobody reaps them, dead processes stay in their group, so living ones are looked for.
found=' '
look() {
  carrying=" $({
    grep -l "$mark" /proc/[0-9]*/environ
    ls -ln /proc/[0-9]*/fd | sed -n "/^\/proc\/[0-9]*\/fd:\$/h; /$mark/{g;p;}"
  } 2>/dev/null | cut -d/ -f3 | tr '\n' ' ')"
  rows=$(sed -n 's/^\([0-9]*\) (.*) [^ZX] \([0-9]*\) \([0-9]*\) \(-\{0,1\}[0-9]* \)\{16\}\([0-9]*\) .*/\1:\5:\2:\3/p' \
    /proc/[0-9]*/stat 2>/dev/null)
  before=$found found=' ' in_group='' outside='' more=yes
  while [ "$more" ]; do
    more=''
    for row in $rows; do # pid:start:parent:group
      process=${row%:*:*}
      parent=${row%:*}
      case "$found" in *" $process "*) continue ;; esac
      if [ "${row##*:}" = "$group" ]; then
        in_group=yes
      else
        case "$carrying$before" in
          *" ${process%:*} "* | *" $process "*) ;;
          *) case "$found" in *" ${parent##*:}:"*) ;; *) continue ;; esac ;;
        esac
        outside="$outside ${process%:*}"
      fi
      found="$found$process "
      more=yes
    done
  done
}

# Each gets it once, since a second one may mean another thing.
send() {
  look
  kill "-$1" ${in_group:+"-$group"} $outside 2>/dev/null
}

# Kill what there is $1 seconds from now, until nothing is found any more.
kill_later() {
  sleep "$1"
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    send KILL # again, for what was just being started
    [ "$found" != ' ' ] || return
    sleep 1
  done
}

# End a command $1 seconds from now, unless it ends by itself before: what it put in the background then may stay.
watch() {
  left=$1
  while [ "$left" -gt 0 ]; do
    read -r stat <"/proc/$group/stat" || return
    case "$stat" in *') Z '*) return ;; esac
    sleep 1
    left=$((left - 1))
  done
  send TERM
  kill_later 3
}
