"""Findings that a local causal language model proposes, one question a class.

torch is imported where it is needed: the coordinator's other processes stay without it.
"""

from pathlib import Path
from typing import Any

from hica.errors import CheckpointError, ConfigurationError
from hica.progress import track
from hica.seeds import derived_seed
from hica.study import Study
from hica.study.sections import ClassSection
from hica_server.findings.model_folder import folder_sha256, load, locate
from hica_server.findings.model_output import ModelOutput, read_output

MOST_NEW_TOKENS = 256
TEMPERATURE = 0.7
"""Of sampling: with 1 small models leave the subject."""
USUAL_COUNT = 8
"""Findings asked for where a class has none yet."""

PROMPT = """\
List {count} visual findings of {name} in a {modality} image, as a radiologist would name them.
Write one finding a line, two to five words, in lower case. Each finding must be visible in a \
single region of the image: a shape, a margin, a texture, a brightness or a structure. Name only \
what is there, never what is absent. Do not explain, and do not name diagnoses."""


class LanguageModel:
    """A causal language model with its tokenizer. `name` is that in the hub, or of the folder."""

    def __init__(self, name: str, hubs: bool = False) -> None:
        """Load a model from a folder in the hub's layout, or by its OWNER/NAME@COMMIT in the hub.

        Such a folder holds config.json, a tokenizer and *.safetensors. `hubs` is whether the model
        may be fetched.

        Raises:
            CheckpointError: There is no such model here, or it cannot be used; with the remedy.
        """
        folder = locate(name, hubs)
        self.name = folder.name if Path(name).is_dir() else name
        self._tokenizer, self._model = load(folder, self.name)
        self.sha256 = folder_sha256(folder)

    def findings(self, study: Study, seed: int | None) -> dict[str, ModelOutput]:
        """Ask for the findings of every class: as many as it has already, or `USUAL_COUNT`.

        `seed` is that of sampling; None takes the likeliest token each time.

        Raises:
            CheckpointError: The prompt does not fit the model.
            ConfigurationError: The answer for a class holds nothing that can be used.
        """
        found = {}
        for item in track(study.classes, "asking the language model"):
            count = len(item.findings) or USUAL_COUNT
            text = self._answer(question(item, study.study.modality, count), seed, item.name)
            output = found[item.name] = read_output(text, count)
            if not output.findings:
                raise ConfigurationError(
                    f"class {item.name!r}: {self.name} gave nothing that can be used "
                    f"({text.strip()[:80]!r}); take a model that follows instructions, another "
                    "--seed, or --source template. Nothing was written"
                )
        return found

    def _answer(self, asked: str, seed: int | None, name: str) -> str:
        """What the model writes after a question; `name` is the class, for the draw."""
        import torch

        tokens = self._encoded(asked)
        options: dict[str, Any] = {"do_sample": False}
        if seed is not None:
            options = {"do_sample": True, "temperature": TEMPERATURE}
        with torch.random.fork_rng():  # generate draws from torch's global generator
            if seed is not None:
                torch.manual_seed(derived_seed("findings", seed, name))
            rows = self._model.generate(
                **tokens,
                **options,
                max_new_tokens=self._room(tokens["input_ids"].shape[1]),
                pad_token_id=self._tokenizer.eos_token_id,  # not used: one row needs no padding
            )
        new = rows[0, tokens["input_ids"].shape[1] :]
        text = str(self._tokenizer.decode(new, skip_special_tokens=True))
        # A model that only continues texts goes on to other subjects after its list.
        return text if self._tokenizer.chat_template else text.lstrip("\n").split("\n\n")[0]

    def _encoded(self, asked: str) -> dict[str, Any]:
        """Token ids and attention mask [1, length], in the tokenizer's chat form if it has one."""
        chat = bool(self._tokenizer.chat_template)
        if chat:
            turns = [{"role": "user", "content": asked}]
            asked = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        else:
            asked += "\n\nFindings:\n-"
        encoded = self._tokenizer(asked, return_tensors="pt", add_special_tokens=not chat)
        names = ("input_ids", "attention_mask")
        return {name: encoded[name].to(self._model.device) for name in names}

    def _room(self, length: int) -> int:
        """New tokens that the model's context leaves after a prompt of `length` tokens."""
        config = self._model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        room = MOST_NEW_TOKENS if context is None else min(MOST_NEW_TOKENS, context - length)
        if room < 1:
            raise CheckpointError(
                f"{self.name}: takes {context} tokens, and the question alone has {length}; "
                "take a model with a longer context"
            )
        return room


def question(item: ClassSection, modality: str, count: int) -> str:
    """What is asked for one class."""
    name = f"{item.name} (healthy tissue)" if item.healthy else item.name
    return PROMPT.format(count=count, name=name, modality=modality or "medical")
