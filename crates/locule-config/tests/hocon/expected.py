"""Writes NAME.json beside every NAME.conf of this folder: what pyhocon 0.3.63 makes of it.

    python -m venv venv && venv/bin/pip install pyhocon==0.3.63 && venv/bin/python expected.py
"""

import json
import pathlib

from pyhocon import ConfigFactory, ConfigTree


def plain(value):
    if isinstance(value, ConfigTree):
        return {key.strip('"'): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


for file in sorted(pathlib.Path(__file__).parent.glob("*.conf")):
    text = json.dumps(plain(ConfigFactory.parse_file(str(file))), indent=1, ensure_ascii=False)
    file.with_suffix(".json").write_text(text + "\n")
