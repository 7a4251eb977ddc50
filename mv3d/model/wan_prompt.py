"""The words that Wan is given beside a picture, always the same, as its text encoder embeds them: once.

The encoder (UMT5-XXL) is larger than the transformer, and is not needed any more when the embeddings are there: they
lie in `PROMPT_FILE` in the model's folder. Where that is missing they are made of ``text_encoder`` and ``tokenizer``,
and kept there if the folder can be written to.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.model.text_to_image import quiet_libraries
from mv3d.model.weights import finite

PROMPT_FILE = "prompt_embeds.safetensors"
PROMPT = "The camera moves evenly around a single object that stands still before a plain white background."
NEGATIVE_PROMPT = ""
"""What guidance leads away from; Wan's training hides words by this, too."""

_KEYS: tuple[str, str] = ("prompt_embeds", "negative_prompt_embeds")  # as the arguments of diffusers' pipeline
NUM_TOKENS = 512
"""Of Wan's texts, filled up with zeros."""


@dataclass(frozen=True, eq=False)
class PromptEmbeds:
    """The embeddings without the zeros behind them, float32."""

    prompt: Tensor
    """(tokens, D)."""
    negative: Tensor
    """(tokens, D)."""

    @property
    def width(self) -> int:
        """D."""
        return self.prompt.shape[1]

    def padded(self, *, negative: bool = False) -> Tensor:
        """One of them as Wan takes it, (1, 512, D)."""
        chosen = self.negative if negative else self.prompt
        return F.pad(chosen, (0, 0, 0, NUM_TOKENS - len(chosen)))[None]


def load_prompt(folder: Path) -> PromptEmbeds:
    """The embeddings of a model's folder, read or made.

    Raises:
        Mv3dError: if there is neither the file nor a text encoder, or one of them is damaged.
    """
    path = folder / PROMPT_FILE
    if path.is_file():
        return _read(path)
    missing = [name for name in ("text_encoder", "tokenizer") if not (folder / name).is_dir()]
    if missing:
        raise Mv3dError(f"{folder} has no {PROMPT_FILE}, and no {missing[0]} to make it by; download the whole model")
    made = _embed(folder)
    with suppress(OSError, Mv3dError):  # what is another's is left as it is
        save_prompt(made, path)
    return made


def save_prompt(embeds: PromptEmbeds, path: Path) -> None:
    """Write the file."""
    values = (embeds.prompt.contiguous(), embeds.negative.contiguous())
    tensors: dict[str, Tensor] = dict(zip(_KEYS, values, strict=True))
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={"prompt": PROMPT, "negative_prompt": NEGATIVE_PROMPT})
        partial.chmod(0o644)


def _read(path: Path) -> PromptEmbeds:
    try:
        with safe_open(path, framework="pt") as file:
            one, other = (finite(file.get_tensor(key), key, str(path)).float() for key in _KEYS)
    except (SafetensorError, OSError) as error:
        raise Mv3dError(f"{path} is damaged ({error}); delete it, and it is made again by the text encoder") from error
    are_texts = all(value.ndim == 2 and 1 <= len(value) <= NUM_TOKENS for value in (one, other))
    if not are_texts or one.shape[1] != other.shape[1]:
        shapes = f"{tuple(one.shape)} and {tuple(other.shape)}"
        raise Mv3dError(f"{path} is damaged: embeddings of {shapes} are not of 1 to {NUM_TOKENS} tokens of one width")
    return PromptEmbeds(one, other)


def _embed(folder: Path) -> PromptEmbeds:
    from transformers import AutoTokenizer, UMT5EncoderModel  # seconds of imports that are wanted once

    try:
        with quiet_libraries(), torch.no_grad():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
            encoder: Any = UMT5EncoderModel.from_pretrained(
                folder / "text_encoder", dtype=torch.bfloat16, use_safetensors=True
            )
            found = []
            for text in (PROMPT, NEGATIVE_PROMPT):
                words = tokenizer(text, truncation=True, max_length=NUM_TOKENS, return_tensors="pt")
                found.append(encoder(words.input_ids, words.attention_mask).last_hidden_state[0].float())
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Mv3dError(f"{folder}: its text encoder does not embed the words: {reason}") from error
    return PromptEmbeds(*found)
