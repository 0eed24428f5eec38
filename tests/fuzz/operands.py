# /// script
# requires-python = ">=3.10"
# ///
"""Leaves out each operand of validation's rules in turn: does some test of the core's format miss it?

    python tests/fuzz/operands.py conv2d.rs ops.rs

`cargo mutants` does not look into macros, and so not into the conditions of `ensure!`. Here each operand of `&&` becomes `true`
and each of `||` becomes `false`, in the named files of runtime/src/format/validate [all of them], one at a time in a copy of the
core, whose tests of the format run on each. Says which nobody missed; ends with 1 if there are any.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def conditions(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the condition of each `ensure!`."""
    for found in re.finditer(r"\bensure!\(", text):
        depth, at = 0, found.end()
        while depth or text[at] != ",":
            depth += (text[at] in "([{") - (text[at] in ")]}")
            at += 1
        yield found.end(), at


def operands(text: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Begin and end of each operand, and what leaves it out."""
    depth, first, parts, between = 0, begin, [], []
    for at in range(begin, end):
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0 and text[at : at + 2] in ("&&", "||"):
            parts.append((first, at))
            between.append(text[at : at + 2])
            first = at + 2
    parts.append((first, end))
    for index, part in enumerate(parts):
        beside = between[max(0, index - 1) : index + 1]
        yield *part, "false" if beside and set(beside) == {"||"} else "true"


def copy_of_the_core(folder: Path) -> None:
    """A package of its own, with the fields that it has of the workspace."""
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    manifest = (ROOT / "runtime/Cargo.toml").read_text()
    for name, value in workspace["package"].items():
        manifest = manifest.replace(f"\n{name}.workspace = true", f'\n{name} = "{value}"')
    manifest = manifest.replace("[lints]\nworkspace = true\n", "")
    (folder / "Cargo.toml").write_text(manifest + "\n[profile.dev]\ndebug = false\n\n[workspace]\n")
    shutil.copy(ROOT / "Cargo.lock", folder)
    for name in ("src", "examples", "build.rs", "README.md"):
        source = ROOT / "runtime" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)


def is_missed(folder: Path) -> bool:
    command = ["cargo", "test", "-q", "--features", "std", "--lib", "--", "format"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if "test result" not in done.stdout:
        raise SystemExit(done.stderr)
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_core(Path(folder))
        if is_missed(Path(folder)):
            raise SystemExit("the core's tests fail as they are")
        rules = Path(folder) / "src/format/validate"
        files = [rules / name for name in args.files] or sorted(rules.glob("*.rs"))
        count, kept = 0, []
        for path in files:
            text = path.read_text()
            for begin, end in conditions(text):
                for first, last, without in operands(text, begin, end):
                    what = f"{path.name}:{text.count(chr(10), 0, first) + 1} {' '.join(text[first:last].split())}"
                    path.write_text(f"{text[:first]} {without} {text[last:]}")
                    missed, count = is_missed(Path(folder)), count + 1
                    print(f"{'missed' if missed else 'NOT MISSED'} {what}", flush=True)
                    kept += [] if missed else [what]
            path.write_text(text)
    print(f"{count} operands, {len(kept)} that no test misses")
    sys.exit(bool(kept))


if __name__ == "__main__":
    main()
