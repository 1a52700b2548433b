#!/usr/bin/env python3
"""Stands in for cargo where an older cargo-deny asks it for `cargo metadata`.

cargo-deny before 0.14.11 knows package ids only as `name version (source)`, which cargo stopped writing in 1.77.
This runs the real cargo ($REAL_CARGO) and, for `metadata` only, writes the ids back in that older form.
"""
import json
import os
import subprocess
import sys


def old_id(package):
    source = package["source"] or "path+file://" + os.path.dirname(package["manifest_path"])
    return f'{package["name"]} {package["version"]} ({source})'


def rewritten(value, ids):
    if isinstance(value, str):
        return ids.get(value, value)
    if isinstance(value, list):
        return [rewritten(item, ids) for item in value]
    if isinstance(value, dict):
        return {key: rewritten(item, ids) for key, item in value.items()}
    return value


def main():
    command = [os.environ["REAL_CARGO"], *sys.argv[1:]]
    if "metadata" not in sys.argv[1:]:
        return subprocess.call(command)
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode != 0:
        return done.returncode
    metadata = json.loads(done.stdout)
    ids = {package["id"]: old_id(package) for package in metadata["packages"]}
    json.dump(rewritten(metadata, ids), sys.stdout)
    return 0


sys.exit(main())
