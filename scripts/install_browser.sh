#!/usr/bin/env bash
# Installs what tests/report/test_browser.py needs (headless Chromium and its driver) from Debian's packages.
# Where that is not possible it says why in one line and succeeds: the tests that need a browser then skip.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

packages=(chromium chromium-driver)

give_up() {
  echo "install_browser: no browser, the tests of the report's page will be skipped: $1"
  exit 0
}

apt_install() {
  apt-get install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1
}

if [ -x /usr/bin/chromium ] && [ -x /usr/bin/chromedriver ]; then exit 0; fi
[ "$(id -u)" = 0 ] || give_up "not root; remedy: as root, apt-get install ${packages[*]}"
command -v apt-get >/dev/null || give_up "no apt-get here; remedy: put chromium and chromedriver into /usr/bin by other means"

log=$(mktemp)
echo "install_browser: installing ${packages[*]}"
# Without the lists of packages the first try fails at once.
apt_install || { apt-get update >"$log" 2>&1 && apt_install; } || give_up "apt-get did not succeed; remedy: see $log"
rm -f "$log"
echo "install_browser: done"
