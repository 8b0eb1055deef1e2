"""All benchmarks that compare: python -m tests.benchmarks [--full] [NAME ...]

Runs each in a process of its own, one after another, and writes what they print under the line `## Measured` of
tests/benchmarks/README.md; with names (`training metrics`) only these, and the other tables stay. Some minutes; with --full each takes
as many turns as its own command line does. Exits 1 where a goal is missed.
"""
import argparse
import re
import subprocess
import sys
from pathlib import Path

NAMES = ("stylegan2", "dermgan", "cyclegan", "training", "metrics", "data", "busy")
README = Path(__file__).with_name("README.md")
MARK = "## Measured\n"

def measured(name, full):
    "What a benchmark prints, and whether it kept its goals."
    command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", *(() if full else ("--quick",))]
    print("+", " ".join(command[1:]), flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout: raise RuntimeError(f"{name}: {done.stderr.strip()}")
    print(done.stdout, flush=True)
    turns = "all turns" if full else "few turns (`--quick`)"
    return f"### bench_{name}\n\n{turns}; {done.stdout.strip()}\n", done.returncode == 0

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], help="of the benchmarks; none: all")
    parser.add_argument("--full", action="store_true", help="as many turns as each takes by itself")
    args = parser.parse_args()
    head, tables = README.read_text(encoding="utf-8").split(MARK)
    sections = {re.match(r"### bench_(\w+)", part)[1]: part for part in re.split(r"(?=^### )", tables, flags=re.M) if part.strip()}
    kept = True
    for name in args.names or NAMES:
        sections[name], is_kept = measured(name, args.full)
        kept = kept and is_kept
        body = "\n".join(sections[n].rstrip() + "\n" for n in NAMES if n in sections)
        README.write_text(f"{head}{MARK}\n{body}", encoding="utf-8")
    sys.exit(not kept)

if __name__ == "__main__": main()
