#!/usr/bin/env bash
# Brings a Debian or Ubuntu node into line with the files beside this script:
# installs unattended-upgrades, writes its configuration and the tmpfiles.d entry,
# holds the packages that run containers, and starts the timers. It may be run
# again at any time; what is in order already is left alone. It never reboots.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: bring-into-line.sh [--dry-run] [--root DIR]

  --dry-run   print what would be done, and change nothing
  --root DIR  work on the system image below DIR instead of this machine
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry=false
root=

while (($#)); do
  case $1 in
    --dry-run) dry=true ;;
    --root)
      (($# >= 2)) || { usage >&2; exit 2; }
      root=${2%/}
      [[ $2 == /* && -d $2 ]] || { echo "--root: $2 is not the absolute path of a directory" >&2; exit 2; }
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

fail() {
  echo "bring-into-line.sh: $*" >&2
  exit 1
}

# do_it runs a command, or prints it.
do_it() {
  if $dry; then
    echo "would run: $*"
  else
    echo "run: $*"
    "$@"
  fi
}

# Before commands that know no other root than /.
inside=()
if [[ -n $root ]]; then
  inside=(chroot "$root")
fi

# put writes a file of this directory to where it belongs, if it is not there already.
put() {
  local source=$here/$1 target=$root$2
  if cmp -s "$source" "$target"; then
    echo "in order: $2"
  elif $dry; then
    echo "would write: $2"
  else
    install -D -m 0644 "$source" "$target.new-sentinel-gate"
    mv -f "$target.new-sentinel-gate" "$target"
    echo "written: $2"
  fi
}

blacklist=apt/52-sentinel-gate-unattended-upgrades
for file in "$blacklist" apt/52-sentinel-gate-periodic tmpfiles.d/sentinel-gate.conf; do
  [[ -r $here/$file ]] || fail "$here/$file is missing: copy the whole directory to the node"
done

[[ -r $root/etc/os-release ]] || fail "$root/etc/os-release is missing: what system is this?"
# In a shell of its own: the file may set any variable.
distribution=$(
  # shellcheck source=/dev/null
  . "$root/etc/os-release"
  echo " ${ID:-} ${ID_LIKE:-} "
)
case $distribution in
  *" debian "* | *" ubuntu "*) ;;
  *) fail "this is neither Debian nor Ubuntu; README.md says what to do on other systems" ;;
esac
$dry || ((EUID == 0)) || fail "must run as root; --dry-run need not"

# The configuration first, so that nothing is upgraded by rules other than these.
put "$blacklist" /etc/apt/apt.conf.d/52-sentinel-gate-unattended-upgrades
put apt/52-sentinel-gate-periodic /etc/apt/apt.conf.d/52-sentinel-gate-periodic
put tmpfiles.d/sentinel-gate.conf /etc/tmpfiles.d/sentinel-gate.conf

# One line for each package that is installed: what is wanted of it (install, hold), and its name.
installed=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Status} ${db:Status-Want} ${Package}\n' |
  sed -n 's/^installed //p')

# Hold before anything is installed. What, is said in one place: the blacklist.
pattern=$(sed -n '/^Unattended-Upgrade::Package-Blacklist {/,/^};/s/^ *"\(.*\)";$/\1/p' "$here/$blacklist" | paste -sd '|')
[[ -n $pattern ]] || fail "no Package-Blacklist in $here/$blacklist"
hold=()
while read -r want package; do
  [[ $package =~ ^($pattern) ]] || continue
  if [[ $want == hold ]]; then
    echo "in order: $package is held"
  else
    hold+=("$package")
  fi
done <<<"$installed"
if ((${#hold[@]})); then
  do_it "${inside[@]}" apt-mark hold "${hold[@]}"
fi

# update-notifier-common is what lets packages other than the kernel ask for a reboot on Ubuntu.
wanted=(unattended-upgrades)
if [[ $distribution == *" ubuntu "* ]]; then
  wanted+=(update-notifier-common)
fi
missing=()
for package in "${wanted[@]}"; do
  if grep -Eq "^[a-z]+ $package\$" <<<"$installed"; then
    echo "in order: $package is installed"
  else
    missing+=("$package")
  fi
done
if ((${#missing[@]})); then
  do_it "${inside[@]}" apt-get -o DPkg::Lock::Timeout=600 update
  do_it "${inside[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}"
fi

timers=(apt-daily.timer apt-daily-upgrade.timer)
if [[ -n $root ]]; then
  do_it systemctl --root="$root" unmask "${timers[@]}"
  do_it systemctl --root="$root" enable "${timers[@]}"
else
  do_it systemctl unmask "${timers[@]}"
  do_it systemctl enable --now "${timers[@]}"
  do_it systemd-tmpfiles --create /etc/tmpfiles.d/sentinel-gate.conf
fi

if $dry; then
  exit 0
fi

# Another file may be read after these and say otherwise.
effective=$("${inside[@]}" apt-config dump)
wrong=0
expect() {
  if ! grep -Fqx "$1 \"$2\";" <<<"$effective"; then
    echo "not in force: $1 \"$2\"; another file in /etc/apt says otherwise: grep -rn ${1##*::} $root/etc/apt" >&2
    wrong=1
  fi
}
expect Unattended-Upgrade::Automatic-Reboot false
expect APT::Periodic::Enable 1
expect APT::Periodic::Update-Package-Lists 1
expect APT::Periodic::Unattended-Upgrade 1
((wrong == 0)) || exit 1
echo "in line"
