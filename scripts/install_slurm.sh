#!/usr/bin/env bash
# Installs what slurm/cluster.sh needs (SLURM, munge, MariaDB) from Debian's packages and starts none of it.
# Where that is not possible it says why in one line and succeeds: the tests that need SLURM then skip.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive

packages=(slurm-wlm slurmdbd munge mariadb-server)
policy=/usr/sbin/policy-rc.d

is_missing() {
  local program
  for program in sbatch slurmctld slurmd munged slurmdbd mariadbd; do
    command -v $program >/dev/null || return 0
  done
  return 1
}

give_up() {
  echo "install_slurm: no virtual cluster, its tests will be skipped: $1"
  exit 0
}

# Debian starts a service as soon as it is unpacked, unless this file says no.
restore_policy() {
  rm -f $policy
  if [ -e $policy.before-spp ]; then mv $policy.before-spp $policy; fi
}

forbid_services() {
  if [ -e $policy ]; then mv $policy $policy.before-spp; fi
  trap restore_policy EXIT
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod 755 $policy
}

apt_install() {
  apt-get install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1
}

is_missing || exit 0
[ "$(id -u)" = 0 ] || give_up "not root; remedy: as root, apt-get install ${packages[*]}"
command -v apt-get >/dev/null || give_up "no apt-get here; remedy: install SLURM, munge and MariaDB by other means"
if command -v sbatch >/dev/null && ! command -v slurmctld >/dev/null; then
  give_up "this machine is a client of another SLURM, which stays as it is"
fi

log=$(mktemp)
echo "install_slurm: installing ${packages[*]}"
forbid_services
# Without the lists of packages the first try fails at once.
apt_install || { apt-get update >"$log" 2>&1 && apt_install; } || give_up "apt-get did not succeed; remedy: see $log"
rm -f "$log"
# Nor at the next boot of a machine that has systemd; the virtual cluster starts its own copies.
if [ -d /run/systemd/system ]; then
  systemctl --quiet disable munge mariadb slurmd slurmctld slurmdbd >/dev/null 2>&1 || true
fi
echo "install_slurm: done"
