"""What is learned, and the sentences it is learned in: hybrid prompts, fixed words among learned tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dapo.encoder import Encoder, text_tower
from dapo.errors import VocabularyError

PROMPTS = 10  # E, prompts per state
CONTEXT = 5  # l, learned context tokens per prompt
TOKENS = 4  # deep tokens per block, in both towers
ALPHA = 0.01  # progressive mix: share of the block before
TEMPERATURE = 0.07

# Words that name no type: the default scoring detects with them, whatever the product's own types are.
GENERIC_WORDS = ("defect", "damage", "anomaly")

_PLACEHOLDER = "X"  # any word of one token: its embedding is replaced by a learned one


def normal_sentence(context: int, noun: str) -> str:
    """Template of the normal state: `[V1..Vl] flawless object`.

    >>> normal_sentence(2, "object")
    'X X flawless object'
    """
    return " ".join([_PLACEHOLDER] * context + ["flawless", noun])


def defect_sentence(word: str, context: int, noun: str) -> str:
    """Template of a defect type: `[W1..Wl] {defect} anomaly object`.

    >>> defect_sentence("faulty imprint", 2, "object")
    'X X faulty imprint anomaly object'

    Raises:
        VocabularyError: the word is empty.
    """
    if not word.strip():
        raise VocabularyError("a defect type is an empty word. Give it a name, such as 'scratch'.")
    return " ".join([_PLACEHOLDER] * context + [word.strip(), "anomaly", noun])


class LearnedPrompts(nn.Module):
    """V, W, T and P: all that is learned beside the adapters.

    Attributes:
        normal: V [E, l, text width].
        abnormal: W [E, l, text width], shared by all defect types.
        text: T, one [n, text width] per text block.
        visual: P [image blocks, n, vision width].
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        prompts: int = PROMPTS,
        context: int = CONTEXT,
        tokens: int = TOKENS,
        text_depth: int | None = None,
    ) -> None:
        super().__init__()
        tower = text_tower(encoder.clip)
        table: Tensor = tower.token_embedding.weight
        std, mean = table.std(0).cpu(), table.mean(0).cpu()
        width = encoder.text_width
        depth = len(tower.transformer.resblocks) if text_depth is None else text_depth

        def like_words(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, width) * std + mean)

        self.normal = like_words(prompts, context)
        self.abnormal = like_words(prompts, context)
        self.text = nn.ParameterList(like_words(tokens) for _ in range(depth))
        bound = (6 / (3 * encoder.patch_size**2 + encoder.vision_width)) ** 0.5
        blocks = len(encoder.clip.visual.transformer.resblocks)
        visual = torch.empty(blocks, tokens, encoder.vision_width).uniform_(-bound, bound)
        self.visual = nn.Parameter(visual)

    def context(self, rows: int, *, normal_first: bool) -> Tensor:
        """[rows, E, l, width]: V for row 0 (where `normal_first`), W for all others."""
        defects = self.abnormal.expand(rows - normal_first, -1, -1, -1)
        return torch.cat([self.normal[None], defects]) if normal_first else defects


def token_ids(encoder: Encoder, sentences: Sequence[str]) -> Tensor:
    """Tokenize on the encoder's device: int64 [N, L]."""
    table: Tensor = text_tower(encoder.clip).token_embedding.weight
    return encoder.tokenize(list(sentences)).to(table.device)
