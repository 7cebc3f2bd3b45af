"""Text as CLIP reads it: byte pairs (Sennrich et al. 2016), 77 tokens of 49,408.

A word's UTF-8 bytes are merged pair by pair, in the order of a list that was learned with CLIP. The
list is OpenAI's (`bpe_simple_vocab_16e6.txt.gz` of github.com/openai/CLIP, MIT licence, Copyright
(c) 2021 OpenAI), of which `clip_merges.txt.gz` holds the 48,894 lines that CLIP uses. Tokens are

    0 to 255         bytes, those that print first
    256 to 511       the same at the end of a word
    512 to 49,405    merged pairs, in order
    49,406, 49,407   the marks before and after a text

Text is brought to Unicode's form NFC and to lower case, as Hugging Face's tokenizer does it, but
for a sigma at the end of a word, which is the one of OpenAI's; theirs mends broken encodings and
HTML as well, which nobody types. U+001C to U+001F are spaces here. The marks are not read from a
text.
"""

import gzip
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib import resources

import numpy as np
from jaxtyping import Int

CONTEXT = 77  # tokens of a text, both marks counted
START, END = 49_406, 49_407
_LONGEST = 32  # bytes, and so at most letters, of the longest token
_MOST_LETTERS = CONTEXT * (_LONGEST + 1)  # with a space after each token; more are always cut
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def encode(texts: Sequence[str]) -> tuple[Int[np.ndarray, "N 77"], tuple[bool, ...]]:
    """Texts as CLIP takes them.

    Returns:
        Tokens between their marks, then zeros; and which texts were cut because they have more.
    """
    tokens = np.zeros((len(texts), CONTEXT), np.int32)
    cut = []
    for row, text in zip(tokens, texts, strict=True):
        found = list(itertools.islice(_tokens(_clean(text)[:_MOST_LETTERS]), CONTEXT - 1))
        cut.append(len(found) > CONTEXT - 2)
        marked = [START, *found[: CONTEXT - 2], END]
        row[: len(marked)] = marked
    return tokens, tuple(cut)


def tokenize(text: str) -> list[int]:
    """The tokens of a text, without marks, however many; it may take the square of a word."""
    return list(_tokens(_clean(text)))


def _clean(text: str) -> str:
    """In lower case, each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def _tokens(text: str) -> Iterator[int]:
    for word in _words(text):
        yield from _merged(word)


def _words(text: str) -> Iterator[str]:
    """Runs of letters, single numerals, runs of other signs; and what English joins with '."""
    place = 0
    while place < len(text):
        kind = _kind(text[place])
        end = place + 1
        contraction = next((one for one in _CONTRACTIONS if text.startswith(one, place)), "")
        if contraction:
            end = place + len(contraction)
        elif kind in "LO":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != " ":
            yield text[place:end]
        place = end


def _kind(letter: str) -> str:
    """L for a letter, N for a numeral, a space, or O for others."""
    if letter.isspace():
        return " "
    kind = unicodedata.category(letter)[0]
    return kind if kind in "LN" else "O"


@lru_cache(4096)
def _merged(word: str) -> tuple[int, ...]:
    """A word's tokens."""
    letters, ranks = _vocabulary()
    parts = [letters[byte] for byte in word.encode("utf-8", "replace")]
    parts[-1] += 256
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, END))
        if best not in ranks:
            break
        merged, place = [], 0
        while place < len(parts):
            is_best = tuple(parts[place : place + 2]) == best
            merged.append(ranks[best] if is_best else parts[place])
            place += 1 + is_best
        parts = merged
    return tuple(parts)


@cache
def _vocabulary() -> tuple[list[int], dict[tuple[int, int], int]]:
    """The token of each byte, and of each pair of tokens that is merged."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    order = prints + [byte for byte in range(256) if byte not in prints]
    letters = [order.index(byte) for byte in range(256)]
    # In the file a byte is a letter: itself where it prints, else one from 256 on, in order.
    shown = [chr(byte) for byte in prints] + [chr(256 + n) for n in range(256 - len(prints))]
    known = {letter: number for number, letter in enumerate(shown)}
    known |= {f"{letter}</w>": 256 + number for number, letter in enumerate(shown)}
    packed = resources.files("evojax_art.nets").joinpath("clip_merges.txt.gz").read_bytes()
    ranks = {}
    for number, line in enumerate(gzip.decompress(packed).decode("utf-8").split("\n"), 512):
        first, second = line.split(" ")
        ranks[known[first], known[second]] = number
        known[first + second] = number
    return letters, ranks
