"""A preprocessor of mdBook: relative links that leave docs/ become links into the repository.

The pages link to files of the repository (`../bench/README.md`), which is right wherever the repository is read. A book holds
its chapters alone, so there the same links lead to the address that book.toml names.
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"(\]\()(\.\./[^)\s]*)(\))")


def outward(content: str, page: str, repository: str) -> str:
    def address(match: re.Match) -> str:
        path, hash_, anchor = match[2].partition("#")
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
        _, extension = posixpath.splitext(place)
        kind = {".svg": "raw", "": "tree"}.get(extension, "blob")
        return f"{match[1]}{repository}/{kind}/main/{place}{hash_}{anchor}{match[3]}"

    return LINK.sub(address, content)


def walk(node, repository: str) -> None:
    """Changes every chapter below a node of mdBook's tree, whatever its version calls the lists of them."""
    if isinstance(node, list):
        for child in node:
            walk(child, repository)
    elif isinstance(node, dict):
        if isinstance(node.get("content"), str) and node.get("path"):
            node["content"] = outward(node["content"], node["path"], repository)
        for child in node.values():
            walk(child, repository)


if __name__ == "__main__":
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0)
    context, book = json.load(sys.stdin)
    walk(book, context["config"]["output"]["html"]["git-repository-url"])
    json.dump(book, sys.stdout)
