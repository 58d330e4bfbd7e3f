"""Rebuilds Phi-2's tokenizer.json from the ranks of GPT-2's byte-level BPE, which the package openai-whisper carries.

usage: make_phi2_tokenizer.py OUT

The package's source archive is downloaded, not built.
"""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "openai-whisper==20250625"
RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def download_ranks():
    """The bytes of gpt2.tiktoken."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*command, "--no-binary", "openai-whisper", "--dest", folder, PACKAGE], check=True, stdout=sys.stderr
        )
        (archive,) = pathlib.Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            (member,) = (m for m in tar if m.name.endswith("/whisper/assets/gpt2.tiktoken"))
            return tar.extractfile(member).read()


def alphabet():
    """The character that spells each byte: itself if it is printable, else the next one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(moved)}}


def merge_of(ranks, token):
    """The two parts that the merges of lower rank leave of `token`: those that its own merge joins."""
    parts = [bytes([byte]) for byte in token]
    limit = ranks[token]
    while len(parts) > 2:
        rank, at = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        assert rank < limit, token
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def phi2_tokenizer(ranks):
    character = alphabet()

    def spell(token):
        return "".join(character[byte] for byte in token)

    def added(token_id, content, special):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
        return {"id": token_id, "content": content, **flags}

    ordered = sorted(ranks, key=ranks.get)
    vocab = {spell(token): ranks[token] for token in ordered}
    vocab["<|endoftext|>"] = len(vocab)
    spaces = [" " * length for length in range(31, 1, -1)]
    tabs = ["\t" * length for length in range(9, 1, -1)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added(50256, "<|endoftext|>", special=True),
            *(added(50257 + i, content, special=False) for i, content in enumerate([*spaces, *tabs])),
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {**byte_level, "add_prefix_space": True},
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": [" ".join(map(spell, merge_of(ranks, token))) for token in ordered if len(token) > 1],
        },
    }


def make(out):
    """Writes the tokenizer to the path `out`."""
    data = download_ranks()
    digest = hashlib.sha256(data).hexdigest()
    assert digest == RANKS_SHA256, f"gpt2.tiktoken of {PACKAGE} has sha256 {digest}, expected {RANKS_SHA256}"
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines())}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(phi2_tokenizer(ranks), ensure_ascii=False, indent=1), encoding="utf-8")
    partial.replace(out)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(pathlib.Path(sys.argv[1]))
