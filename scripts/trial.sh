#!/usr/bin/env bash
# A release tried as a new user would, in a bare Debian: from the archive to a finished default run,
# rows of one's own, a prediction, a merge and a table, each with the seconds that it took.
#
#   scripts/trial.sh ROOT        after `make dist`; as root
#
# ROOT is a bare Debian 12 and is written to. Where it does not exist, debootstrap makes it, with Python's
# pip and without a compiler. A certificate and a resolver of this machine are lent to it.
set -euo pipefail
cd "$(dirname "$0")/.."

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
rm -rf "$root/opt/aflora" "$root/home/user"
mkdir -p "$root/opt/aflora" "$root/home/user"
cp "$archive" "$root/opt/aflora/aflora.tar.gz"

# Nothing of this machine's own libtorch.
bare() { env -u LIBTORCH -u LD_LIBRARY_PATH HOME=/home/user chroot "$root" sh -ec "cd /home/user; PATH=/opt/aflora/bin:\$PATH; $1"; }
step() {
    local begin=$SECONDS
    bare "$2"
    printf 'trial: %4d s  %s\n' $((SECONDS - begin)) "$1" | tee -a "$log"
}
log=$(mktemp)
begin=$SECONDS
step 'unpack' 'cd /opt/aflora; tar --extract --gzip --strip-components=1 --file aflora.tar.gz'
step 'install.sh' '/opt/aflora/install.sh cpu'
step 'the default run' 'aflora run task=reviews'
printf 'trial: %4d s  from the archive to a finished default run\n' $((SECONDS - begin)) | tee -a "$log"
rows='import csv, random, sys
random.seed(1)
sides = {"good": ["a warm and funny film", "brilliant acting"], "bad": ["dull and far too long", "a lifeless mess"]}
out = csv.writer(open("mine.csv", "w")); out.writerow(["body", "stars"])
for number in range(200):
    stars = random.choice(sorted(sides)); out.writerow([f"{random.choice(sides[stars])}, number {number}", stars])'
bare "python3 -c '$rows'"
step 'a run on a CSV file of one'\''s own' 'aflora run train=mine.csv text=body label=stars model=minilm run_dir=runs/mine epochs=1'
step 'a prediction' 'aflora predict runs/mine mine.csv > answers.csv; head -3 answers.csv'
step 'a merge' 'aflora merge runs/mine merged; ls merged'
step 'a table' 'aflora report runs --out table; ls table'
du -sm "$root/opt/aflora/.libtorch" "$root/opt/aflora/.assets"
cat "$log"
