"""Print what pyproject.toml needs, a line each, so that an image has a layer of it: requirements.py [EXTRA ...]"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
own = re.compile(rf"{re.escape(project['name'])}\[(.+)\]")


def needed(requirements: Iterable[str]) -> Iterator[str]:
    for one in requirements:
        if extras := own.fullmatch(one):  # an extra that is made of others
            for extra in extras[1].split(","):
                yield from needed(project["optional-dependencies"][extra.strip()])
        else:
            yield one


found = needed([*project["dependencies"], *(f"{project['name']}[{extra}]" for extra in sys.argv[1:])])
print(*dict.fromkeys(found), sep="\n")
