"""The licences of all that is linked into the program: python3 scripts/notices.py > THIRD-PARTY.txt

Texts that several crates share are written once. A crate that ships none has those of another crate of
its repository; where there is none either, nothing is written, and the exit code is 1."""

import collections
import json
import pathlib
import subprocess
import sys

PROGRAM = "aflora-run"
TARGET = "x86_64-unknown-linux-gnu"
NAMES = ("license", "licence", "copying", "notice", "unlicense")

command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

# What is linked: dependencies that are neither for tests nor for building alone, and no macros.
reached, ahead = set(), [id for id, package in packages.items() if package["name"] == PROGRAM]
while ahead:
    id = ahead.pop()
    if id in reached:
        continue
    reached.add(id)
    for dependency in nodes[id]["deps"]:
        is_macro = any("proc-macro" in target["kind"] for target in packages[dependency["pkg"]]["targets"])
        if not is_macro and any(kind["kind"] is None for kind in dependency["dep_kinds"]):
            ahead.append(dependency["pkg"])


def files(package):
    """The files with its licences; the sources of C libraries lie in folders of theirs."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [file for file in folder.rglob("*") if file.is_file() and file.name.lower().startswith(NAMES)]
    return sorted(file for file in files if file.suffix.lower() in ("", ".txt", ".md") or file.stem.isupper())


linked = [packages[id] for id in reached if packages[id]["source"] is not None]
linked.sort(key=lambda package: (package["name"], package["version"]))
of_repository = collections.defaultdict(list)
for package in linked:
    of_repository[package["repository"]].extend(files(package))

texts, without, listed = collections.defaultdict(list), [], []
for package in linked:
    name = f"{package['name']} {package['version']}"
    listed.append(f"{name}: {package['license'] or package['license_file']}")
    found = files(package) or (package["repository"] and of_repository[package["repository"]])
    for file in found or []:
        text = file.read_text(errors="replace").strip()
        if name not in texts[text]:
            texts[text].append(name)
    if not found:
        without.append(name)
if without:
    sys.exit("there is no licence's text for " + ", ".join(without))

print("The program aflora is made of these crates besides its own, each under the licence named:\n")
print("\n".join(listed))
print("\nThe Rust standard library, https://www.rust-lang.org: MIT OR Apache-2.0")
for text, names in texts.items():
    print("\n" + "=" * 100 + "\n" + ", ".join(names) + "\n" + "=" * 100 + "\n\n" + text)
