#!/usr/bin/env bash
# A release tried as a new user would, in a bare Debian: every command of its README, as a user without
# rights, with the seconds that each part took, and those that processors spent on it.
#
#   scripts/trial.sh ROOT        after `make dist`; as root
#
# ROOT is a bare Debian 12 and is written to. Where it does not exist, debootstrap makes it, with Python's
# pip and without a compiler. Certificates and the resolver of this machine are lent to it.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

fail() { printf 'trial: %s\n' "$1" >&2; exit 1; }
root=${1:?which folder?}
archives=(target/dist/aflora-*-x86_64-linux.tar.gz)
archive=${archives[0]}
[ -f "$archive" ] || fail "there is no $archive: make dist"
[ -d "$root" ] || debootstrap --variant=minbase --include=python3-pip,ca-certificates bookworm "$root"
for tool in cc gcc g++ c++ cargo rustc make; do
    if chroot "$root" sh -c "command -v $tool" >/dev/null; then fail "$root is not bare: $tool is in it"; fi
done
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
mountpoint --quiet "$root/proc" || mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT

home=$root/home/user
rm -rf "$home"
mkdir -p "$home"
cp "$archive" "$home/aflora.tar.gz"
# The user has two files and the archive, unpacks it, and follows the README: its parts are steps under
# their headings.
{
    cat <<'END'
set -euo pipefail
cd ~
sides=(bad 'dull and far too long' bad 'a lifeless mess' good 'a warm and funny film' good 'brilliant acting')
printf 'body,stars\n' > reviews.csv
printf 'body\na funny film\na dull mess\n' > new.csv
for ((i = 0; i < 200; i++)); do
    ((of = i % 4 * 2)) || true
    printf '"%s, number %d",%s\n' "${sides[of + 1]}" "$i" "${sides[of]}" >> reviews.csv
done
began=$(date +%s%N) all=$began name= spent=0
# Milliseconds of the form 1m2.345s.
milliseconds() {
    local seconds=${1#*m}
    seconds=${seconds%s}
    echo $((${1%m*} * 60000 + 10#${seconds/[.,]/}))
}
step() {
    { set +x; } 2>/dev/null
    local now user system all_spent
    now=$(date +%s%N)
    # Of this shell, and behind it of what it started.
    times > ~/times.now
    { read -r _; read -r user system; } < ~/times.now
    all_spent=$(($(milliseconds "$user") + $(milliseconds "$system")))
    tell() { printf '%7.1f s, %7.1f s of processors  %s\n' "$(((now - $1) / 1000000))e-3" "$((all_spent - $2))e-3" "$3" | tee -a ~/times; }
    if [ -n "$name" ]; then tell "$began" "$spent" "$name"; fi
    if [ "$name" = 'The default run' ]; then tell "$all" 0 'from the archive to here'; fi
    began=$(date +%s%N) name=$1 spent=$all_spent
    set -x
}
step 'Unpack'
mkdir ~/aflora && tar xzf ~/aflora.tar.gz --strip-components=1 -C ~/aflora
cd ~/aflora
mv ~/*.csv .
END
    awk '/^## /            { heading = substr($0, 4) }
         /^```$/           { inside = 0 }
         inside            { print }
         /^```sh run$/     { inside = 1; printf "step \x27%s\x27\n", heading }' scripts/release/README.md
    printf "step ''\n"
} > "$home/steps.sh"
chown -R 1000:1000 "$home"

# Nothing of this machine's own libtorch.
env -u LIBTORCH -u LD_LIBRARY_PATH -u LIBTORCH_USE_PYTORCH HOME=/home/user \
    PATH=/usr/local/bin:/usr/bin:/bin "$(command -v chroot)" --userspec=1000:1000 "$root" bash /home/user/steps.sh
printf '\nMB that were fetched and stay:\n'
du -sm "$home"/aflora/.libtorch "$home"/aflora/.assets
cat "$home/times"
