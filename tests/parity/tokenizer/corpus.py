"""Mixed text, the same on every run: what a tokenizer meets and what breaks one."""

import random

WORDS = (
    "the of and to a in is that it was for on are as with his they at be this from have or by one had not but what all were when "
    "we there can an your which their said if do will each about how up out them then she many some so these would other into "
    "has more her two like him see time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know interpretability superposition antidisestablishment "
    "naïve café résumé coöperate façade Zürich O'Neill don't we'll I've they're it's he'd I'm DON'T IT'S I'LL y'all rock'n'roll don’t"
).split()
PUNCTUATION = [", ", ". ", "; ", ": ", "! ", "? ", "... ", " - ", "—", " (", ") ", '" ', " '", "' ", "/", "…", "\n", "\n\n", "  ", "!?"]
CODE = [
    "def {a}_{b}({a}, *, {b}=None):\n    if {a} is not None and {b}[{n}] != 0x{n:x}:\n        return [{a} for {a} in {b}]\n\n",
    "\tfor (int i = {n}; i < {a}.size(); ++i) {{\r\n\t\t{b}[i]->{a}(i << {n} % 7, \"%d\\n\");\r\n\t}}\r\n",
    "SELECT {a}.*, COUNT(*) FROM {b} WHERE {a}.id >= {n} AND {b} LIKE '%{a}%';\n",
    '{{"{a}": [{n}, -{n}.5e-{n}, null], "{b}": {{"x": true}}}}\n',
    "<div class=\"{a}\">&nbsp;{b}&#{n};</div><!-- {a} -->\n",
    "https://example.org/{a}/{b}?q={n}&lang=en#{a}\n",
    "        self.{a} = lambda {b}: ({a} ** {n}) // 3  # {b}\n",
    "$ grep -rn '{a}' . | awk '{{print ${n}}}' >> /tmp/{b}.log 2>&1\n",
]
# First and last code point of letters (with the marks among them), a script each.
SCRIPTS = [
    (0xC0, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x587), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F),
    (0x900, 0x97F), (0x980, 0x9FE), (0xA01, 0xA76), (0xB82, 0xBFA), (0xC00, 0xC7F), (0xD00, 0xD7F), (0xE01, 0xE5B), (0xE81, 0xEDF),
    (0xF00, 0xFDA), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x13FD), (0x1780, 0x17F9),
    (0x1800, 0x18AA), (0x1E00, 0x1EFF), (0x1F00, 0x1FFE), (0x2C00, 0x2C5F), (0x3041, 0x309F), (0x30A0, 0x30FF), (0x4E00, 0x9FFF),
    (0xA000, 0xA4C6), (0xAC00, 0xD7A3), (0xFB00, 0xFDFF), (0x10000, 0x100FA), (0x10330, 0x1034A), (0x12000, 0x12399), (0x13000, 0x1342E),
    (0x16100, 0x1611D), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x20000, 0x2A6DF), (0x2EBF0, 0x2EE5D),
]  # fmt: skip
COMMON_SCRIPTS = [(0x61, 0x7A), (0xDF, 0xFF), (0x3B1, 0x3C9), (0x430, 0x44F), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939),
                  (0xE01, 0xE2E), (0x3041, 0x3093), (0x4E00, 0x5200), (0xAC00, 0xAD00)]  # fmt: skip
MARKS = ["\u0301", "\u0308", "\u0327", "\u0323", "\u20dd", "\u0903", "\u093f", "\u0e49", "\u064b", "\ufe0f", "\u200d", "\u200c"]
DIGITS = list("0123456789") + ["٣", "۴", "५", "๖", "７", "²", "½", "Ⅷ", "ↂ", "〇", "⑨", "൹", "𝟘", "𝍡", "𐄇", "\U0001e4f3", "\U00011de3"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵", "1️⃣", "#️⃣", "❤️", "🧑🏿‍🚀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🫠", "☃", "™️", "👨‍💻"]
SPACES = [" ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u200a", "\u200b", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff"]  # fmt: skip
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<gh_stars>", "<jupyter_start>",
            "<|endoftext", "|im_start|>", "<|im_start|><|im_end|>", "<empty_output>", "<|ENDOFTEXT|>", "<|<|im_end|>|>"]  # fmt: skip
INVALID = [b"\x80", b"\xbf\xbf", b"\xc0\xaf", b"\xc3", b"\xe0\x80\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x9f\x98",
           b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xfe\xff", b"\xe2\x28\xa1", b"\xf0\x28\x8c\xbc", b"\0"]  # fmt: skip


class Corpus:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.kinds = [
            self.english, self.code, self.foreign, self.emoji, self.whitespace, self.digits, self.specials, self.marks, self.any_characters,
            self.invalid,
        ]  # fmt: skip

    def english(self):
        parts = []
        for _ in range(self.random.randint(1, 60)):
            word = self.random.choice(WORDS)
            parts.append(self.random.choice([word] * 8 + [word.title(), word.upper()]))
            parts.append(" " if self.random.random() < 0.8 else self.random.choice(PUNCTUATION))
        return "".join(parts).encode()

    def code(self):
        lines = self.random.choices(CODE, k=self.random.randint(1, 8))
        names = [word for word in WORDS if word.isidentifier()]
        return "".join(
            line.format(a=self.random.choice(names), b=self.random.choice(names), n=self.random.randint(0, 10 ** self.random.randint(1, 9)))
            for line in lines
        ).encode()

    def foreign(self):
        first, last = self.random.choice(SCRIPTS + COMMON_SCRIPTS * 3)
        words = []
        for _ in range(self.random.randint(1, 20)):
            words.append("".join(chr(self.random.randint(first, last)) for _ in range(self.random.randint(1, 9))))
        return self.random.choice([" ", " ", "", "، ", "。", " - "]).join(words).encode()

    def emoji(self):
        return "".join(self.random.choices([*EMOJI, " ", "ok ", "!"], k=self.random.randint(1, 12))).encode()

    def whitespace(self):
        parts = []
        for _ in range(self.random.randint(1, 8)):
            longest = self.random.choice([3, 12, 40, 70])
            parts.append(self.random.choice(SPACES[:4] * 4 + SPACES) * self.random.randint(1, longest))
            parts.append(self.random.choice(["", "", "x", "if", "7", "}", "é"]))
        return "".join(parts).encode()

    def digits(self):
        return "".join(self.random.choices([*DIGITS * 2, " ", ",", "a", "-", "%"], k=self.random.randint(1, 40))).encode()

    def specials(self):
        return "".join(
            self.random.choice([*SPECIALS, *SPECIALS, " ", "  ", "\n", "\t\t", "user", " 1", "<|", "é"])
            for _ in range(self.random.randint(1, 12))
        ).encode()

    def marks(self):
        letters = ["a", "Z", "e", "ж", "क", "א", "ก", " ", "7", "."]
        return "".join(
            self.random.choice(letters) + "".join(self.random.choices(MARKS, k=self.random.randint(0, 3)))
            for _ in range(self.random.randint(1, 25))
        ).encode()

    def any_characters(self):
        top = self.random.choice([0x80, 0x100, 0x3000, 0x10000, 0x110000])
        points = (self.random.randrange(top) for _ in range(self.random.randint(1, 40)))
        return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000).encode()

    def invalid(self):
        parts = []
        for _ in range(self.random.randint(1, 8)):
            parts.append(self.random.choice([*INVALID, bytes(self.random.randrange(256) for _ in range(5))]))
            parts.append(self.random.choice(["", "", "a", " the", "é", "😀", "  "]).encode())
        return b"".join(parts)

    def document(self):
        """One to a few pieces of any kind, run together."""
        return b"".join(self.random.choice(self.kinds)() for _ in range(self.random.choice([1, 1, 2, 3, 8])))


def documents(size, seed=0):
    """Byte strings of at least `size` bytes together: many short ones, a few of 50 kB."""
    corpus = Corpus(seed)
    result = [b"", b" ", b"  ", b"\n", b"a", b"\xff"]
    total = sum(map(len, result))
    while total < size:
        document = corpus.document()
        if corpus.random.random() < 0.002:
            while len(document) < 50_000:
                document += corpus.document()
        result.append(document)
        total += len(document)
    return result
