"""The licences of all that is linked into the program: python3 scripts/notices.py > THIRD-PARTY.txt

Texts that several crates share are written once. A crate that ships no text is named with the
expression of its Cargo.toml."""

import collections
import json
import pathlib
import subprocess

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

texts, without, listed = collections.defaultdict(list), [], []
for package in sorted((packages[id] for id in reached), key=lambda package: (package["name"], package["version"])):
    if package["source"] is None:
        continue
    name = f"{package['name']} {package['version']}"
    listed.append(f"{name}: {package['license'] or package['license_file']}")
    folder = pathlib.Path(package["manifest_path"]).parent
    # The sources of C libraries lie in folders of theirs.
    files = [file for file in folder.rglob("*") if file.is_file() and file.name.lower().startswith(NAMES)]
    files = [file for file in files if file.suffix.lower() in ("", ".txt", ".md") or file.stem.isupper()]
    for file in sorted(files):
        text = file.read_text(errors="replace").strip()
        if name not in texts[text]:
            texts[text].append(name)
    if not files:
        without.append(name)

print("The program aflora is made of these crates besides its own, each under the licence named:\n")
print("\n".join(listed))
print("\nThe Rust standard library, https://www.rust-lang.org: MIT OR Apache-2.0")
print("\nThese carry no text of their licence: " + ", ".join(without))
for text, names in texts.items():
    print("\n" + "=" * 100 + "\n" + ", ".join(names) + "\n" + "=" * 100 + "\n\n" + text)
