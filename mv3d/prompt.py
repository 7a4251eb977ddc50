"""A picture in words: what is asked of a text-to-image model, and what is kept of that beside the orbit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from mv3d.errors import Mv3dError
from mv3d.options import PromptOptions

PROMPT_FILE = "prompt.png"
"""The picture that was made of words, in the orbit folder."""

_LONGEST = 1000  # characters; models read some 60 words and leave out the rest
_LONGEST_NAME = 40
_WHOLE = "the whole object, centered, on a plain white background"
_STEPS = (1, 1000)
_GUIDANCE = (0.0, 100.0)


@dataclass(frozen=True)
class Prompt:
    """What is to be seen, and who is to draw it.

    Raises:
        Mv3dError: if nothing is said, too much, or a number is out of its range.
    """

    text: str
    options: PromptOptions = field(default_factory=PromptOptions)
    seed: int = 0
    is_cut_out: bool = True
    """Whether an object is wanted, so that it is asked for whole and on white; else the picture as the words say."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise Mv3dError("the prompt is empty; say what is to be seen, as in 'a red teapot'", argument="prompt")
        if len(self.text) > _LONGEST:
            raise Mv3dError(
                f"the prompt has {len(self.text)} characters, over {_LONGEST}; say it shorter", argument="prompt"
            )
        steps, guidance = self.options.text_steps, self.options.text_guidance
        if steps is not None and not _STEPS[0] <= steps <= _STEPS[1]:
            raise Mv3dError(f"text_steps {steps} are outside {_STEPS[0]} to {_STEPS[1]}", argument="text_steps")
        if guidance is not None and not (math.isfinite(guidance) and _GUIDANCE[0] <= guidance <= _GUIDANCE[1]):
            raise Mv3dError(
                f"text_guidance {guidance:g} is outside {_GUIDANCE[0]:g} to {_GUIDANCE[1]:g}", argument="text_guidance"
            )

    @property
    def asked(self) -> str:
        """What the model is given."""
        return f"{self.text.strip()}, {_WHOLE}" if self.is_cut_out else self.text.strip()

    @property
    def name(self) -> str:
        """What its picture is called, without an ending: the words, as far as files may be called so."""
        words = re.sub(r"[^\w]+", "_", self.text.lower()).strip("_")
        return words[:_LONGEST_NAME].rstrip("_") or "prompt"

    def facts(self) -> dict[str, str | float | int]:
        """What an orbit folder says of it."""
        said: dict[str, str | float | int | None] = {
            "prompt": self.text,
            "prompt_asked": self.asked,
            "prompt_picture": PROMPT_FILE,
            "prompt_model": self.options.text_model,
            "prompt_seed": self.seed,
            "prompt_steps": self.options.text_steps,
            "prompt_guidance": self.options.text_guidance,
        }
        return {key: value for key, value in said.items() if value is not None}
