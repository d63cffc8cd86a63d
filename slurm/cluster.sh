#!/usr/bin/env bash
# A private SLURM cluster of virtual nodes on one machine: munge, MariaDB, slurmdbd, slurmctld and one slurmd per node.
# No systemd, no root needed. Nothing in /etc/slurm, /run/munge or /var/lib/mysql is read or written.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: slurm/cluster.sh COMMAND

  up            start what is not running and wait until all nodes are idle; keeps queue and settings of an earlier `up`
  down          cancel the jobs and stop the daemons; the next `up` goes on with the same queue and accounting
  status        one line per daemon and the nodes; exit code 1 if something is down
  env           the line for your shell: eval "$(slurm/cluster.sh env)"
  start NAME    start one daemon: munged mariadbd slurmdbd slurmctld slurmd-n1 ...
  stop NAME...  stop daemons; `stop -KILL NAME...` as a crash would
  reset         end the cluster at once and remove all it left

Settings are read by the first `up` (and kept until `reset`) from the environment:
  SC_ROOT   folder of the cluster; short, as sockets live there       [/tmp/sc-<8 hex of this checkout's path>]
  SC_PORT   first of 120 TCP ports on 127.0.0.1                       [20000..30880, from the same 8 hex]
  SC_DBD    1: with accounting (sacct; 9 s the first time), 0: without (1 s)                            [1]
  SC_NODES  number of nodes, n1, n2, ...                              [4]
  SC_CPUS   CPUs of each node; may exceed the machine's               [32]
  SC_MEM    memory of each node in MB; promised, not enforced         [64000]
  SC_GPUS   GPUs of each node; promised, there is nothing behind them [0]
  SC_EXTRA  a file with more lines for slurm.conf                     [none]
TEXT
}

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
digest=$(printf %s "$checkout" | sha256sum | cut -c 1-8)
root=${SC_ROOT:-/tmp/sc-$digest}
user=$(id -un)
host=$(hostname -s)
export SLURM_CONF=$root/slurm.conf
# Daemons are in sbin, which is often missing from a user's PATH.
export PATH=$PATH:/usr/sbin:/sbin

fail() {
  echo "cluster.sh: $1" >&2
  exit 1
}

# Settings of the first `up`, so that later commands need not be told again.
load_settings() {
  if [ -r "$root/settings" ]; then
    # shellcheck disable=SC1091
    . "$root/settings"
    return
  fi
  port=${SC_PORT:-$((20000 + (16#$digest % 91) * 120))}
  with_accounting=${SC_DBD:-1}
  num_nodes=${SC_NODES:-4}
  num_cpus=${SC_CPUS:-32}
  mem_mb=${SC_MEM:-64000}
  num_gpus=${SC_GPUS:-0}
}

save_settings() {
  [ -e "$root/settings" ] && return
  local name
  for name in port with_accounting num_nodes num_cpus mem_mb num_gpus; do
    printf '%s=%q\n' "$name" "${!name}"
  done > "$root/settings"
}

check_programs() {
  local program needed="munged slurmctld slurmd sbatch flock"
  [ "$with_accounting" = 1 ] && needed="$needed slurmdbd mariadbd mariadb-install-db mysqladmin"
  for program in $needed; do
    command -v "$program" >/dev/null || fail "$program is not installed; remedy: scripts/install_slurm.sh as root"
  done
  # A unix socket's path is limited to 107 bytes; the longest one here is <root>/munge/socket.lock.
  [ ${#root} -le 80 ] || fail "SC_ROOT: $root is too long; allowed: 80 characters; remedy: a folder under /tmp"
}

write_slurm_conf() {
  local gres="" gpu
  if [ "$num_gpus" -gt 0 ]; then
    gres="Gres=gpu:$num_gpus"
    # slurmd counts files; without a cgroup it never opens them.
    for gpu in $(seq 0 $((num_gpus - 1))); do touch "$root/gpu$gpu"; done
    echo "Name=gpu File=$root/gpu[0-$((num_gpus - 1))]" > "$root/gres.conf"
  fi
  # The nodes' names resolve to nothing, and processes that train together look for the first node by its name.
  printf '#!/bin/sh\necho export MASTER_ADDR=127.0.0.1\n' > "$root/task_prolog"
  chmod 755 "$root/task_prolog"
  # cred_expire: a requeued job starts again after 6 s instead of 121 s; less than 5 falls back to 120.
  # config_overrides: nodes may promise more CPUs and memory than the machine has.
  # One Port per node and %n in paths: all slurmd share this host.
  cat > "$SLURM_CONF" <<CONF
ClusterName=sc
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((port + 17))
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool-%n
SlurmctldPidFile=$root/pid/slurmctld
SlurmdPidFile=$root/pid/slurmd-%n
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$root/task_prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
MinJobAge=300
KillWait=3
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
MpiDefault=none
GresTypes=gpu
NodeName=n[1-$num_nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 21))-$((port + 20 + num_nodes))] CPUs=$num_cpus RealMemory=$mem_mb $gres State=UNKNOWN
PartitionName=debug Nodes=n[1-$num_nodes] Default=YES MaxTime=INFINITE State=UP
CONF
  if [ "$with_accounting" = 1 ]; then
    # AccountingStoragePass: slurmctld finds munge's socket for slurmdbd there, not in AuthInfo.
    cat >> "$SLURM_CONF" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 19))
AccountingStoragePass=$root/munge/socket
CONF
  fi
  if [ -n "${SC_EXTRA:-}" ]; then cat "$SC_EXTRA" >> "$SLURM_CONF"; fi
}

write_slurmdbd_conf() {
  (umask 077 && cat > "$root/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket,cred_expire=5
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$((port + 19))
SlurmUser=$user
LogFile=$root/log/slurmdbd.log
PidFile=$root/pid/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$user
StorageLoc=slurm_acct_db
CONF
}

prepare() {
  local node
  mkdir -p "$root"/{pid,log,munge,state,db}
  for node in $(seq "$num_nodes"); do mkdir -p "$root/spool-n$node"; done
  chmod 755 "$root" "$root/munge"
  if [ "$user" = root ] && [ "$with_accounting" = 1 ]; then chown mysql "$root/db"; fi
  if [ ! -s "$root/munge/key" ]; then (umask 077 && head -c 128 /dev/urandom > "$root/munge/key"); fi
  if [ ! -s "$SLURM_CONF" ]; then
    write_slurm_conf
    if [ "$with_accounting" = 1 ]; then write_slurmdbd_conf; fi
  fi
  save_settings
}

# The daemons in the order in which they start.
daemons() {
  echo munged
  if [ "$with_accounting" = 1 ]; then printf '%s\n' mariadbd slurmdbd; fi
  echo slurmctld
  slurmds
}

slurmds() { seq -f 'slurmd-n%.0f' "$num_nodes"; }

# NAME -> its process, if that lives and is the program that was started: numbers of processes are used again.
pid_of() {
  local pid
  pid=$(cat "$root/pid/$1" 2>/dev/null) || return 1
  [ -n "$pid" ] && tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q -- "${1%%-*}" && echo "$pid"
}

# SECONDS COMMAND...: until the command succeeds
await() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || fail "no answer in time from: $*; remedy: see $root/log"
    sleep 0.05
  done
}

start_mariadbd() {
  local owner=$user
  [ "$user" = root ] && owner=mysql # it refuses to run as root
  if [ ! -d "$root/db/mysql" ]; then
    mariadb-install-db --no-defaults --user="$owner" --datadir="$root/db" --skip-test-db \
      --auth-root-authentication-method=socket --auth-root-socket-user="$user" > "$root/log/install-db.log" 2>&1 ||
      fail "MariaDB could not be set up; remedy: see $root/log/install-db.log"
  fi
  setsid nohup mariadbd --no-defaults --user="$owner" --datadir="$root/db" --skip-networking --socket="$root/db/s" \
    --pid-file="$root/db/mariadbd.pid" --innodb-flush-log-at-trx-commit=0 > "$root/log/mariadbd.log" 2>&1 </dev/null &
  echo $! > "$root/pid/mariadbd"
  await 30 mysqladmin --no-defaults -S "$root/db/s" ping
  mysql --no-defaults -S "$root/db/s" -e "create database if not exists slurm_acct_db"
}

start_munged() {
  local force=()
  [ "$user" = root ] && force=(--force)
  munged ${force[@]+"${force[@]}"} --key-file="$root/munge/key" --socket="$root/munge/socket" --num-threads=2 \
    --pid-file="$root/pid/munged" --log-file="$root/log/munged.log" --seed-file="$root/munge/seed"
  await 10 munge -n -S "$root/munge/socket"
}

start_slurmdbd() {
  MYSQL_UNIX_PORT=$root/db/s slurmdbd # slurmdbd.conf has no word for a socket of MariaDB
  await 20 sacctmgr -n show cluster
  sacctmgr -n show cluster sc format=cluster | grep -q sc || sacctmgr -i add cluster sc >/dev/null
}

start() {
  case $1 in
    munged) start_munged ;;
    mariadbd) start_mariadbd ;;
    slurmdbd) start_slurmdbd ;;
    slurmctld) slurmctld && await 20 scontrol ping ;;
    slurmd-*) slurmd -N "${1#slurmd-}" ;;
    *) fail "NAME: $1 is not a daemon; allowed: $(daemons | xargs)" ;;
  esac
}

# [-SIGNAL] NAME...: all at once; what is left after 20 s is killed.
stop() {
  local signal=-TERM name pid pids=()
  case ${1:-} in -*)
    signal=$1
    shift
    ;;
  esac
  for name; do
    if pid=$(pid_of "$name"); then
      pids+=("$pid")
      kill "$signal" "$pid" || true
    fi
  done
  for pid in ${pids[@]+"${pids[@]}"}; do
    for _ in $(seq 400); do [ -d "/proc/$pid" ] || continue 2; sleep 0.05; done
    kill -KILL "$pid" || true
  done
  for name; do rm -f "$root/pid/$name"; done
}

# Jobs outlive a killed slurmd. A process of a job, or a step's manager, has this cluster's file in its environment; so
# may a user's shell, but not together with the number of a job.
end_orphans() {
  local environ pid
  for environ in $(grep -lzxs "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ); do
    pid=${environ//[^0-9]/}
    if grep -qzs '^SLURM_JOB_ID=' "$environ" || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = slurmstepd ]; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
  done
}

ready() { [ "$(sinfo -h -N -o %t 2>/dev/null | grep -c '^idle$\|^mix$\|^alloc$')" -ge "$num_nodes" ]; }

up() {
  local name
  check_programs
  prepare
  for name in $(daemons); do pid_of "$name" >/dev/null || start "$name"; done
  await 30 ready
}

down() {
  if pid_of slurmctld >/dev/null; then
    scancel --quiet -u "$user" 2>/dev/null || true
    await 15 sh -c '[ -z "$(squeue -h)" ]'
  fi
  # shellcheck disable=SC2046
  stop $(slurmds) slurmctld
  if [ "$with_accounting" = 1 ]; then
    stop slurmdbd
    stop mariadbd
  fi
  stop munged
  end_orphans
}

status() {
  local name pid rc=0
  for name in $(daemons); do
    if pid=$(pid_of "$name"); then echo "$name up $pid"; else
      echo "$name down"
      rc=1
    fi
  done
  if ready; then sinfo -h; else rc=1; fi
  return $rc
}

command=${1:-}
case $command in
  -h | --help | help)
    usage
    exit 0
    ;;
  up | down | reset | status | env | start | stop) shift ;;
  *)
    usage >&2
    exit 2
    ;;
esac

# One caller at a time; -o: the daemons must not inherit the lock.
if [ -z "${SC_LOCKED:-}" ] && [ "$command" != env ]; then
  SC_LOCKED=1 exec flock -o -w 120 "$root.lock" "$0" "$command" "$@"
fi

load_settings
case $command in
  up) up && sinfo ;;
  down) down ;;
  reset)
    [ -e "$root/settings" ] || [ ! -e "$root" ] || fail "SC_ROOT: $root holds no cluster; it stays as it is"
    # shellcheck disable=SC2046
    stop -KILL $(daemons)
    end_orphans
    rm -rf "$root" "$root.lock"
    ;;
  status) status ;;
  env) echo "export SLURM_CONF=$SLURM_CONF PATH=\$PATH:/usr/sbin:/sbin" ;;
  start) start "${1:?NAME of the daemon}" ;;
  stop) stop "${@:?NAME of the daemon}" ;;
esac
