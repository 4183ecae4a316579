"""Byte-pair encoding by the `tokenizers` library, over the bytes of UTF-8, so that no text is lost.

Source: Sennrich, Haddow, Birch 2016 (arXiv:1508.07909); over bytes, Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from hiddenstate.errors import SpecError, UsageError

# A long text is encoded in parts. They end where no pair could cross: behind a single line end.
PART_CHARACTERS = 1 << 18
_SAFE_END = re.compile(r"(?<=\S\n)(?=\S)")


def train(texts: Iterable[str], size: int, least_count: int) -> str:
    """Return the JSON of a tokenizer with at most `size` symbols, the 256 bytes among them."""
    if size < 256:
        raise UsageError(
            f"A BPE of {size} symbols was asked for.",
            "It begins with the 256 bytes, and every merge adds one.",
            "Choose at least 256; 1000 to 8000 are usual.",
        )
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=max(least_count, 2),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for text in texts for part in parts(text)), trainer)
    return str(tokenizer.to_str())


def load(text: str) -> Any:
    """Return the tokenizer of a JSON; raises SpecError where it is none."""
    library = _library()
    try:
        return library.Tokenizer.from_str(text)
    except Exception as problem:  # the library raises bare Exception
        raise SpecError(
            f"The BPE of the symbols cannot be read ({problem}).",
            "It was written by the tokenizers library.",
            "The file is damaged; write it again with hiddenstate.",
        ) from None


def parts(text: str) -> Iterator[str]:
    """Cut a long text where its encoding is not changed by it."""
    start = 0
    while len(text) - start > PART_CHARACTERS:
        found = _SAFE_END.search(text, start + PART_CHARACTERS)
        if found is None:
            break
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def bytes_of_letters() -> dict[str, int]:
    """Return the letter under which a byte-level BPE writes each byte: GPT-2's bijection.

    Bytes that are printable in latin-1 stand for themselves, the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _library() -> Any:
    try:
        import tokenizers
        from tokenizers import models, pre_tokenizers, trainers  # noqa: F401 - loads the parts
    except ImportError:
        raise UsageError(
            "The unit bpe was asked for, and the package tokenizers is not installed.",
            "It learns and applies the byte-pair encoding.",
            "Install it (pip install 'hiddenstate[tasks]'), or take characters, bytes or words.",
        ) from None
    return tokenizers
