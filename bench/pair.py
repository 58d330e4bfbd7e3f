"""Runs epo-bench and baseline.py in alternation and prints ratios; see bench/run."""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = pathlib.Path(os.environ.get("EPO_BIN_DIR", ROOT / "build/release/bin")) / "epo-bench"
REPORT = ROOT / "docs/performance.md"
LAYERS = (8, 25)
TOKENS = (8, 12, 16, 32, 64)
PREFIXES = (100, 300, 1000)


def run(command):
    print("+", " ".join(map(str, command)), file=sys.stderr)
    return json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)


def ours(model, **options):
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return run([BENCH, "step", "--model", model, "--neuron", 1, "-o", "json", *flags])


def baseline(model, **options):
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return run([sys.executable, ROOT / "bench/baseline.py", "--model", model, "--neuron", 1, *flags])


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def multiplies_bfloat16():
    return "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


def paired(model, dtype, layer, pairs):
    """Medians over runs that alternate, so that what else the machine does falls on both."""
    # Where torch emulates bfloat16 a plain step takes minutes: one is enough to tell.
    slow = dtype == "bfloat16" and not multiplies_bfloat16()
    loop = {"iterations": 1, "warm-up": 0} if slow else {"iterations": 2}
    samples = [(ours(model, layer=layer, dtype=dtype, iterations=4), baseline(model, layer=layer, dtype=dtype, **loop))
               for _ in range(1 if slow else pairs)]
    mine = statistics.median(a["step_seconds_median"] for a, _ in samples)
    theirs = statistics.median(b["step_seconds_median"] for _, b in samples)
    ratio = statistics.median(b["step_seconds_median"] / a["step_seconds_median"] for a, b in samples)
    a = samples[-1][0]
    roof = statistics.median(x["roofline_share"] for x, _ in samples)
    return [dtype, layer, f"{theirs:.2f}", f"{mine:.2f}", f"{ratio:.1f}x", f"{a['candidates_per_second']:.0f}",
            f"{a['matmul_rate_gflops']:.0f}", f"{a['roofline_seconds']:.2f}", f"{100 * roof:.0f} %",
            f"{a['peak_rss_bytes'] / 1e6:.0f}"]


def behind_prefix(model, prefix, pairs):
    """What a step behind a prefix costs beside one without: medians over runs that alternate."""
    samples = [[ours(model, layer=8, dtype="float32", iterations=2, prefix=p)["step_seconds_median"] for p in (0, prefix)]
               for _ in range(pairs)]
    without, behind = (statistics.median(times) for times in zip(*samples))
    return [prefix, f"{without:.2f}", f"{behind:.2f}", f"{statistics.median(b / a for a, b in samples):.2f}"]


def phases(result):
    return [f"{100 * share:.0f} %" for share in result["phase_share"].values()]


def write_section(name, text):
    page = REPORT.read_text()
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    assert pattern.search(page), f"{REPORT} has no section {name}"
    REPORT.write_text(pattern.sub(lambda m: m[1] + text + "\n" + m[2], page))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=ROOT / "models/smollm2-135m")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    machine = f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    sections = {"machine": f"{machine}; model {pathlib.Path(args.model).name}; {args.pairs} alternating pairs"
                f"{'' if multiplies_bfloat16() else ' (one in bfloat16, which this CPU does not multiply and torch emulates)'}."}
    sections["pairs"] = table(
        ["dtype", "layer", "plain loop, s a step", "epo, s a step", "ratio", "candidates a second", "matmul GFLOP/s",
         "matmul alone, s", "its share of the step", "peak RSS, MB"],
        [paired(args.model, dtype, layer, args.pairs) for dtype in ("float32", "bfloat16") for layer in LAYERS])
    rows = []
    for tokens in TOKENS:
        r = ours(args.model, layer=8, dtype="float32", tokens=tokens, iterations=3)
        rows.append([tokens, f"{r['step_seconds_median']:.2f}", f"{1e3 * r['step_seconds_median'] / tokens:.0f}",
                     f"{r['rows_share']:.2f}", f"{r['head_rows_share']:.2f}", *phases(r)])
    sections["tokens"] = table(["tokens", "s a step", "ms a step and token", "rows of the exhaustive", "head rows",
                                "prepare", "substitutes", "layers", "head"], rows)
    rows = []
    for population, children in ((4, 32), (8, 16), (8, 32), (8, 64), (16, 32)):
        r = ours(args.model, layer=8, dtype="float32", population=population, children=children, iterations=3)
        rows.append([population, children, f"{r['step_seconds_median']:.2f}",
                     f"{1e3 * r['step_seconds_median'] / (population * children):.1f}"])
    sections["size"] = table(["population", "children a parent", "s a step", "ms a candidate"], rows)
    rows = []
    for jobs in (1, 2, 8):
        r = ours(args.model, layer=8, dtype="float32", jobs=jobs, iterations=2)
        rows.append([jobs, f"{r['step_seconds_median']:.2f}", f"{r['candidates_per_second']:.0f}"])
    sections["jobs"] = table(["jobs", "s a round", "candidates a second"], rows)
    sections["prefix"] = table(["tokens of the prefix", "s a step without", "s a step behind it", "ratio"],
                               [behind_prefix(args.model, prefix, args.pairs) for prefix in PREFIXES])
    for name, text in sections.items():
        print(f"\n{text}")
        if not args.no_write:
            write_section(name, text)


if __name__ == "__main__":
    main()
