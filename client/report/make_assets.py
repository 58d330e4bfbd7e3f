#!/usr/bin/env python3
"""Writes assets.cc: the parts of a report, compressed, and Vega out of the wheel vl-convert-python.

usage: make_assets.py OUTPUT FILE...

The wheel's bundle is one script of Vega, Vega-Lite and vega-embed whose names are private. Vega comes first in it and ends with the object
of what it exports, so what is kept is the bundle up to there.
"""

import pathlib
import re
import sys
import zlib

import vl_convert

LICENSE = """/*! Vega 6, https://vega.github.io/vega/, BSD-3-Clause, Copyright (c) 2015-2025 University of Washington Interactive Data Lab;
with D3, https://d3js.org, ISC, Copyright 2010-2024 Mike Bostock. */
"""


def vega():
    bundle = vl_convert.javascript_bundle()
    exports = re.search(r"const ([\w$]+)=function\(\)\{return\{[^}]*\bView:[^}]*\bparse:[^}]*\};\}\(\);", bundle) or re.search(
        r"const ([\w$]+)=function\(\)\{return\{[^}]*\bparse:[^}]*\bView:[^}]*\};\}\(\);", bundle)
    if not exports:
        sys.exit("make_assets.py: this vl-convert-python bundles Vega in another way than 1.9.0.post1")
    # In a function of its own, so that its names stay private.
    return f"{LICENSE}(() => {{{bundle[: exports.end()]}globalThis.vega={exports[1]};}})();\n"


def literal(data):
    """The bytes as the initialiser of an array."""
    return ",".join(map(str, data))


def main():
    output, *files = map(pathlib.Path, sys.argv[1:])
    assets = {path.name: path.read_bytes() for path in files} | {"vega.js": vega().encode()}
    lines = ['#include "client/report/assets.h"', "namespace epo::report {", "namespace {"]
    rows = []
    for index, (name, content) in enumerate(sorted(assets.items())):
        if name.endswith(".js") and b"</script" in content.lower():
            sys.exit(f"make_assets.py: {name} would end the element that holds it")
        packed = zlib.compress(content, 9)
        lines.append(f"constexpr unsigned char kPacked{index}[] = {{{literal(packed)}}};")
        rows.append(f'{{"{name}", kPacked{index}, sizeof(kPacked{index}), {len(content)}}}')
    lines += [f"constexpr PackedAsset kAssets[] = {{{', '.join(rows)}}};", "}  // namespace"]
    lines += ["std::span<const PackedAsset> PackedAssets() { return kAssets; }", "}  // namespace epo::report", ""]
    output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
