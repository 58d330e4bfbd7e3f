"""The C++ tokenizer gives the ids and texts of Hugging Face `tokenizers`, one for one."""

import copy
import json
import os
import pathlib
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parent.parent)]
import corpus
import make_phi2_tokenizer

CORPUS_BYTES = 1_500_000
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="session")
def tool(root):
    path = pathlib.Path(os.environ.get("EPO_BIN_DIR", root / "build/release/bin")).resolve() / "tokenize_tool"
    assert path.exists(), f"{path} is missing: build it, or set EPO_BIN_DIR"
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_dir):
    return json.loads((smollm2_dir / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def phi2(root):
    path = root / "build/parity/phi2_tokenizer.json"
    if not path.exists():
        make_phi2_tokenizer.make(path)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def llama3(phi2):
    """Llama 3's way of splitting, and its words that skip the merges, over Phi-2's tokens."""
    tokenizer = copy.deepcopy(phi2)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    # The later half of the merges gone, so that many words are tokens that no merge makes.
    tokenizer["model"]["merges"] = [merge.split(" ") for merge in tokenizer["model"]["merges"][:25_000]]
    tokenizer["model"]["ignore_merges"] = True
    return tokenizer


@pytest.fixture(params=["smollm2", "phi2", "llama3"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


class Pair:
    """A tokenizer.json in both implementations."""

    def __init__(self, tool, folder, tokenizer):
        self.tool = tool
        self.path = folder / "tokenizer.json"
        self.path.write_text(json.dumps(tokenizer), encoding="utf-8")
        self.reference = tokenizers.Tokenizer.from_file(str(self.path))

    def run(self, mode, records):
        sent = b"".join(struct.pack("=I", len(record)) + bytes(memoryview(record).cast("B")) for record in records)
        result = subprocess.run([self.tool, mode, self.path], input=sent, capture_output=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout

    def check_encode(self, texts):
        """The number of ids that were compared."""
        answer = self.run("encode", texts)
        decoded = [text.decode("utf-8", errors="replace") for text in texts]
        expected = self.reference.encode_batch_fast(decoded, add_special_tokens=False)
        offset = compared = 0
        for text, encoding in zip(texts, expected, strict=True):
            (count,) = struct.unpack_from("=I", answer, offset)
            ids = np.frombuffer(answer, np.int32, count, offset + 4)
            offset += 4 + 4 * count
            assert ids.tolist() == encoding.ids, text[:2000]
            compared += count
        assert offset == len(answer)
        return compared

    def check_decode(self, sequences):
        answer = self.run("decode", [np.array(ids, np.int32) for ids in sequences])
        offset = 0
        for ids in sequences:
            (count,) = struct.unpack_from("=I", answer, offset)
            text = answer[offset + 4 : offset + 4 + count].decode("utf-8")
            offset += 4 + count
            assert text == self.reference.decode(ids, skip_special_tokens=False), ids
        assert offset == len(answer)


@pytest.fixture
def pair(tool, tmp_path):
    return lambda tokenizer: Pair(tool, tmp_path, tokenizer)


@pytest.fixture(scope="session")
def mixed_text():
    documents = corpus.documents(CORPUS_BYTES)
    assert sum(map(len, documents)) >= 1_000_000
    assert any(b"\xff" in document for document in documents)
    return documents


def test_encodes_mixed_text(pair, tokenizer, mixed_text):
    assert pair(tokenizer).check_encode(mixed_text) > 100_000


def test_decodes_random_ids(pair, tokenizer):
    both = pair(tokenizer)
    draw = random.Random(1)
    past_the_last = both.reference.get_vocab_size(with_added_tokens=True) + 50
    both.check_decode([[draw.randrange(past_the_last) for _ in range(draw.randint(0, 40))] for _ in range(5_000)])


def test_decodes_every_token(pair, tokenizer):
    both = pair(tokenizer)
    both.check_decode([[token] for token in range(both.reference.get_vocab_size(with_added_tokens=True))])


@pytest.mark.parametrize("unit", ["a", " ", "\t", "\n", "é", "1", "!", "ab ", "<|endoftext|>", " \n"])
def test_encodes_long_runs(pair, tokenizer, unit):
    pair(tokenizer).check_encode([(unit * (200_000 // len(unit))).encode(), (unit * (50_000 // len(unit)) + "x").encode()])


def probe(pre_tokenizer):
    """A tokenizer whose ids show every boundary beside an "a", a "1" or a "!": each merges with any byte on either side."""
    character = make_phi2_tokenizer.alphabet()
    vocab = {character[byte]: byte for byte in range(256)}
    merges = []
    for letter in "a1!":
        for other in character.values():
            for pair in ((letter, other), (other, letter)):
                if "".join(pair) not in vocab:
                    vocab["".join(pair)] = len(vocab)
                    merges.append(pair)
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


@pytest.mark.parametrize("steps", ["byte_level", "digits", "runs_of_digits", "llama3"])
def test_classifies_code_points(pair, steps, llama3):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {**byte_level, "use_regex": False}
    pre_tokenizer = {
        "byte_level": byte_level,
        "digits": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, plain]},
        "runs_of_digits": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, byte_level]},
        "llama3": llama3["pre_tokenizer"],
    }[steps]
    # Past 0x34000 stand no letters, numbers or spaces, so a few will do.
    points = [chr(point) for point in [*range(0x34000), *range(0x34000, 0x110000, 97)] if not 0xD800 <= point < 0xE000]
    context = "a{0}a1{0}1!{0}! {0}! !{0}  a{0}{0}1" if steps == "llama3" else "a{0}a1{0}1!{0}! {0}!"
    texts = ["".join(map(context.format, points[i : i + 64])).encode() for i in range(0, len(points), 64)]
    pair(probe(pre_tokenizer)).check_encode(texts)


def test_finds_added_tokens(pair, phi2):
    """Overlapping contents, tokens that take the space beside them, both orders of matching."""
    tokenizer = copy.deepcopy(phi2)
    contents = [("<a>", "", 0), ("<a><b>", "", 0), ("<b>", "r", 0), ("<c>", "l", 0), ("<d>", "lr", 0), ("é<", "", 1), ("  <", "", 1),
                ("b>", "", 1), (" the", "", 1), ("<a", "l", 1), ("\n", "r", 0), ("the", "", 0), ("é", "", 1), ("Ġ", "", 1)]  # fmt: skip
    fresh = 50_295
    for content, strip, normalized in contents:
        token_id = tokenizer["model"]["vocab"].get(content, fresh)
        fresh += token_id == fresh
        tokenizer["added_tokens"].append({
            "id": token_id, "content": content, "single_word": False, "lstrip": "l" in strip, "rstrip": "r" in strip,
            "normalized": bool(normalized), "special": False,
        })  # fmt: skip
    draw = random.Random(2)
    pieces = [content for content, _, _ in contents] + ["<", ">", " ", "  ", "\u3000", "\t", "x", "   ", " \n ", "a", "b", "\x85"]
    both = pair(tokenizer)
    both.check_encode(["".join(draw.choices(pieces, k=draw.randint(1, 14))).encode() for _ in range(30_000)])
    both.check_decode([[token] for token in range(50_256, fresh)])


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("unknown", [None, "?"])
def test_bytes_without_a_token(pair, fuse, unknown):
    character = make_phi2_tokenizer.alphabet()
    vocab = {character[byte]: i for i, byte in enumerate([*b"abc ?", 0xC3])}
    vocab.update({"ab": 6, "abc": 7, "??": 8})
    tokenizer = probe({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
    merges = ["a b", "ab c", "? ?"]
    tokenizer["model"] = {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": unknown, "fuse_unk": fuse}
    draw = random.Random(3)
    pair(tokenizer).check_encode(["".join(draw.choices("aabbcc? édz", k=12)).encode() for _ in range(5_000)])
