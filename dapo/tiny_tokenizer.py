"""The tokenizer of dapo-tiny: whole words and phrases, no sub-word pieces.

A sub-word tokenizer splits a new word into pieces that mean nothing to a small text tower. Here every promised word is
one token, and everything else is the one token "unknown", which the encoder was taught to read as "some defect".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

PAD, UNKNOWN = 0, 1
CONTEXT_LENGTH = 16  # the longest training sentence has 14 tokens; DAPO's template has 10
_WORD = re.compile(r"[a-z0-9]+")


class WordTokenizer:
    """Greedy longest match of whole phrases; the last two ids are start and end of text.

    The end token has the highest id, as open_clip's text read-out (argmax) expects.

    Args:
        phrases: known phrases, lower case, words separated by one space; ids follow their order.
        context_length: positions per sentence.
    """

    def __init__(self, phrases: Sequence[str], context_length: int = CONTEXT_LENGTH) -> None:
        self.phrases = tuple(phrases)
        self.context_length = context_length
        self._ids = {phrase: index + 2 for index, phrase in enumerate(self.phrases)}
        if len(self._ids) != len(self.phrases):
            raise ValueError("the vocabulary names a phrase twice")
        self._longest = max((phrase.count(" ") + 1 for phrase in self.phrases), default=1)
        self.start = len(self.phrases) + 2
        self.end = self.start + 1
        self.vocab_size = self.end + 1

    def ids(self, text: str) -> list[int]:
        """Token ids of `text` without start, end and padding."""
        words = _WORD.findall(text.lower())
        found: list[int] = []
        at = 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                token = self._ids.get(" ".join(words[at : at + length]))
                if token is not None:
                    found.append(token)
                    at += length
                    break
            else:
                found.append(UNKNOWN)
                at += 1
        return found

    def knows(self, phrase: str) -> bool:
        """Whether `phrase` is one trained token."""
        return " ".join(_WORD.findall(phrase.lower())) in self._ids

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize sentences.

        Returns:
            int64 [N, context_length]: start, tokens, end, padding 0. A sentence that is too long loses its tail, never
            its end token.
        """
        out = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in enumerate(texts):
            ids = [self.start, *self.ids(text)[: self.context_length - 2], self.end]
            out[row, : len(ids)] = torch.tensor(ids)
        return out
