"""Extracts archives as conda does, with conda-package-handling or conda-package-streaming itself.

Copies the named archives of a channel into a package directory and extracts each beside itself, in as many processes as asked
for. It writes `info/repodata_record.json` last, as conda's extraction does; --no-record leaves it out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys


def extract(job):
    archive, folder, tool, record = job
    if os.path.isdir(folder):  # neither tool extracts over what is there; conda removes it first
        shutil.rmtree(folder)
    if tool == "cph":
        import conda_package_handling.api

        conda_package_handling.api.extract(archive, dest_dir=folder)
    else:
        import conda_package_streaming.extract

        os.makedirs(folder, exist_ok=True)
        conda_package_streaming.extract.extract(archive, folder)
    if record is not None:
        with open(os.path.join(folder, "info", "repodata_record.json"), "w") as f:
            json.dump(record, f)
    return os.path.basename(folder)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--channel", required=True, help="directory of the channel")
    ap.add_argument("--pkgs", required=True)
    ap.add_argument("--tool", choices=("cph", "cps"), default="cph")
    ap.add_argument("--processes", type=int, default=1)
    ap.add_argument("--no-record", action="store_true")
    ap.add_argument("names", nargs="*", help="package names (default: all)")
    args = ap.parse_args()
    with open(os.path.join(args.channel, "truth.json")) as f:
        packages = json.load(f)["packages"]
    os.makedirs(args.pkgs, exist_ok=True)
    jobs = []
    for fn, p in packages.items():
        if args.names and p["name"] not in args.names:
            continue
        archive = os.path.join(args.pkgs, fn)
        shutil.copyfile(os.path.join(args.channel, p["subdir"], fn), archive)
        record = {k: p[k] for k in ("name", "version", "build", "subdir", "depends", "md5", "sha256", "size")}
        record.update(fn=fn, build_number=0, channel=f"http://localhost/{p['subdir']}", url=f"http://localhost/{p['subdir']}/{fn}")
        folder = os.path.join(args.pkgs, f"{p['name']}-{p['version']}-{p['build']}")
        jobs.append((archive, folder, args.tool, None if args.no_record else record))
    if args.processes > 1:
        with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
            done = pool.map(extract, jobs, chunksize=1)
    else:
        done = [extract(job) for job in jobs]
    print(json.dumps({"success": True, "extracted": len(done)}))


if __name__ == "__main__":
    sys.exit(main())
